//! The words of Mooring as types: every id, index and counter, blocks with their checksums, and the
//! records of a slice's log.
//!
//! ```text
//!   volume ──has──> slices ──has──> replicas ──each in──> a pool ──on──> a node
//!                     │
//!                     └── one log: record (epoch, sequence), record, record, ...
//! ```
//!
//! The crate is the vocabulary that the engine, the replication core, the configuration and the wire
//! share. It does no I/O and decides nothing.
//!
//! Invariants:
//! - a sequence is dense over its slice's whole life and never restarts; the epoch is a tag on it;
//! - `Version` orders by epoch first, then by sequence;
//! - `Data` holds whole blocks, and exactly one crc32c a block.

mod block;
mod entry;
mod error;
mod id;
mod record;
mod time;

pub use block::{BLOCK_SIZE, BlockRange, Data, DataError, ZERO_BLOCK_CRC, crc32c};
pub use entry::{Entry, Extent};
pub use error::ErrorKind;
pub use id::{
    AttachmentEpoch, BlockIndex, Epoch, Incarnation, NodeId, PoolId, Sequence, SessionId, SliceId,
    SliceIndex, SnapshotId, Version, VolumeId,
};
pub use record::{Body, Record};
pub use time::Time;
