//! Serves a kernel mount of a shared volume: the thin shell around the pure core of a client.
//!
//! ```text
//!            kernel ──/dev/fuse── mooring-fuse ── request ──> KernelRequest
//!                                                                 │
//!   coordinator <──Post── letters under the lock ──────────── Core (Client)
//!               ──Mount::letter──> Event::Message                 │
//!                                                     Work: answers, blocks, invalidations
//!   slice primaries <──DataBlocks──────────────────────────────────┤
//!   the kernel's caches <──KernelCaches, threads of its own────────┘
//! ```
//! Nothing is decided here: `request` and `answer` translate (pure), `core` keeps under one lock what
//! the client says and who waits, `shell` does what it wants done. What each command demands stands with
//! [`mooring_sharedfs_client`].
//!
//! Invariants:
//! - what can be answered from what is held here is answered by the thread that read the request;
//! - letters go in the order in which the core said them: they are queued under its lock;
//! - nothing waits under the lock, and no session thread ever waits for anything but a request;
//! - what the kernel doesn't take (its caller was freed by a signal) is taken back.
//!
//! It must not know the block store, nor how a coordinator is found.

mod answer;
mod blocks;
mod capabilities;
mod clock;
mod core;
mod error;
mod kernel_caches;
mod mount;
mod post;
mod request;
mod shell;
mod statistics;

pub use blocks::{BlocksRead, BlocksWritten, DataBlocks};
pub use error::MountError;
pub use mooring_sharedfs_client::{Options, StreamNumber};
pub use mount::{FSTYPE, Mount, Settings, Status};
pub use post::{Lost, Post};
pub use statistics::Statistics;
