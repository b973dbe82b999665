//! The commands of the state machine, and its answers.
//!
//! A command is stored in the Raft log and must mean the same on every node and in every version:
//! variants and fields are only ever added at the end, and only used once the cluster version says
//! that every node knows them. What a choice needs that is not in the state (who is gone, how full a
//! pool is, random bits, the date) is put into the command by whoever proposes it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use mooring_terms::{AttachmentEpoch, Epoch, Incarnation, NodeId, PoolId, SliceId, VolumeId};
use serde::{Deserialize, Serialize};

use crate::slice::ChangeRefused;
use crate::{
    Actor, AttachMode, Boot, Class, ClusterVersion, Fingerprint, Labels, Refused, Rights, Role,
    Setting, SliceChange, SliceConfig, TokenHash, UnixMillis, VolumeRequest, VolumeSpec,
    WrappedKey,
};

/// A command with what goes around it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Names the proposal, so that it is applied once however often it is sent.
    pub id: ProposalId,
    /// When the leader took it.
    pub at: UnixMillis,
    /// On whose behalf.
    pub by: Actor,
    /// What to do.
    pub command: Command,
}

/// The name of a proposal: numbers of one start of one node grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProposalId {
    /// Who proposed it.
    pub node: NodeId,
    /// In which of its starts.
    pub boot: Boot,
    /// Which of that start's proposals.
    pub number: u64,
}

