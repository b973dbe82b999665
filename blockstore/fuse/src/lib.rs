//! The kernel's FUSE protocol, spoken directly.
//!
//! ```text
//!   kernel ──/dev/fuse (one descriptor a thread, cloned)── Channel ── Session ── FileSystem
//!                                                            request ->  decode
//!                                                            answer  <-  from whichever thread
//! ```
//! `abi` are the messages, `request` decodes what comes and `reply` puts together what goes (both
//! pure); `mount` mounts and does the handshake; `session` serves a [`FileSystem`] with threads, and
//! `interrupts` frees callers that a signal wants back. The loop device's exporter uses all but the
//! last two: its session can be handed from one process to the next.
//!
//! Why not a library: what callers need most when a volume can't be reached (interrupts, the two
//! kinds of locks told apart, a session that outlives its process) none had. See docs/decisions.
//!
//! Invariants:
//! - a request is answered at most once;
//! - a request's bytes arrive in memory that is already there (see `buffer`).
//!
//! It must not know what is served.

pub mod abi;
mod buffer;
mod channel;
mod error;
mod handshake;
mod interrupts;
mod mount;
pub mod reply;
pub mod request;
mod session;

pub use buffer::RequestBuffer;
pub use channel::{Channel, receive_framed, receive_one, send_all};
pub use error::FuseError;
pub use handshake::{Agreed, Features, Limits};
pub use mount::{MountOptions, Mounted, Place, mount};
pub use session::{Answer, FileSystem, Notifier, Session, Write};
