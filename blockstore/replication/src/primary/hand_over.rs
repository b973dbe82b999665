//! Giving up being primary: as planned, or because the own pool can't go on.

use mooring_config::{ChangeReason, Member};
use mooring_terms::NodeId;

use super::{Phase, Primary};
use crate::core::{Core, Turn};
use crate::proposal::Proposal;

impl Primary {
    /// Hands over to `to` once everything admitted is finished; new requests wait meanwhile.
    pub(crate) fn on_hand_over(&mut self, core: &mut Core, turn: &mut Turn<'_>, to: NodeId) {
        if self.phase == Phase::Serving && to != core.me.node && self.counts(core, to) {
            self.phase = Phase::Draining(to);
        }
        self.advance(core, turn);
    }

    /// Proposes the hand-over when nothing is in flight.
    pub(super) fn hand_over_if_drained(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        let Phase::Draining(to) = self.phase else { return };
        if !self.counts(core, to) {
            self.phase = Phase::Serving;
            return self.admit_queue(core, turn);
        }
        let drained = self.in_flight.is_empty() && self.committed == core.log.last.sequence;
        let answered = self.durable_waits.is_empty() && !self.reads.has_clients();
        if drained && answered && self.proposal.is_none() {
            self.phase = Phase::Leaving;
            let in_sync = core.config().in_sync.clone();
            self.propose(core, turn, to, in_sync, ChangeReason::HandOver);
        }
    }

    /// Stops, and names the furthest other in-sync replica primary.
    pub(crate) fn resign(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        let mut others = core.config().in_sync.iter().map(|member| member.node);
        let able = |node: &NodeId| *node != core.me.node && self.is_listed(core, *node);
        let received = |node: &NodeId| self.peers.get(node).map(|peer| peer.received);
        if let Some(to) = others.by_ref().filter(able).max_by_key(received) {
            self.resign_to(core, turn, to);
        }
    }

    /// Stops, and names `to` primary.
    pub(super) fn resign_to(&mut self, core: &mut Core, turn: &mut Turn<'_>, to: NodeId) {
        self.phase = Phase::Leaving;
        if self.proposal.is_some() {
            // One change at a time; its outcome decides what comes next.
            self.resigns_to = Some(to);
            return;
        }
        let config = core.config();
        let mut in_sync = config.in_sync.clone();
        if in_sync.len() > config.min_in_sync as usize {
            in_sync.retain(|member| member.node != core.me.node);
        }
        // Its word must not keep others from taking over.
        core.vouch(turn, None, Vec::new());
        self.propose(core, turn, to, in_sync, ChangeReason::PrimaryResigned);
    }

    pub(super) fn propose(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        primary: NodeId,
        in_sync: Vec<Member>,
        reason: ChangeReason,
    ) {
        self.proposal = Some(Proposal::new(core, turn, primary, in_sync, reason));
        self.set_required(core);
    }

    /// Takes the proposal out, so that it can be followed up when the replica can't go on.
    pub(crate) fn take_proposal(&mut self) -> Option<Proposal> {
        self.proposal.take()
    }
}
