//! Beacons on the wire. Version history
//! - 1: buckets of hashes, lists for those that differ.

use bytes::Bytes;
use mooring_terms::{Epoch, SliceId, Time};
use serde::{Deserialize, Serialize};

use crate::wire::{self, WireError};

/// A beacon, or the answer to one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BeaconMessage {
    /// What the sender vouches for to this receiver.
    Beacon {
        /// When it was sent, by the sender's clock; echoed.
        sent: Time,
        /// A hash over the (slice, epoch) of each bucket.
        hashes: Vec<u64>,
        /// The contents of buckets that the receiver said differ.
        lists: Vec<(SliceId, Epoch)>,
    },
    /// The answer: what the receiver vouches for alike.
    Answer {
        /// The echo.
        sent: Time,
        /// Bit `i`: bucket `i` is alike on both sides.
        alike: u64,
        /// Of the lists in the beacon, what is alike.
        lists: Vec<(SliceId, Epoch)>,
    },
}

impl BeaconMessage {
    /// The message as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        wire::write_header(self)
    }

    /// The message of these bytes.
    ///
    /// # Errors
    /// [`WireError`] for whatever [`BeaconMessage::encode`] doesn't write.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        wire::read_header(bytes)
    }
}
