//! A replica that is not in sync: it is brought level by the primary.
//!
//! ```text
//!   outside ──JoinBegin──> superseding ──durable──> ready ──JoinFrom──> following
//!      ^                                                                  │ records and copies
//!      │ another JoinBegin at any time                                    │ JoinFinish
//!      └────────────────────────────────────────────── complete, durable <┘
//! ```
//!
//! Invariants:
//! - the supersede is durable before anything is copied: what was never agreed on can't come back;
//! - `complete_to` moves only when a join is complete, and the note of that is durable before it is
//!   told; so an interrupted join starts again from where the last complete one ended;
//! - its acknowledgements count for nothing until it is listed; it pays for its space by itself.

use std::collections::{BTreeMap, VecDeque};

use mooring_terms::{Entry, Epoch, Extent, NodeId, Time, Version};

use crate::command::{Command, Query};
use crate::core::{Core, Turn, mutated};
use crate::event::{Found, Mark, ReadFault, Token};
use crate::history;
use crate::message::{
    Ack, Append, Copied, CopyStep, JoinBegin, JoinDone, JoinFinish, JoinFrom, JoinId, JoinReady,
    MessageBody, Missing, MissingWanted,
};
use crate::note::Note;
use crate::restart::Restart;
use crate::space;
use crate::take::{Taken, take};

/// Missing blocks looked for at a time.
const MISSING_BLOCKS: u64 = 1 << 16;

/// A replica that is not in sync.
#[derive(Debug)]
pub(crate) struct Joiner {
    pub(crate) epoch: Epoch,
    pub(crate) primary: NodeId,
    join: Option<Join>,
    /// Missing blocks being looked for.
    queries: BTreeMap<Token, MissingWanted>,
    /// When to ask the engine for space again.
    space_again: Option<Time>,
    told_full: bool,
    /// The pool couldn't give a whole window ahead: only what is needed next is asked for.
    scarce: bool,
    /// Bytes that a record needs which found no space and was dropped.
    dropped: u64,
    /// What it does beside, where it is listed in sync under its earlier incarnation.
    pub(crate) restart: Option<Restart>,
}

/// One attempt to be brought level.
#[derive(Debug)]
struct Join {
    id: JoinId,
    stage: Stage,
    /// Steps of the copy taken, and those not yet with the kernel.
    taken: u64,
    unreceived: VecDeque<(Mark, u64)>,
    /// Steps that wait for space.
    waiting: VecDeque<CopyStep>,
    /// The end of the join, not yet durable.
    finish: Option<Mark>,
    finish_waits: bool,
}

#[derive(Debug)]
enum Stage {
    /// Until the supersede is durable.
    Superseding(Mark, Version),
    /// Until the primary says from where records follow. Blocks newer than this are to be copied.
    Ready(Version),
    /// Records and copies come.
    Following,
}

