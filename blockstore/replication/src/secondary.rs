//! An in-sync replica that is not primary: promises, takes records, acknowledges, and takes over
//! when the primary has been silent for the grace.
//!
//! Invariants:
//! - nothing is taken before the promise of its epoch is durable and answered;
//! - from proposing to take over until the outcome is known it vouches for nothing: the old primary's
//!   lease must not be renewed by the one who ends it;
//! - it acknowledges only what its own engine has reported.

use std::collections::BTreeMap;
use std::time::Duration;

use mooring_config::{ChangeReason, Member};
use mooring_terms::{Epoch, Extent, NodeId, Record, Sequence, Time, Version};

use crate::command::Command;
use crate::core::{Core, Turn, mutated};
use crate::event::{Mark, ProposalId, ProposalOutcome, ReadFault, Token};
use crate::message::{
    Ack, Append, BlocksRead, MessageBody, Promised, Pull, Pulled, Raise, ReadBlocks, Want,
};
use crate::note::Note;
use crate::proposal::Proposal;
use crate::space;
use crate::take::{Taken, take};

/// By how much the takers-over of one slice wait for each other, so that most often only one asks.
const STAGGER: Duration = Duration::from_millis(50);

/// Bytes of records in one answer to a pull.
pub(crate) const PULL_BYTES: u64 = 1 << 20;

/// A promise that is not durable yet.
#[derive(Debug)]
struct Promise {
    mark: Mark,
    raise: Time,
}

/// An in-sync secondary.
#[derive(Debug)]
pub(crate) struct Secondary {
    epoch: Epoch,
    primary: NodeId,
    promise: Option<Promise>,
    /// When the primary was last heard on a stream of messages.
    heard: Time,
    /// When to look whether the primary is silent; none while beacons will say so.
    watch: Option<Time>,
    taking_over: Option<Proposal>,
    credit: Grant,
    /// Bytes that older records need which were dropped for want of space.
    starved: u64,
    space_again: Option<Time>,
    reads: BTreeMap<Token, u64>,
    pulls: BTreeMap<Token, Sequence>,
}

/// Space credit given to the primary in this epoch.
#[derive(Debug, Default)]
struct Grant {
    /// The want that is being answered.
    want: Want,
    /// The want that was answered last.
    answered: u64,
    granted: u64,
    spent: u64,
    full: bool,
}

impl Secondary {
    pub(crate) fn new(core: &mut Core, turn: &mut Turn<'_>) -> Self {
        let (epoch, primary) = (core.config().epoch, core.config().primary);
        core.vouch(turn, Some(epoch), vec![primary]);
        Self {
            epoch,
            primary,
            promise: None,
            heard: turn.now,
            watch: Some(turn.now + core.options.grace),
            taking_over: None,
            credit: Grant::default(),
            starved: 0,
            space_again: None,
            reads: BTreeMap::new(),
            pulls: BTreeMap::new(),
        }
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        let again = self.taking_over.as_ref().and_then(|proposal| proposal.again);
        self.watch.into_iter().chain(again).chain(self.space_again).min()
    }

    pub(crate) fn is_taking_over(&self) -> bool {
        self.taking_over.is_some()
    }

    pub(crate) fn on_connected(&mut self, core: &Core, turn: &mut Turn<'_>, peer: NodeId) {
        if peer == self.primary {
            core.hello(turn, peer, false);
            if core.log.state.promised == self.epoch && self.promise.is_none() {
                self.acknowledge(core, turn, false);
            }
        }
    }

    pub(crate) fn on_message(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        from: NodeId,
        body: MessageBody,
    ) {
        if from != self.primary {
            return;
        }
        self.heard = turn.now;
        match body {
            MessageBody::Raise(raise) => self.on_raise(core, turn, &raise),
            MessageBody::Append(append) => self.on_append(core, turn, &append),
            MessageBody::Want(want) => self.on_want(core, turn, want),
            MessageBody::Pull(pull) => self.on_pull(core, turn, pull),
            MessageBody::ReadBlocks(read) => self.on_read_blocks(core, turn, read),
            _ => {}
        }
    }

