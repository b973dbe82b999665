//! What every kind of device can do, whatever the kernel's interface beneath it.

use std::fmt;
use std::path::Path;

use crate::DeviceError;

/// A block device of this machine that serves one volume.
///
/// Dropping a `Device` detaches nothing: it only ends with its process, and the next process
/// resumes it.
pub trait Device: Send + Sync {
    /// The block device's node, such as `/dev/loop3`.
    fn path(&self) -> &Path;

    /// The interface it is made with.
    fn kind(&self) -> DeviceKind;

    /// The size that the block device has now, in bytes.
    fn size_bytes(&self) -> u64;

    /// Whether it serves I/O. It no longer does once it was failed or detached, or when the kernel's
    /// side is gone without our doing (aborted by somebody, or its forwarding holder has died).
    fn is_serving(&self) -> bool;

    /// Takes over a larger size from what it serves; returns the new size in bytes.
    ///
    /// # Errors
    /// [`DeviceError::System`] if the kernel refuses, [`DeviceError::Gone`] after a detach.
    fn grow(&self) -> Result<u64, DeviceError>;

    /// Takes the block device away. Once detached, detaching again does nothing.
    ///
    /// # Errors
    /// [`DeviceError::Busy`] while it is mounted or open; it goes on working then.
    fn detach(&self) -> Result<(), DeviceError>;

    /// Turns the device to errors for good: what waits and what comes later gets EIO at once.
    ///
    /// # Errors
    /// [`DeviceError::System`] if the kernel could not be told; requests are answered with EIO all
    /// the same.
    fn fail(&self) -> Result<(), DeviceError>;

    /// [`Device::fail`], then takes away what can be: where it is still mounted or open, the block
    /// device's node stays, with errors only, until its last user closes it.
    ///
    /// # Errors
    /// [`DeviceError::System`] if something is left that the next sweep must take away.
    fn detach_forced(&self) -> Result<(), DeviceError>;

    /// What it has done so far.
    fn stats(&self) -> DeviceStats;
}

/// Interfaces that a block device can be made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A loop device over a file of our own FUSE file system.
    Loop,
    /// The kernel's NBD client on our NBD server.
    Nbd,
    /// A ublk device.
    Ublk,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loop => "loop",
            Self::Nbd => "nbd",
            Self::Ublk => "ublk",
        })
    }
}

/// Counters of one device, since this process began to serve it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceStats {
    /// Reads.
    pub reads: u64,
    /// Bytes asked for by reads.
    pub read_bytes: u64,
    /// Writes.
    pub writes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Discards.
    pub discards: u64,
    /// Requests to write zeros.
    pub zeroes: u64,
    /// Requests that were answered with an error.
    pub errors: u64,
    /// Requests that the kernel sent again after a hand-over.
    pub resent: u64,
    /// Requests that wait for their answer now.
    pub in_flight: u64,
}
