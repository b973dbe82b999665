//! The errors of the control plane.

use std::path::PathBuf;
use std::time::Duration;

use mooring_config::Refused;
use mooring_terms::{ErrorKind, NodeId};

use crate::rpc::RpcError;

/// Why the control plane could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state machine refused; nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// No majority of the voters answers. Nothing was changed, I/O on volumes goes on.
    #[error(
        "the configuration can't be changed: no leader with a majority for {} s{}; I/O goes on",
        waited.as_secs(),
        silent_voters(silent, *voters)
    )]
    NoQuorum {
        /// How many voters there are.
        voters: usize,
        /// The names of those that didn't answer.
        silent: Vec<String>,
        /// How long was waited.
        waited: Duration,
    },
    /// The command was handed over, and no answer came: it may have been applied, or be applied
    /// yet. Look (linearizably) before asking again.
    #[error(
        "no answer for {} s: whether the change was made is unknown{}; look before you try again",
        waited.as_secs(),
        silent_voters(silent, *voters)
    )]
    Unknown {
        /// How many voters there are.
        voters: usize,
        /// The names of those that didn't answer.
        silent: Vec<String>,
        /// How long was waited.
        waited: Duration,
    },
    /// This node has not joined a cluster, or its Raft has no members yet.
    #[error("this node belongs to no cluster yet")]
    NotMember,
    /// This node already belongs to a cluster.
    #[error("this node belongs to a cluster already")]
    AlreadyMember,
    /// A node did not answer a request.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Raft has stopped: its store failed, or it was shut down.
    #[error("the control plane of this node has stopped ({reason}); restart the daemon")]
    Stopped {
        /// What Raft says about it.
        reason: String,
    },
    /// A name under which the node may not be known.
    #[error("node {0} is not in the cluster's table")]
    UnknownNode(NodeId),
    /// The change of Raft's members was not made in time.
    #[error("Raft's members could not be changed: {reason}")]
    Members {
        /// What Raft says about it.
        reason: String,
    },
}

/// What is wrong with the store.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is damaged: its node must be removed and join anew, with another voter's copy.
    #[error(
        "{} is damaged ({what}): move it away and let this node join again; its replicas stay usable",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What doesn't fit.
        what: String,
    },
    /// The file belongs to another node.
    #[error("{} belongs to node {found}, this is node {expected}", path.display())]
    OtherNode {
        /// The file.
        path: PathBuf,
        /// The node that wrote it.
        found: NodeId,
        /// This node.
        expected: NodeId,
    },
    /// The file was written by newer software.
    #[error("{} has format {found}, this software knows up to {known}: upgrade it", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u8,
        /// The newest known.
        known: u8,
    },
    /// Another process has the file open.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Reading or writing failed; the store has stopped.
    #[error("{}: {what}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        what: String,
    },
}

impl Error {
    /// What the caller must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused(refused) => refused.kind(),
            Self::NoQuorum { .. } | Self::Unknown { .. } | Self::NotMember => {
                ErrorKind::Unavailable
            }
            Self::AlreadyMember => ErrorKind::Invalid,
            Self::Rpc(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Stopped { .. } => ErrorKind::Fatal,
            Self::UnknownNode(_) => ErrorKind::NotFound,
            Self::Members { .. } => ErrorKind::Retry,
        }
    }
}

impl StoreError {
    /// What the caller must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::OtherNode { .. } | Self::NewerFormat { .. } => ErrorKind::Invalid,
            Self::InUse { .. } => ErrorKind::Unavailable,
            Self::Io { .. } => ErrorKind::Fatal,
        }
    }
}

/// Who is missing, as the end of a clause.
fn silent_voters(silent: &[String], voters: usize) -> String {
    if silent.is_empty() {
        return String::new();
    }
    format!(" ({} of {voters} voters don't answer: {})", silent.len(), silent.join(", "))
}