/// What the state machine can be told to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Begins the cluster; the first command of all.
    Create(Box<Genesis>),
    /// Admits a node that shows a join token.
    AdmitNode(Box<Admission>),
    /// A node's daemon has started.
    NodeStarted {
        /// The node.
        node: NodeId,
        /// Its start.
        boot: Boot,
        /// Where it listens.
        addresses: Vec<SocketAddr>,
        /// The newest cluster version it can write.
        version: ClusterVersion,
        /// The volumes whose devices its holder process still serves; all other attachments of
        /// earlier starts are given up.
        still_held: Vec<VolumeId>,
    },
    /// Sets (`Some`) and removes (`None`) labels of a node.
    LabelNode {
        /// The node.
        node: NodeId,
        /// The labels.
        labels: Vec<(String, Option<String>)>,
    },
    /// The leader has arranged the node's part in Raft.
    SetRole {
        /// The node.
        node: NodeId,
        /// Its part.
        role: Role,
    },
    /// Moves the node's replicas away, or stops doing so.
    DrainNode {
        /// The node.
        node: NodeId,
        /// Whether to drain.
        drain: bool,
    },
    /// Removes a node for good.
    RemoveNode {
        /// The node.
        node: NodeId,
        /// The leader finds it gone.
        gone: bool,
        /// Drop the replicas it has, where the volumes can spare them, and its attachments.
        force: bool,
        /// The gossip key from now on.
        gossip_key: [u8; 32],
    },
    /// How many voters there are to be.
    SetVoters(VoterCount),
    /// What nodes may write from now on.
    RaiseVersion(ClusterVersion),
    /// Creates a join token.
    CreateJoinToken {
        /// Its hash.
        hash: TokenHash,
        /// When it ends.
        expires: UnixMillis,
        /// How many nodes it admits.
        uses: u32,
    },
    /// Ends a join token.
    RevokeJoinToken {
        /// Its hash.
        hash: TokenHash,
    },
    /// Creates an API token.
    CreateApiToken {
        /// Its hash.
        hash: TokenHash,
        /// The name for the events; unique.
        name: String,
        /// What it may do.
        rights: Rights,
        /// When it ends.
        expires: Option<UnixMillis>,
    },
    /// Ends an API token.
    RevokeApiToken {
        /// Its name.
        name: String,
    },
    /// Replaces the wrapped CA key.
    SetCaKey(WrappedKey),
    /// Adds a gossip key, which is used from now on.
    RotateGossipKey([u8; 32]),
    /// Adds a pool.
    AddPool {
        /// The node.
        node: NodeId,
        /// Its path there.
        path: String,
        /// Bytes it may use.
        size: u64,
        /// Its class.
        class: Class,
        /// Whether the class was measured.
        measured: bool,
        /// Its first opening.
        incarnation: Incarnation,
    },
    /// A pool has been opened anew.
    PoolOpened {
        /// The pool.
        pool: PoolId,
        /// The opening.
        incarnation: Incarnation,
        /// Bytes it may use now.
        size: u64,
    },
    /// Sets a pool's class.
    SetPoolClass {
        /// The pool.
        pool: PoolId,
        /// Its class.
        class: Class,
        /// Whether it was measured.
        measured: bool,
    },
    /// A pool has failed.
    PoolFailed {
        /// The pool.
        pool: PoolId,
        /// The opening that failed; a later one is not concerned.
        incarnation: Incarnation,
        /// What happened, for people.
        reason: String,
    },
    /// Moves the pool's replicas away, or stops doing so.
    DrainPool {
        /// The pool.
        pool: PoolId,
        /// Whether to drain.
        drain: bool,
    },
    /// Removes a pool.
    RemovePool {
        /// The pool.
        pool: PoolId,
        /// Drop the replicas it has, where the volumes can spare them.
        force: bool,
    },
    /// Creates a volume. See [`crate::placement::plan_create`].
    CreateVolume {
        /// Its name.
        name: String,
        /// What was asked for: compared, if the volume exists.
        request: Box<VolumeRequest>,
        /// What came of it.
        spec: Box<VolumeSpec>,
        /// For each slice its pools, the primary's first. Chosen by the proposer, not here: the
        /// choice may differ between versions of the software, what Raft holds may not.
        placement: Vec<Vec<PoolId>>,
    },
    /// Removes a volume and its data.
    RemoveVolume {
        /// The volume.
        volume: VolumeId,
        /// Even while it is attached.
        force: bool,
    },
    /// Grows a volume. See [`crate::placement::plan_resize`].
    ResizeVolume {
        /// The volume.
        volume: VolumeId,
        /// Bytes.
        size: u64,
        /// The pools of each slice that is added.
        placement: Vec<Vec<PoolId>>,
    },
    /// Changes a volume in use.
    SetVolume {
        /// The volume.
        volume: VolumeId,
        /// What to change, all or nothing.
        settings: Vec<Setting>,
    },
    /// We have made the volume's file system.
    VolumeFormatted {
        /// The volume.
        volume: VolumeId,
        /// Under which attachment.
        epoch: AttachmentEpoch,
    },
    /// Changes slices, each by compare-and-set, each with an answer of its own.
    ChangeSlices {
        /// The changes.
        changes: Vec<SliceChange>,
        /// The nodes that the leader finds gone.
        gone: BTreeSet<NodeId>,
    },
    /// Gives slices new replicas (joining), each with an answer of its own.
    AssignReplicas(Vec<Assignment>),
    /// Takes replicas away, each with an answer of its own.
    RemoveReplicas(Vec<Removal>),
    /// Makes an older replica the history of a volume: a loss, declared.
    AcceptLoss {
        /// The volume.
        volume: VolumeId,
        /// The node whose replicas go on.
        from: NodeId,
        /// The nodes that the leader finds gone.
        gone: BTreeSet<NodeId>,
        /// Even while a better replica's node is there.
        force: bool,
    },
    /// Grants an attachment.
    Attach {
        /// The volume.
        volume: VolumeId,
        /// Who wants it: always the proposing node itself.
        node: NodeId,
        /// In which of its starts.
        boot: Boot,
        /// For what.
        mode: AttachMode,
        /// The leader finds the present holder gone. Set by the leader alone.
        holder_gone: bool,
        /// Take it over from a holder that is alive.
        force: bool,
    },
    /// Ends an attachment.
    Detach {
        /// The volume.
        volume: VolumeId,
        /// The attachment to end; `None` for whichever there is.
        epoch: Option<AttachmentEpoch>,
        /// Who asks.
        node: NodeId,
        /// Even if another node holds it.
        force: bool,
    },
}

/// What a cluster begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// Its id: 128 random bits.
    pub cluster: ClusterId,
    /// Its name, for people.
    pub name: String,
    /// The CA's certificate, DER.
    pub ca_certificate: Vec<u8>,
    /// The CA's key, wrapped.
    pub ca_key: WrappedKey,
    /// The first gossip key.
    pub gossip_key: [u8; 32],
    /// What nodes may write.
    pub version: ClusterVersion,
    /// The first node; it becomes node 1.
    pub first: NewNode,
}

/// A cluster's id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(pub [u8; 16]);

/// A node to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewNode {
    /// Its name.
    pub name: String,
    /// Where it listens, best first.
    pub addresses: Vec<SocketAddr>,
    /// Its key.
    pub fingerprint: Fingerprint,
    /// Its labels.
    pub labels: Labels,
    /// The newest cluster version it can write.
    pub version: ClusterVersion,
}

/// A node that asks to be admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The hash of the token it showed.
    pub token: TokenHash,
    /// The node.
    pub node: NewNode,
}

/// How many voters Raft is to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum VoterCount {
    /// 3 with three or more nodes, else 1.
    #[default]
    Auto,
    /// 1.
    One,
    /// 3.
    Three,
}

/// A replica to be: it begins as joining.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The slice.
    pub slice: SliceId,
    /// The pool.
    pub pool: PoolId,
}

