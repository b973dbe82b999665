//! What can go wrong in a pool, and what its caller must do about it.

use std::io;

use mooring_terms::{BlockIndex, ErrorKind, Sequence, SliceId, SnapshotId, Version};

use crate::disk::Area;

/// Result of the engine's operations.
pub type Result<T> = std::result::Result<T, EngineError>;

/// An error of a pool.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The disk failed. A failed write or sync also poisons the pool.
    #[error("{operation} of {area} failed: {source}")]
    Io {
        /// What was tried: "read", "write", "sync", ...
        operation: &'static str,
        /// On which part of the pool.
        area: Area,
        /// What the operating system said.
        source: io::Error,
    },
    /// An earlier write or sync failed; no second try can be trusted until the pool is opened anew.
    #[error("the pool takes no writes since an earlier write or sync failed")]
    Poisoned,
    /// The pool has no replica of the slice.
    #[error("the pool has no replica of slice {0}")]
    NoReplica(SliceId),
    /// The pool already has a replica of the slice.
    #[error("the pool already has a replica of slice {0}")]
    ReplicaExists(SliceId),
    /// The replica has no such snapshot.
    #[error("the replica of slice {0} has no snapshot {1}")]
    NoSnapshot(SliceId, SnapshotId),
    /// The replica already has that snapshot.
    #[error("the replica of slice {0} already has a snapshot {1}")]
    SnapshotExists(SliceId, SnapshotId),
    /// A numbered record does not follow the last one.
    #[error("slice {slice}: record {found} does not follow {last}")]
    OutOfOrder {
        /// The slice.
        slice: SliceId,
        /// The replica's last record.
        last: Version,
        /// The record that was offered.
        found: Version,
    },
    /// A block can't be read from the disk, or does not match its checksum.
    #[error("slice {slice}: block {block} of version {version} is damaged")]
    Corrupt {
        /// The slice.
        slice: SliceId,
        /// The block in the slice.
        block: BlockIndex,
        /// The version whose data is lost.
        version: Version,
    },
    /// A block offered for writing does not match the checksum it came with.
    #[error("slice {slice}: block {block} came with a checksum that it does not match")]
    CorruptPayload {
        /// The slice.
        slice: SliceId,
        /// The block in the slice.
        block: BlockIndex,
    },
    /// A record of the log that is still needed can't be read.
    #[error("slice {slice}: the record {sequence} can't be read back from the log")]
    LostRecord {
        /// The slice.
        slice: SliceId,
        /// The record.
        sequence: Sequence,
    },
    /// A single entry is larger than the log takes.
    #[error("an entry of {bytes} bytes is larger than the {limit} that the log takes")]
    TooLarge {
        /// Its size in bytes.
        bytes: u64,
        /// The most one record may have.
        limit: u64,
    },
    /// A range reaches beyond the largest slice or is empty.
    #[error(
        "the range of {count} blocks from {first} on is empty or ends beyond the largest slice"
    )]
    BadRange {
        /// The first block.
        first: BlockIndex,
        /// How many blocks.
        count: u64,
    },
    /// There is no space for the entries; nothing was logged.
    #[error("no space: {wanted} bytes wanted, {free} free")]
    NoSpace {
        /// Bytes wanted.
        wanted: u64,
        /// Bytes that could be given.
        free: u64,
    },
    /// The place already holds something.
    #[error("{0} already holds {1}")]
    NotEmpty(String, &'static str),
    /// Another process has the pool open.
    #[error("{0} is in use by another process")]
    InUse(String),
    /// The place holds no pool.
    #[error("there is no pool here")]
    NoPool,
    /// The pool was written by a later version of the program.
    #[error("the pool has format {found}; this program knows {known}")]
    Format {
        /// The format found.
        found: u32,
        /// The newest one known.
        known: u32,
    },
    /// The superblock or both checkpoints can't be read: nothing of the pool can be trusted.
    #[error("the pool's {0} can't be read")]
    Broken(&'static str),
    /// The options make no pool.
    #[error("a pool of {size_bytes} bytes in segments of {segment_bytes} is not possible")]
    BadGeometry {
        /// The size asked for.
        size_bytes: u64,
        /// The segment size asked for.
        segment_bytes: u64,
    },
}

impl EngineError {
    /// What the caller must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            // Reads can be tried elsewhere; writes have poisoned the pool.
            Self::Io { .. } | Self::Poisoned | Self::Broken(_) => ErrorKind::Fatal,
            Self::NoReplica(_) | Self::NoSnapshot(..) | Self::NoPool => ErrorKind::NotFound,
            Self::ReplicaExists(_)
            | Self::SnapshotExists(..)
            | Self::OutOfOrder { .. }
            | Self::TooLarge { .. }
            | Self::BadRange { .. }
            | Self::NotEmpty(..)
            | Self::Format { .. }
            | Self::BadGeometry { .. } => ErrorKind::Invalid,
            Self::Corrupt { .. } | Self::CorruptPayload { .. } | Self::LostRecord { .. } => {
                ErrorKind::Corrupt
            }
            Self::NoSpace { .. } => ErrorKind::NoSpace,
            Self::InUse(_) => ErrorKind::Unavailable,
        }
    }
}
