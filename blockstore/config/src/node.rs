//! Nodes, their labels and their standing.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use mooring_terms::NodeId;
use serde::{Deserialize, Serialize};

use crate::{ClusterVersion, Fingerprint, UnixMillis};

/// Labels of a node or a volume: `zone`, `rack` and `region` of a node steer placement, all others
/// are the user's.
pub type Labels = BTreeMap<String, String>;

/// A node's start: counts the starts of its daemon, so that a later start is known from an earlier
/// one. A node keeps the number beside its identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Boot(pub u64);

impl fmt::Debug for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "boot{}", self.0)
    }
}

/// One row of the node table: the row admits the node, and without it the node talks to no one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its number, never given again.
    pub id: NodeId,
    /// Its name, unique; a DNS label.
    pub name: String,
    /// Where it listens (TCP and UDP), best first.
    pub addresses: Vec<SocketAddr>,
    /// Its key. A certificate counts only with this fingerprint in it.
    pub fingerprint: Fingerprint,
    /// `zone`, `rack`, `region` and the user's own.
    pub labels: Labels,
    /// Its part in Raft, as the leader last arranged it.
    pub role: Role,
    /// Its latest start.
    pub boot: Boot,
    /// The newest cluster version its software can write.
    pub version: ClusterVersion,
    /// Whether it takes new replicas.
    pub state: NodeState,
    /// When it was admitted.
    pub admitted: UnixMillis,
}

/// A node's part in Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Votes, and holds the wrapping key of the CA.
    Voter,
    /// Follows.
    Learner,
}

/// Whether a node takes replicas. A removed node has no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodeState {
    /// Takes replicas.
    Active,
    /// Takes none, and those it has are moved away.
    Draining,
}

impl Node {
    /// The value of a label, if it has it.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }
}
