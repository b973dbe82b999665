//! What people see of a primary.

use mooring_terms::{AttachmentEpoch, NodeId, Sequence, Time};

use super::{Phase, Primary};
use crate::core::{Core, Turn};
use crate::status::{JoinProgress, ReplicaStatus, Role};

impl Primary {
    pub(crate) fn role(&self) -> Role {
        match self.phase {
            Phase::Raising | Phase::Pulling(_) | Phase::Opening(_) => Role::Starting,
            Phase::Serving => Role::Primary,
            Phase::Draining(_) | Phase::Leaving => Role::Leaving,
        }
    }

    pub(crate) fn state_name(&self) -> &'static str {
        match self.phase {
            Phase::Raising => "primary: raising",
            Phase::Pulling(_) => "primary: pulling",
            Phase::Opening(_) => "primary: opening",
            Phase::Serving => "primary: serving",
            Phase::Draining(_) => "primary: draining",
            Phase::Leaving => "primary: leaving",
        }
    }

    /// Whether a replica is lost that the minimum doesn't let go.
    pub(crate) fn waits_for_replicas(&self) -> bool {
        self.told_too_few
    }

    /// Requests waiting for admission, and records not committed.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.clients.queue_len(), self.in_flight.len())
    }

    pub(crate) fn positions(&self) -> (Sequence, Sequence) {
        (self.committed, self.stable)
    }

    /// Whether a read of any block would be answered now: no lease is missing, no record uncommitted.
    pub(crate) fn is_settled(&self, core: &Core, turn: &Turn<'_>) -> bool {
        matches!(self.phase, Phase::Serving)
            && self.committed == core.log.last.sequence
            && self.holds_leases(core, turn)
    }

    /// Until when no other can be primary, if this one serves under `attachment`.
    pub(crate) fn leased_until(
        &self,
        core: &Core,
        turn: &Turn<'_>,
        attachment: AttachmentEpoch,
    ) -> Option<Time> {
        if self.phase != Phase::Serving || self.seal != attachment {
            return None;
        }
        let lease = core.options.lease;
        let mut until = turn.now + lease;
        for member in &self.required {
            until = until.min(self.answered(core, turn, member.node)? + lease);
        }
        Some(until).filter(|until| *until > turn.now)
    }

    pub(crate) fn replicas(&self, core: &Core) -> Vec<ReplicaStatus> {
        let status = |(&node, peer): (&NodeId, &super::Peer)| ReplicaStatus {
            node,
            in_sync: self.counts(core, node),
            received: peer.received,
            durable: peer.durable,
            lag: core.log.last.sequence.0.saturating_sub(peer.received.0),
            join: peer
                .join
                .as_ref()
                .filter(|join| !join.is_done())
                .map(|join| JoinProgress { copied_bytes: join.copied_bytes, at: join.at() }),
        };
        self.peers.iter().map(status).collect()
    }
}
