//! One volume as a block device of the kernel's NBD client.
#![allow(
    clippy::disallowed_methods,
    reason = "waits for the kernel to see that a connection is dead, in real time"
)]

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use parking_lot::Mutex;
use rustix::fs::{FileType, Mode as FileMode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::control::Control;
use super::sysfs;
use crate::holder::{HolderClient, HolderError, Mode};
use crate::nbd::connection::Connection;
use crate::nbd::export::Export;
use crate::nbd::handshake::Agreed;
use crate::nbd::link::Link;
use crate::{Device, DeviceError, DeviceKind, DeviceStats, users};

const POLL: Duration = Duration::from_millis(20);

/// How long the kernel may take to see that a connection is dead.
const SEEN_DEAD: Duration = Duration::from_secs(5);

/// Between two tries to get the kernel another connection.
const PAUSE: Duration = Duration::from_millis(200);

/// A volume behind /dev/nbdN.
///
/// ```text
///   Attached ──detach──> Detached
///      └──fail──> Failed ──detach / detach_forced──> Detached
/// ```
pub struct KernelNbdDevice {
    shared: Arc<Shared>,
    path: PathBuf,
    /// Held by whoever takes it away, or gives it to another holder.
    turn: Mutex<()>,
}

/// What the thread that serves the device needs, too.
pub(super) struct Shared {
    pub(super) name: String,
    /// Its name in the holder.
    pub(super) held: String,
    pub(super) index: u32,
    pub(super) identifier: String,
    pub(super) export: Arc<Export>,
    /// What the holder stores.
    pub(super) blob: Vec<u8>,
    pub(super) holder: Mutex<Option<Arc<HolderClient>>>,
    /// Names in use by this process.
    pub(super) names: Arc<Mutex<BTreeSet<String>>>,
    pub(super) detached: AtomicBool,
    /// The kernel is being told that nobody serves any more: no new connection meanwhile.
    pub(super) leaving: AtomicBool,
    /// For how long I/O waits while nobody serves, as the kernel was told.
    pub(super) patience: Mutex<Option<Duration>>,
    /// Whether the kernel has a connection to us.
    pub(super) connected: AtomicBool,
}

/// A connection whose other end goes to the kernel. Dropped, it is none of the export's any more.
pub(super) struct Line {
    connection: Arc<Connection>,
    export: Arc<Export>,
    number: u64,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.export.dismiss(self.number);
    }
}

impl Line {
    /// Makes a pair of sockets; what is returned beside is the kernel's end.
    ///
    /// # Errors
    /// No descriptors; `NotConnected` if the export is closed.
    pub(super) fn new(export: &Arc<Export>) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // What the kernel's client can: simple replies only.
        let name = export.name().to_owned();
        let agreed = Agreed { export: name, structured: false, allocation: false };
        let peer = "the kernel's NBD client".to_owned();
        let connection = Connection::new(Link::new(ours)?, agreed, Arc::clone(export), peer)?;
        let number = export.admit(&connection).ok_or(io::ErrorKind::NotConnected)?;
        Ok((Self { connection, export: Arc::clone(export), number }, theirs))
    }

    fn serve(&self) {
        self.connection.serve(BytesMut::new());
    }
}

impl Shared {
    /// Serves `line`, and others in its place, until the device is detached.
    fn serve(&self, mut line: Line) {
        loop {
            self.connected.store(true, Ordering::Release);
            line.serve();
            self.connected.store(false, Ordering::Release);
            line = loop {
                if self.detached.load(Ordering::Acquire) || !self.is_ours() {
                    return;
                }
                if self.leaving.load(Ordering::Acquire) {
                    std::thread::sleep(POLL);
                    continue;
                }
                match self.reconnect() {
                    Ok(line) => break line,
                    Err(error) => {
                        tracing::warn!(device = self.name, %error, "the kernel can't be reconnected; trying on");
                        std::thread::sleep(PAUSE);
                    }
                }
            };
            tracing::warn!(device = self.name, "the kernel has another connection");
        }
    }

    /// Gives the kernel another connection, once it has seen that the one before is dead.
    pub(super) fn reconnect(&self) -> io::Result<Line> {
        let (line, theirs) = Line::new(&self.export)?;
        let mut control = Control::open()?;
        let deadline = Instant::now() + SEEN_DEAD;
        let patience = *self.patience.lock();
        loop {
            match control.reconnect(self.index, &self.identifier, patience, &theirs) {
                Err(error)
                    if error.raw_os_error() == Some(libc::ENOSPC) && Instant::now() < deadline =>
                {
                    std::thread::sleep(POLL);
                }
                other => return other.map(|()| line),
            }
        }
    }

    /// Whether the kernel's device is still the one that was made for this.
    pub(super) fn is_ours(&self) -> bool {
        sysfs::identifier(self.index).is_some_and(|found| found == self.identifier)
    }
}

impl KernelNbdDevice {
    /// # Errors
    /// [`DeviceError::System`] without a thread or a node; the kernel's device stays.
    pub(super) fn start(shared: Shared, line: Line) -> Result<Self, DeviceError> {
        let path = sysfs::node(shared.index);
        let shared = Arc::new(shared);
        let serving = Arc::clone(&shared);
        std::thread::Builder::new()
            .name(format!("nbd-{}", shared.name))
            .spawn(move || serving.serve(line))
            .map_err(|source| DeviceError::system("serving", &path, source))?;
        sysfs::look_often(shared.index)
            .and_then(|()| ensure_node(&path, shared.index))
            .map_err(|source| DeviceError::system("preparing", &path, source))?;
        Ok(Self { shared, path, turn: Mutex::new(()) })
    }

    fn is_detached(&self) -> bool {
        self.shared.detached.load(Ordering::Acquire)
    }

