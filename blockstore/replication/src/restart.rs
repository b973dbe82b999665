//! A replica that is listed in sync, but under its earlier incarnation: its pool was opened anew.
//!
//! ```text
//!   was primary, lost nothing ───────────────────────────> PrimaryRestarted
//!   was primary, a listed member has reported ── pull ───> PrimaryRestarted
//!                                  └─ too far behind ────> PrimaryResigned, naming that member
//!   was secondary, a listed member is there ─────────────> waits to be brought level
//!   nobody listed is there, all have reported (or restart_wait is over),
//!   and this is the furthest ────────────────────────────> AllRestarted: the tail may be lost
//! ```
//!
//! A listed member (one that was not restarted) has every acknowledged write: acknowledgements
//! needed it. Since the primary that could acknowledge more is gone, what such a member has is all
//! there is. A replica whose machine kept running has lost nothing that it acknowledged either.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use mooring_config::{ChangeReason, Member};
use mooring_terms::{Incarnation, NodeId, Record, Time, Version};

use crate::core::{Core, Turn, mutated};
use crate::event::{ProposalId, ProposalOutcome};
use crate::history;
use crate::message::{Hello, MessageBody, Position, Pull};
use crate::proposal::Proposal;
use crate::space;
use crate::take::is_damaged;

/// What a restarted in-sync replica does.
#[derive(Debug)]
pub(crate) struct Restart {
    began: Time,
    /// What the other in-sync members said of themselves.
    reports: BTreeMap<NodeId, Report>,
    step: Step,
    /// When to ask and think again.
    again: Time,
}

#[derive(Debug)]
struct Report {
    incarnation: Incarnation,
    position: Position,
}

#[derive(Debug)]
enum Step {
    Waiting,
    /// Records are on their way from this member.
    Pulling(NodeId),
    /// They are here, and wait for space.
    Reserving(NodeId, Vec<Record>),
    Proposed(Proposal),
}

impl Restart {
    /// Begins by asking everyone.
    pub(crate) fn new(core: &Core, turn: &mut Turn<'_>) -> Self {
        let again = turn.now + core.options.retry;
        let restart =
            Self { began: turn.now, reports: BTreeMap::new(), step: Step::Waiting, again };
        restart.ask(core, turn);
        restart
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        Some(match &self.step {
            Step::Proposed(proposal) => proposal.again?,
            Step::Waiting | Step::Pulling(_) | Step::Reserving(..) => self.again,
        })
    }

    /// Whether a change is proposed whose outcome is not known.
    pub(crate) fn is_proposed(&self) -> bool {
        matches!(self.step, Step::Proposed(_))
    }

