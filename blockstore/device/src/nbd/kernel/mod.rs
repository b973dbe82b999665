//! A volume as a block device of the kernel's NBD client, served by our own server.
//!
//! ```text
//!   /dev/nbdN ── kernel's client ══ one pair of unix sockets ══ Connection ── Export ── BlockIo
//!        made, given sockets, resized and ended over generic netlink ("nbd")
//! ```
//! There is no handshake: what it would say travels in the netlink message that gives the kernel its
//! socket. The kernel keeps the device, and all I/O waits, while nobody serves it; the next daemon gives
//! it another socket.
//!
//! # Why one connection, and no timeout
//!
//! With several connections, or with a timeout, the kernel takes a request that waits long for a lost
//! one: it closes the connection, and sends the request again. A volume that waits for its next primary
//! would lose its connections over and over. With one connection and the timeout 0, a request is sent
//! again only if its connection was replaced since. The kernel looks for such requests as often as the
//! queue's `io_timeout` says, which we set to a second: so much longer than the daemon's own absence
//! those wait that the dead daemon had read and not answered.
//!
//! What comes again may have been carried out before; that this is safe is told at the crate's top.

mod control;
mod device;
mod host;
mod netlink;
mod sysfs;

pub use device::KernelNbdDevice;
pub use host::KernelNbdHost;