    /// The promise first, durably; the position after it.
    fn on_raise(&mut self, core: &mut Core, turn: &mut Turn<'_>, raise: &Raise) {
        let epoch = self.epoch;
        if core.log.state.promised < epoch {
            // Only a whole replica becomes secondary, and from here on its log is dense.
            core.log.end_join(turn.out);
            core.log.note(turn.out, |state| state.promised = epoch);
        }
        let mark = core.log.sync(turn.out);
        self.promise = Some(Promise { mark, raise: raise.sent });
        self.answer_raise(core, turn);
    }

    fn answer_raise(&mut self, core: &Core, turn: &mut Turn<'_>) {
        if let Some(promise) = self.promise.take_if(|promise| core.log.is_durable(promise.mark)) {
            let promised = Promised { sent: promise.raise, position: core.position() };
            core.send(turn, self.primary, None, MessageBody::Promised(promised));
        }
    }

    fn on_append(&mut self, core: &mut Core, turn: &mut Turn<'_>, append: &Append) {
        let promised = core.log.state.promised == self.epoch && self.promise.is_none();
        if !promised && !mutated!(core, PositionsBeforePromise) {
            return;
        }
        if !promised && self.promise.is_none() {
            // Reached by the deliberate bug alone.
            core.log.note(turn.out, |state| state.promised = self.epoch);
        }
        let last = core.log.last.sequence;
        let taken = take(core, turn.out, append, Some(self.epoch));
        let new = |version: Version| {
            version.sequence > last
                && version.sequence <= core.log.last.sequence
                && version.epoch == self.epoch
        };
        let spent = append.records.iter().filter(|record| new(record.version)).map(space::cost);
        self.credit.spent += spent.sum::<u64>();
        if append.sync > core.log.durable {
            core.log.sync(turn.out);
        }
        core.log.forget(turn.out, append.stable);
        match taken {
            Taken::Appended => {}
            Taken::Known => self.acknowledge(core, turn, false),
            // Older than this epoch's credit, and this opening has set nothing aside yet.
            Taken::NoSpace => {
                self.starved = append.records.iter().map(space::cost).sum();
                core.space.set(turn.out, self.starved);
            }
            Taken::Gap => self.acknowledge(core, turn, true),
            Taken::Diverged => {
                let (node, last) = (core.me.node, core.log.last);
                core.note(turn, Note::Diverged { node, last });
                core.hello(turn, self.primary, false);
            }
        }
        self.settle_credit(core, turn, true);
    }

    fn acknowledge(&self, core: &Core, turn: &mut Turn<'_>, resend: bool) {
        let ack = Ack {
            received: core.log.received,
            durable: core.log.durable,
            want: self.credit.answered,
            credit: self.credit.granted,
            full: self.credit.full,
            resend,
        };
        core.send(turn, self.primary, None, MessageBody::Ack(ack));
    }

    fn on_want(&mut self, core: &mut Core, turn: &mut Turn<'_>, want: Want) {
        if want.number > self.credit.want.number {
            self.credit.want = want;
            self.settle_credit(core, turn, true);
        } else if self.credit.answered == want.number {
            self.acknowledge(core, turn, false);
        }
    }

    pub(crate) fn on_reserved(&mut self, core: &mut Core, turn: &mut Turn<'_>, enough: bool) {
        if self.starved > 0 && core.space.reserved >= self.starved {
            self.starved = 0;
            self.acknowledge(core, turn, true);
        } else if self.starved > 0 {
            self.space_again = Some(turn.now + core.options.retry);
        }
        self.settle_credit(core, turn, enough);
    }

    /// Brings the reservation to what the primary wants, and answers once it is clear.
    fn settle_credit(&mut self, core: &mut Core, turn: &mut Turn<'_>, enough: bool) {
        let credit = &mut self.credit;
        // Until the epoch's first record has come, what is set aside is for older records.
        let caught_up = core.log.last.epoch == self.epoch;
        if credit.answered == credit.want.number || !caught_up {
            return;
        }
        let need = credit.want.credit.saturating_sub(credit.spent);
        if core.space.is_asking() || (enough && core.space.set(turn.out, need)) {
            return;
        }
        credit.full = core.space.reserved < need;
        credit.granted = credit.spent + core.space.reserved.min(need);
        credit.answered = credit.want.number;
        self.acknowledge(core, turn, false);
    }

    fn on_pull(&mut self, core: &mut Core, turn: &mut Turn<'_>, pull: Pull) {
        let token = core.token();
        self.pulls.insert(token, pull.after);
        let (after, limit_bytes) = (pull.after, PULL_BYTES);
        turn.out.push(Command::ReadRecords { token, after, limit_bytes });
    }

