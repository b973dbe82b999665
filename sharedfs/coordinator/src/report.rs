//! What people are told of a coordinator.

use mooring_sharedfs_core::file::Lost;
use mooring_sharedfs_core::format::SessionRow;
use mooring_sharedfs_core::sessions::EndReason;
use mooring_sharedfs_core::{Damage, FsError, SessionId};
use mooring_sharedfs_store::StoreError;

use crate::slices::SliceError;

/// Something that has happened.
#[derive(Debug)]
pub enum Report {
    /// The volume was empty: there is a file system on it now.
    Formatted,
    /// The tree is open.
    Opened {
        /// How many batches of the journal were replayed.
        replayed: u64,
        /// How many sessions of the coordinator before have to reclaim.
        sessions: usize,
    },
    /// After a power cut of all replicas: this part of a file was committed and never flushed.
    Lost(Lost),
    /// After a power cut of all replicas: this could not be written, for want of space in a pool. The file
    /// shows bytes again there that it had given up.
    NotMended(Lost),
    /// The grace period is over.
    Serving,
    /// A session is over.
    Ended(SessionId, Option<SessionRow>, EndReason),
    /// A structure on the volume is not what it must be.
    Damaged(Damage),
    /// It has stopped, for good.
    Stopped(Stopped),
}

/// Why a coordinator has stopped.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// It was asked to.
    #[error("it was asked to stop")]
    Asked,
    /// Another attachment has followed, or this one was taken away.
    #[error("the attachment is over")]
    Fenced,
    /// A slice failed.
    #[error("a slice failed: {0}")]
    Slice(SliceError),
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
    /// The tree can't be read, or is damaged where nothing can go on.
    #[error("the tree failed: {0}")]
    Tree(FsError),
    /// There is something on the volume that is no shared file system.
    #[error("the volume holds something else than a shared file system")]
    Foreign,
    /// The volume, or its slices, are too small for a file system.
    #[error("the volume or its slices are too small for a shared file system")]
    TooSmall,
}

impl From<SliceError> for Stopped {
    fn from(error: SliceError) -> Self {
        match error {
            SliceError::Fenced => Self::Fenced,
            other => Self::Slice(other),
        }
    }
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<FsError> for Stopped {
    fn from(error: FsError) -> Self {
        Self::Tree(error)
    }
}

/// Who is told. Called on the coordinator's thread: never waits.
pub trait Observer: Send + Sync + 'static {
    /// Takes a report.
    fn report(&self, report: Report);
}
