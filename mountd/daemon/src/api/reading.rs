//! What is known about the cluster at one moment: its configuration, and what its nodes say.

use std::collections::BTreeMap;
use std::sync::Arc;

use blockstore::{NodeReport, PoolReport};
use mooring_config::ClusterState;
use mooring_control::Status as RaftStatus;
use mooring_terms::{NodeId, PoolId, SliceId, VolumeId};

use crate::daemon::Running;

/// One look at the cluster.
pub struct Reading {
    /// The node that looks.
    pub me: NodeId,
    /// The configuration as applied here.
    pub state: Arc<ClusterState>,
    /// How Raft stands.
    pub raft: RaftStatus,
    /// What the nodes that answered say.
    pub reports: BTreeMap<NodeId, NodeReport>,
    /// How many bytes each node's replicas hold, if that was asked.
    pub used: BTreeMap<NodeId, BTreeMap<SliceId, u64>>,
}

impl Reading {
    /// Looks: asks every node about the replicas of `volumes` (all of them, if none is named) and
    /// its pools. Nodes that don't answer within a moment are left out.
    pub async fn take(running: &Running, volumes: &[VolumeId]) -> Self {
        Self::of(running, running.node.reports(volumes).await, BTreeMap::new())
    }

    /// As [`Reading::take`]; asks also how much the replicas hold, which may take reads.
    pub async fn with_used(running: &Running, volumes: &[VolumeId]) -> Self {
        let (reports, used) =
            tokio::join!(running.node.reports(volumes), running.node.used(volumes));
        Self::of(running, reports, used)
    }

    fn of(
        running: &Running,
        reports: BTreeMap<NodeId, NodeReport>,
        used: BTreeMap<NodeId, BTreeMap<SliceId, u64>>,
    ) -> Self {
        Self {
            me: running.node.id(),
            state: running.node.state(),
            raft: running.node.control().status(),
            reports,
            used,
        }
    }

    /// How many bytes a node's replica of a slice holds.
    #[must_use]
    pub fn used(&self, node: NodeId, slice: SliceId) -> Option<u64> {
        self.used.get(&node)?.get(&slice).copied()
    }

    /// Whether a node answered.
    #[must_use]
    pub fn answers(&self, node: NodeId) -> bool {
        self.reports.contains_key(&node)
    }

    /// What a pool's node says about it.
    #[must_use]
    pub fn pool(&self, node: NodeId, pool: PoolId) -> Option<&PoolReport> {
        self.reports.get(&node)?.pools.get(&pool)
    }
}
