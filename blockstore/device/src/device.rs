//! What every kind of device can do, whatever the kernel's interface beneath it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::holder::HolderClient;
use crate::{BlockIo, DeviceError};

/// What programs of this machine reach one volume through.
///
/// Dropping a `Device` detaches nothing: it only ends with its process, and the next process
/// resumes it.
pub trait Device: Send + Sync {
    /// The block device's node, such as `/dev/loop3`; `None` where there is no block device, so that
    /// nothing can be mounted from it.
    fn block_device(&self) -> Option<&Path>;

    /// What a person gives to a program that is to use it: the block device's path, or a URI.
    fn address(&self) -> String;

    /// The interface it is made with.
    fn kind(&self) -> DeviceKind;

    /// The size that its users see now, in bytes.
    fn size_bytes(&self) -> u64;

    /// Whether it serves I/O. It no longer does once it was failed or detached, or when the kernel's
    /// side is gone without our doing (aborted by somebody, or its forwarding holder has died).
    fn is_serving(&self) -> bool;

    /// Takes over a larger size from what it serves; returns the new size in bytes.
    ///
    /// # Errors
    /// [`DeviceError::System`] if the kernel refuses, [`DeviceError::Gone`] after a detach.
    fn grow(&self) -> Result<u64, DeviceError>;

    /// Another [`BlockIo::io_timeout`], for where the kernel itself counts how long nobody has served;
    /// telling it again what it was told costs nothing.
    ///
    /// # Errors
    /// As [`Device::grow`].
    fn set_io_timeout(&self, timeout: Option<Duration>) -> Result<(), DeviceError> {
        let _ = timeout;
        Ok(())
    }

    /// Takes the device away. Once detached, detaching again does nothing.
    ///
    /// # Errors
    /// [`DeviceError::Busy`] while it is mounted, open or connected to; it goes on working then.
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

    /// Gives it to another holder, where the one that it was kept by has ended: from then on it
    /// survives this process again. Says whether it was given; not if that holder has it already.
    ///
    /// # Errors
    /// [`DeviceError::Gone`] if there is nothing left to be kept; [`DeviceError::Holder`] if the
    /// holder refuses.
    fn keep_with(&self, holder: &Arc<HolderClient>) -> Result<bool, DeviceError>;

    /// What it has done so far.
    fn stats(&self) -> DeviceStats;
}

/// Makes devices of one kind, and takes them back after a restart of the daemon. Each keeps what it
/// needs for that with the holder, under names that no other kind has.
pub trait DeviceHost: Send + Sync {
    /// What it makes.
    fn kind(&self) -> DeviceKind;

    /// Keeps devices that it makes from now on with another holder, where the one before has ended.
    fn change_holder(&self, holder: Arc<HolderClient>);

    /// Makes a device that serves `io`; `note` is what [`DeviceHost::held`] is to give back after a
    /// restart, up to 8 KiB.
    ///
    /// # Errors
    /// [`DeviceError::AlreadyAttached`] if there is one of this name; [`DeviceError::Unsupported`] if
    /// the kernel lacks what it takes. Nothing is left behind.
    fn attach(
        &self,
        name: &str,
        io: Arc<dyn BlockIo>,
        read_only: bool,
        note: Vec<u8>,
    ) -> Result<Arc<dyn Device>, DeviceError>;

    /// Names of the devices of this kind that the holder has, each with its note; those of other live
    /// processes are left out. Taking a note makes this process the device's owner.
    ///
    /// # Errors
    /// [`DeviceError::Holder`] if the holder can't be reached.
    fn held(&self) -> Result<Vec<(String, Vec<u8>)>, DeviceError>;

    /// Serves on a device that a dead process has left. See [`BlockIo`] for what `io` must promise.
    ///
    /// # Errors
    /// [`DeviceError::NotHeld`] if the holder doesn't know it, [`DeviceError::Owned`] while another
    /// process serves it, [`DeviceError::Gone`] if it is beyond saving: then
    /// [`DeviceHost::abandon`] takes away what is left.
    fn resume(&self, name: &str, io: Arc<dyn BlockIo>) -> Result<Arc<dyn Device>, DeviceError>;

    /// Takes away a device that nobody is to serve any more: whoever waits for it gets an error.
    /// Returns whether it is still open somewhere.
    ///
    /// # Errors
    /// [`DeviceError::Owned`] while another process serves it.
    fn abandon(&self, name: &str) -> Result<bool, DeviceError>;

    /// Cleans what a crash has left that no holder keeps. Devices that the holder has are left alone.
    ///
    /// # Errors
    /// If what there is can't be listed. What fails for one device only is in [`Swept::failed`].
    fn sweep(&self) -> Result<Swept, DeviceError>;
}

/// What [`DeviceHost::sweep`] found and did.
#[derive(Debug, Default)]
pub struct Swept {
    /// Names of devices that were left behind and are gone now.
    pub cleaned: Vec<String>,
    /// Names of devices that are still open somewhere: they give errors, and go when their last user
    /// closes them.
    pub lingering: Vec<String>,
    /// What could not be cleaned, and why.
    pub failed: Vec<(String, DeviceError)>,
}

/// Interfaces that a device can be made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceKind {
    /// A ublk device.
    Ublk,
    /// A device of the kernel's NBD client.
    Nbd,
    /// A loop device over a file of our own FUSE file system.
    Loop,
    /// A socket of our NBD server, without a block device.
    NbdSocket,
}

pub(crate) fn check_name(name: &str) -> Result<(), DeviceError> {
    let fits = !name.is_empty() && name.len() <= 200 && !name.starts_with('.');
    if fits && !name.contains(['/', '\0', '\n']) {
        return Ok(());
    }
    Err(DeviceError::Name { name: name.to_owned() })
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ublk => "ublk",
            Self::Nbd => "nbd",
            Self::Loop => "loop",
            Self::NbdSocket => "nbd-socket",
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
