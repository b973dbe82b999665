//! Why a command was refused: each with what a person needs to know, and what to do.

use mooring_terms::{BLOCK_SIZE, ErrorKind, NodeId, PoolId, VolumeId};
use serde::{Deserialize, Serialize};

use crate::placement::NoPlacement;
use crate::request::Difference;
use crate::volume::{MAX_REPLICAS, MAX_SLICES, MAX_VOLUME_BYTES, MIN_VOLUME_BYTES};
use crate::{Boot, ChangeRefused, ClusterVersion};

/// Why a command was refused. The state is then as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    /// There is no cluster yet.
    #[error("this node belongs to no cluster yet: create one, or join one")]
    NotCreated,
    /// There is a cluster already.
    #[error("the cluster {name:?} exists already")]
    AlreadyCreated {
        /// Its name.
        name: String,
    },
    /// The proposer's number is too old to know whether it was applied before.
    #[error("whether this was done before is no longer known: look, then ask again if need be")]
    OutcomeForgotten,
    /// A name is no DNS label.
    #[error(
        "{name:?} can't be a name: 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// A label's key or value is too long or empty.
    #[error("the label {key:?} can't be: keys have 1 to 63 characters, values up to 255")]
    BadLabel {
        /// The label's key.
        key: String,
    },
    /// No such node.
    #[error("there is no node {0}")]
    NoNode(NodeId),
    /// No such pool.
    #[error("there is no pool {0}")]
    NoPool(PoolId),
    /// No such volume.
    #[error("there is no volume {0}")]
    NoVolume(VolumeId),
    /// No such token.
    #[error("there is no such token")]
    NoToken,
    /// A join token that was never given, was used up, or has ended.
    #[error(
        "the join token is unknown, used up or over: make a new one with `mountctl cluster token`"
    )]
    TokenUseless,
    /// The name is another node's.
    #[error(
        "the name {name:?} is taken by node {holder}: choose another, or remove that node first"
    )]
    NodeNameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        holder: NodeId,
    },
    /// The name is another API token's.
    #[error("there is an API token named {name:?} already")]
    TokenNameTaken {
        /// The name.
        name: String,
    },
    /// A command of an earlier start of a node.
    #[error("node {node} has started anew since ({current:?}, this is from {claimed:?})")]
    EarlierBoot {
        /// The node.
        node: NodeId,
        /// The start that the command names.
        claimed: Boot,
        /// The latest start.
        current: Boot,
    },
    /// The software is too old for the cluster.
    #[error(
        "this node writes version {supported}, and the cluster is at {cluster}: upgrade the node"
    )]
    VersionTooOld {
        /// The newest that the node can write.
        supported: ClusterVersion,
        /// The cluster's.
        cluster: ClusterVersion,
    },
    /// A node can't follow to the new version.
    #[error(
        "the cluster can't go to version {wanted}: node {node} can write only {supported}: upgrade it first"
    )]
    NodeTooOld {
        /// The version wanted.
        wanted: ClusterVersion,
        /// The node's name.
        node: String,
        /// The newest it can write.
        supported: ClusterVersion,
    },
    /// Versions only grow.
    #[error("the cluster is at version {current} and never goes back")]
    VersionGoesBack {
        /// The cluster's version.
        current: ClusterVersion,
    },
    /// The node holds replicas.
    #[error(
        "node {node} holds {replicas} replicas (of {}): drain it first with `mountctl node drain`, or force it if it is lost for good",
        volumes.join(", ")
    )]
    NodeHoldsReplicas {
        /// The node's name.
        node: String,
        /// How many.
        replicas: u64,
        /// Some of their volumes' names.
        volumes: Vec<String>,
    },
    /// The node has volumes attached.
    #[error("node {node} has volumes attached ({}): detach them first, or force it", volumes.join(", "))]
    NodeHasAttachments {
        /// The node's name.
        node: String,
        /// Some of the volumes' names.
        volumes: Vec<String>,
    },
    /// Volumes that would have too few in-sync replicas left.
    #[error(
        "{} can't spare the replicas on {holder}: bring their other replicas back, or let `mountctl volume accept-loss` or `rm` decide about them",
        volumes.join(", ")
    )]
    CannotSpare {
        /// The node's name or the pool's path.
        holder: String,
        /// Some of the volumes' names.
        volumes: Vec<String>,
    },
    /// The cluster's last node.
    #[error("a cluster can't lose its last node")]
    LastNode,
    /// The path is a pool already.
    #[error("{path} on node {node} is pool {pool} already")]
    PoolExists {
        /// The node's name.
        node: String,
        /// The path.
        path: String,
        /// The pool.
        pool: PoolId,
    },
    /// The pool holds replicas.
    #[error(
        "pool {pool} holds {replicas} replicas (of {}): drain it first with `mountctl node drain` or another pool, or force it if it is lost for good",
        volumes.join(", ")
    )]
    PoolHoldsReplicas {
        /// The pool.
        pool: PoolId,
        /// How many.
        replicas: u64,
        /// Some of their volumes' names.
        volumes: Vec<String>,
    },
    /// The volume exists, and is another one.
    #[error("volume {name:?} exists and differs: {}", list(differences))]
    VolumeExists {
        /// The name.
        name: String,
        /// In what it differs.
        differences: Vec<Difference>,
    },
    /// The specification can't be.
    #[error("{}", lines(faults))]
    BadVolume {
        /// Everything that is wrong.
        faults: Vec<Fault>,
    },
    /// A setting can't be read.
    #[error(
        "can't set {key}={value}: say replicas=N, min_in_sync=N|default, replace_after=10m, class=high|medium|low|any, io_timeout=30s|none or label.KEY=VALUE"
    )]
    BadSetting {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// Volumes only grow.
    #[error("volume {name:?} has {current} bytes and can't shrink to {asked}: a volume only grows")]
    Shrinks {
        /// The volume's name.
        name: String,
        /// Its size.
        current: u64,
        /// The size asked for.
        asked: u64,
    },
    /// The volume is attached.
    #[error("volume {name:?} is attached to node {holder}: detach it there first, or force it")]
    Attached {
        /// The volume's name.
        name: String,
        /// The holder's name.
        holder: String,
    },
    /// The attachment is another node's, or over.
    #[error("the attachment of volume {name:?} is not this one any more")]
    NotAttached {
        /// The volume's name.
        name: String,
    },
    /// No pools for the replicas.
    #[error("{0}")]
    NoPlacement(NoPlacement),
    /// The pools chosen are no longer what they were: choose again.
    #[error("pool {pool} can't take the replica any more; choose again")]
    PlacementStale {
        /// The pool.
        pool: PoolId,
    },
    /// The number or shape of the placement is not what the volume needs.
    #[error("the placement doesn't fit the volume; choose again")]
    PlacementShape,
    /// A slice could not be changed.
    #[error("{0}")]
    Slice(#[from] ChangeRefused),
    /// Nothing is lost: a better replica is there.
    #[error(
        "volume {name:?} still has in-sync replicas on {}: bring those back, or force it to lose what only they have",
        nodes.join(", ")
    )]
    NothingLost {
        /// The volume's name.
        name: String,
        /// The nodes' names.
        nodes: Vec<String>,
    },
    /// The node named holds no replica that could go on.
    #[error("node {node} holds no usable replica of volume {name:?}")]
    NoReplicaThere {
        /// The volume's name.
        name: String,
        /// The node's name.
        node: String,
    },
    /// The batch is too large for one entry.
    #[error("{count} changes are too many for one command: send at most {max}")]
    BatchTooLarge {
        /// How many were sent.
        count: u64,
        /// How many may be.
        max: u64,
    },
    /// A node speaks for another.
    #[error("node {0} may not propose this for another")]
    NotForItself(NodeId),
    /// The cluster's version is too old for what is asked.
    #[error(
        "this needs cluster version {needs}, and the cluster is at {cluster}: it rises by itself when every node's daemon is new enough"
    )]
    NotYet {
        /// The version that it takes.
        needs: ClusterVersion,
        /// The cluster's.
        cluster: ClusterVersion,
    },
    /// A shared volume's coordinator is elsewhere: the attachment follows slice 0's primary.
    #[error(
        "volume {name:?} is shared: its coordinator is on node {node}, and it is mounted, not attached"
    )]
    CoordinatedElsewhere {
        /// The volume's name.
        name: String,
        /// The name of the coordinator's node.
        node: String,
    },
}

