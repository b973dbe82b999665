//! The records of a slice's log.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{BlockIndex, BlockRange, Data, Version};

/// One record of a slice's log, ordered by the primary and the same on every replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The record's place in the order of its slice.
    pub version: Version,
    /// What it does.
    pub body: Body,
}

/// What a record does to its slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// The blocks from `first` on hold `data`.
    Write {
        /// Where the data begins.
        first: BlockIndex,
        /// The blocks.
        data: Data,
    },
    /// The range reads as zeros and occupies no space (discard and write-zeroes are one).
    Discard(BlockRange),
    /// A control record, opaque to the engine: epoch start, seal and whatever comes later. See the
    /// replication core for its contents.
    Control(Bytes),
}

impl Record {
    /// The blocks that the record changes; `None` for a control record.
    #[must_use]
    pub fn range(&self) -> Option<BlockRange> {
        match &self.body {
            Body::Write { first, data } => Some(BlockRange::new(*first, data.blocks())),
            Body::Discard(range) => Some(*range),
            Body::Control(_) => None,
        }
    }

    /// Bytes of payload: what windows and space credits count, beside a fixed sum a record.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        match &self.body {
            Body::Write { data, .. } => data.bytes().len() as u64,
            Body::Discard(_) => 0,
            Body::Control(bytes) => bytes.len() as u64,
        }
    }
}
