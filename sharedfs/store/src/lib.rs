//! The metadata of a shared volume on blocks: superblock, journal, and the tree in redb.
//!
//! ```text
//!   operations ──apply──> pending ──write──> journal (received by every replica)
//!                                    └─────> redb, not durable: what is read from then on
//!                         checkpoint ──────> redb, durable, with the journal's position in it;
//!                                            only then may the journal's ring be written over
//!   open = redb as of its last checkpoint + the journal from that position on
//! ```
//! It does I/O through [`Blocks`], which waits through failovers and fails only when fenced: after an
//! error the store is to be dropped. It has no threads and no clock; whoever owns it is a thread
//! that may wait.
//!
//! Invariants:
//! - what `write` has returned for is in the journal, whole: after a crash it is there;
//! - a checkpoint holds only what the journal holds, so the tree is never ahead of it; or all that was
//!   applied, at once;
//! - the journal is trimmed by a checkpoint that the caller asks for, never by itself;
//! - a batch is read back only behind the very batch it was written behind.

mod backend;
mod blocks;
mod journal;
mod redb_tree;
mod store;

pub use blocks::{Blocks, MemoryBlocks};
pub use redb_tree::Snapshot;
pub use store::{Opened, Room, Store, StoreError};
