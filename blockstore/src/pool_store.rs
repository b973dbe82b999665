//! Making and opening what a pool stands on, and whose it is.
//!
//! A pool carries its own name tag: the state of a replica of volume 0, which no user's volume ever
//! is. It tells which cluster and which pool this is, so that a disk that was swapped or not mounted
//! is never taken for another, and on which boot of the machine it was last opened, so that a
//! restarted daemon knows whether the kernel still has all that was handed to it.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mooring_engine::{
    DeviceDisk, DirectoryDisk, Disk, EngineError, FormatOptions, OpenOptions, OpenReport, Pool,
};
use mooring_terms::{Entry, ErrorKind, Incarnation, PoolId, SliceId};
use serde::{Deserialize, Serialize};

use crate::disk_watch::{Movement, WatchedDisk};
use crate::speed::{self, Speed};

/// Where the name tag lies.
const TAG: SliceId =
    SliceId { volume: mooring_terms::VolumeId(0), index: mooring_terms::SliceIndex(0) };

/// Of a directory's free space a pool takes nine tenths, unless told how much: the file system
/// under it has to live too.
const FREE_SHARE: (u64, u64) = (9, 10);

/// The smallest pool.
pub const POOL_MIN_BYTES: u64 = 1 << 30;

/// Whose pool this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// The cluster's id.
    pub cluster: [u8; 16],
    /// The pool's number in it.
    pub pool: PoolId,
    /// The machine's boot id when the pool was last opened.
    pub boot_id: String,
    /// The openings of the pool under that boot, since the last one that failed: newest last.
    pub openings: Vec<Incarnation>,
}

/// Openings of one boot that are kept in the tag.
const OPENINGS_KEPT: usize = 64;

impl Tag {
    /// The openings before this one since which the kernel has lost nothing, and the tag of a new
    /// opening. `failed` says that the last one ended in an I/O error: then the kernel may have
    /// dropped what it could not write.
    #[must_use]
    pub fn open_again(
        mut self,
        incarnation: Incarnation,
        failed: bool,
    ) -> (Vec<Incarnation>, Self) {
        let boot_id = boot_id();
        if failed || self.boot_id != boot_id || boot_id.is_empty() {
            self.openings.clear();
        }
        let kept = self.openings.clone();
        self.openings.push(incarnation);
        let excess = self.openings.len().saturating_sub(OPENINGS_KEPT);
        self.openings.drain(..excess);
        (kept, Self { boot_id, ..self })
    }
}

/// How a pool is opened.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// Bytes for map updates and cached map nodes together.
    pub memory_bytes: usize,
    /// Whether its maps may say how many blocks hold data: as the cluster's version allows.
    pub counts: bool,
}

/// A pool as it was found.
pub struct Opened {
    /// The engine.
    pub engine: Pool,
    /// Whose it is; `None` if it was formatted and never given to a cluster.
    pub tag: Option<Tag>,
    /// What opening it found.
    pub report: OpenReport,
    /// How fast it is, if that was measured now.
    pub speed: Option<Speed>,
    /// Whether its disk moves.
    pub movement: Arc<Movement>,
}

/// Told how long a measurement has been going on.
pub type Progress = dyn Fn(Duration) + Send + Sync;

/// What a pool lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// A directory of another file system.
    Directory,
    /// A whole block device.
    Device,
}

/// Why a pool can't be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum PoolStoreError {
    /// The path can't be looked at.
    #[error("can't use {} for a pool: {source}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The device holds something.
    #[error(
        "{} holds {holds}: nothing was touched. Give another device, or --force if it may be overwritten",
        path.display()
    )]
    Occupied {
        /// The device.
        path: PathBuf,
        /// What is on it.
        holds: String,
    },
    /// There is too little space.
    #[error(
        "{} has room for {available} bytes and a pool needs at least {POOL_MIN_BYTES}",
        path.display()
    )]
    TooSmall {
        /// The path.
        path: PathBuf,
        /// What is there.
        available: u64,
    },
    /// The size asked for isn't there.
    #[error("{} has room for {available} bytes, {asked} were asked for", path.display())]
    NoRoom {
        /// The path.
        path: PathBuf,
        /// What was asked for.
        asked: u64,
        /// What is there.
        available: u64,
    },
    /// The engine refuses.
    #[error("the pool {}: {source}", path.display())]
    Engine {
        /// The pool.
        path: PathBuf,
        /// Why.
        source: EngineError,
    },
    /// The tag can't be read.
    #[error("the pool {} carries a name tag that can't be read", .0.display())]
    Tag(PathBuf),
}

impl PoolStoreError {
    /// What the caller must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Path { .. } | Self::Occupied { .. } | Self::TooSmall { .. } => ErrorKind::Invalid,
            Self::NoRoom { .. } => ErrorKind::NoSpace,
            Self::Engine { source, .. } => source.kind(),
            Self::Tag(_) => ErrorKind::Corrupt,
        }
    }
}

/// What `path` is: a block device, or a directory (to be).
#[must_use]
pub fn backing(path: &Path) -> Backing {
    match fs::metadata(path) {
        Ok(metadata) if metadata.file_type().is_block_device() => Backing::Device,
        _ => Backing::Directory,
    }
}

