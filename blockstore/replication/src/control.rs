//! Control records: the records of a slice's log that are not data.
//!
//! One enum, one mechanism: ordered, replicated and replayed like any write, and applied to the
//! replica's state by the entry that appends them. Sessions and snapshots will be variants here.
//!
//! Version history
//! - 1: epoch start, seal.

use bytes::Bytes;
use mooring_terms::{AttachmentEpoch, Epoch};
use serde::{Deserialize, Serialize};

use crate::wire::{self, WireError};

/// A control record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// An epoch begins with this record; the record before it is the last of the epoch before.
    EpochStart {
        /// The epoch.
        epoch: Epoch,
        /// No replica can return from before this epoch: older entries of the table may go.
        keep_from: Epoch,
    },
    /// An attachment begins, and every older one ends.
    Seal {
        /// The attachment.
        attachment: AttachmentEpoch,
    },
}

impl Control {
    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        wire::write_header(self)
    }

    /// The control record of these bytes.
    ///
    /// # Errors
    /// [`WireError`] for whatever [`Control::encode`] doesn't write.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        wire::read_header(bytes)
    }
}
