//! The map of a replica: from block to where its bytes are, with version and checksum.
//!
//! ```text
//!   fresh layer      updates since the last seal; bounded in bytes
//!   sealed layers    waiting to be merged (a checkpoint or a snapshot sealed them), oldest below
//!   tree             leaves of 256 blocks, inner nodes of 256 children, copy-on-write, in the log
//! ```
//! Looking up goes from the top down and takes the higher version, block by block; what is missing
//! loses against anything. Normal writes are always the highest, so the fresh layer mostly answers
//! alone, and a write never reads a node.
//!
//! Invariants:
//! - a layer holds at most one entry a block; a point within a hole range has the higher version;
//! - an inner node's `newest` is at least the version of every block beneath it;
//! - nodes and sealed layers never change.

mod cache;
mod entry;
mod extent;
mod layer;
mod merge;
mod moved;
mod tree;

pub(crate) use cache::Cache;
pub(crate) use entry::{Content, Entry, Packed};
pub(crate) use extent::{Extent, coalesce, combine};
pub(crate) use layer::{Layer, Upper};
pub(crate) use merge::{Merge, NodeSink, Shadow};
pub(crate) use moved::{Moved, Target};
pub(crate) use tree::{Child, Filter, NodeRef, NodeSource, Root, Stop, Walk, span};

/// Blocks of a slice are numbered below this (1 EiB).
pub(crate) const MAX_BLOCKS: u64 = 1 << 48;
/// log2 of the fan-out of leaves and inner nodes.
pub(crate) const FAN_BITS: u32 = 8;
/// The fan-out of leaves and inner nodes.
pub(crate) const FAN: u64 = 1 << FAN_BITS;
