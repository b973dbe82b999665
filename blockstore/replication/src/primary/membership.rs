//! Who is in sync: the primary takes out whoever is lost, and in whoever is level.
//!
//! One change is under way at a time, and one that is given up in doubt is followed by another: only
//! a new epoch ends a doubt. From proposing it until the epoch has moved or it is clearly
//! refused, an acknowledgement and a lease need the members of both sets.

use mooring_config::{ChangeReason, Member};
use mooring_terms::NodeId;

use super::{Phase, Primary};
use crate::core::{Core, Turn};
use crate::event::{ProposalId, ProposalOutcome};
use crate::message::MessageBody;
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
        if self.phase == Phase::Leaving && !self.in_doubt {
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
        if lost.is_empty() && !joins && !self.in_doubt {
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
        if !joins && kept && !self.in_doubt {
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

    /// A change is under way: repeats it, or gives it up where it can't lead anywhere any more.
    fn review_proposal(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        let Some(mut proposal) = self.proposal.take() else { return };
        let config = core.config();
        let gone = proposal.change.in_sync.iter().any(|member| {
            member.node != core.me.node
                && !config.in_sync.contains(member)
                && !self.is_level(member)
        });
        if gone && proposal.in_doubt && proposal.again.is_some() {
            self.leave_in_doubt(&proposal.change.in_sync);
            return self.review(core, turn);
        }
        proposal.repeat_if_due(core, turn);
        self.proposal = Some(proposal);
    }

    /// Gives a change up that may still be applied: until the epoch moves, its members count too.
    fn leave_in_doubt(&mut self, members: &[Member]) {
        self.in_doubt = true;
        for member in members {
            if !self.doubtful.contains(member) {
                self.doubtful.push(*member);
            }
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
            ProposalOutcome::Accepted(_) | ProposalOutcome::Refused(..) => {
                if let Some(proposal) = self.proposal.take().filter(|proposal| proposal.in_doubt) {
                    self.leave_in_doubt(&proposal.change.in_sync);
                }
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
        } else if self.phase == Phase::Leaving && !self.in_doubt {
            let peers = core.others(core.config());
            core.vouch(turn, Some(self.epoch), peers);
            // Where it left the start of its epoch it begins that again.
            if self.began_serving { self.phase = Phase::Serving } else { self.raise(core, turn) }
        }
    }

    /// The configuration of the same epoch changed: replicas were placed or taken away, or another
    /// slice of the volume lost its tail.
    pub(crate) fn on_placement(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        self.learn_seal(core);
        let others: Vec<NodeId> = core.others(core.config());
        self.peers.retain(|node, _| others.contains(node));
        for &node in &others {
            if !self.peers.contains_key(&node) {
                self.peers.entry(node).or_default();
                core.send(turn, node, None, MessageBody::Newer(core.config().clone()));
                core.hello(turn, node, true);
            }
        }
        core.vouch(turn, Some(self.epoch), others);
        self.told_too_few = false;
        self.set_required(core);
        self.advance(core, turn);
    }
}
