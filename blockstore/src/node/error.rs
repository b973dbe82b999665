//! What the node's block store can't do, and why.

use mooring_config::Refused;
use mooring_terms::{ErrorKind, NodeId, PoolId, VolumeId};

use crate::node_store::NodeStoreError;
use crate::pool_store::PoolStoreError;

/// Every error of this crate that reaches a person.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration refuses.
    #[error(transparent)]
    Refused(Refused),
    /// Raft can't be asked, or didn't answer.
    #[error(transparent)]
    Control(mooring_control::Error),
    /// A pool can't be made or opened.
    #[error(transparent)]
    Pool(#[from] PoolStoreError),
    /// The node's own facts.
    #[error(transparent)]
    Store(#[from] NodeStoreError),
    /// Keys, certificates, the port.
    #[error(transparent)]
    Transport(#[from] mooring_transport::Error),
    /// The join token is not one.
    #[error(transparent)]
    Token(#[from] mooring_transport::TokenError),
    /// The node that was asked to let us in refused.
    #[error("the cluster doesn't let this node in: {reason}")]
    JoinRefused {
        /// What it said.
        reason: String,
    },
    /// The cluster didn't sign.
    #[error("the cluster doesn't let this node in: {0}")]
    NotSigned(mooring_control::certificates::NotSigned),
    /// An answer from another node can't be understood.
    #[error("node {0} gave an answer that can't be read: is its software newer?")]
    Unreadable(NodeId),
    /// The volume is not in the local configuration.
    #[error("volume {0} is not known here")]
    UnknownVolume(VolumeId),
    /// The pool belongs to another cluster, or is another pool.
    #[error(
        "what lies at {path} is not pool {pool} of this cluster: was another disk mounted there? Nothing was touched"
    )]
    OtherPool {
        /// The path.
        path: String,
        /// The pool that should be there.
        pool: PoolId,
    },
    /// A pool of another cluster, or one that was in use before.
    #[error(
        "{path} holds a pool of another cluster, or one that was removed: nothing was touched. Wipe it first if it may go"
    )]
    ForeignPool {
        /// The path.
        path: String,
    },
    /// The node to be asked isn't there.
    #[error("node {0} does not answer")]
    Silent(NodeId),
}

impl NodeError {
    /// What the caller must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused(refused) => refused.kind(),
            Self::Control(error) => error.kind(),
            Self::Pool(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Transport(error) => error.kind(),
            Self::Token(_)
            | Self::JoinRefused { .. }
            | Self::OtherPool { .. }
            | Self::ForeignPool { .. } => ErrorKind::Invalid,
            Self::Unreadable(_) => ErrorKind::Fatal,
            Self::UnknownVolume(_) => ErrorKind::NotFound,
            Self::NotSigned(error) => error.kind(),
            Self::Silent(_) => ErrorKind::Unavailable,
        }
    }
}

impl From<mooring_control::Error> for NodeError {
    fn from(error: mooring_control::Error) -> Self {
        match error {
            mooring_control::Error::Refused(refused) => Self::Refused(refused),
            other => Self::Control(other),
        }
    }
}
