//! What a replica's log takes, and what a read of it gives: the words that the replication core and
//! the engine share.

use bytes::Bytes;

use crate::{BlockIndex, BlockRange, Data, Record, Version};

/// One entry that a replica appends to its log. Entries are applied in the order in which they are
/// appended, each of them wholly or not at all.
///
/// `state` is the replica's own opaque blob: the replication core's durable memory. Where an entry
/// has one, it replaces the earlier blob atomically with the rest of the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The slice's next record: its sequence is that of the last record plus one.
    Record {
        /// The record.
        record: Record,
        /// The replica's new state, where the record changes it.
        state: Option<Bytes>,
    },
    /// The replica's new state alone.
    State(Bytes),
    /// Blocks copied from another replica: applied block by block where `version` is higher than
    /// the present one, or the present block is missing.
    Copy {
        /// The version that all blocks of `data` have.
        version: Version,
        /// Where the data begins.
        first: BlockIndex,
        /// The blocks.
        data: Data,
    },
    /// A hole copied from another replica: applied as [`Entry::Copy`] is. `Version::ZERO` stands
    /// for blocks that were never written, and applies only where a block is missing.
    CopyHole {
        /// The hole's version.
        version: Version,
        /// The blocks.
        range: BlockRange,
    },
    /// Blocks that held something of this version, and what that was is lost everywhere: applied where
    /// the present version is older. Of what comes later, only that version or a newer one takes
    /// their place, or a repair; until then they are missing.
    CopyLost {
        /// The version of what is lost.
        version: Version,
        /// The blocks.
        range: BlockRange,
    },
    /// Good blocks in place of rotten ones: applied only where the map has exactly `version`, or the
    /// block is missing or lost: whoever repairs knows that they are right, whatever their version.
    Repair {
        /// The version that the map has for them.
        version: Version,
        /// Where the data begins.
        first: BlockIndex,
        /// The blocks.
        data: Data,
    },
    /// Marks missing every block, holes too, that is newer than `after`, forgets the records behind
    /// it, and makes `after` the last version.
    Supersede {
        /// The last version that stays.
        after: Version,
        /// The replica's new state.
        state: Bytes,
    },
    /// Makes `last` the last version without the records in between: the next record is
    /// `last.sequence + 1`.
    Position {
        /// The new last version.
        last: Version,
        /// The replica's new state.
        state: Bytes,
    },
    /// Ends the join that a supersede or position began: from here on no copies are to be
    /// expected, and a discard of what was never written leaves nothing behind.
    Joined,
}

/// A part of what a read found. The extents of one read are in order, touch each other and cover
/// exactly what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Reads as zeros; `Version::ZERO` if it was never written.
    Hole {
        /// The version of the discard that made it.
        version: Version,
        /// The blocks.
        range: BlockRange,
    },
    /// Blocks with data, verified against their checksums.
    Data {
        /// The version of the write that made them.
        version: Version,
        /// Where they begin.
        first: BlockIndex,
        /// The blocks.
        data: Data,
    },
    /// What it held isn't here: superseded, lost, or gone with a rotten piece of the map.
    Missing {
        /// The newest version that it can have.
        version: Version,
        /// The blocks.
        range: BlockRange,
    },
}

impl Entry {
    /// Bytes of payload; space credits count these and [`Entry::OVERHEAD_BYTES`] for each entry.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        match self {
            Self::Record { record, .. } => record.payload_bytes(),
            Self::Copy { data, .. } | Self::Repair { data, .. } => data.bytes().len() as u64,
            Self::State(_)
            | Self::CopyHole { .. }
            | Self::CopyLost { .. }
            | Self::Supersede { .. }
            | Self::Position { .. }
            | Self::Joined => 0,
        }
    }

    /// What the entry takes out of the space that was promised to its replica, in bytes. Control
    /// records live on the engine's own reserve.
    #[must_use]
    pub fn cost_bytes(&self) -> u64 {
        match self {
            Self::Record { record, .. } if record.range().is_none() => 0,
            entry => match entry.payload_bytes() {
                0 => 0,
                payload => payload + Self::OVERHEAD_BYTES,
            },
        }
    }

    /// What space credits count for an entry beside its payload: room for its header, padding and
    /// its share of the map.
    pub const OVERHEAD_BYTES: u64 = 512;
}

impl Extent {
    /// The blocks that the extent covers.
    #[must_use]
    pub fn range(&self) -> BlockRange {
        match self {
            Self::Hole { range, .. } | Self::Missing { range, .. } => *range,
            Self::Data { first, data, .. } => BlockRange::new(*first, data.blocks()),
        }
    }

    /// The version of its blocks; `None` if they are missing.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        match self {
            Self::Hole { version, .. } | Self::Data { version, .. } => Some(*version),
            Self::Missing { .. } => None,
        }
    }
}