impl Joiner {
    pub(crate) fn new(core: &mut Core, turn: &mut Turn<'_>, restart: Option<Restart>) -> Self {
        let (epoch, primary) = (core.config().epoch, core.config().primary);
        // A restarted replica's word must not stand for that of its earlier incarnation.
        let in_sync = core.config().in_sync_member(core.me.node).is_some();
        let vouches = (!in_sync).then_some(epoch);
        let peers = if in_sync { Vec::new() } else { vec![primary] };
        core.vouch(turn, vouches, peers);
        core.join = None;
        core.hello(turn, primary, false);
        Self {
            epoch,
            primary,
            join: None,
            queries: BTreeMap::new(),
            space_again: None,
            told_full: false,
            scarce: false,
            dropped: 0,
            restart,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        let restart = self.restart.as_ref().and_then(Restart::deadline);
        self.space_again.into_iter().chain(restart).min()
    }

    pub(crate) fn on_connected(&mut self, core: &Core, turn: &mut Turn<'_>, peer: NodeId) {
        if peer == self.primary {
            core.hello(turn, peer, self.restart.is_some());
            self.repeat(core, turn);
        }
    }

    /// Says again what may have been lost with a stream.
    pub(crate) fn repeat(&mut self, core: &Core, turn: &mut Turn<'_>) {
        if let Some(join) = &mut self.join {
            // After a hello the primary sends again whatever was not acknowledged.
            join.waiting.clear();
        }
        self.tell_ready(core, turn);
        self.acknowledge(core, turn, false);
        self.tell_copied(core, turn);
    }

    fn tell_ready(&self, core: &Core, turn: &mut Turn<'_>) {
        if let Some(join) = &self.join
            && let Stage::Ready(complete_to) = join.stage
        {
            let ready = JoinReady { join: join.id, complete_to };
            core.send(turn, self.primary, None, MessageBody::JoinReady(ready));
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
        match body {
            MessageBody::JoinBegin(begin) => self.on_begin(core, turn, begin),
            MessageBody::JoinFrom(from) => self.on_from(core, turn, from),
            MessageBody::Append(append) => self.on_append(core, turn, &append),
            MessageBody::Copy(step) => self.on_copy(core, turn, step),
            MessageBody::MissingWanted(wanted) => self.on_missing_wanted(core, turn, wanted),
            MessageBody::JoinFinish(finish) => self.on_finish(core, turn, finish),
            _ => {}
        }
    }

    fn on_begin(&mut self, core: &mut Core, turn: &mut Turn<'_>, begin: JoinBegin) {
        // The common position is in both logs; anything else is not meant for this one.
        let known = history::version_of(&core.log.state.epochs, begin.after.sequence);
        if begin.after > core.log.last
            || known != Some(begin.after)
            || self.restart.as_ref().is_some_and(Restart::is_proposed)
        {
            return;
        }
        let keep = mutated!(core, SupersededKept);
        core.log.supersede(turn.out, begin.after, keep);
        let mark = core.log.sync(turn.out);
        self.queries.clear();
        core.join = Some(begin.join);
        self.join = Some(Join {
            id: begin.join,
            stage: Stage::Superseding(mark, core.log.state.complete_to(core.log.last)),
            taken: 0,
            unreceived: VecDeque::new(),
            waiting: VecDeque::new(),
            finish: None,
            finish_waits: false,
        });
        self.keep_space(core, turn);
    }

    fn on_from(&mut self, core: &mut Core, turn: &mut Turn<'_>, from: JoinFrom) {
        let Some(join) = self.join.as_mut().filter(|join| join.id == from.join) else { return };
        if matches!(join.stage, Stage::Superseding(..))
            || !history::is_sound(&from.epochs, from.last)
        {
            return;
        }
        if core.log.last < from.after {
            // Records that the primary counts on never came.
            core.hello(turn, self.primary, false);
            return self.repeat(core, turn);
        }
        join.stage = Stage::Following;
        join.finish = None;
        join.finish_waits = false;
        core.log.jump(turn.out, from.last, from.epochs, from.seal);
    }

    fn on_append(&mut self, core: &mut Core, turn: &mut Turn<'_>, append: &Append) {
        let Some(join) = &self.join else { return };
        if !matches!(join.stage, Stage::Following) {
            return;
        }
        match take(core, turn.out, append, None) {
            Taken::Appended => {}
            Taken::Known => self.acknowledge(core, turn, false),
            Taken::Gap => self.acknowledge(core, turn, true),
            // To be said again when there is space.
            Taken::NoSpace => {
                self.dropped = append.records.iter().map(space::cost).max().unwrap_or(0);
            }
            Taken::Diverged => {
                self.join = None;
                core.join = None;
                core.hello(turn, self.primary, false);
            }
        }
        if append.sync > core.log.durable {
            core.log.sync(turn.out);
        }
        self.keep_space(core, turn);
    }

    fn acknowledge(&self, core: &Core, turn: &mut Turn<'_>, resend: bool) {
        if !self.join.as_ref().is_some_and(|join| matches!(join.stage, Stage::Following)) {
            return;
        }
        let (received, durable) = (core.log.received, core.log.durable);
        let ack = Ack { received, durable, want: 0, credit: 0, full: false, resend };
        core.send(turn, self.primary, None, MessageBody::Ack(ack));
    }

    fn on_copy(&mut self, core: &mut Core, turn: &mut Turn<'_>, step: CopyStep) {
        let Some(join) = self.join.as_mut().filter(|join| join.id == step.join) else { return };
        let newest = join.waiting.back().map_or(join.taken, |step| step.number);
        let rotten = |extent: &Extent| match extent {
            Extent::Data { data, .. } => data.first_corrupt().is_some(),
            Extent::Hole { .. } | Extent::Missing { .. } => false,
        };
        if !matches!(join.stage, Stage::Following)
            || step.number <= newest
            || step.extents.iter().any(rotten)
        {
            return self.tell_copied(core, turn);
        }
        join.waiting.push_back(step);
        self.take_copies(core, turn);
    }

    /// Appends the steps that wait, as far as there is space.
    fn take_copies(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        let Some(join) = &mut self.join else { return };
        while let Some(step) = join.waiting.front() {
            let cost = step.extents.iter().map(copy_cost).sum();
            if core.space.reserved < cost {
                break;
            }
            core.space.spend(cost);
            let Some(step) = join.waiting.pop_front() else { break };
            let mut last = None;
            for extent in step.extents {
                last = Some(core.log.append_aside(turn.out, copy_entry(extent)));
            }
            join.taken = step.number;
            let mark = last.unwrap_or_else(|| core.log.end());
            join.unreceived.push_back((mark, step.number));
        }
        self.finish_if_all_taken(core, turn);
        self.keep_space(core, turn);
        self.on_log(core, turn, false);
    }

    /// Keeps space ahead of what the primary sends.
    fn keep_space(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        let Some(join) = &self.join else { return };
        let waiting: u64 = join.waiting.iter().flat_map(|step| &step.extents).map(copy_cost).sum();
        let first = join.waiting.front().map(|step| step.extents.iter().map(copy_cost).sum());
        let least = self.dropped.max(first.unwrap_or(0));
        // From a pool that is nearly full only what is needed next.
        let (low, ahead) = if self.scarce {
            (least, least)
        } else {
            (core.options.copy_window_bytes / 2 + waiting, core.options.copy_window_bytes + waiting)
        };
        if core.space.reserved < low && self.space_again.is_none() {
            core.space.set(turn.out, ahead);
        }
    }

    pub(crate) fn on_reserved(&mut self, core: &mut Core, turn: &mut Turn<'_>, enough: bool) {
        if !enough && !std::mem::replace(&mut self.scarce, true) {
            return self.keep_space(core, turn);
        }
        if !enough {
            self.space_again = Some(turn.now + core.options.retry);
            if !std::mem::replace(&mut self.told_full, true) {
                core.note(turn, Note::PoolFull { node: core.me.node });
            }
            return;
        }
        self.scarce &= self.dropped > 0 || core.space.reserved < core.options.copy_window_bytes / 2;
        self.take_copies(core, turn);
        if std::mem::take(&mut self.dropped) > 0 {
            self.acknowledge(core, turn, true);
        }
    }

    fn tell_copied(&self, core: &Core, turn: &mut Turn<'_>) {
        if let Some(join) = &self.join {
            let number = join.unreceived.front().map_or(join.taken, |&(_, number)| number - 1);
            let copied = Copied { join: join.id, number };
            core.send(turn, self.primary, None, MessageBody::Copied(copied));
        }
    }

    fn on_missing_wanted(&mut self, core: &mut Core, turn: &mut Turn<'_>, wanted: MissingWanted) {
        if self.join.as_ref().is_some_and(|join| join.id == wanted.join) {
            let token = core.token();
            self.queries.insert(token, wanted);
            let (query, from) = (Query::Missing, wanted.from);
            let limit_blocks = MISSING_BLOCKS;
            turn.out.push(Command::Query { token, query, from, limit_blocks });
        }
    }

    pub(crate) fn on_query(
        &mut self,
        core: &Core,
        turn: &mut Turn<'_>,
        token: Token,
        result: Result<Found, ReadFault>,
    ) {
        let (Some(wanted), Ok(found)) = (self.queries.remove(&token), result) else { return };
        let MissingWanted { join, from } = wanted;
        let missing = Missing { join, from, ranges: found.ranges, next: found.next };
        core.send(turn, self.primary, None, MessageBody::Missing(missing));
    }

    fn on_finish(&mut self, core: &mut Core, turn: &mut Turn<'_>, finish: JoinFinish) {
        let Some(join) = self.join.as_mut().filter(|join| join.id == finish.join) else { return };
        join.finish_waits = true;
        self.finish_if_all_taken(core, turn);
    }

    fn finish_if_all_taken(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        let Some(join) = &mut self.join else { return };
        if join.finish_waits && join.waiting.is_empty() {
            join.finish_waits = false;
            core.log.end_join(turn.out);
            core.log.note(turn.out, |_| {});
            join.finish = Some(core.log.sync(turn.out));
        }
    }

    /// The engine has reported.
    pub(crate) fn on_log(&mut self, core: &Core, turn: &mut Turn<'_>, moved: bool) {
        let Some(join) = &mut self.join else { return };
        if let Stage::Superseding(mark, complete_to) = join.stage
            && core.log.is_durable(mark)
        {
            join.stage = Stage::Ready(complete_to);
            self.tell_ready(core, turn);
        }
        let Some(join) = &mut self.join else { return };
        let before = join.unreceived.len();
        while join.unreceived.front().is_some_and(|&(mark, _)| core.log.is_received(mark)) {
            join.unreceived.pop_front();
        }
        let copied = join.unreceived.len() < before;
        let done = join.finish.take_if(|mark| core.log.is_durable(*mark)).is_some();
        let id = join.id;
        if copied {
            self.tell_copied(core, turn);
        }
        if moved {
            self.acknowledge(core, turn, false);
        }
        if done {
            let done = JoinDone { join: id, durable: core.log.durable };
            core.send(turn, self.primary, None, MessageBody::JoinDone(done));
        }
    }

    pub(crate) fn on_tick(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        if self.space_again.is_some_and(|again| again <= turn.now) {
            self.space_again = None;
            self.keep_space(core, turn);
        }
    }

    pub(crate) fn state_name(&self) -> &'static str {
        if let Some(restart) = self.restart.as_ref().filter(|_| self.join.is_none()) {
            return restart.state_name();
        }
        match self.join.as_ref().map(|join| (&join.stage, join.finish.is_some())) {
            None => "joining: waiting",
            Some((Stage::Superseding(..), _)) => "joining: superseding",
            Some((Stage::Ready(_), _)) => "joining: ready",
            Some((Stage::Following, false)) => "joining: following",
            Some((Stage::Following, true)) => "joining: finishing",
        }
    }

    /// The primary goes on in a new epoch, and so does the join.
    pub(crate) fn next_epoch(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        self.epoch = core.config().epoch;
        core.vouch(turn, Some(self.epoch), vec![self.primary]);
        // What it said under the epoch before went unheard at a primary of this one, be it the first
        // word or one in the middle of a join.
        if !mutated!(core, JoinerSilent) {
            core.hello(turn, self.primary, false);
        }
    }
}

/// What a copied extent takes out of the reservation.
fn copy_cost(extent: &Extent) -> u64 {
    match extent {
        Extent::Data { data, .. } => space::cost_of_payload(data.bytes().len() as u64),
        Extent::Hole { .. } | Extent::Missing { .. } => 0,
    }
}

/// The entry that applies a copied extent.
pub(crate) fn copy_entry(extent: Extent) -> Entry {
    match extent {
        Extent::Data { version, first, data } => Entry::Copy { version, first, data },
        Extent::Hole { version, range } => Entry::CopyHole { version, range },
        Extent::Missing { version, range } => Entry::CopyLost { version, range },
    }
}
