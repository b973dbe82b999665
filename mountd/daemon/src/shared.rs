//! Shared volumes on this node: the coordinators that run here.
//!
//! ```text
//!   slice 0's primary is here ──> attachment ──> seal ──> Coordinator (a thread) <── letters ── clients
//!        (coordinators.rs)                                  │ slices.rs: its I/O on the block store
//!                                                           │ post.rs: its clients
//!                                                           └ observer.rs: what people are told
//! ```
//! A coordinator runs for every shared volume, mounted or not, wherever slice 0's primary is: what an idle one
//! costs is two threads that sleep and some hundred KiB, and whoever mounts, checks or lists the volume finds
//! it running. The kernel's side of a mount is a process of its own, which `mounts.rs` starts and watches.

mod coordinators;
mod mounts;
mod observer;
mod post;
mod questions;
mod slices;

pub use coordinators::Coordinators;
pub use mounts::{FILE_SYSTEM, SharedMount, SharedMounts};
pub use questions::mounts_of;
