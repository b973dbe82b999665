//! One attached loop device.
#![allow(clippy::disallowed_methods, reason = "waits for the kernel, in real time")]

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, OFlags, StatxFlags, statx};

use super::blob::Blob;
use super::control::{self, LOOP_MAJOR};
use crate::fuse::{FILE_NAME, Session};
use crate::holder::{HolderClient, HolderError, Mode};
use crate::{Device, DeviceError, DeviceKind, DeviceStats, users};
use mooring_fuse::Mounted;

/// How long the kernel may take to let go of the backing file once nobody has the device open.
const CLEAR_WAIT: Duration = Duration::from_millis(200);

const POLL: Duration = Duration::from_millis(5);

/// A loop device over a FUSE file, served by this process.
///
/// ```text
///   Attached ──detach──> Detached
///      └──fail──> Failed ──detach / detach_forced──> Detached
/// ```
pub struct LoopDevice {
    parts: Parts,
    path: PathBuf,
    state: Mutex<State>,
}

/// What a device is made of.
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) number: u32,
    pub(super) mounted: Mounted,
    pub(super) session: Arc<Session>,
    pub(super) blob: Blob,
    pub(super) holder: Mutex<Option<Arc<HolderClient>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Attached,
    Failed,
    Detached,
}

impl LoopDevice {
    pub(super) fn new(parts: Parts) -> Self {
        Self { path: control::node(parts.number), parts, state: Mutex::new(State::Attached) }
    }

    /// The name it was attached under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.parts.name
    }

    /// The block device's node.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the file beneath the loop device is mounted.
    #[must_use]
    pub fn mount_point(&self) -> &Path {
        &self.parts.mounted.point
    }

    fn system(&self, action: &'static str, source: impl Into<io::Error>) -> DeviceError {
        DeviceError::system(action, &self.path, source)
    }

    /// Whether the loop device is (still) the one that stands on our file.
    fn is_ours(&self) -> Result<bool, DeviceError> {
        is_backed_by(self.parts.number, &self.parts.mounted)
            .map_err(|source| self.system("examining", source))
    }

    /// Makes sure that nobody else uses the block device, and that it has written what it cached.
    fn claim_and_flush(&self) -> Result<(), DeviceError> {
        let number = self.parts.number;
        users::claim_and_flush(&self.path, (LOOP_MAJOR, number), || {
            control::open(number, OFlags::RDWR | OFlags::EXCL)
        })
        .map(drop)
    }

    /// See [`release`]. On a machine with many loop devices it is slow to look for ours.
    fn release(&self) -> Result<bool, DeviceError> {
        release(&self.parts.mounted, vec![self.parts.number])
    }

    /// What follows when the loop device is gone, or as good as gone.
    fn forget(&self, state: &mut State) -> Result<(), DeviceError> {
        *state = State::Detached;
        let holder = self.parts.holder.lock();
        match holder.as_ref().map(|holder| holder.forget(&self.parts.name)) {
            // A holder that has ended keeps nothing.
            Some(Err(HolderError::Broken { source })) => {
                tracing::warn!(device = self.parts.name, %source, "the holder is gone");
                Ok(())
            }
            Some(other) => Ok(other?),
            None => Ok(()),
        }
    }

    /// Gives up the kernel's side: all that waits gets an error, whatever this process does.
    fn abort(&self) -> Result<bool, DeviceError> {
        let mounted = &self.parts.mounted;
        let aborted = mounted
            .abort()
            .map_err(|source| DeviceError::system("aborting", &mounted.point, source))?;
        if !aborted {
            // Somebody has unmounted it. The session answers with errors all the same.
            tracing::warn!(device = self.parts.name, "not mounted; only the session fails");
        }
        Ok(aborted)
    }
}

