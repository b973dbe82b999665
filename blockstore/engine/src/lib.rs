//! The storage engine: one log-structured store a pool, shared by all replicas in the pool.
//!
//! ```text
//!   append ──> log ─────────────> segments   [rec][rec][node][rec][chunk][rec] ...
//!                │                               ^            ^
//!                v                               │ leaves,    │ checkpoint's body
//!              layers (fresh, sealed)            │ inner      │
//!                │ checkpoint merges             │ nodes      │
//!                v                               │            │
//!   read  <── tree a replica and snapshot ───────┘         slot 0 | slot 1
//! ```
//! One sequential write makes any number of writes received, one fdatasync makes them durable.
//! Every map entry has the version of the record that wrote it, every inner node the newest beneath
//! it: "what is newer than v" touches only what changed. Snapshots freeze a root.
//!
//! The ways: `append.rs` (write), `read.rs`, `query.rs` (newer than, missing), `allocated.rs`,
//! `sync.rs`;
//! `checkpoint.rs`, `reclaim.rs`, `trash.rs`, steered by `maintenance.rs`; `recovery.rs` (open);
//! `order.rs` says what must be durable before what; `format/` describes every byte, `decode.rs`
//! reads them for people, `verify.rs` looks over a whole pool.
//!
//! Invariants:
//! - after a crash a replica is an exact prefix of what was appended to it, and holds at least what
//!   was durable; if rot took more, the pool opens *damaged* and says so;
//! - a block that doesn't match its checksum is never returned;
//! - versions of a slice's blocks never go back, holes included;
//! - after a failed write or sync nothing is written any more.
//!
//! The engine doesn't know what replication means by its states and control records, has no threads
//! of its own, no clock and no randomness.

mod address;
mod allocated;
mod append;
mod checkpoint;
pub mod decode;
mod disk;
mod error;
mod format;
mod log;
mod maintenance;
mod map;
pub mod mutation;
mod order;
mod pool;
mod query;
mod read;
mod reclaim;
mod recovery;
mod replica;
mod snapshot;
mod space;
mod sync;
mod trash;
mod verify;

pub use address::{LogNumber, SegmentId};
pub use append::Appended;
pub use disk::{Area, DeviceDisk, DirectoryDisk, Disk, DiskOperation, MemoryDisk};
pub use error::{EngineError, Result};
pub use maintenance::Maintained;
pub use pool::{FormatOptions, OpenOptions, Pool, ReplicaInfo, Usage};
pub use query::{Changed, ChangedKind, Changes};
pub use read::{ReadBlock, ReadContent, Root};
pub use recovery::{DamageReason, OpenReport};
pub use verify::Verified;