/// A replica to be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// The slice.
    pub slice: SliceId,
    /// The epoch that the proposer knows.
    pub expected: Epoch,
    /// The node that holds the replica.
    pub node: NodeId,
}

/// What the state machine answers.
pub type Response = Result<Done, Refused>;

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Done {
    /// As asked; nothing more to say.
    Ok,
    /// The node that was admitted, now or earlier.
    Node(NodeId),
    /// The pool that was added.
    Pool(PoolId),
    /// The volume that was created.
    Volume {
        /// Its number.
        volume: VolumeId,
        /// Whether it existed already, as asked for.
        existed: bool,
    },
    /// The attachment granted.
    Attached {
        /// Its epoch.
        epoch: AttachmentEpoch,
        /// Who held the volume before and is fenced by this.
        fenced: Option<NodeId>,
    },
    /// One answer for each slice named, in their order.
    Slices(Vec<Result<Epoch, ChangeRefused>>),
    /// What the loss concerns.
    LossAccepted(Vec<Loss>),
    /// The attachments that ended because the node was restarted.
    Started {
        /// The volumes.
        released: Vec<VolumeId>,
    },
}

/// A slice whose history was cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// The slice.
    pub slice: SliceId,
    /// The configuration it had.
    pub before: SliceConfig,
    /// The epoch from now on.
    pub epoch: Epoch,
}

impl Command {
    /// Changes of slices, as whoever is not the leader proposes them.
    #[must_use]
    pub fn change_slices(changes: Vec<SliceChange>) -> Self {
        Self::ChangeSlices { changes, gone: BTreeSet::new() }
    }

    /// Whether it may be applied again without harm, so that its answer needs no remembering: each
    /// of its changes is a compare-and-set on an epoch, or repeating it changes nothing.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        matches!(
            self,
            Self::ChangeSlices { .. } | Self::AssignReplicas(_) | Self::RemoveReplicas(_)
        )
    }

    /// Whether `node` may propose this: what a node says about itself, only that node says.
    /// `holder_gone` and `gone` are the leader's to set, whatever the proposer wrote.
    #[must_use]
    pub fn may_be_proposed_by(
        &self,
        node: NodeId,
        pool_node: impl Fn(PoolId) -> Option<NodeId>,
    ) -> bool {
        match self {
            Self::NodeStarted { node: named, .. }
            | Self::AddPool { node: named, .. }
            | Self::Attach { node: named, .. }
            | Self::Detach { node: named, .. } => *named == node,
            Self::PoolOpened { pool, .. } | Self::PoolFailed { pool, .. } => {
                pool_node(*pool).is_none_or(|owner| owner == node)
            }
            Self::ChangeSlices { changes, .. } => changes.iter().all(|change| change.by == node),
            _ => true,
        }
    }

    /// A word for logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::AdmitNode(_) => "admit_node",
            Self::NodeStarted { .. } => "node_started",
            Self::LabelNode { .. } => "label_node",
            Self::SetRole { .. } => "set_role",
            Self::DrainNode { .. } => "drain_node",
            Self::RemoveNode { .. } => "remove_node",
            Self::SetVoters(_) => "set_voters",
            Self::RaiseVersion(_) => "raise_version",
            Self::CreateJoinToken { .. } => "create_join_token",
            Self::RevokeJoinToken { .. } => "revoke_join_token",
            Self::CreateApiToken { .. } => "create_api_token",
            Self::RevokeApiToken { .. } => "revoke_api_token",
            Self::SetCaKey(_) => "set_ca_key",
            Self::RotateGossipKey(_) => "rotate_gossip_key",
            Self::AddPool { .. } => "add_pool",
            Self::PoolOpened { .. } => "pool_opened",
            Self::SetPoolClass { .. } => "set_pool_class",
            Self::PoolFailed { .. } => "pool_failed",
            Self::DrainPool { .. } => "drain_pool",
            Self::RemovePool { .. } => "remove_pool",
            Self::CreateVolume { .. } => "create_volume",
            Self::RemoveVolume { .. } => "remove_volume",
            Self::ResizeVolume { .. } => "resize_volume",
            Self::SetVolume { .. } => "set_volume",
            Self::VolumeFormatted { .. } => "volume_formatted",
            Self::ChangeSlices { .. } => "change_slices",
            Self::AssignReplicas(_) => "assign_replicas",
            Self::RemoveReplicas(_) => "remove_replicas",
            Self::AcceptLoss { .. } => "accept_loss",
            Self::Attach { .. } => "attach",
            Self::Detach { .. } => "detach",
        }
    }
}

impl std::fmt::Display for ClusterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
