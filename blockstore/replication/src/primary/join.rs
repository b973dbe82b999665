//! Bringing a replica level.
//!
//! ```text
//!   JoinBegin(common position) ──> JoinReady ──> JoinFrom(here) and records follow
//!      sweep: blocks newer than `complete_to`, and those the joiner misses, step by step
//!      fell behind? another JoinFrom, and a sweep of what is newer than where it fell behind
//!   JoinFinish ──> JoinDone (complete and durable) ──> proposed for the in-sync set
//! ```
//!
//! Order makes it right: a block is read from a log whose records were all sent before on the same
//! stream, so a copy never carries a version that the joiner's log doesn't have yet; and what it has
//! in a higher version it keeps.
//!
//! One step is read at a time, and only some are on the way: a copy yields to clients' writes.

use std::collections::VecDeque;

use mooring_config::Member;
use mooring_terms::{BlockIndex, BlockRange, Extent, NodeId, Time, Version};

use super::Primary;
use crate::command::{Command, Query};
use crate::core::{Core, Turn, mutated};
use crate::event::{Found, ReadFault, Token};
use crate::history;
use crate::message::{
    Copied, CopyStep, JoinBegin, JoinDone, JoinFinish, JoinFrom, JoinId, JoinReady, MessageBody,
    Missing, MissingWanted, Position,
};
use crate::note::Note;

/// One attempt to bring one replica level.
#[derive(Debug)]
pub(super) struct Join {
    pub(super) id: JoinId,
    stage: Stage,
    /// The sweep copies what is newer than this.
    after: Version,
    /// Where the sweep is; none when it is through.
    sweep: Option<BlockIndex>,
    /// Where the question for missing blocks is; none when it is through.
    missing: Option<BlockIndex>,
    /// What the engine or the joiner is being asked.
    pending: Pending,
    work: VecDeque<BlockRange>,
    /// Steps sent and not taken: number, blocks, bytes.
    on_the_way: VecDeque<(u64, BlockRange, u64)>,
    steps: u64,
    /// The stream broke: nothing is sent until the joiner has said where it is.
    pub(super) paused: bool,
    /// Records stopped flowing behind this one: another sweep is needed.
    behind: Option<Version>,
    /// The blocks of the step being read.
    reading: Option<BlockRange>,
    pub(super) copied_bytes: u64,
    /// When the joiner last did anything for it.
    progress: Time,
    stalled_until: Option<Time>,
    /// Since when a block can't be copied and a replica in sync can't be asked for it.
    silent_since: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Superseding,
    Copying,
    Finishing,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    Nothing,
    Query(Token),
    Missing,
}

impl Join {
    /// Records can't be sent any more from behind `last` on.
    pub(super) fn fall_behind(&mut self, last: Version) {
        self.behind = Some(self.behind.map_or(last, |behind| behind.min(last)));
        if matches!(self.stage, Stage::Finishing | Stage::Done) {
            self.stage = Stage::Copying;
        }
    }

    /// Everything is to be copied again.
    fn restart_sweep(&mut self) {
        self.sweep = Some(BlockIndex(0));
        self.missing = Some(BlockIndex(0));
        self.pending = Pending::Nothing;
        self.work.clear();
        self.on_the_way.clear();
        self.reading = None;
    }

    /// Ends the step being read: of it, `lost` is to be done as `pieces`, and the rest as it is.
    fn take_apart(&mut self, lost: BlockRange, pieces: Vec<BlockRange>) {
        let Some(range) = self.reading.take() else { return };
        let between = |from: BlockIndex, to: BlockIndex| {
            Some(BlockRange::new(from, to.0.saturating_sub(from.0))).filter(|range| range.count > 0)
        };
        let (before, behind) = (between(range.first, lost.first), between(lost.end(), range.end()));
        for range in before.into_iter().chain(pieces).chain(behind).rev() {
            self.work.push_front(range);
        }
    }

    /// Whether the joiner is complete and durable.
    pub(super) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Whether records flow to it, or did.
    pub(super) fn is_following(&self) -> bool {
        self.stage != Stage::Superseding
    }

    /// Where the sweep is, for people.
    pub(super) fn at(&self) -> Option<BlockIndex> {
        self.sweep
    }

    /// Bytes sent and not taken.
    fn window(&self) -> u64 {
        self.on_the_way.iter().map(|(_, _, bytes)| bytes).sum()
    }
}

