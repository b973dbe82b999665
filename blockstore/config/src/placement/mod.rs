//! Placement: which pools hold a slice. Pure functions of the state and of hints.
//!
//! ```text
//!   VolumeSpec + ClusterState + Hints ──place──> a list of pools for each slice, primary first
//!                                     └──repair──> replicas to assign, take away, hand over
//! ```
//!
//! For each replica of a slice, in turn, the best of the pools that can take it is chosen; better is
//! (the first that differs decides):
//! 1. on a node that the volume names;
//! 2. in a region, then a zone, then a rack with fewer replicas of this slice;
//! 3. of the class asked for;
//! 4. apart from the volume's spread group, beside its gather group;
//! 5. relatively emptier, counting what was promised to volumes, not what they use;
//! 6. by a hash of (volume, slice, pool), so that equals take turns.
//!
//! Invariants: replicas of a slice never share a node; the same state and hints give the same pools,
//! whatever order nodes and pools came in; as many regions, and within them zones, are used as can
//! be. What is chosen here is written into the command: later versions may choose otherwise.

mod choose;
mod plan;
mod repair;

use std::collections::{BTreeMap, BTreeSet};

use mooring_terms::{ErrorKind, NodeId, PoolId};
use serde::{Deserialize, Serialize};

use crate::Class;
pub use choose::{Inventory, place};
pub use plan::{plan_create, plan_resize, plan_set};
pub use repair::{Repair, RepairLimits, repair};

/// What gossip says and Raft doesn't hold; all of it may be stale.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Nodes that are gone, as far as the proposer knows: nothing is placed there.
    pub gone: BTreeSet<NodeId>,
    /// Bytes free in a pool. A pool that isn't named is taken for empty enough.
    pub free: BTreeMap<PoolId, u64>,
}

/// Why there is no place for the replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoPlacement {
    /// How many replicas need a place.
    pub wanted: u32,
    /// The names of the nodes that could take one each.
    pub usable: Vec<String>,
    /// The other nodes' names, and what is wrong with each.
    pub unusable: Vec<(String, Unusable)>,
    /// The class that is required, if one is.
    pub class: Option<Class>,
}

/// Why a node takes no replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Unusable {
    /// It has no pool.
    NoPool,
    /// It is drained.
    Draining,
    /// It does not answer.
    Gone,
    /// Its pools are failed or drained.
    PoolsUnusable,
    /// Its pools are of another class.
    OtherClass,
    /// Its pools are full.
    Full,
    /// It was named, and has no row.
    Unknown,
}

impl NoPlacement {
    /// What the caller must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        if self.unusable.iter().any(|(_, why)| *why == Unusable::Full) {
            ErrorKind::NoSpace
        } else {
            ErrorKind::Unavailable
        }
    }
}

impl std::fmt::Display for NoPlacement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plural = |count: usize, one: &str| {
            if count == 1 { one.to_owned() } else { format!("{one}s") }
        };
        let wanted = self.wanted as usize;
        let verb = if wanted == 1 { "needs" } else { "need" };
        write!(
            f,
            "{wanted} {} {verb} {wanted} {}",
            plural(wanted, "replica"),
            plural(wanted, "node")
        )?;
        write!(f, " with usable pools")?;
        if let Some(class) = self.class {
            write!(f, " of class {class}")?;
        }
        match self.usable.as_slice() {
            [] => write!(f, "; there is none")?,
            [one] => write!(f, "; only {one} has one")?,
            some => write!(f, "; {} have one: {}", some.len(), some.join(", "))?,
        }
        if !self.unusable.is_empty() {
            let each: Vec<_> =
                self.unusable.iter().map(|(name, why)| format!("{name} {why}")).collect();
            write!(f, " ({})", each.join("; "))?;
        }
        write!(f, ": add a pool or a node, or ask for fewer replicas")
    }
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoPool => "has no pool",
            Self::Draining => "is being drained",
            Self::Gone => "does not answer",
            Self::PoolsUnusable => "has only failed or draining pools",
            Self::OtherClass => "has pools of another class only",
            Self::Full => "has only full pools",
            Self::Unknown => "is no node of this cluster",
        })
    }
}
