//! The pure core of a mount: what a client of a shared volume decides.
//!
//! ```text
//!   kernel ──Event::Kernel──> Client::handle ──Command::Answer──> kernel
//!                               │  ^   │  ^
//!     ToCoordinator (requests,  │  │   │  │  ReadBlocks, WriteBlocks: straight to slice primaries
//!     answers to recalls)       v  │   v  │  Invalidate: the kernel's caches
//! ```
//! `handle` does no I/O and never waits. A request that can be answered from what leases vouch for is
//! answered by a command of the same call, so a thread that read it from `/dev/fuse` answers it
//! without a hop. Everything else becomes a *task* that is tried again whenever something
//! has happened.
//!
//! # What the shell owes each command
//! - [`Command::Answer`]: write the reply; at once, in any order.
//! - [`Command::Send`]: over the stream that it names, in the order of the commands; if that stream is
//!   gone, drop it. One lock around `handle` and the queueing of what it sends keeps that order.
//! - [`Command::Reconnect`]: give the stream up and open another, to whoever is coordinator now.
//! - [`Command::ReadBlocks`], [`Command::WriteBlocks`]: at the slice primaries, in parallel, held
//!   through failovers; a write is done when all in-sync replicas have received it, and says with
//!   which version. Refused for a session that is fenced: [`FsError::Unavailable`].
//! - [`Command::Invalidate`]: on a thread of its own that serves no requests and holds no lock of the
//!   client; `inval_inode` returns only when pages in flight are read and dirty ones written.
//! - [`Command::Ended`]: the mount is over; every request from now on is answered with an error.
//!
//! # What must stay true
//! - Nothing is answered from a cache but under a lease, and while the session's lease, counted from
//!   the *sending* of what was answered last, is not over. The kernel is told no longer times.
//! - A change that this client has on its way to the coordinator is in no cache: until it is answered,
//!   what it changes is asked for and not answered from caches.
//! - What is done here, where this client is alone, is in the caches at once, and at the coordinator in
//!   the same order; nothing is asked for or given back before what it follows is there.
//! - A write is accepted only against a block that is reserved, or was the file's already.
//! - A recall is answered when nothing is dirty, the kernel has given its pages up, opens that only
//!   this client knew of are told, and nothing is under way on blocks of the inode.
//! - Whatever a recall needs (reads, commits, laundered pages) uses slots of its own: requests that
//!   wait for other clients can't take them.

mod alone;
mod caches;
mod client;
mod command;
mod early;
mod event;
mod inode;
mod kernel;
mod known;
mod layout;
mod link;
mod locking;
#[cfg(feature = "mutations")]
mod mutation;
mod opens;
mod pages;
mod pool;
mod reading;
mod recall;
mod reclaim;
mod replies;
mod rows;
mod tasks;
mod write_back;
mod writing;

pub use client::{Client, Options, Turn};
pub use command::{Command, Invalidation};
pub use event::{Event, InvalidationNumber, IoNumber, StreamNumber};
pub use kernel::{
    AllocateMode, DirectoryItem, Entry, HandleId, KernelId, KernelOperation, KernelReply,
    KernelRequest, LockKind, OpenFlags,
};
pub use mooring_sharedfs_core::FsError;
#[cfg(feature = "mutations")]
pub use mutation::Mutation;
