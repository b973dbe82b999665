//! The coordinator of a shared volume as it runs: the pure core in a thread, with the store, slices, letters
//! and a clock around it.
//!
//! ```text
//!   letter, gone, I/O that is done ──> inbox ──> [ one thread: core + store ] ──> slices: I/O, sessions
//!                                                  │ a batch: all that has come
//!                                                  │ journal it (waits until every in-sync replica has it)
//!                                                  │ is slice 0 surely still ours?
//!                                                  v
//!                                                letters to clients (Peers)
//! ```
//! It knows the volume only through [`Slices`] and the store's `Blocks`, and clients only through [`Peers`]:
//! both have twins in memory ([`MemorySlices`]), so that coordinators and mounts are tested without daemons.
//!
//! # What must stay true
//! - Nothing is said to a client unless every record before is in the journal of all in-sync replicas, and
//!   slice 0's lease was looked at after that.
//! - Whatever came while a batch was being written goes into the next batch, in the order of coming.
//! - The tree's checkpoint comes after a FLUSH of every slice whose data its records claim.
//! - While the coordinator is held up (a slice in failover, a stopped process) its clock stands: no client is
//!   ended because *we* didn't listen. A slow clock errs on the safe side: sessions end later here.
//! - Any failure of the volume or the tree ends it for good, and it says nothing more to anybody; whoever
//!   runs it opens another under a newer attachment.

mod checkpoint;
mod clock;
mod commands;
mod coordinator;
mod memory;
mod opening;
mod options;
mod peers;
mod questions;
mod report;
mod shell;
mod slices;
mod streams;
mod syncing;

pub use coordinator::{Coordinator, Counters, Parts, State};
pub use memory::{MemoryAttachment, MemorySlices};
pub use options::Options;
pub use peers::{PeerId, Peers};
pub use questions::Silent;
pub use report::{Observer, Report, Stopped};
pub use slices::{Done, SliceError, Slices};

#[cfg(test)]
mod tests;
