//! What people see of a replica.

use mooring_terms::{BlockIndex, Epoch, NodeId, Sequence, Version};

/// A replica, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is.
    pub role: Role,
    /// The newest epoch that it knows.
    pub epoch: Epoch,
    /// The epoch's primary.
    pub primary: Option<NodeId>,
    /// The nodes of the in-sync set.
    pub in_sync: Vec<NodeId>,
    /// Fewer are in sync than the volume demands.
    pub too_few: bool,
    /// The last version of its log.
    pub last: Version,
    /// The last sequence that is on its media, as far as is known.
    pub durable: Sequence,
    /// At a primary: the last sequence that every in-sync replica has.
    pub committed: Sequence,
    /// At a primary: the last sequence that every in-sync replica has durably.
    pub stable: Sequence,
    /// At a primary: requests that wait for admission.
    pub queued: usize,
    /// At a primary: records that are not committed.
    pub in_flight: usize,
    /// At a primary: the other replicas.
    pub replicas: Vec<ReplicaStatus>,
}

/// What a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It has no configuration yet, or is no member of the slice.
    Idle,
    /// Primary of an epoch that doesn't serve yet.
    Starting,
    /// Primary.
    Primary,
    /// Primary that gives up being it.
    Leaving,
    /// In sync, and not primary.
    Secondary,
    /// In sync, and asks to become primary.
    TakingOver,
    /// Not in sync; to be brought level.
    Joining,
    /// Listed in sync, but its pool was opened anew.
    Restarted,
    /// Its pool has failed.
    Failed,
}

/// Another replica, as the primary sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Its node.
    pub node: NodeId,
    /// Whether its acknowledgement counts.
    pub in_sync: bool,
    /// The last sequence that is with its kernel.
    pub received: Sequence,
    /// The last sequence that is on its media.
    pub durable: Sequence,
    /// Records it has not received.
    pub lag: u64,
    /// How far it is, where it is being brought level.
    pub join: Option<JoinProgress>,
}

/// How far a join is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinProgress {
    /// Bytes sent so far.
    pub copied_bytes: u64,
    /// The block that the sweep is at; none when it is through.
    pub at: Option<BlockIndex>,
}
