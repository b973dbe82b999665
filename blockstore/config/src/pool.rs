//! Pools: where replicas lie.

use std::fmt;
use std::str::FromStr;

use mooring_terms::{Incarnation, NodeId, PoolId};
use serde::{Deserialize, Serialize};

use crate::UnixMillis;

/// One backing directory or block device of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its number, never given again.
    pub id: PoolId,
    /// The node it is on.
    pub node: NodeId,
    /// Its path there.
    pub path: String,
    /// How fast it is.
    pub class: Class,
    /// Whether the class was measured, not set by a person.
    pub class_measured: bool,
    /// Bytes it may use.
    pub size: u64,
    /// Its latest opening.
    pub incarnation: Incarnation,
    /// Whether it takes replicas.
    pub state: PoolState,
    /// When it was added.
    pub added: UnixMillis,
}

/// How fast a pool is; slowest first, so that "at least" is a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    /// Spinning disks, network disks.
    Low,
    /// SATA and shared flash.
    Medium,
    /// Local NVMe.
    High,
}

/// A word that names no class.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is no class: say high, medium or low")]
pub struct NotAClass {
    /// What was given.
    pub word: String,
}

/// Whether a pool takes replicas. A removed pool has no row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PoolState {
    /// Takes replicas.
    Ok,
    /// Takes none, and those it has are moved away.
    Draining,
    /// An I/O error or a failed sync: its replicas leave the in-sync sets. Opening it anew (with a
    /// new incarnation) makes it `Ok`.
    Failed {
        /// What happened, for people.
        reason: String,
        /// When it was reported.
        since: UnixMillis,
    },
}

impl Pool {
    /// The opening that counts: `None` when the pool has failed.
    #[must_use]
    pub fn opened(&self) -> Option<Incarnation> {
        match self.state {
            PoolState::Ok | PoolState::Draining => Some(self.incarnation),
            PoolState::Failed { .. } => None,
        }
    }

    /// Whether it takes new replicas.
    #[must_use]
    pub fn takes_replicas(&self) -> bool {
        self.state == PoolState::Ok
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        })
    }
}

impl FromStr for Class {
    type Err = NotAClass;

    fn from_str(word: &str) -> Result<Self, NotAClass> {
        match word {
            "low" => Ok(Self::Low),
            "medium" => Ok(Self::Medium),
            "high" => Ok(Self::High),
            _ => Err(NotAClass { word: word.to_owned() }),
        }
    }
}
