//! Slices and their replicas: what a volume is made of, and how level its copies are.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::name::NodeName;
use crate::pool::PoolId;
use crate::size::ByteSize;
use crate::span::Span;
use crate::timestamp::Timestamp;

/// The order of a write in its slice.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
pub struct Version {
    /// The epoch under which it was ordered.
    pub epoch: u32,
    /// Its number in the slice's log.
    pub sequence: u64,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.epoch, self.sequence)
    }
}

/// One slice, as the node that answers knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Slice {
    /// Its place in the volume.
    pub index: u32,
    /// Its configuration number.
    pub epoch: u32,
    /// The node whose replica orders its writes.
    pub primary: NodeName,
    /// Whether this epoch began without certainty about unflushed writes.
    pub tail_lost: bool,
    /// The newest version ordered; none if the primary can't be asked.
    pub last: Option<Version>,
    /// How long the primary's lease still lasts: the shortest over its secondaries. None with one
    /// replica, or if the primary can't be asked.
    pub lease_left: Option<Span>,
    /// Its replicas, by node.
    pub replicas: Vec<Replica>,
}

/// What a replica does in its slice.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// In sync, and orders the writes.
    Primary,
    /// In sync.
    Secondary,
    /// Gets what it lacks.
    Joining,
    /// Can't be reached, or its pool failed.
    Lost,
}

/// One slice's copy in one pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Replica {
    /// The node it is on.
    pub node: NodeName,
    /// The pool it is in.
    pub pool: PoolId,
    /// What it does.
    pub role: Role,
    /// Up to which sequence it has received everything; none if not known.
    pub received: Option<u64>,
    /// Up to which sequence it has everything on media; none if not known.
    pub durable: Option<u64>,
    /// How many records it is behind the primary; none if not known.
    pub lag_records: Option<u64>,
    /// How many bytes of data it holds; none if not known now.
    pub used: Option<ByteSize>,
    /// Since when it is lost.
    pub lost_since: Option<Timestamp>,
    /// When it will be placed elsewhere, if it stays lost.
    pub replaced_at: Option<Timestamp>,
    /// How far its join has come.
    pub join: Option<Resync>,
}

/// Which step of a join is running.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum ResyncPhase {
    /// Waiting for the replica, or for its turn.
    Waiting,
    /// What it has beyond the common position is being marked missing.
    Superseding,
    /// Blocks are being copied.
    Copying,
    /// All is copied, and being made durable.
    Syncing,
    /// The in-sync set is being changed.
    Proposed,
}

/// How far a joining replica has come: an item of `GET /v1/volumes/{volume}/resync`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resync {
    /// The slice.
    pub slice: u32,
    /// The joining replica's node.
    pub node: NodeName,
    /// Which step.
    pub phase: ResyncPhase,
    /// Copied so far.
    pub copied: ByteSize,
    /// Up to where the slice has been looked through; what didn't change is passed over.
    pub seen: ByteSize,
    /// Of how much: the slice's size.
    pub of: ByteSize,
}
