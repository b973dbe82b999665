//! A pool in a directory: one file an area.
//!
//! ```text
//!   superblock  checkpoint.0  checkpoint.1  lock  segment.00000000  segment.00000001  ...
//! ```
//! Segment files are made when they are first needed and keep their size. The lock file is held
//! with `flock`, which ends with the process however it dies.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use rustix::fs::{Advice, FallocateFlags, FlockOperation};

use super::{Area, Disk, drop_cached, start_write_out, write_all_at, write_zeros};
use crate::decode::segment_file;
use crate::{EngineError, Result, SegmentId};

/// A directory as a [`Disk`].
pub struct DirectoryDisk {
    path: PathBuf,
    /// Held for its lock.
    _lock: File,
    superblock: RwLock<Option<Arc<File>>>,
    checkpoints: [RwLock<Option<Arc<File>>>; 2],
    segments: RwLock<Vec<Option<Arc<File>>>>,
}

impl DirectoryDisk {
    /// Takes the directory at `path`, which is made if it doesn't exist (its parent must).
    ///
    /// # Errors
    /// [`EngineError::InUse`] if another process or another `DirectoryDisk` has it;
    /// [`EngineError::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |source| EngineError::Io { operation: "open", area: Area::Superblock, source };
        match std::fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(failed)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            if error == rustix::io::Errno::WOULDBLOCK {
                EngineError::InUse(path.display().to_string())
            } else {
                failed(error.into())
            }
        })?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
            superblock: RwLock::new(None),
            checkpoints: [RwLock::new(None), RwLock::new(None)],
            segments: RwLock::new(Vec::new()),
        })
    }

    /// The names of files in the directory that no pool would have put there.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn strangers(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let ours = matches!(
                name.as_str(),
                "superblock" | "checkpoint.0" | "checkpoint.1" | "lock" | "lost+found"
            ) || name.starts_with("segment.");
            if !ours {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn file_path(&self, area: Area) -> PathBuf {
        match area {
            Area::Superblock => self.path.join("superblock"),
            Area::Checkpoint(slot) => self.path.join(format!("checkpoint.{slot}")),
            Area::Segment(SegmentId(number)) => self.path.join(segment_file(SegmentId(number))),
        }
    }

    fn cached(&self, area: Area) -> Option<Arc<File>> {
        match area {
            Area::Superblock => self.superblock.read().clone(),
            Area::Checkpoint(slot) => self.checkpoints[usize::from(slot)].read().clone(),
            Area::Segment(SegmentId(number)) => {
                self.segments.read().get(number as usize).cloned().flatten()
            }
        }
    }

    fn file(&self, area: Area, create: bool) -> io::Result<Arc<File>> {
        if let Some(file) = self.cached(area) {
            return Ok(file);
        }
        let path = self.file_path(area);
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let file = match options.open(&path) {
            Err(error) if create && error.kind() == io::ErrorKind::NotFound => {
                let file = options.create(true).truncate(false).open(&path)?;
                // The name must be durable before anything durable refers to the file.
                File::open(&self.path)?.sync_all()?;
                file
            }
            other => other?,
        };
        let file = Arc::new(file);
        match area {
            Area::Superblock => *self.superblock.write() = Some(file.clone()),
            Area::Checkpoint(slot) => {
                *self.checkpoints[usize::from(slot)].write() = Some(file.clone());
            }
            Area::Segment(SegmentId(number)) => {
                // Random 4 KiB reads must not each read a window ahead; large reads are large by
                // themselves.
                let _ = rustix::fs::fadvise(&*file, 0, None, Advice::Random);
                let mut segments = self.segments.write();
                if segments.len() <= number as usize {
                    segments.resize(number as usize + 1, None);
                }
                segments[number as usize] = Some(file.clone());
            }
        }
        Ok(file)
    }
}

impl Disk for DirectoryDisk {
    fn read(&self, area: Area, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file(area, false)?.read_exact_at(out, offset)
    }

    fn write(&self, area: Area, offset: u64, parts: &[io::IoSlice<'_>]) -> io::Result<()> {
        write_all_at(&*self.file(area, true)?, offset, parts)
    }

    fn sync(&self, area: Area) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&*self.file(area, false)?)?)
    }

    fn prepare(&self, area: Area, bytes: u64, zero: bool) -> io::Result<()> {
        let file = self.file(area, true)?;
        let length = file.metadata()?.len();
        if length >= bytes {
            return Ok(());
        }
        rustix::fs::fallocate(&*file, FallocateFlags::empty(), 0, bytes)?;
        if zero {
            write_zeros(&file, length, bytes - length)?;
        }
        file.sync_all()
    }

    fn write_out(&self, area: Area, offset: u64, bytes: u64) {
        if let Some(file) = self.cached(area) {
            start_write_out(&file, offset, bytes);
        }
    }

    fn forget(&self, area: Area, offset: u64, bytes: u64) {
        if let Some(file) = self.cached(area) {
            drop_cached(&file, offset, bytes);
        }
    }

    fn length(&self, area: Area) -> io::Result<Option<u64>> {
        match self.file(area, false) {
            Ok(file) => Ok(Some(file.metadata()?.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn capacity(&self) -> io::Result<u64> {
        let fs = rustix::fs::statvfs(&self.path)?;
        Ok(fs.f_bavail.saturating_mul(fs.f_frsize))
    }
}
