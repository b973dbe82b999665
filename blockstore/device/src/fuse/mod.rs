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
//!   that the kernel knows.

mod burst;
mod files;
mod in_flight;
mod limits;
mod mount;
mod session;

pub(crate) use files::FILE_NAME;
pub use limits::Limits;
pub(crate) use mount::{FSTYPE, mount};
pub(crate) use session::Session;
