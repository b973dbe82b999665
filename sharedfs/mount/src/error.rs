//! Why a shared volume could not be mounted or unmounted.

use std::time::Duration;

/// Every error of this crate but those of single requests, which are errnos.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel's side.
    #[error(transparent)]
    Fuse(#[from] mooring_fuse::FuseError),
    /// A thread couldn't be started.
    #[error("starting a thread of the mount: {0}")]
    Thread(#[source] std::io::Error),
    /// umount(2) refused it.
    #[error("unmounting {point}: {source}", point = point.display())]
    Unmount {
        /// Where.
        point: std::path::PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// What was written could not be written back in time: the volume doesn't answer.
    #[error("not everything was written back within {0:?}")]
    NotWrittenBack(Duration),
}
