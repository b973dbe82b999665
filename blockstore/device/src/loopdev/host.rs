//! All loop devices of one daemon: attaching, resuming, sweeping.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::blob::Blob;
use super::control;
use super::device::{LoopDevice, Parts, abort_and_release};
use crate::device::check_name;
use crate::fuse::{self, FILE_NAME, FSTYPE, Limits, Session};
use crate::holder::{Held, HolderClient, HolderError, Mode, Refusal};
use crate::io::BlockIo;
use crate::{Device, DeviceError, DeviceHost, DeviceKind, Swept};
use mooring_fuse::abi::init;
use mooring_fuse::{Channel, Mounted};

/// How requests get from a dead daemon to its successor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Handover {
    /// The kernel sends them again where it can (from Linux 6.9), else the holder forwards them.
    #[default]
    Auto,
    /// The kernel sends them again: the holder is not in the way of any I/O.
    Resend,
    /// The holder reads /dev/fuse and forwards: one more copy and two more wake-ups a request.
    Forward,
}

/// How a device is made.
#[derive(Clone, Debug)]
pub struct LoopOptions {
    /// Session threads, each with a descriptor of its own; 1 to 8.
    pub threads: usize,
    /// Bounds of the session.
    pub limits: Limits,
    /// How it is handed over.
    pub handover: Handover,
    /// What the caller wants back from [`LoopHost::held`] after a restart, up to 8 KiB.
    pub note: Vec<u8>,
}

impl Default for LoopOptions {
    fn default() -> Self {
        Self { threads: 2, limits: Limits::default(), handover: Handover::Auto, note: Vec::new() }
    }
}

/// Where a daemon's loop devices live: a directory of its own, and the holder. Clones share both.
#[derive(Clone, Debug)]
pub struct LoopHost {
    directory: PathBuf,
    holder: Arc<Mutex<Option<Arc<HolderClient>>>>,
}