impl Device for LoopDevice {
    fn block_device(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn address(&self) -> String {
        self.path.display().to_string()
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind::Loop
    }

    fn size_bytes(&self) -> u64 {
        let size =
            || control::size_bytes(control::open(self.parts.number, OFlags::RDONLY)?.as_fd());
        size().unwrap_or(0)
    }

    fn is_serving(&self) -> bool {
        self.parts.session.is_serving()
    }

    fn grow(&self) -> Result<u64, DeviceError> {
        let state = self.state.lock();
        if *state != State::Attached {
            let (name, missing) = (self.parts.name.clone(), "the attached device");
            return Err(DeviceError::Gone { name, missing });
        }
        let size = self.parts.session.grow();
        let file = self.parts.mounted.point.join(FILE_NAME);
        // Asking with FORCE_SYNC makes the kernel ask us, and believe the answer.
        statx(rustix::fs::CWD, &file, AtFlags::STATX_FORCE_SYNC, StatxFlags::SIZE)
            .map_err(|source| DeviceError::system("examining", &file, source))?;
        let device = control::open(self.parts.number, OFlags::RDWR)
            .map_err(|source| self.system("opening", source))?;
        control::take_over_size(device.as_fd()).map_err(|source| self.system("growing", source))?;
        Ok(size)
    }

    fn detach(&self) -> Result<(), DeviceError> {
        let mut state = self.state.lock();
        if *state == State::Detached {
            return Ok(());
        }
        if self.is_ours()? {
            match self.claim_and_flush() {
                // A failed device can't be flushed, and has nothing that could still be saved.
                Err(DeviceError::System { .. }) if *state == State::Failed => {}
                other => other?,
            }
        }
        self.release()?;
        self.forget(&mut state)?;
        tracing::info!(device = self.parts.name, "detached");
        Ok(())
    }

    fn fail(&self) -> Result<(), DeviceError> {
        // Not under the lock: a detach may be waiting for the very I/O that fails here. The kernel's
        // side first: it waits for nobody, while an answer may have to pass a holder that is stopped.
        let aborted = self.abort();
        self.parts.session.fail(matches!(aborted, Ok(true)));
        aborted?;
        let mut state = self.state.lock();
        if *state == State::Attached {
            *state = State::Failed;
        }
        tracing::warn!(device = self.parts.name, "failed: all I/O gets errors");
        Ok(())
    }

    fn detach_forced(&self) -> Result<(), DeviceError> {
        self.fail()?;
        let mut state = self.state.lock();
        if *state == State::Detached {
            return Ok(());
        }
        if self.release()? {
            tracing::warn!(device = self.parts.name, path = %self.path.display(), "still open; it goes with its last user");
        }
        self.forget(&mut state)
    }

    fn keep_with(&self, holder: &Arc<HolderClient>) -> Result<bool, DeviceError> {
        // A forwarded device's I/O has ended with its holder.
        let gone = |missing| DeviceError::Gone { name: self.parts.name.clone(), missing };
        let state = self.state.lock();
        if self.parts.holder.lock().as_ref().is_some_and(|keeps| Arc::ptr_eq(keeps, holder)) {
            return Ok(false);
        }
        if *state == State::Detached {
            return Err(gone("the attached device"));
        }
        let fds =
            self.parts.session.kernel_fds().ok_or(gone("the holder that forwarded its I/O"))?;
        holder.keep(&self.parts.name, &self.parts.blob.encode(), &fds, Mode::Keep)?;
        *self.parts.holder.lock() = Some(holder.clone());
        Ok(true)
    }

    fn stats(&self) -> DeviceStats {
        self.parts.session.stats()
    }
}

/// Whether loop device `number` stands on the file of `mounted`.
fn is_backed_by(number: u32, mounted: &Mounted) -> io::Result<bool> {
    Ok(control::backing(number)?.is_some_and(|backing| backing.device == mounted.encoded_device()))
}

/// [`release`], for what nobody serves: whoever waits gets an error first, so that nothing below
/// waits, too.
pub(super) fn abort_and_release(mounted: &Mounted) -> Result<bool, DeviceError> {
    mounted.abort().map_err(|source| DeviceError::system("aborting", &mounted.point, source))?;
    let candidates = control::candidates(&mounted.point.join(FILE_NAME), FILE_NAME)
        .map_err(|source| DeviceError::system("reading", "/sys/block", source))?;
    release(mounted, candidates)
}

/// Takes away those loop devices of `candidates` that stand on a mount, then the mount. Who still uses
/// one of them gets errors. Returns whether one is still open somewhere.
fn release(mounted: &Mounted, candidates: Vec<u32>) -> Result<bool, DeviceError> {
    let point = &mounted.point;
    let system = |action, source: io::Error| DeviceError::system(action, point, source);
    let mut lingering = false;
    for number in candidates {
        let path = control::node(number);
        let failed = |action, source| DeviceError::system(action, &path, source);
        if !is_backed_by(number, mounted).map_err(|source| failed("examining", source))? {
            continue;
        }
        let device =
            control::open(number, OFlags::RDWR).map_err(|source| failed("opening", source))?;
        control::clear(device.as_fd()).map_err(|source| failed("clearing", source))?;
        drop(device);
        lingering |= !is_cleared(number, mounted);
    }
    // No thread is left waiting in the kernel, nor in a copy of the mount in another namespace.
    mounted.abort().map_err(|source| system("aborting", source))?;
    mounted.unmount_lazily().map_err(|source| system("unmounting", source))?;
    match fs::remove_dir(point) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(system("removing", error)),
        _ => Ok(lingering),
    }
}

fn is_cleared(number: u32, mounted: &Mounted) -> bool {
    let deadline = Instant::now() + CLEAR_WAIT;
    loop {
        match is_backed_by(number, mounted) {
            Ok(false) => return true,
            _ if Instant::now() >= deadline => return false,
            _ => std::thread::sleep(POLL),
        }
    }
}
