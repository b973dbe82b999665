//! The backend that works everywhere: a loop device over the one file of a FUSE file system.
//!
//! ```text
//!   file system or application
//!     └ /dev/loopN          direct I/O, 4096-byte sectors
//!         └ DIR/NAME/disk   the file; DIR/NAME is a mount of ours (type fuse.mooring-device)
//!             └ /dev/fuse   descriptors in the daemon, and in the holder
//!                 └ BlockIo
//! ```
//! Loop devices belong to the machine, mounts to a mount namespace. A loop device is ours only if the
//! `st_dev` that it stands on is that of a mount we see in our directory: paths don't tell, since
//! several hosts of one machine may use the same ones.

mod blob;
mod control;
mod device;
mod host;

pub use device::LoopDevice;
pub use host::{Handover, LoopHost, LoopOptions};