/// Makes a pool at `path` unless one is there, and opens it. A device that holds something else is
/// refused unless `force`; a directory may hold other files, which are left alone. With `measure` the
/// storage is measured before the pool is made; one that is there already is not.
///
/// # Errors
/// [`PoolStoreError`]; nothing was changed then.
pub fn create(
    path: &Path,
    size: Option<u64>,
    force: bool,
    how: How,
    measure: Option<&Progress>,
) -> Result<Opened, PoolStoreError> {
    let engine = |source| PoolStoreError::Engine { path: path.to_owned(), source };
    let io = |source| PoolStoreError::Path { path: path.to_owned(), source };
    let (disk, available): (Arc<dyn Disk>, u64) = match backing(path) {
        Backing::Device => {
            let disk = DeviceDisk::open(path).map_err(engine)?;
            if let Some(holds) = disk.stranger().map_err(io)? {
                if !force {
                    return Err(PoolStoreError::Occupied {
                        path: path.to_owned(),
                        holds: holds.to_owned(),
                    });
                }
                disk.wipe().map_err(io)?;
            }
            let capacity = disk.capacity().map_err(io)?;
            (Arc::new(disk), capacity)
        }
        Backing::Directory => {
            fs::create_dir_all(path).map_err(io)?;
            let free = rustix::fs::statvfs(path).map_err(|error| io(error.into()))?;
            let free = free.f_bavail.saturating_mul(free.f_frsize);
            (
                Arc::new(DirectoryDisk::open(path).map_err(engine)?),
                free / FREE_SHARE.1 * FREE_SHARE.0,
            )
        }
    };
    match open_disk(path, Arc::clone(&disk), how) {
        Err(PoolStoreError::Engine { source: EngineError::NoPool, .. }) => {}
        found => return found,
    }
    let size_bytes = size.unwrap_or(available);
    if size_bytes > available {
        return Err(PoolStoreError::NoRoom { path: path.to_owned(), asked: size_bytes, available });
    }
    if size_bytes < POOL_MIN_BYTES {
        return Err(PoolStoreError::TooSmall { path: path.to_owned(), available: size_bytes });
    }
    let speed = measure.and_then(|progress| measured(path, size_bytes, progress));
    Pool::format(&*disk, &FormatOptions::new(size_bytes, crate::random::u64())).map_err(engine)?;
    Ok(Opened { speed, ..open_disk(path, disk, how)? })
}

/// Measures what a pool is about to be made on. What can't be measured can be a pool all the same.
fn measured(path: &Path, size: u64, progress: &Progress) -> Option<Speed> {
    let speed = match backing(path) {
        Backing::Device => speed::of_device(path, size, progress),
        Backing::Directory => speed::of_directory(path, progress),
    };
    speed
        .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "the pool's speed can't be measured"))
        .ok()
}

/// Opens the pool at `path`.
///
/// # Errors
/// [`PoolStoreError::Engine`] with `NoPool` if there is none.
pub fn open(path: &Path, how: How) -> Result<Opened, PoolStoreError> {
    let engine = |source| PoolStoreError::Engine { path: path.to_owned(), source };
    if let Err(source) = fs::metadata(path) {
        return Err(PoolStoreError::Path { path: path.to_owned(), source });
    }
    let disk: Arc<dyn Disk> = match backing(path) {
        Backing::Device => Arc::new(DeviceDisk::open(path).map_err(engine)?),
        Backing::Directory => Arc::new(DirectoryDisk::open(path).map_err(engine)?),
    };
    open_disk(path, disk, how)
}

fn open_disk(path: &Path, disk: Arc<dyn Disk>, how: How) -> Result<Opened, PoolStoreError> {
    let failed = |source| PoolStoreError::Engine { path: path.to_owned(), source };
    let How { memory_bytes, counts } = how;
    let opening = crate::random::u64();
    let options = OpenOptions { memory_bytes, counts, opening, ..OpenOptions::default() };
    let (disk, movement) = WatchedDisk::new(disk);
    let (engine, report) = Pool::open(Arc::new(disk), options).map_err(failed)?;
    let tag = match engine.replica(TAG) {
        Ok(info) => Some(
            postcard::from_bytes(&info.state).map_err(|_| PoolStoreError::Tag(path.to_owned()))?,
        ),
        Err(EngineError::NoReplica(_)) => None,
        Err(source) => return Err(failed(source)),
    };
    Ok(Opened { engine, tag, report, speed: None, movement })
}

/// Gives the pool its name tag, durably.
///
/// # Errors
/// [`PoolStoreError::Engine`].
pub fn tag(path: &Path, engine: &Pool, tag: &Tag) -> Result<(), PoolStoreError> {
    let failed = |source| PoolStoreError::Engine { path: path.to_owned(), source };
    let state = Bytes::from(postcard::to_stdvec(tag).expect("plain data encodes"));
    match engine.create(TAG, state.clone()) {
        Ok(()) => {}
        Err(EngineError::ReplicaExists(_)) => {
            engine.append(TAG, &[Entry::State(state)]).map_err(failed)?;
        }
        Err(source) => return Err(failed(source)),
    }
    engine.sync().map_err(failed)?;
    Ok(())
}

/// The replicas of volumes in a pool.
#[must_use]
pub fn replicas(engine: &Pool) -> Vec<SliceId> {
    engine.replicas().into_iter().filter(|slice| *slice != TAG).collect()
}

/// The machine's boot id: another one means that what the kernel had not written is gone.
#[must_use]
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}
