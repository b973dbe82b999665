//! Why a file system could not be mounted or served.

use std::io;
use std::path::PathBuf;

/// Every error of this crate but those of single requests, which are errnos.
#[derive(Debug, thiserror::Error)]
pub enum FuseError {
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
    /// The kernel's side of the session said something unexpected.
    #[error("the kernel's FUSE handshake failed: {reason}")]
    Handshake {
        /// What was wrong.
        reason: &'static str,
    },
}

impl FuseError {
    /// A failed system call.
    pub(crate) fn system(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::System { action, path: path.into(), source: source.into() }
    }
}
