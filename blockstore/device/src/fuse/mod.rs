//! A FUSE file system of one file, spoken with the kernel directly.
//!
//! ```text
//!   kernel ──/dev/fuse (one descriptor a thread, cloned)── Channel ── Session ── BlockIo
//!                                                            request ->  decode, dispatch
//!                                                            answer  <-  from whichever thread completes
//! ```
//! The file system is a directory with one file, `disk`, whose bytes are the volume's. It is there
//! for a loop device to stand on; nobody else is meant to open it.
//!
//! Invariants:
//! - requests in flight <= [`Limits::in_flight`]; each is answered at most once;
//! - node numbers, file handles and attributes are fixed, so that a successor process knows all
//!   that the kernel knows;
//! - a request's bytes arrive in memory that is already there (see `buffer`).

pub mod abi;
mod buffer;
mod burst;
mod channel;
mod files;
mod in_flight;
mod mount;
mod negotiate;
pub mod request;
mod session;

pub(crate) use buffer::RequestBuffer;
pub(crate) use channel::{Channel, receive_framed, send_all};
pub(crate) use mount::{FILE_NAME, Mounted, mount};
pub use negotiate::Limits;
pub(crate) use session::Session;
