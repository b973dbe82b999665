//! Shared volumes from processes beside the daemon: a mount's.
//!
//! ```text
//!   mount process                     daemons
//!   Client ── door (unix socket) ───> own node        who am I, who are the others; then like any other:
//!      │  └── links (TLS) ──────────> other nodes     requests to slices, replies
//!      └───── letters ──────────────> coordinator's node: Letters, Correspondent
//!   SharedVolume: read, write, discard, flush, versions
//! ```
//!
//! A mount: `Client::new`, letters once `Coordinator::met` is called, and when a letter has brought the
//! session, `Client::open`. A coordinator: `Node::open_coordinator`, wait until it serves, read what is on
//! the volume, `CoordinatorVolume::receive_letters`; a session is registered before its first letter is
//! answered, and fenced before anything of its is given away.
//!
//! A restart of the own daemon breaks one link and nothing else: the process has its node's identity
//! in memory, knows where the other nodes listen, and asks any of them how the cluster looks.
//!

mod client;
mod coordinator;
mod door;
mod letters;
mod links;
mod meet;
mod meeting;
pub(crate) mod proto;
mod shared;

use std::path::PathBuf;

use mooring_terms::{ErrorKind, VolumeId};

pub use client::Client;
pub use coordinator::CoordinatorVolume;
pub(crate) use coordinator::Fences;
pub(crate) use door::Door;
pub(crate) use letters::Desk;
pub use letters::{Correspondent, Letters};
pub use meeting::Coordinator;
pub use shared::{Answer, SharedVolume, Versions};

/// Why a client can't begin.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// There is no daemon.
    #[error("no daemon at {}: {source}", door.display())]
    NoDaemon {
        /// Its socket.
        door: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The daemon doesn't answer.
    #[error("the daemon at {} does not answer", door.display())]
    Silent {
        /// Its socket.
        door: PathBuf,
    },
    /// The daemon doesn't know the volume.
    #[error("there is no volume {0}")]
    UnknownVolume(VolumeId),
    /// The daemon gave no identity.
    #[error("the daemon does not say who this node is")]
    NoIdentity,
    /// The identity, or TLS.
    #[error(transparent)]
    Transport(#[from] mooring_transport::Error),
    /// No thread.
    #[error("no thread: {0}")]
    Resource(std::io::Error),
    /// A client has one session.
    #[error("the client has opened its volume already")]
    OpenedTwice,
}

impl RemoteError {
    /// What the caller must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoDaemon { .. } | Self::Silent { .. } => ErrorKind::Unavailable,
            Self::UnknownVolume(_) => ErrorKind::NotFound,
            Self::OpenedTwice => ErrorKind::Invalid,
            Self::NoIdentity | Self::Transport(_) | Self::Resource(_) => ErrorKind::Fatal,
        }
    }
}
