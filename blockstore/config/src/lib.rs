//! The configuration of a cluster as a pure state machine: what Raft holds, and nothing else.
//!
//! It knows nodes, pools, volumes, and for every slice its epoch, primary and in-sync set. It never
//! holds data, health or load. Raft orders the commands; this crate says what each of them does, the
//! same on every node, with no clock, no randomness and no I/O.

mod slice;

pub use slice::{ChangeReason, ChangeRefused, Member, SliceChange, SliceConfig};
