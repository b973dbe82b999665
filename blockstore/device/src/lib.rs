//! Block devices of this machine that serve a volume's I/O.
//!
//! ```text
//!          daemon (may die)                      holder (stays)              kernel
//!   ┌───────────────────────────┐         ┌──────────────────────┐
//!   │ BlockIo <- Session        │         │ per device: name,    │
//!   │             fds 0..n ─────┼───┐     │  blob, fds 0..n ─────┼──┐   ┌─ mount DIR/NAME
//!   │ HolderClient ─────────────┼───┼──── │ socket, lock file    │  │   │    └ disk <── loop driver
//!   └───────────────────────────┘   │     └──────────────────────┘  │   │         (holds it open)
//!                                   └──> /dev/fuse, n queues <──────┘ ──┘
//! ```
//! Who holds which descriptor:
//! - /dev/fuse: one a session thread, all clones of one connection, in the daemon **and** in the
//!   holder. The kernel ends the connection, and with it all I/O, when the last one is closed, and
//!   answers a queue's unanswered requests with errors when that queue's last one is closed; hence
//!   the holder keeps every one of them;
//! - the FUSE file: the loop driver, from the attach to the detach;
//! - the loop device: nobody here. It is opened for moments only;
//! - with [`Handover::Forward`] the holder alone has /dev/fuse, and daemon and holder share a stream
//!   a queue.
//!
//! # Hand-over: why I/O survives the daemon
//!
//! A request is in one of four places: waiting in the kernel, read by a daemon and unanswered,
//! answered, or (for moments) being copied. The daemon's death touches the second kind only. Its
//! successor takes the descriptors back and asks for those requests again (`FUSE_NOTIFY_RESEND`),
//! marked by a bit in their number; a holder that forwards has kept copies of them.
//!
//! A request that comes again may have been carried out by the dead daemon, wholly, in part or on
//! some replicas. Carrying it out once more is safe, because:
//! 1. all of them are idempotent: a write, discard or write-zeroes puts the same bytes at the same
//!    place; reads and flushes change nothing; names and handles here are constants;
//! 2. nothing that was answered comes again. An answer is one system call (or one message that the
//!    holder writes and strikes off): it is given, or it isn't;
//! 3. so whoever sent the request still waits for it, and every request that overlaps it and was
//!    sent meanwhile is concurrent with it. The order of such a pair was never promised, by any disk:
//!    file systems and databases don't have overlapping writes in flight, and what was sent after
//!    the answer comes after the second execution. (A reader could see old, new, old where *two*
//!    overlapping writes were in flight together: a disk with a cache may show the same.)
//! 4. what the dead daemon had begun is over before the successor's first request: the network
//!    stream of the new client supersedes that of the old one at every replica (see [`BlockIo`]), and
//!    the holder gives a name to a new owner only when the old one's last thread has ended.
//!
//! # Who waits, and who never does
//!
//! While the daemon is away, I/O waits, for as long as it takes. [`Device::fail`] ends that at once,
//! for good, by aborting the kernel's side of the connection: no cooperation of a volume, a thread
//! or another process is needed, and no task stays behind in an uninterruptible wait.
//!
//! # What is known not to hold
//!
//! Attaching and growing make the kernel ask the file system about itself, in a system call of this
//! process. A `kill -9` within those few dozen microseconds can leave the dying process waiting for
//! its own answer, so that it can't end before somebody runs `umount -f` on DIR/NAME (attach), or
//! make the loop driver take the size for 0 until the next process resumes the device (grow).
//! Resuming a device whose size is the same asks nothing, so that daemons may die while they take
//! over.
//!
//! The systemd unit of the daemon must have `KillMode=process`, so that a restart of the unit leaves
//! the holder alone.

mod device;
mod error;
mod fuse;
pub mod holder;
mod io;
mod loopdev;
pub mod nbd;
mod user;
mod users;

pub use device::{Device, DeviceHost, DeviceKind, DeviceStats, Swept};
pub use error::DeviceError;
pub use fuse::Limits;
pub use io::{BlockIo, BlockRequest, Done, Extent, IoError, ReadDone, StatusDone};
pub use loopdev::{Handover, LoopDevice, LoopHost, LoopOptions};
pub use user::User;
