//! Why a device could not be made, changed or taken away.

use std::io;
use std::path::PathBuf;

use mooring_fuse::FuseError;
use mooring_terms::ErrorKind;

use crate::user::User;

/// Every error of this crate but those of single I/O requests ([`IoError`](crate::IoError)).
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The name can't be a directory's name.
    #[error("{name:?} is no name for a device: 1 to 200 bytes, no '/', no leading '.'")]
    Name {
        /// The name as given.
        name: String,
    },
    /// The kernel lacks something, or this process may not use it.
    #[error("{what} can't be used ({source}): {advice}")]
    Unsupported {
        /// What is missing.
        what: &'static str,
        /// What to do about it.
        advice: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A system call failed.
    #[error("{action} {}: {source}", path.display())]
    System {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The device is in use and can't be detached.
    #[error("{} is in use by {}", path.display(), list(users))]
    Busy {
        /// The block device.
        path: PathBuf,
        /// Who holds it; empty when only the kernel knows.
        users: Vec<User>,
    },
    /// A device of this name is already attached here.
    #[error("{} is already mounted: the device is attached, or a stale one was not swept", path.display())]
    AlreadyAttached {
        /// Where its file is mounted.
        path: PathBuf,
    },
    /// The holder has nothing of this name.
    #[error("the holder has no device named {name:?}")]
    NotHeld {
        /// The name asked for.
        name: String,
    },
    /// The device's connection or loop device is gone, so that it can't be resumed.
    #[error("the device {name:?} can't be resumed: {missing} is gone")]
    Gone {
        /// The device.
        name: String,
        /// What is no longer there.
        missing: &'static str,
    },
    /// Another live process serves this device.
    #[error("another process still serves {name:?}")]
    Owned {
        /// The device.
        name: String,
    },
    /// The device's file system could not be mounted.
    #[error(transparent)]
    Fuse(#[from] mooring_fuse::FuseError),
    /// The size is not a positive multiple of 4096.
    #[error(
        "a device of {bytes} bytes can't be made: the size must be a positive multiple of 4096"
    )]
    Size {
        /// The size.
        bytes: u64,
    },
    /// The holder process could not be reached, or refused.
    #[error(transparent)]
    Holder(#[from] crate::holder::HolderError),
}

impl DeviceError {
    /// What the caller must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Name { .. } | Self::Size { .. } | Self::AlreadyAttached { .. } => {
                ErrorKind::Invalid
            }
            Self::Busy { .. } | Self::Owned { .. } => ErrorKind::Retry,
            Self::NotHeld { .. } | Self::Gone { .. } => ErrorKind::NotFound,
            Self::Unsupported { .. }
            | Self::Fuse(FuseError::Unsupported { .. } | FuseError::Handshake { .. }) => {
                ErrorKind::Fatal
            }
            Self::System { .. } | Self::Fuse(FuseError::System { .. }) => ErrorKind::Unavailable,
            Self::Holder(error) => error.kind(),
        }
    }

    pub(crate) fn system(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::System { action, path: path.into(), source: source.into() }
    }
}

fn list(users: &[User]) -> String {
    if users.is_empty() {
        return "somebody who can't be seen from here (another container, or the kernel: swap, md, dm)".to_owned();
    }
    users.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
