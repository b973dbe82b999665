//! The holder: a small process, one a node, that keeps what must outlive the daemon.
//!
//! ```text
//!   mountd ───unix socket, SCM_RIGHTS───> holder ───> /dev/fuse descriptors, each device's under its
//!     ✗ kill -9                             |         name, beside a small blob that it never reads
//!   mountd (restarted) <────the same────────┘
//! ```
//! It accepts, keeps and hands back descriptors; where the kernel can't send requests again (before
//! Linux 6.9) it also reads /dev/fuse and forwards, see `forward`.
//!
//! Rules:
//! - a name has at most one owner: the connection that kept or took it last and still stands. The
//!   kernel closes a dead process's connection after its last thread has left its last system call,
//!   so a successor that was given the name can't be raced by what is left of its predecessor;
//! - only root may talk to it (SO_PEERCRED), one holder serves one socket (a locked file), and what
//!   it doesn't understand costs the sender its connection, never the holder;
//! - it holds nothing of the daemon's but what it was given: it starts a session of its own, with
//!   all other descriptors closed. It stays in the daemon's control group, so the daemon's systemd
//!   unit must say `KillMode=process`, else a restart of the unit kills it and fails all devices;
//! - it ends when asked, or on SIGTERM, and only when it holds nothing (unless it is forced).

mod client;
mod entry;
mod fd_passing;
mod forward;
mod proto;
mod server;
mod spawn;

use std::io;
use std::path::PathBuf;

use mooring_terms::ErrorKind;

pub use client::{Held, HolderClient, Mode, Taken};
pub use proto::Refusal;
pub use server::run;
pub use spawn::ensure_running;

/// Why the holder could not be used.
#[derive(Debug, thiserror::Error)]
pub enum HolderError {
    /// Nothing listens there.
    #[error("no holder listens at {}: {source}", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It could not be started, or not in time.
    #[error("the holder at {} could not be started: {source}", socket.display())]
    Start {
        /// The socket.
        socket: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The connection broke, or something that isn't a holder answered.
    #[error("talking to the holder: {source}")]
    Broken {
        /// What went wrong.
        source: io::Error,
    },
    /// It refused.
    #[error("the holder refused: {0}")]
    Refused(Refusal),
    /// Another holder already serves this socket.
    #[error("another holder already serves {}", socket.display())]
    AlreadyRunning {
        /// The socket.
        socket: PathBuf,
    },
    /// Its socket could not be made or served.
    #[error("serving {}: {source}", socket.display())]
    Serve {
        /// The socket.
        socket: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

impl HolderError {
    /// What the caller must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotRunning { .. } | Self::Start { .. } | Self::Broken { .. } => {
                ErrorKind::Unavailable
            }
            Self::Refused(refusal) => refusal.kind(),
            Self::AlreadyRunning { .. } => ErrorKind::Invalid,
            Self::Serve { .. } => ErrorKind::Fatal,
        }
    }
}
