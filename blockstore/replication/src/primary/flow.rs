//! Records on their way to the other replicas.
//!
//! A flow begins at a position that the tables prove to be common, and goes on in order: from the
//! window in memory, or from the engine where the replica is further behind. After any break it
//! begins anew from what the replica says.

use mooring_terms::{Body, NodeId, Record, Sequence, Version};

use super::window::Window;
use super::{Phase, Primary};
use crate::command::Command;
use crate::core::{Core, Turn, mutated};
use crate::event::Token;
use crate::history;
use crate::message::{Append, MessageBody, Position};
use crate::note::Note;

/// Bytes of records in one message.
const MESSAGE_BYTES: u64 = 1 << 20;

/// How far back a command list is searched for a message that can take one more record.
const MERGE_REACH: usize = 8;

impl Primary {
    /// Gives the next version to a new record, appends it here and sends it on.
    pub(super) fn order(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        body: Body,
        durable: bool,
    ) -> Version {
        let version = Version::new(self.epoch, core.log.last.sequence.next());
        if durable {
            self.sync_target = self.sync_target.max(version.sequence);
        }
        self.append(core, turn, Record { version, body });
        version
    }

    /// Appends a record here and sends it on.
    pub(super) fn append(&mut self, core: &mut Core, turn: &mut Turn<'_>, record: Record) {
        let previous = core.log.last;
        core.space.spend(crate::space::cost(&record));
        core.log.append(turn.out, record.clone());
        self.unsynced_bytes += Window::weight(&record);
        if self.unsynced_bytes > core.options.unsynced_bytes {
            self.unsynced_bytes = 0;
            self.sync_target = record.version.sequence;
        }
        self.window.push(record.clone());
        let level: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.flow == Some(previous))
            .map(|(&node, _)| node)
            .collect();
        for node in level {
            self.send_records(core, turn, node, previous, vec![record.clone()]);
        }
    }

    /// Begins or goes on with the flow to `node`, which said where it is.
    pub(super) fn resume(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        node: NodeId,
        position: &Position,
    ) {
        let mine = (core.log.state.epochs.as_slice(), core.log.last);
        let both = history::common(mine, (&position.epochs, position.last));
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let sequences = mutated!(core, SequenceReused);
        let positions = mutated!(core, PositionsBeforePromise);
        let unchecked = sequences || positions;
        if both != position.last && !unchecked {
            peer.diverged = true;
            core.note(turn, Note::Diverged { node, last: position.last });
            self.review(core, turn);
            return;
        }
        peer.flow = Some(both);
        peer.sync_asked = peer.sync_asked.min(peer.durable);
        self.repeat_want(core, turn, node);
        self.stream(core, turn, node);
    }

    /// Sends `node` what it lacks, as far as it is at hand.
    pub(super) fn stream(&mut self, core: &mut Core, turn: &mut Turn<'_>, node: NodeId) {
        loop {
            let Some(peer) = self.peers.get_mut(&node) else { return };
            let Some(from) = peer.flow else { return };
            if peer.reading || from.sequence >= core.log.last.sequence {
                return;
            }
            let Some(records) = self.window.after(from.sequence, MESSAGE_BYTES) else {
                peer.reading = true;
                let token = core.token();
                self.record_reads.insert(token, node);
                let (after, limit_bytes) = (from.sequence, MESSAGE_BYTES);
                turn.out.push(Command::ReadRecords { token, after, limit_bytes });
                return;
            };
            if records.is_empty() {
                return;
            }
            self.send_records(core, turn, node, from, records);
        }
    }

    pub(crate) fn on_records(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        token: Token,
        records: Vec<Record>,
    ) {
        let Some(node) = self.record_reads.remove(&token) else { return };
        let Some(peer) = self.peers.get_mut(&node).filter(|peer| peer.reading) else { return };
        peer.reading = false;
        let Some(from) = peer.flow else { return };
        let follows = |record: &Record| record.version.sequence == from.sequence.next();
        if records.first().is_some_and(follows) {
            self.send_records(core, turn, node, from, records);
            self.stream(core, turn, node);
        } else {
            // Too far behind for records: it has to be brought level by copying.
            peer.diverged = true;
            peer.flow = None;
            self.review(core, turn);
        }
        self.advance(core, turn);
    }

    fn send_records(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        node: NodeId,
        previous: Version,
        records: Vec<Record>,
    ) {
        let (committed, stable, sync) = (self.committed, self.stable, self.sync_target);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let Some(last) = records.last().map(|record| record.version) else { return };
        if let Some(join) = &mut peer.join {
            for record in &records {
                peer.unacknowledged.push_back((record.version.sequence, Window::weight(record)));
                peer.unacknowledged_bytes += Window::weight(record);
            }
            if peer.unacknowledged_bytes > core.options.window_bytes {
                // From what it has, not from what was sent: it may have had no space for that.
                peer.flow = None;
                if let Some(has) = history::version_of(&core.log.state.epochs, peer.received) {
                    join.fall_behind(has);
                    return;
                }
                peer.join = None;
                return self.poke(core, turn, node);
            }
        }
        peer.flow = Some(last);
        let sync = if sync <= last.sequence { sync } else { Sequence(0) };
        peer.sync_asked = peer.sync_asked.max(sync);
        let incarnation = peer.incarnation;
        if let Some(append) = last_append(turn.out, node, previous) {
            append.records.extend(records);
            append.sync = append.sync.max(sync);
            return;
        }
        let append = Append { previous, records, committed, stable, sync };
        core.send(turn, node, incarnation, MessageBody::Append(append));
    }

    /// Sees to it that all up to the sync target becomes durable everywhere.
    pub(super) fn ask_syncs(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        if self.phase == Phase::Leaving || !self.has_opened() {
            return;
        }
        let is_last = self.required.is_empty() && !core.config().joining.is_empty();
        if is_last && !self.in_flight.is_empty() {
            self.sync_target = core.log.last.sequence;
        }
        let target = self.sync_target;
        if core.log.durable < target {
            core.log.sync(turn.out);
        }
        let (committed, stable) = (self.committed, self.stable);
        for member in &self.required {
            let Some(peer) = self.peers.get_mut(&member.node) else { continue };
            let Some(previous) = peer.flow else { continue };
            if peer.durable < target && peer.sync_asked < target && previous.sequence >= target {
                peer.sync_asked = target;
                let records = Vec::new();
                let append = Append { previous, records, committed, stable, sync: target };
                core.send(turn, member.node, peer.incarnation, MessageBody::Append(append));
            }
        }
    }
}

/// The append to `node` among the last commands that the record behind `previous` can ride on.
fn last_append(out: &mut [Command], node: NodeId, previous: Version) -> Option<&mut Append> {
    for command in out.iter_mut().rev().take(MERGE_REACH) {
        if let Command::Send { to, message } = command
            && *to == node
        {
            return match &mut message.body {
                MessageBody::Append(append)
                    if append.records.last().is_some_and(|last| last.version == previous) =>
                {
                    Some(append)
                }
                _ => None,
            };
        }
    }
    None
}