    fn reconfigure(&self, action: &'static str, size: Option<u64>) -> Result<(), DeviceError> {
        if self.is_detached() {
            return Err(self.gone());
        }
        let Shared { index, identifier, patience, .. } = &*self.shared;
        Control::open()
            .and_then(|mut control| control.reconfigure(*index, identifier, *patience.lock(), size))
            .map_err(|source| DeviceError::system(action, &self.path, source))
    }

    fn gone(&self) -> DeviceError {
        let (name, missing) = (self.shared.name.clone(), "the attached device");
        DeviceError::Gone { name, missing }
    }

    /// The claim is held until the device is gone: it would be taken from under a mount that is just made.
    fn claim_and_flush(&self) -> Result<OwnedFd, DeviceError> {
        let numbers = sysfs::numbers(self.shared.index)
            .map_err(|source| DeviceError::system("finding", &self.path, source))?;
        users::claim_and_flush(&self.path, numbers, || {
            let flags = OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
            Ok(rustix::fs::open(&self.path, flags, FileMode::empty())?)
        })
    }

    fn take_away(&self) -> Result<(), DeviceError> {
        let shared = &self.shared;
        if shared.is_ours() {
            shared.leaving.store(true, Ordering::Release);
            let left = Control::open().and_then(|mut control| control.disconnect(shared.index));
            shared.leaving.store(false, Ordering::Release);
            left.map_err(|source| DeviceError::system("disconnecting", &self.path, source))?;
        }
        shared.detached.store(true, Ordering::Release);
        shared.names.lock().remove(&shared.name);
        // Nobody is left to be waited for: the kernel has said its farewell, or is gone.
        let _ = shared.export.close(true);
        let holder = shared.holder.lock();
        match holder.as_ref().map(|holder| holder.forget(&shared.held)) {
            // A holder that has ended keeps nothing.
            Some(Err(HolderError::Broken { source })) => {
                tracing::warn!(device = shared.name, %source, "the holder is gone");
                Ok(())
            }
            Some(other) => Ok(other?),
            None => Ok(()),
        }
    }
}

impl Device for KernelNbdDevice {
    fn block_device(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn address(&self) -> String {
        self.path.display().to_string()
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind::Nbd
    }

    fn size_bytes(&self) -> u64 {
        sysfs::size_bytes(self.shared.index)
    }

    fn is_serving(&self) -> bool {
        !self.is_detached()
            && !self.shared.export.has_failed()
            && self.shared.connected.load(Ordering::Acquire)
    }

    fn grow(&self) -> Result<u64, DeviceError> {
        let bytes = self.shared.export.size();
        self.reconfigure("growing", Some(bytes))?;
        Ok(bytes)
    }

    fn set_io_timeout(&self, timeout: Option<Duration>) -> Result<(), DeviceError> {
        let before = std::mem::replace(&mut *self.shared.patience.lock(), timeout);
        if before == timeout {
            return Ok(());
        }
        // What the kernel didn't take is to be tried again.
        self.reconfigure("setting the timeout of", None)
            .inspect_err(|_| *self.shared.patience.lock() = before)
    }

    fn detach(&self) -> Result<(), DeviceError> {
        let _turn = self.turn.lock();
        if self.is_detached() {
            return Ok(());
        }
        let claim = match self.claim_and_flush() {
            // A failed device can't be flushed, and has nothing that could still be saved.
            Err(DeviceError::System { .. }) if self.shared.export.has_failed() => None,
            other => Some(other?),
        };
        self.take_away()?;
        drop(claim);
        tracing::info!(device = self.shared.name, "detached");
        Ok(())
    }

    fn fail(&self) -> Result<(), DeviceError> {
        // Not under the lock: a detach may be waiting for the very I/O that fails here. The answers are
        // errors from here on; the kernel needs not be told.
        self.shared.export.fail();
        tracing::warn!(device = self.shared.name, "failed: all I/O gets errors");
        Ok(())
    }

    fn detach_forced(&self) -> Result<(), DeviceError> {
        self.fail()?;
        let _turn = self.turn.lock();
        if self.is_detached() {
            return Ok(());
        }
        self.take_away()
    }

    fn keep_with(&self, holder: &Arc<HolderClient>) -> Result<bool, DeviceError> {
        let _turn = self.turn.lock();
        let mut keeps = self.shared.holder.lock();
        if keeps.as_ref().is_some_and(|keeps| Arc::ptr_eq(keeps, holder)) {
            return Ok(false);
        }
        if self.is_detached() {
            return Err(self.gone());
        }
        keep(holder, &self.shared.held, &self.shared.blob)?;
        *keeps = Some(Arc::clone(holder));
        Ok(true)
    }

    fn stats(&self) -> DeviceStats {
        self.shared.export.stats()
    }
}

/// Has the holder remember a device. The kernel keeps the device itself; the holder keeps names only
/// with a descriptor, so it gets one that leads nowhere.
///
/// # Errors
/// As [`HolderClient::keep`].
pub(super) fn keep(holder: &HolderClient, held: &str, blob: &[u8]) -> Result<(), DeviceError> {
    let nowhere =
        rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, FileMode::empty())
            .map_err(|source| DeviceError::system("opening", "/dev/null", source))?;
    holder.keep(held, blob, &[nowhere.as_fd()], Mode::Keep)?;
    Ok(())
}

/// Makes the node if a container's /dev hasn't got it.
fn ensure_node(path: &Path, index: u32) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let (major, minor) = sysfs::numbers(index)?;
    let device = rustix::fs::makedev(major, minor);
    let mode = FileMode::RUSR | FileMode::WUSR;
    match rustix::fs::mknodat(rustix::fs::CWD, path, FileType::BlockDevice, mode, device) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