impl Primary {
    /// A replica that is not in sync has said where it is.
    pub(super) fn on_joiner_hello(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        node: NodeId,
        position: &Position,
    ) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let same = |join: &&mut Join| position.join == Some(join.id);
        if let Some(join) = peer.join.as_mut().filter(same) {
            if join.stage == Stage::Superseding {
                return;
            }
            // The stream broke in the middle: what was on the way is sent again, and records go on
            // where they can, else from here with another sweep.
            let version = history::version_of(&core.log.state.epochs, position.last.sequence);
            if version == Some(position.last) && position.last <= core.log.last {
                let lost = std::mem::take(&mut join.on_the_way);
                join.work.extend(lost.into_iter().map(|(_, range, _)| range));
                join.work.extend(join.reading.take());
                join.paused = false;
                if join.pending == Pending::Missing {
                    join.pending = Pending::Nothing;
                }
                if join.stage == Stage::Finishing {
                    join.stage = Stage::Copying;
                }
                self.reads.forget_join(node);
                if self.window.base() <= position.last {
                    return self.resume(core, turn, node, position);
                }
                join.fall_behind(position.last);
                return;
            }
        }
        let mine = (core.log.state.epochs.as_slice(), core.log.last);
        let after = history::common(mine, (&position.epochs, position.last));
        self.begin_join(core, turn, node, after);
    }

    fn begin_join(&mut self, core: &mut Core, turn: &mut Turn<'_>, node: NodeId, after: Version) {
        self.joins += 1;
        let id = JoinId((u64::from(self.epoch.0) << 32) + self.joins);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.interrupt();
        peer.received = after.sequence;
        peer.durable = after.sequence;
        peer.join = Some(Join {
            id,
            stage: Stage::Superseding,
            after,
            sweep: Some(BlockIndex(0)),
            missing: Some(BlockIndex(0)),
            pending: Pending::Nothing,
            work: VecDeque::new(),
            on_the_way: VecDeque::new(),
            steps: 0,
            paused: false,
            behind: None,
            reading: None,
            copied_bytes: 0,
            progress: turn.now,
            stalled_until: None,
            silent_since: None,
        });
        self.reads.forget_join(node);
        let begin = JoinBegin { join: id, after };
        core.send(turn, node, peer.incarnation, MessageBody::JoinBegin(begin));
        core.note(turn, Note::JoinStarted { node, after });
    }

    pub(super) fn on_join_ready(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        node: NodeId,
        ready: JoinReady,
    ) {
        let Some(join) = self.peers.get_mut(&node).and_then(|peer| peer.join.as_mut()) else {
            return;
        };
        if join.id != ready.join || !matches!(join.stage, Stage::Superseding | Stage::Copying) {
            return;
        }
        if join.stage == Stage::Copying {
            // `JoinFrom` was lost with its stream: nothing that was sent behind it counted.
            join.restart_sweep();
            self.reads.forget_join(node);
        }
        let Some(join) = self.peers.get_mut(&node).and_then(|peer| peer.join.as_mut()) else {
            return;
        };
        join.after = join.after.min(ready.complete_to);
        join.progress = turn.now;
        join.stage = Stage::Copying;
        self.follow(core, turn, node);
        if mutated!(core, JoinedEarly)
            && let Some(join) = self.peers.get_mut(&node).and_then(|peer| peer.join.as_mut())
        {
            join.stage = Stage::Done;
            self.review(core, turn);
        }
    }

    /// From here on records follow.
    fn follow(&mut self, core: &mut Core, turn: &mut Turn<'_>, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let Some(join) = &mut peer.join else { return };
        let from = JoinFrom {
            join: join.id,
            after: join.after,
            last: core.log.last,
            epochs: core.log.state.epochs.clone(),
            seal: core.log.state.seal,
        };
        join.behind = None;
        peer.flow = Some(core.log.last);
        peer.unacknowledged.clear();
        peer.unacknowledged_bytes = 0;
        core.send(turn, node, peer.incarnation, MessageBody::JoinFrom(from));
    }

    /// Goes on with every join as far as windows allow.
    pub(super) fn pump_joins(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        let copying = |peer: &super::Peer| {
            peer.join.as_ref().is_some_and(|join| join.stage == Stage::Copying)
        };
        let nodes: Vec<NodeId> =
            self.peers.iter().filter(|(_, peer)| copying(peer)).map(|(&node, _)| node).collect();
        for node in nodes {
            if core.connected.contains(&node) {
                self.pump(core, turn, node);
            }
        }
    }

    fn pump(&mut self, core: &mut Core, turn: &mut Turn<'_>, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let incarnation = peer.incarnation;
        let Some(join) = &mut peer.join else { return };
        let full = join.window() >= core.options.copy_window_bytes;
        let stalled = join.stalled_until.is_some_and(|until| turn.now < until);
        if full || stalled || join.paused || join.reading.is_some() {
            return;
        }
        if let Some(range) = next_step(&mut join.work, core.options.copy_step_blocks) {
            join.reading = Some(range);
            return self.read_for_join(core, turn, node, range);
        }
        if join.pending != Pending::Nothing {
            return;
        }
        if let Some(from) = join.sweep {
            let token = core.token();
            join.pending = Pending::Query(token);
            let query = Query::NewerThan(join.after);
            let limit_blocks = core.options.copy_step_blocks * 8;
            turn.out.push(Command::Query { token, query, from, limit_blocks });
        } else if !join.on_the_way.is_empty() {
            // What is on the way is no longer missing once it has come.
        } else if let Some(from) = join.missing {
            join.pending = Pending::Missing;
            let wanted = MissingWanted { join: join.id, from };
            core.send(turn, node, incarnation, MessageBody::MissingWanted(wanted));
        } else {
            if let Some(behind) = join.behind {
                join.after = behind;
                join.sweep = Some(BlockIndex(0));
                self.follow(core, turn, node);
                return self.pump(core, turn, node);
            }
            join.stage = Stage::Finishing;
            let finish = JoinFinish { join: join.id };
            core.send(turn, node, incarnation, MessageBody::JoinFinish(finish));
        }
    }

    pub(crate) fn on_query(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        token: Token,
        result: Result<Found, ReadFault>,
    ) {
        let asked = |peer: &&mut super::Peer| {
            peer.join.as_ref().is_some_and(|join| join.pending == Pending::Query(token))
        };
        let Some(join) = self.peers.values_mut().find(asked).and_then(|peer| peer.join.as_mut())
        else {
            return;
        };
        join.pending = Pending::Nothing;
        match result {
            Ok(found) => {
                join.work.extend(found.ranges);
                join.sweep = found.next;
            }
            Err(_) => join.stalled_until = Some(turn.now + core.options.retry),
        }
        self.advance(core, turn);
    }

    pub(super) fn on_join_missing(&mut self, turn: &Turn<'_>, node: NodeId, missing: Missing) {
        let Some(join) = self.peers.get_mut(&node).and_then(|peer| peer.join.as_mut()) else {
            return;
        };
        if join.id == missing.join && join.missing == Some(missing.from) {
            join.pending = Pending::Nothing;
            join.progress = turn.now;
            join.work.extend(missing.ranges);
            join.missing = missing.next;
        }
    }

    /// Blocks were read: sends them.
    pub(super) fn copy(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        node: NodeId,
        mut extents: Vec<Extent>,
    ) {
        let join = self.peers.get_mut(&node).and_then(|peer| peer.join.as_mut());
        let Some(range) = join.and_then(|join| join.reading.take()) else { return };
        if mutated!(core, DiscardsNotCopied) {
            extents.retain(|extent| matches!(extent, Extent::Data { .. }));
        }
        self.send_copy(core, turn, node, range, extents);
    }

    /// What was being read can't be had all: asks for `lost` block by block, and for the rest of it.
    pub(super) fn copy_singly(&mut self, node: NodeId, lost: BlockRange) {
        if let Some(join) = self.peers.get_mut(&node).and_then(|peer| peer.join.as_mut()) {
            let blocks = (lost.first.0..lost.end().0).map(|block| (BlockIndex(block), 1));
            let singly = blocks.map(|(block, count)| BlockRange::new(block, count));
            join.take_apart(lost, singly.collect());
        }
    }

    /// Of what was being read, `lost` can't be had from anybody: tells the joiner, and goes on with
    /// the rest of it.
    pub(super) fn copy_lost(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        node: NodeId,
        lost: BlockRange,
        version: Version,
    ) {
        let Some(join) = self.peers.get_mut(&node).and_then(|peer| peer.join.as_mut()) else {
            return;
        };
        join.take_apart(lost, Vec::new());
        let mut extents = vec![Extent::Missing { version, range: lost }];
        if mutated!(core, LostNotCopied) {
            extents.clear();
        }
        self.send_copy(core, turn, node, lost, extents);
    }

    fn send_copy(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        node: NodeId,
        range: BlockRange,
        extents: Vec<Extent>,
    ) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let Some(join) = &mut peer.join else { return };
        let bytes = extents.iter().map(|extent| match extent {
            Extent::Data { data, .. } => data.bytes().len() as u64,
            Extent::Hole { .. } | Extent::Missing { .. } => 0,
        });
        let bytes = bytes.sum();
        join.steps += 1;
        let number = join.steps;
        join.on_the_way.push_back((number, range, bytes));
        let step = CopyStep { join: join.id, number, extents };
        core.send(turn, node, peer.incarnation, MessageBody::Copy(step));
    }

    pub(super) fn on_copied(&mut self, turn: &Turn<'_>, node: NodeId, copied: Copied) {
        let Some(join) = self.peers.get_mut(&node).and_then(|peer| peer.join.as_mut()) else {
            return;
        };
        if join.id == copied.join && !join.paused {
            while let Some(&(number, _, bytes)) = join.on_the_way.front() {
                if number > copied.number {
                    break;
                }
                join.on_the_way.pop_front();
                join.copied_bytes += bytes;
            }
            join.progress = turn.now;
        }
    }

    pub(super) fn on_join_done(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        node: NodeId,
        done: JoinDone,
    ) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let Some(join) = &mut peer.join else { return };
        if join.id != done.join || join.stage != Stage::Finishing {
            return;
        }
        join.stage = Stage::Done;
        let copied_bytes = join.copied_bytes;
        peer.durable = peer.durable.max(done.durable);
        core.note(turn, Note::JoinFinished { node, copied_bytes });
        self.review(core, turn);
    }

    /// The member as it would be listed, if the replica on `node` is level.
    pub(super) fn joined(&self, core: &Core, node: NodeId) -> Option<Member> {
        let peer = self.peers.get(&node)?;
        let done = peer.join.as_ref().is_some_and(Join::is_done) && peer.flow.is_some();
        let incarnation = peer.incarnation?;
        let member = core.config().member(node)?;
        (done && !peer.failed).then_some(Member { incarnation, ..*member })
    }

    /// Whether a joining member that may be listed by now still follows.
    pub(super) fn is_level(&self, member: &Member) -> bool {
        self.peers.get(&member.node).is_some_and(|peer| {
            peer.incarnation == Some(member.incarnation)
                && peer.flow.is_some()
                && peer.join.as_ref().is_some_and(Join::is_done)
        })
    }

    /// Whether a block that nobody gives is to wait for replicas in sync that can't be asked, if there
    /// are any such.
    pub(super) fn waits_for(
        &mut self,
        core: &Core,
        turn: &Turn<'_>,
        node: NodeId,
        silent: bool,
    ) -> bool {
        let join = self.peers.get_mut(&node).and_then(|peer| peer.join.as_mut());
        let Some(join) = join.filter(|_| silent) else { return false };
        let since = *join.silent_since.get_or_insert(turn.now);
        turn.now < since + core.options.lease * 2
    }

    /// A block can't be copied now: tries again later.
    pub(super) fn stall_join(&mut self, core: &Core, turn: &Turn<'_>, node: NodeId) {
        if let Some(join) = self.peers.get_mut(&node).and_then(|peer| peer.join.as_mut()) {
            join.stalled_until = Some(turn.now + core.options.lease);
            join.work.extend(join.reading.take());
        }
    }

    /// Goes on with joins that could not, and asks joiners that did nothing for long where they are.
    pub(super) fn retry_joins(&mut self, core: &Core, turn: &mut Turn<'_>) {
        let mut quiet = Vec::new();
        for (&node, peer) in &mut self.peers {
            let Some(join) = &mut peer.join else { continue };
            join.stalled_until = join.stalled_until.filter(|until| turn.now < *until);
            if !join.is_done() && turn.now >= join.progress + core.options.lease {
                join.progress = turn.now;
                quiet.push(node);
            }
        }
        for node in quiet {
            self.poke(core, turn, node);
        }
    }

    pub(super) fn join_deadline(&self, core: &Core) -> Option<Time> {
        let connected = |node: &NodeId| core.connected.contains(node);
        let peers = self.peers.iter().filter(|(node, _)| connected(node));
        let joins = peers.filter_map(|(_, peer)| peer.join.as_ref()).filter(|join| !join.is_done());
        let looks = |join: &Join| {
            let quiet = join.progress + core.options.lease;
            join.stalled_until.map_or(quiet, |until| until.min(quiet))
        };
        joins.map(looks).min()
    }
}

/// The next blocks to copy, at most `limit` of them.
fn next_step(work: &mut VecDeque<BlockRange>, limit: u64) -> Option<BlockRange> {
    let range = work.pop_front()?;
    if range.count > limit {
        work.push_front(BlockRange::new(range.first.plus(limit), range.count - limit));
    }
    Some(BlockRange::new(range.first, range.count.min(limit)))
}
