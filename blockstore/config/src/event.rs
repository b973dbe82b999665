//! The ring of events: what was changed, by whom, when.

use std::fmt;

use mooring_terms::{NodeId, PoolId, SliceId, VolumeId};
use serde::{Deserialize, Serialize};

use crate::{ChangeReason, ClusterVersion, UnixMillis};

/// On whose behalf a command is proposed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The node that it came through.
    pub node: Option<NodeId>,
    /// A user of the API (the name of a token, `root` on the unix socket), or `mooring` for what the
    /// system does by itself.
    pub name: String,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Dense, never restarted: a follower sees whether it missed some.
    pub number: u64,
    /// When.
    pub at: UnixMillis,
    /// By whom.
    pub by: Actor,
    /// What.
    pub what: What,
}

/// What happened. Names are those of that time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// The cluster began.
    ClusterCreated {
        /// Its name.
        name: String,
    },
    /// A node was admitted.
    NodeAdmitted {
        /// The node.
        node: NodeId,
        /// Its name.
        name: String,
    },
    /// A node's daemon started; the attachments given up.
    NodeStarted {
        /// The node.
        node: NodeId,
        /// The volumes.
        released: Vec<VolumeId>,
    },
    /// A node's labels changed.
    NodeLabelled {
        /// The node.
        node: NodeId,
    },
    /// A node is drained, or no longer.
    NodeDrain {
        /// The node.
        node: NodeId,
        /// Whether it is.
        drain: bool,
    },
    /// A node was removed.
    NodeRemoved {
        /// The node.
        node: NodeId,
        /// Its name.
        name: String,
    },
    /// The cluster's version was raised.
    VersionRaised {
        /// To what.
        version: ClusterVersion,
    },
    /// A credential was made, ended or rotated.
    Credential {
        /// Which.
        which: String,
    },
    /// A pool was added.
    PoolAdded {
        /// The pool.
        pool: PoolId,
        /// Its node.
        node: NodeId,
        /// Its path.
        path: String,
    },
    /// A pool was opened anew.
    PoolOpened {
        /// The pool.
        pool: PoolId,
    },
    /// A pool has failed.
    PoolFailed {
        /// The pool.
        pool: PoolId,
        /// Why.
        reason: String,
    },
    /// A pool is drained, or no longer.
    PoolDrain {
        /// The pool.
        pool: PoolId,
        /// Whether it is.
        drain: bool,
    },
    /// A pool was removed.
    PoolRemoved {
        /// The pool.
        pool: PoolId,
    },
    /// A volume was created.
    VolumeCreated {
        /// The volume.
        volume: VolumeId,
        /// Its name.
        name: String,
    },
    /// A volume was removed.
    VolumeRemoved {
        /// The volume.
        volume: VolumeId,
        /// Its name.
        name: String,
        /// By force.
        forced: bool,
    },
    /// A volume grew.
    VolumeResized {
        /// The volume.
        volume: VolumeId,
        /// Bytes.
        size: u64,
    },
    /// A volume's settings changed.
    VolumeSet {
        /// The volume.
        volume: VolumeId,
    },
    /// A volume was attached; who lost it.
    Attached {
        /// The volume.
        volume: VolumeId,
        /// To whom.
        node: NodeId,
        /// Who was fenced.
        fenced: Option<NodeId>,
        /// By force.
        forced: bool,
    },
    /// A volume was detached.
    Detached {
        /// The volume.
        volume: VolumeId,
        /// From whom.
        node: NodeId,
        /// By force.
        forced: bool,
    },
    /// Slices changed their configuration, all for one reason.
    SlicesChanged {
        /// Why.
        reason: ChangeReason,
        /// How many.
        count: u32,
        /// The first of them.
        first: SliceId,
    },
    /// Every in-sync replica of the slice was restarted: acknowledged writes that were not flushed
    /// may be gone.
    TailLost {
        /// The slice.
        slice: SliceId,
    },
    /// Replicas were placed.
    ReplicasAssigned {
        /// How many.
        count: u32,
        /// The first slice.
        first: SliceId,
    },
    /// Replicas were taken away.
    ReplicasRemoved {
        /// How many.
        count: u32,
        /// The first slice.
        first: SliceId,
    },
    /// An operator declared a loss.
    LossAccepted {
        /// The volume.
        volume: VolumeId,
        /// Whose replicas go on.
        from: NodeId,
    },
}

impl Actor {
    /// The system itself, on `node`.
    #[must_use]
    pub fn system(node: NodeId) -> Self {
        Self { node: Some(node), name: "mooring".to_owned() }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let draining =
            |drain: bool| if drain { "is being drained" } else { "takes replicas again" };
        let forced = |forced: bool| if forced { " by force" } else { "" };
        match self {
            Self::ClusterCreated { name } => write!(f, "cluster {name} created"),
            Self::NodeAdmitted { node, name } => write!(f, "node {name} admitted as {node}"),
            Self::NodeStarted { node, released } if released.is_empty() => {
                write!(f, "node {node} started")
            }
            Self::NodeStarted { node, released } => {
                write!(f, "node {node} started and gave up {} attachments", released.len())
            }
            Self::NodeLabelled { node } => write!(f, "labels of node {node} changed"),
            Self::NodeDrain { node, drain } => write!(f, "node {node} {}", draining(*drain)),
            Self::NodeRemoved { node, name } => write!(f, "node {name} ({node}) removed"),
            Self::VersionRaised { version } => write!(f, "cluster version raised to {version}"),
            Self::Credential { which } => write!(f, "{which}"),
            Self::PoolAdded { pool, node, path } => {
                write!(f, "pool {pool} added: {path} on node {node}")
            }
            Self::PoolOpened { pool } => write!(f, "pool {pool} opened"),
            Self::PoolFailed { pool, reason } => write!(f, "pool {pool} failed: {reason}"),
            Self::PoolDrain { pool, drain } => write!(f, "pool {pool} {}", draining(*drain)),
            Self::PoolRemoved { pool } => write!(f, "pool {pool} removed"),
            Self::VolumeCreated { name, .. } => write!(f, "volume {name} created"),
            Self::VolumeRemoved { name, forced: by, .. } => {
                write!(f, "volume {name} removed{}", forced(*by))
            }
            Self::VolumeResized { volume, size } => {
                write!(f, "volume {volume} grown to {size} bytes")
            }
            Self::VolumeSet { volume } => write!(f, "settings of volume {volume} changed"),
            Self::Attached { volume, node, fenced, forced: by } => {
                write!(f, "volume {volume} attached to node {node}{}", forced(*by))?;
                fenced.map_or(Ok(()), |old| write!(f, "; node {old} is fenced"))
            }
            Self::Detached { volume, node, forced: by } => {
                write!(f, "volume {volume} detached from node {node}{}", forced(*by))
            }
            Self::SlicesChanged { reason, count, first } => {
                write!(f, "{count} slices changed ({reason:?}), first {first}")
            }
            Self::TailLost { slice } => {
                write!(f, "all replicas of {slice} were restarted: unflushed writes may be gone")
            }
            Self::ReplicasAssigned { count, first } => {
                write!(f, "{count} replicas placed, first of {first}")
            }
            Self::ReplicasRemoved { count, first } => {
                write!(f, "{count} replicas taken away, first of {first}")
            }
            Self::LossAccepted { volume, from } => {
                write!(f, "loss accepted: volume {volume} goes on from node {from}")
            }
        }
    }
}
