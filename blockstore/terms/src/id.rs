//! Ids, indices and counters, each a type of its own, so that none can be taken for another.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Declares a newtype over an unsigned integer with the traits every id needs.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number! {
    /// A node of the cluster: one daemon on one host. Given by the configuration, never reused.
    NodeId(u64), "node"
}
number! {
    /// A pool: one backing directory or block device of one node. Given by the configuration,
    /// never reused.
    PoolId(u64), "pool"
}
number! {
    /// A volume. Given by the configuration, never reused.
    VolumeId(u64), "vol"
}
number! {
    /// The place of a slice in its volume: slice `i` covers the volume's blocks from
    /// `i * slice_blocks` on.
    SliceIndex(u32), "slice"
}
number! {
    /// A snapshot of a volume; names the frozen root in each of its replicas.
    SnapshotId(u64), "snap"
}
number! {
    /// A block's place in its *slice*, in units of [`crate::BLOCK_SIZE`] bytes.
    BlockIndex(u64), "block"
}
number! {
    /// A slice's configuration number. Raised at each change of primary or in-sync set; whatever
    /// is older is refused.
    Epoch(u32), "e"
}
number! {
    /// The number of a record in its slice's log: dense over the slice's whole life, never
    /// restarted. The first record has sequence 1; 0 stands before it.
    Sequence(u64), "s"
}
number! {
    /// One opening of a pool: 64 random bits, drawn at each opening. A replica that was restarted
    /// is not the replica that acknowledged.
    Incarnation(u64), "inc"
}
number! {
    /// The number of an attachment of a volume. A seal in each slice's log fences every lower one.
    AttachmentEpoch(u64), "a"
}

number! {
    /// A client's standing with the coordinator of a shared volume. Given by the coordinator once in
    /// the volume's life, and never again, whatever becomes of the client.
    SessionId(u64), "session"
}

impl Epoch {
    /// The epoch after this one.
    ///
    /// # Panics
    /// After 2^32 changes of one slice's configuration.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a slice never has 2^32 epochs"))
    }
}

impl Sequence {
    /// The sequence after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl BlockIndex {
    /// The block `count` blocks further on.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

/// One slice of one volume.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct SliceId {
    /// The volume.
    pub volume: VolumeId,
    /// Which of its slices.
    pub index: SliceIndex,
}

impl fmt::Debug for SliceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.volume, self.index)
    }
}

impl fmt::Display for SliceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.volume, self.index)
    }
}

/// The order of one record in its slice: by epoch first, then by sequence. Every block, holes
/// included, carries the version of the record that last changed it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Version {
    /// The epoch under which the primary ordered the record.
    pub epoch: Epoch,
    /// The record's number in the slice's log.
    pub sequence: Sequence,
}

impl Version {
    /// Stands before every record: the version of what was never written.
    pub const ZERO: Self = Self { epoch: Epoch(0), sequence: Sequence(0) };

    /// The version `(epoch, sequence)`.
    #[must_use]
    pub fn new(epoch: Epoch, sequence: Sequence) -> Self {
        Self { epoch, sequence }
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.sequence)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.sequence)
    }
}