impl LoopHost {
    /// Devices with their mounts in `directory` (made, for root only). Without a holder they end
    /// with this process, with errors to their users.
    ///
    /// # Errors
    /// [`DeviceError::System`] if the directory can't be made.
    pub fn new(directory: &Path, holder: Option<Arc<HolderClient>>) -> Result<Self, DeviceError> {
        let make = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            // The kernel shows paths without symlinks, and they are compared.
            fs::canonicalize(directory)
        };
        let directory =
            make().map_err(|source| DeviceError::system("making", directory, source))?;
        Ok(Self { directory, holder: Arc::new(Mutex::new(holder)) })
    }

    fn holder(&self) -> Option<Arc<HolderClient>> {
        self.holder.lock().clone()
    }

    /// Makes a block device that serves `io`.
    ///
    /// # Errors
    /// [`DeviceError::AlreadyAttached`] if there is one of this name; [`DeviceError::Unsupported`]
    /// if the kernel lacks FUSE or loop devices. Nothing is left behind.
    pub fn attach(
        &self,
        name: &str,
        io: Arc<dyn BlockIo>,
        options: &LoopOptions,
    ) -> Result<LoopDevice, DeviceError> {
        check_name(name)?;
        let bytes = io.size_bytes();
        if bytes == 0 || !bytes.is_multiple_of(4096) {
            return Err(DeviceError::Size { bytes });
        }
        let point = self.directory.join(name);
        if mounted_at(&point)?.is_some() {
            return Err(DeviceError::AlreadyAttached { path: point });
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&point)
            .map_err(|source| DeviceError::system("making", &point, source))?;
        let result = self.attach_at(name, &point, io, options);
        if result.is_err() {
            self.undo(name, &point);
        }
        result
    }

    fn attach_at(
        &self,
        name: &str,
        point: &Path,
        io: Arc<dyn BlockIo>,
        options: &LoopOptions,
    ) -> Result<LoopDevice, DeviceError> {
        let limits = options.limits;
        let (fds, agreed) = fuse::mount(point, name, options.threads.clamp(1, 8), limits)?;
        let mounted = mounted_at(point)?.ok_or(gone(name, "its mount"))?;
        let forward = match options.handover {
            Handover::Auto => !agreed.has(init::HAS_RESEND),
            Handover::Resend => false,
            Handover::Forward => true,
        };
        let blob = Blob::new(None, mounted.device, limits.max_write, options.note.clone());
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let holder = self.holder();
        let channels = match &holder {
            Some(holder) if forward => {
                let mode = Mode::Forward { max_write: limits.max_write };
                channels(holder.keep(name, &blob.encode(), &borrowed, mode)?, true)
            }
            Some(holder) => {
                holder.keep(name, &blob.encode(), &borrowed, Mode::Keep)?;
                channels(fds, false)
            }
            None => channels(fds, false),
        };
        let session = Session::start(name, io, channels, limits)?;
        let file = rustix::fs::open(
            point.join(FILE_NAME),
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .map_err(|source| DeviceError::system("opening", point.join(FILE_NAME), source))?;
        let number = control::configure(file.as_fd(), name)?;
        let blob = blob.with_loop(number);
        if let Some(holder) = &holder {
            holder.update(name, &blob.encode())?;
        }
        tracing::info!(device = name, path = %control::node(number).display(), forward, "attached");
        Ok(LoopDevice::new(Parts {
            name: name.to_owned(),
            number,
            mounted,
            session,
            blob,
            holder: Mutex::new(holder),
        }))
    }

    /// Takes back what a failed attach has made.
    fn undo(&self, name: &str, point: &Path) {
        if let Some(holder) = self.holder()
            && let Err(error) = holder.forget(name)
        {
            tracing::warn!(device = name, %error, "a failed attach leaves something in the holder");
        }
        match mounted_at(point) {
            Ok(Some(mounted)) => {
                if let Err(error) = abort_and_release(&mounted) {
                    tracing::warn!(device = name, %error, "a failed attach leaves something behind");
                }
            }
            Ok(None) => drop(fs::remove_dir(point)),
            Err(error) => {
                tracing::warn!(device = name, %error, "a failed attach may leave a mount")
            }
        }
    }

    /// Names of the devices that the holder has, each with the note it was attached with; those of
    /// other live processes are left out.
    ///
    /// Taking a note makes this connection the device's owner.
    ///
    /// # Errors
    /// [`DeviceError::Holder`] if the holder can't be reached.
    pub fn held(&self) -> Result<Vec<(String, Vec<u8>)>, DeviceError> {
        let Some(holder) = self.holder() else { return Ok(Vec::new()) };
        let mut notes = Vec::new();
        // Names with a slash are another kind's.
        let ours = |held: &Held| !held.owned && !held.name.contains('/');
        for held in holder.list()?.into_iter().filter(ours) {
            match holder.take(&held.name) {
                Ok(taken) => {
                    let note = Blob::decode(&taken.blob).map(|blob| blob.note).unwrap_or_default();
                    notes.push((held.name, note));
                }
                Err(HolderError::Refused(Refusal::Owned | Refusal::Unknown)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(notes)
    }

    /// Serves on a device that a dead process has left: requests that it never answered come again,
    /// then all others that have waited. See [`BlockIo`] for what `io` must promise.
    ///
    /// # Errors
    /// [`DeviceError::NotHeld`] if the holder doesn't know it, [`DeviceError::Owned`] while another
    /// process serves it, [`DeviceError::Gone`] if it was aborted or unmounted meanwhile: then
    /// [`LoopHost::abandon`] takes away what is left.
    pub fn resume(&self, name: &str, io: Arc<dyn BlockIo>) -> Result<LoopDevice, DeviceError> {
        check_name(name)?;
        let not_held = || DeviceError::NotHeld { name: name.to_owned() };
        let holder = self.holder().ok_or_else(not_held)?;
        let taken = holder.take(name).map_err(|error| match error {
            HolderError::Refused(Refusal::Unknown) => not_held(),
            HolderError::Refused(Refusal::Owned) => DeviceError::Owned { name: name.to_owned() },
            other => other.into(),
        })?;
        let blob = Blob::decode(&taken.blob)
            .ok_or(gone(name, "what this version can read of its note"))?;
        let point = self.directory.join(name);
        let mounted = mounted_at(&point)?
            .filter(|mounted| mounted.device == blob.device)
            .ok_or(gone(name, "its mount"))?;
        if taken.fds.is_empty() {
            return Err(gone(name, "its connection to the kernel"));
        }
        let number = blob.loop_number.ok_or(gone(name, "its loop device"))?;
        // Asked of /sys, not of the loop device: nothing here may wait for our own file system. A
        // process that is killed in such a wait can't end, nor give up the device, until somebody
        // else answers.
        if !control::stands_on(number, &point.join(FILE_NAME), FILE_NAME) {
            return Err(gone(name, "its loop device"));
        }
        let channels = channels(taken.fds, taken.forwarded);
        if !taken.forwarded
            && let Some(Err(error)) = channels.first().map(Channel::request_resend)
        {
            // The connection is aborted, or the kernel is older than 6.9 and this way was forced on it.
            tracing::error!(device = name, %error, "unanswered requests can't be had again; they fail");
            let aborted = mounted.abort();
            aborted.map_err(|source| DeviceError::system("aborting", &mounted.point, source))?;
            return Err(gone(name, "its connection to the kernel"));
        }
        let limits = Limits { max_write: blob.max_write, ..Limits::default() };
        let bytes = io.size_bytes();
        let session = Session::start(name, io, channels, limits)?;
        tracing::info!(device = name, path = %control::node(number).display(), "resumed");
        let holder = Mutex::new(Some(holder));
        let name = name.to_owned();
        let device = LoopDevice::new(Parts { name, number, mounted, session, blob, holder });
        if device.size_bytes() < bytes {
            device.grow()?;
        }
        Ok(device)
    }

    /// Takes away a device that nobody is to serve any more: whoever waits for it gets an error.
    /// Returns whether its loop device is still open somewhere.
    ///
    /// # Errors
    /// [`DeviceError::Owned`] while another process serves it.
    pub fn abandon(&self, name: &str) -> Result<bool, DeviceError> {
        check_name(name)?;
        let point = self.directory.join(name);
        if let Some(holder) = self.holder() {
            match holder.take(name) {
                Ok(_) | Err(HolderError::Refused(Refusal::Unknown)) => {}
                Err(HolderError::Refused(Refusal::Owned)) => {
                    return Err(DeviceError::Owned { name: name.to_owned() });
                }
                Err(error) => return Err(error.into()),
            }
        }
        let lingering = match mounted_at(&point)? {
            Some(mounted) => abort_and_release(&mounted)?,
            None => {
                let _ = fs::remove_dir(&point);
                false
            }
        };
        if let Some(holder) = self.holder() {
            holder.forget(name)?;
        }
        Ok(lingering)
    }

    /// Cleans what a crash has left in the directory that no holder keeps: mounts without a server,
    /// and the loop devices on them. Devices that the holder has are left alone.
    ///
    /// # Errors
    /// [`DeviceError::System`] if the mount table can't be read, [`DeviceError::Holder`] if the
    /// holder can't be asked. What fails for one device only is in [`Swept::failed`].
    pub fn sweep(&self) -> Result<Swept, DeviceError> {
        let held: Vec<String> = match self.holder() {
            Some(holder) => holder.list()?.into_iter().map(|held| held.name).collect(),
            None => Vec::new(),
        };
        let mut swept = Swept::default();
        let mounts = Mounted::all(FSTYPE)
            .map_err(|source| DeviceError::system("reading", "/proc/self/mountinfo", source))?;
        for mounted in mounts {
            let name = match mounted.point.strip_prefix(&self.directory).ok().and_then(Path::to_str)
            {
                Some(name) if !name.is_empty() && !name.contains('/') => name.to_owned(),
                _ => continue,
            };
            if held.contains(&name) {
                continue;
            }
            match abort_and_release(&mounted) {
                Ok(false) => swept.cleaned.push(name),
                Ok(true) => swept.lingering.push(name),
                Err(error) => swept.failed.push((name, error)),
            }
        }
        Ok(swept)
    }
}

impl DeviceHost for LoopHost {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Loop
    }

    fn change_holder(&self, holder: Arc<HolderClient>) {
        *self.holder.lock() = Some(holder);
    }

    fn attach(
        &self,
        name: &str,
        io: Arc<dyn BlockIo>,
        _read_only: bool,
        note: Vec<u8>,
    ) -> Result<Arc<dyn Device>, DeviceError> {
        let options = LoopOptions { note, ..LoopOptions::default() };
        Ok(Arc::new(Self::attach(self, name, io, &options)?))
    }

    fn held(&self) -> Result<Vec<(String, Vec<u8>)>, DeviceError> {
        Self::held(self)
    }

    fn resume(&self, name: &str, io: Arc<dyn BlockIo>) -> Result<Arc<dyn Device>, DeviceError> {
        Ok(Arc::new(Self::resume(self, name, io)?))
    }

    fn abandon(&self, name: &str) -> Result<bool, DeviceError> {
        Self::abandon(self, name)
    }

    fn sweep(&self) -> Result<Swept, DeviceError> {
        Self::sweep(self)
    }
}

fn channels(fds: Vec<OwnedFd>, forwarded: bool) -> Vec<Channel> {
    let channel = if forwarded { Channel::forwarded } else { Channel::Kernel };
    fds.into_iter().map(channel).collect()
}

fn mounted_at(point: &Path) -> Result<Option<Mounted>, DeviceError> {
    Mounted::at(FSTYPE, point)
        .map_err(|source: io::Error| DeviceError::system("reading", "/proc/self/mountinfo", source))
}

fn gone(name: &str, missing: &'static str) -> DeviceError {
    DeviceError::Gone { name: name.to_owned(), missing }
}