/// One thing that is wrong with a volume's specification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Fault {
    /// Too small or too large.
    #[error("a volume of {size} bytes can't be: from {MIN_VOLUME_BYTES} to {MAX_VOLUME_BYTES}")]
    Size {
        /// Bytes.
        size: u64,
    },
    /// No whole blocks.
    #[error("{size} bytes are no whole blocks of {BLOCK_SIZE}")]
    NotBlocks {
        /// Bytes.
        size: u64,
    },
    /// A slice of no blocks, or beyond the largest.
    #[error("a slice can't have {blocks} blocks")]
    SliceBlocks {
        /// Blocks.
        blocks: u64,
    },
    /// Too many slices.
    #[error(
        "{slices} slices are too many: choose larger ones, so that there are at most {MAX_SLICES}"
    )]
    TooManySlices {
        /// How many.
        slices: u64,
    },
    /// No such number of replicas.
    #[error("{replicas} replicas can't be: from 1 to {MAX_REPLICAS}")]
    Replicas {
        /// How many.
        replicas: u32,
    },
    /// No such minimum.
    #[error("min_in_sync can't be {min} with {replicas} replicas: from 1 to {replicas}")]
    MinInSync {
        /// The minimum.
        min: u32,
        /// The replicas.
        replicas: u32,
    },
    /// More nodes named than replicas.
    #[error(
        "{nodes} nodes are named for {replicas} replicas: name fewer, or ask for more replicas"
    )]
    TooManyNodes {
        /// How many nodes.
        nodes: u32,
        /// How many replicas.
        replicas: u32,
    },
}

