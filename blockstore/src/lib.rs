//! The block store of one node: pools, replicas, volumes, and the wires between them.
//!
//! ```text
//!                      Node
//!          ____________/  \____________
//!         |                            |
//!     data plane                  control plane
//!   Slice  Volume  beacons      Raft  gossip  joining
//!     |       |       |            |      |
//!    Pool     └─ streams ──────────┘   datagrams
//! ```
//!
//! What is decided is decided in pure crates (`mooring-replication`, `mooring-config`); this one runs
//! what they say: threads, files, sockets. It knows no files of users and no file systems.
//!
//! Everything above sees [`Node`] and [`Volume`].
#![allow(clippy::disallowed_methods, reason = "a shell: it has clocks, pauses and random numbers")]

mod admission;
mod agenda;
mod beacon;
mod clock;
mod data_plane;
mod disk_watch;
mod errands;
mod event_log;
mod node;
mod node_store;
mod pool;
mod pool_store;
mod random;
mod readers;
mod remote;
mod serial;
mod slice;
mod speed;
#[cfg(test)]
mod tests;
mod timers;
mod volume;
mod wire;

pub use clock::unix_ms;
pub use event_log::{About, EventLog, Happening, Severity};
pub use mooring_control::Timings;
pub use mooring_replication::{
    IoError, IoPart, Options as ReplicationOptions, TREE_BLOCKS, TREE_FIRST, VolumeBlock,
    VolumeRange,
};
pub use node::{
    JoinReport, NewMember, Node, NodeError, NodeOptions, NodeReport, OpenVolume, OtherReport,
    PoolReport, SliceReport, create, join,
};
pub use node_store::{Membership, NodeStore, NodeStoreError};
pub use pool_store::Progress as MeasureProgress;
pub use remote::{
    Answer, Client, Coordinator, CoordinatorVolume, Correspondent, Letters, RemoteError,
    SharedVolume, Versions,
};
pub use speed::{MOST_TIME as MEASURE_TIME, Speed};
pub use volume::{Attachment, Volume};