    pub(crate) fn on_records(
        &mut self,
        core: &Core,
        turn: &mut Turn<'_>,
        token: Token,
        records: Vec<Record>,
    ) {
        if let Some(after) = self.pulls.remove(&token) {
            let pulled = Pulled { after, records };
            core.send(turn, self.primary, None, MessageBody::Pulled(pulled));
        }
    }

    fn on_read_blocks(&mut self, core: &mut Core, turn: &mut Turn<'_>, read: ReadBlocks) {
        let token = core.token();
        self.reads.insert(token, read.token);
        turn.out.push(Command::Read { token, range: read.range });
    }

    pub(crate) fn on_read(
        &mut self,
        core: &Core,
        turn: &mut Turn<'_>,
        token: Token,
        result: Result<Vec<Extent>, ReadFault>,
    ) {
        if let Some(token) = self.reads.remove(&token) {
            let mut extents = result.unwrap_or_default();
            extents.retain(|extent| !matches!(extent, Extent::Missing { .. }));
            let answer = BlocksRead { token, extents };
            core.send(turn, self.primary, None, MessageBody::BlocksRead(answer));
        }
    }

    /// The engine has reported; `moved` tells whether a position that others wait for has moved.
    pub(crate) fn on_log(&mut self, core: &Core, turn: &mut Turn<'_>, moved: bool) {
        let waiting = self.promise.is_some();
        self.answer_raise(core, turn);
        if moved && !waiting && core.log.state.promised == self.epoch {
            self.acknowledge(core, turn, false);
        }
    }

    pub(crate) fn on_tick(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        if self.space_again.is_some_and(|again| again <= turn.now) {
            self.space_again = None;
            core.space.set(turn.out, self.starved.max(core.space.reserved));
        }
        if let Some(proposal) = &mut self.taking_over {
            proposal.repeat_if_due(core, turn);
            return;
        }
        // Whoever was stopped has not been listening: what he missed tells nothing.
        if self.watch.is_some_and(|watch| turn.now > watch + core.options.late) {
            self.heard = turn.now;
        }
        let beacon = turn.leases.heard(self.primary, core.slice, self.epoch);
        let heard = beacon.map_or(self.heard, |beacon| beacon.max(self.heard));
        let due = heard + core.options.grace + STAGGER * self.rank(core);
        if turn.now >= due {
            self.take_over(core, turn);
        } else {
            let suspicious = turn.now >= heard + core.options.lease || self.watch > Some(turn.now);
            self.watch = suspicious.then_some(due);
        }
    }

    /// The place of this replica among those that may take over.
    fn rank(&self, core: &Core) -> u32 {
        let before = |member: &&Member| member.node != self.primary && member.node < core.me.node;
        u32::try_from(core.config().in_sync.iter().filter(before).count()).unwrap_or(0)
    }

    fn take_over(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        let config = core.config();
        let mut in_sync = config.in_sync.clone();
        // Where the minimum forbids to drop the silent primary it stays listed: nothing is served,
        // but others can be brought level.
        if in_sync.len() > config.min_in_sync as usize {
            in_sync.retain(|member| member.node != self.primary);
        }
        core.note(turn, Note::TakingOver { from: self.primary });
        core.vouch(turn, None, Vec::new());
        let me = core.me.node;
        self.watch = None;
        self.taking_over = Some(Proposal::new(core, turn, me, in_sync, ChangeReason::PrimaryLost));
    }

    /// The outcome of a proposal that left the epoch as it was.
    pub(crate) fn on_proposed(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        id: ProposalId,
        outcome: &ProposalOutcome,
    ) {
        let Some(proposal) = self.taking_over.as_mut().filter(|proposal| proposal.id == id) else {
            return;
        };
        match outcome {
            ProposalOutcome::Unknown => proposal.unknown(core, turn),
            ProposalOutcome::Accepted(_) | ProposalOutcome::Refused(..) if proposal.in_doubt => {
                proposal.again = Some(turn.now + core.options.retry);
            }
            ProposalOutcome::Accepted(_) | ProposalOutcome::Refused(..) => {
                self.taking_over = None;
                self.watch = Some(turn.now + core.options.retry);
                core.vouch(turn, Some(self.epoch), vec![self.primary]);
            }
        }
    }
}