impl Refused {
    /// What the caller must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::PlacementStale { .. } | Self::OutcomeForgotten => ErrorKind::Retry,
            Self::EarlierBoot { .. } | Self::NotAttached { .. } => ErrorKind::Fenced,
            Self::NoNode(_) | Self::NoPool(_) | Self::NoVolume(_) | Self::NoToken => {
                ErrorKind::NotFound
            }
            Self::NotCreated => ErrorKind::Unavailable,
            Self::NoPlacement(reason) => reason.kind(),
            Self::Slice(reason) => match reason {
                ChangeRefused::NotFound(_) => ErrorKind::NotFound,
                ChangeRefused::EpochChanged { .. } => ErrorKind::Retry,
                ChangeRefused::TooFew { .. } => ErrorKind::Unavailable,
                ChangeRefused::StillThere { .. } => ErrorKind::Retry,
                ChangeRefused::UnknownMember { .. }
                | ChangeRefused::PrimaryNotInSync { .. }
                | ChangeRefused::NotEntitled { .. }
                | ChangeRefused::PrimaryNotLevel { .. }
                | ChangeRefused::IsPrimary { .. }
                | ChangeRefused::AlreadyPlaced { .. }
                | ChangeRefused::TakesNone { .. } => ErrorKind::Invalid,
            },
            Self::AlreadyCreated { .. }
            | Self::BadName { .. }
            | Self::BadLabel { .. }
            | Self::TokenUseless
            | Self::NodeNameTaken { .. }
            | Self::TokenNameTaken { .. }
            | Self::VersionTooOld { .. }
            | Self::NodeTooOld { .. }
            | Self::VersionGoesBack { .. }
            | Self::NodeHoldsReplicas { .. }
            | Self::NodeHasAttachments { .. }
            | Self::CannotSpare { .. }
            | Self::LastNode
            | Self::PoolExists { .. }
            | Self::PoolHoldsReplicas { .. }
            | Self::VolumeExists { .. }
            | Self::BadVolume { .. }
            | Self::BadSetting { .. }
            | Self::Shrinks { .. }
            | Self::Attached { .. }
            | Self::CoordinatedElsewhere { .. }
            | Self::PlacementShape
            | Self::NothingLost { .. }
            | Self::NoReplicaThere { .. }
            | Self::BatchTooLarge { .. }
            | Self::NotYet { .. }
            | Self::NotForItself(_) => ErrorKind::Invalid,
        }
    }
}

/// The faults, one after the other.
fn lines(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The differences, one after the other.
fn list(differences: &[Difference]) -> String {
    let one = |d: &Difference| format!("{} is {}, not {}", d.field, d.is, d.asked);
    differences.iter().map(one).collect::<Vec<_>>().join("; ")
}