    pub(crate) fn state_name(&self) -> &'static str {
        match self.step {
            Step::Waiting => "restarted: waiting",
            Step::Pulling(_) | Step::Reserving(..) => "restarted: pulling",
            Step::Proposed(_) => "restarted: proposed",
        }
    }

    fn ask(&self, core: &Core, turn: &mut Turn<'_>) {
        for member in &core.config().in_sync {
            if member.node != core.me.node {
                core.hello(turn, member.node, true);
            }
        }
    }

    pub(crate) fn on_connected(&mut self, core: &Core, turn: &mut Turn<'_>, peer: NodeId) {
        if core.config().in_sync_member(peer).is_some() {
            core.hello(turn, peer, true);
        }
    }

    pub(crate) fn on_disconnected(&mut self, peer: NodeId) {
        self.reports.remove(&peer);
        if matches!(self.step, Step::Pulling(from) if from == peer) {
            self.step = Step::Waiting;
        }
    }

    pub(crate) fn on_hello(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        from: NodeId,
        incarnation: Incarnation,
        hello: &Hello,
    ) {
        if core.config().in_sync_member(from).is_some() {
            let position = hello.position.clone();
            self.reports.insert(from, Report { incarnation, position });
            self.think(core, turn);
        }
    }

    pub(crate) fn on_tick(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        if let Step::Proposed(proposal) = &mut self.step {
            proposal.repeat_if_due(core, turn);
        } else if turn.now >= self.again {
            self.again = turn.now + core.options.retry;
            self.step = Step::Waiting;
            self.ask(core, turn);
            self.think(core, turn);
        }
    }

    /// The listed members that have reported and were not restarted.
    fn listed<'a>(
        &'a self,
        core: &'a Core,
    ) -> impl Iterator<Item = (NodeId, &'a Position)> + use<'a> {
        let unchecked = mutated!(core, IncarnationUnchecked);
        self.reports.iter().filter_map(move |(&node, report)| {
            let member = core.config().in_sync_member(node)?;
            let has_all = report.position.is_whole();
            let same = member.incarnation == report.incarnation;
            ((same || unchecked) && has_all).then_some((node, &report.position))
        })
    }

    /// Decides what comes next, if nothing is under way.
    pub(crate) fn think(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        if !matches!(self.step, Step::Waiting) {
            return;
        }
        let was_primary = core.config().primary == core.me.node;
        let listed = core.config().in_sync_member(core.me.node).map(|member| member.incarnation);
        let kept_all = listed.is_some_and(|listed| core.kept.contains(&listed));
        if was_primary && kept_all && !core.damaged {
            return self.go_on(core, turn);
        }
        let furthest = self.listed(core).max_by_key(|(_, position)| position.last);
        match furthest.map(|(node, position)| (node, position.clone())) {
            Some((node, position)) if was_primary => self.reconcile(core, turn, node, &position),
            Some(_) => {}
            None => self.after_all_restarted(core, turn),
        }
    }

    /// Catches up with a member that has everything, then goes on as primary.
    fn reconcile(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        node: NodeId,
        position: &Position,
    ) {
        let mine = (core.log.state.epochs.as_slice(), core.log.last);
        let both = history::common(mine, (&position.epochs, position.last));
        if core.damaged {
            self.resign_to(core, turn, node);
        } else if both == position.last {
            self.go_on(core, turn);
        } else if both == core.log.last {
            self.step = Step::Pulling(node);
            self.again = turn.now + core.options.lease;
            let pull = Pull { after: core.log.last.sequence };
            core.send(turn, node, None, MessageBody::Pull(pull));
        } else {
            self.resign_to(core, turn, node);
        }
    }

    pub(crate) fn on_pulled(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        from: NodeId,
        records: Vec<Record>,
    ) {
        if !matches!(self.step, Step::Pulling(node) if node == from) {
            return;
        }
        // This opening has set nothing aside: what is appended must be paid for first.
        let cost = records.iter().map(space::cost).sum();
        if core.space.reserved < cost {
            core.space.set(turn.out, cost);
            self.step = Step::Reserving(from, records);
            return;
        }
        self.step = Step::Waiting;
        let before = core.log.last;
        for record in records {
            let next = record.version.sequence == core.log.last.sequence.next();
            if next && record.version.epoch >= core.log.last.epoch && !is_damaged(&record) {
                core.space.spend(space::cost(&record));
                core.log.append(turn.out, record);
            }
        }
        if core.log.last == before {
            // They are no longer at hand as records: that member must go on, and copy to this one.
            self.resign_to(core, turn, from);
        } else {
            self.think(core, turn);
        }
    }

    /// The engine has set space aside, or had none; without it the member is asked again later.
    pub(crate) fn on_reserved(&mut self, core: &mut Core, turn: &mut Turn<'_>, enough: bool) {
        if !enough {
            return;
        }
        if let Step::Reserving(from, records) = &mut self.step {
            let (from, records) = (*from, std::mem::take(records));
            self.step = Step::Pulling(from);
            self.on_pulled(core, turn, from, records);
        }
    }

    fn go_on(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        let mut in_sync = core.config().in_sync.clone();
        in_sync.retain(|member| member.node != core.me.node);
        in_sync.push(core.me);
        self.propose(core, turn, core.me.node, in_sync, ChangeReason::PrimaryRestarted);
    }

    fn resign_to(&mut self, core: &mut Core, turn: &mut Turn<'_>, node: NodeId) {
        let config = core.config();
        let mut in_sync = config.in_sync.clone();
        if in_sync.len() > config.min_in_sync as usize {
            in_sync.retain(|member| member.node != core.me.node);
        }
        self.propose(core, turn, node, in_sync, ChangeReason::PrimaryResigned);
    }

    /// Nobody is left who was not restarted, as far as can be known.
    fn after_all_restarted(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        let config = core.config();
        let others = config.in_sync.iter().filter(|member| member.node != core.me.node);
        let all_reported = others.clone().all(|member| self.reports.contains_key(&member.node));
        let waited = turn.now >= self.began + core.options.restart_wait;
        // One that was being brought level has a high position and lacks blocks below it. (Where it
        // is the only one, a loss was declared.)
        let lacks = !core.log.is_whole() && config.in_sync.len() > 1;
        if core.damaged || lacks || !(all_reported || waited) {
            return;
        }
        let rank = |node: NodeId, last: Version| (last, node == config.primary, Reverse(node));
        let mine = rank(core.me.node, core.log.last);
        let able = |report: &&Report| !report.position.damaged && report.position.is_whole();
        let further = |(&node, report): (&NodeId, &Report)| rank(node, report.position.last) > mine;
        if self.reports.iter().filter(|(_, report)| able(report)).any(further) {
            return;
        }
        let own = (core.log.state.epochs.as_slice(), core.log.last);
        let mut in_sync = vec![core.me];
        for member in others.clone() {
            let Some(report) = self.reports.get(&member.node).filter(able) else { continue };
            let theirs = (report.position.epochs.as_slice(), report.position.last);
            if history::common(own, theirs) == report.position.last {
                in_sync.push(Member { incarnation: report.incarnation, ..*member });
            }
        }
        // Where the minimum demands more, the others stay listed as they were: they count for nothing
        // until they are brought level, and nothing is served before.
        let min = (config.min_in_sync as usize).min(config.in_sync.len());
        for member in others {
            if in_sync.len() < min && in_sync.iter().all(|listed| listed.node != member.node) {
                in_sync.push(*member);
            }
        }
        self.propose(core, turn, core.me.node, in_sync, ChangeReason::AllRestarted);
    }

    fn propose(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        primary: NodeId,
        in_sync: Vec<Member>,
        reason: ChangeReason,
    ) {
        self.step = Step::Proposed(Proposal::new(core, turn, primary, in_sync, reason));
    }

    /// The outcome of a proposal that left the epoch as it was.
    pub(crate) fn on_proposed(
        &mut self,
        core: &Core,
        turn: &mut Turn<'_>,
        id: ProposalId,
        outcome: &ProposalOutcome,
    ) {
        let Step::Proposed(proposal) = &mut self.step else { return };
        if proposal.id != id {
            return;
        }
        match outcome {
            ProposalOutcome::Unknown => proposal.unknown(core, turn),
            // Refused for now (too few, or this opening is not known to Raft yet).
            // An earlier try in doubt may still be applied, which is as good.
            ProposalOutcome::Accepted(_) | ProposalOutcome::Refused(..) => {
                self.step = Step::Waiting;
                self.again = turn.now + core.options.retry;
            }
        }
    }
}
