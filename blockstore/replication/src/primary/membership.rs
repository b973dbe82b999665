//! Who is in sync: the primary takes out whoever is lost, and in whoever is level.
//!
//! One change is under way at a time. From proposing it until the epoch has moved or it is clearly
//! refused, an acknowledgement and a lease need the members of both sets.

use mooring_config::{ChangeReason, Member};
use mooring_terms::NodeId;

use super::{Phase, Primary};
use crate::core::{Core, Turn};
use crate::event::{ProposalId, ProposalOutcome};
use crate::note::{LossCause, Note};

impl Primary {
    /// Compares the in-sync set with what it should be, and proposes the difference.
    pub(super) fn review(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        if self.review_again.is_some_and(|again| turn.now < again) {
            return;
        }
        self.review_again = None;
        if self.proposal.is_some() {
            return self.review_proposal(core, turn);
        }
        if self.phase == Phase::Leaving {
            return;
        }
        let config = core.config().clone();
        let mut lost = Vec::new();
        let mut wanted: Vec<Member> = Vec::new();
        let mut joins = false;
        for member in &config.in_sync {
            if let Some(level) = self.joined(core, member.node) {
                joins = true;
                wanted.push(level);
            } else if let Some(cause) = self.loss(core, turn, member) {
                lost.push((*member, cause));
            } else {
                wanted.push(*member);
            }
        }
        for member in &config.joining {
            if let Some(level) = self.joined(core, member.node) {
                joins = true;
                wanted.push(level);
            }
        }
        if lost.is_empty() && !joins {
            return;
        }
        let min = (config.min_in_sync as usize).min(config.in_sync.len());
        for (member, _) in &lost {
            // Not below the minimum: the lost one stays listed, and I/O waits.
            if wanted.len() < min {
                wanted.push(*member);
            }
        }
        let kept = lost.iter().any(|(member, _)| wanted.contains(member));
        if !joins && kept {
            return self.tell_too_few(core, turn, config.in_sync.len() - lost.len());
        }
        for (member, cause) in lost {
            core.note(turn, Note::ReplicaLost { node: member.node, cause });
        }
        let reason = if joins { ChangeReason::Joined } else { ChangeReason::SecondaryLost };
        self.propose(core, turn, core.me.node, wanted, reason);
    }

    fn tell_too_few(&mut self, core: &Core, turn: &mut Turn<'_>, left: usize) {
        if !std::mem::replace(&mut self.told_too_few, true) {
            let in_sync = u32::try_from(left).unwrap_or(u32::MAX);
            core.note(turn, Note::TooFew { in_sync, min: core.config().min_in_sync });
        }
    }

    /// Why the in-sync member must leave, if it must.
    fn loss(&self, core: &Core, turn: &Turn<'_>, member: &Member) -> Option<LossCause> {
        if member.node == core.me.node {
            return None;
        }
        let lease = core.options.lease;
        let silent_since = self.answered(core, turn, member.node).max(Some(self.began));
        let silent = silent_since.is_some_and(|since| turn.now >= since + lease);
        let Some(peer) = self.peers.get(&member.node) else { return Some(LossCause::Silent) };
        let other_opening = peer.incarnation.is_some_and(|own| own != member.incarnation);
        if peer.failed {
            Some(LossCause::PoolFailed)
        } else if peer.diverged {
            Some(LossCause::Diverged)
        } else if other_opening && !self.is_listed(core, member.node) {
            Some(LossCause::Restarted)
        } else if silent {
            Some(LossCause::Silent)
        } else if peer.waiting.is_some_and(|since| turn.now >= since + lease) {
            Some(LossCause::Stuck)
        } else {
            None
        }
    }

    /// A change is under way: repeats it, or replaces it where it can't lead anywhere any more.
    fn review_proposal(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        let Some(proposal) = &mut self.proposal else { return };
        if proposal.in_doubt && proposal.change.reason == ChangeReason::Joined {
            // Whether it was applied or not, the epoch must move, and without one that is gone.
            let change = proposal.change.clone();
            let gone = change
                .in_sync
                .iter()
                .any(|member| !core.config().in_sync.contains(member) && !self.is_level(member));
            if gone && self.proposal.as_ref().is_some_and(|p| p.again.is_some()) {
                return self.withdraw(core, turn, &change.in_sync);
            }
        }
        if let Some(mut proposal) = self.proposal.take() {
            proposal.repeat_if_due(core, turn);
            self.proposal = Some(proposal);
        }
    }

    /// Raises the epoch without the joining members of a change in doubt.
    fn withdraw(&mut self, core: &mut Core, turn: &mut Turn<'_>, doubtful: &[Member]) {
        let me = core.me.node;
        let in_sync = core.config().in_sync.clone();
        self.propose(core, turn, me, in_sync, ChangeReason::SecondaryLost);
        for member in doubtful {
            if member.node != me && !self.required.contains(member) {
                self.required.push(*member);
            }
        }
        if let Some(proposal) = &mut self.proposal {
            proposal.in_doubt = true;
        }
    }

    /// The outcome of a proposal that left the epoch as it was.
    pub(crate) fn on_proposed(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        id: ProposalId,
        outcome: &ProposalOutcome,
    ) {
        let Some(proposal) = self.proposal.as_mut().filter(|proposal| proposal.id == id) else {
            return;
        };
        match outcome {
            ProposalOutcome::Unknown => proposal.unknown(core, turn),
            ProposalOutcome::Accepted(_) | ProposalOutcome::Refused(..) if proposal.in_doubt => {
                proposal.again = Some(turn.now + core.options.retry);
            }
            ProposalOutcome::Accepted(_) | ProposalOutcome::Refused(..) => {
                self.proposal = None;
                self.review_again = Some(turn.now + core.options.retry);
                self.set_required(core);
                self.go_on_after_refusal(core, turn);
            }
        }
        self.advance(core, turn);
    }

    fn go_on_after_refusal(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        if let Some(to) = self.resigns_to.take() {
            self.resign_to(core, turn, to);
        } else if self.phase == Phase::Leaving {
            let peers = core.others(core.config());
            core.vouch(turn, Some(self.epoch), peers);
            // Where it left the start of its epoch it begins that again.
            if self.began_serving { self.phase = Phase::Serving } else { self.raise(core, turn) }
        }
    }

    /// The configuration of the same epoch changed: replicas were placed or taken away.
    pub(crate) fn on_placement(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        let others: Vec<NodeId> = core.others(core.config());
        self.peers.retain(|node, _| others.contains(node));
        for &node in &others {
            if !self.peers.contains_key(&node) {
                self.peers.entry(node).or_default();
                core.send(turn, node, None, crate::MessageBody::Newer(core.config().clone()));
                core.hello(turn, node, true);
            }
        }
        core.vouch(turn, Some(self.epoch), others);
        self.told_too_few = false;
        self.set_required(core);
        self.advance(core, turn);
    }
}
