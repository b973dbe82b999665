//! What people should know: each becomes an event of the cluster.

use mooring_terms::{BlockIndex, Epoch, NodeId, Version};

/// Something worth telling. The shell adds slice, node and time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// This node's replica became primary and serves.
    Serving {
        /// Since this epoch.
        epoch: Epoch,
    },
    /// This node's replica is no longer primary.
    SteppedDown {
        /// The epoch that ended it.
        epoch: Epoch,
    },
    /// A replica is asked to be taken out of the in-sync set.
    ReplicaLost {
        /// Its node.
        node: NodeId,
        /// Why.
        cause: LossCause,
    },
    /// This secondary asks to become primary, since the primary is silent.
    TakingOver {
        /// The silent primary.
        from: NodeId,
    },
    /// The primary that this replica took over from was alive all the while.
    FalseTakeOver {
        /// Its node.
        from: NodeId,
    },
    /// All in-sync replicas had been restarted: acknowledged writes that were never flushed may be
    /// gone behind this version.
    TailLost {
        /// The last version that is certain.
        last: Version,
    },
    /// A returning or new replica is being brought level.
    JoinStarted {
        /// Its node.
        node: NodeId,
        /// Only blocks newer than this are copied.
        after: Version,
    },
    /// A replica is level and in sync again.
    JoinFinished {
        /// Its node.
        node: NodeId,
        /// Bytes copied, forwarded writes not counted.
        copied_bytes: u64,
    },
    /// A rotten or missing block was repaired from another replica.
    BlockRepaired {
        /// The block.
        block: BlockIndex,
        /// Where the good copy came from.
        from: NodeId,
    },
    /// A block is rotten or missing, and no in-sync replica has a good copy.
    BlockLost {
        /// The block.
        block: BlockIndex,
    },
    /// Fewer replicas are in sync than the volume demands: I/O waits.
    TooFew {
        /// In sync.
        in_sync: u32,
        /// Demanded.
        min: u32,
    },
    /// A pool has no space to promise: writes are refused.
    PoolFull {
        /// Its node.
        node: NodeId,
    },
    /// A log contradicts the primary's where it must not; the replica is taken out and rejoins.
    Diverged {
        /// The node whose log it is.
        node: NodeId,
        /// Its last version.
        last: Version,
    },
}

/// Why a replica leaves the in-sync set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossCause {
    /// It has not answered for a lease.
    Silent,
    /// It answers, but acknowledged nothing for a lease.
    Stuck,
    /// It was restarted, and must be brought level.
    Restarted,
    /// Its pool failed.
    PoolFailed,
    /// Its log contradicts the primary's.
    Diverged,
}
