//! Reads: at once unless an uncommitted write overlaps, answered when what was read is committed
//! and every in-sync replica has answered within the lease.
//!
//! ```text
//!   asked ──overlapping write in flight──> blocked ──committed──┐
//!     └──> reading <────────────────────────────────────────────┘
//!             │ missing or rotten: fetch from another in-sync replica, repair, read again;
//!             │ no good copy anywhere: refused, or copied to a joiner as lost
//!             └──> held until its newest version is committed and the leases hold ──> answered
//! ```

use std::collections::BTreeMap;

use mooring_config::ClusterVersion;
use mooring_terms::{BLOCK_SIZE, BlockRange, Data, Entry, Extent, NodeId, Sequence, Time, Version};

use super::Primary;
use crate::command::Command;
use crate::core::{Core, Turn, mutated};
use crate::event::{ReadFault, Token};
use crate::joiner::copy_entry;
use crate::message::{MessageBody, ReadBlocks};
use crate::note::Note;
use crate::options::Options;
use crate::request::{Credential, Outcome, Refusal, RequestId};
use crate::space;

/// Reads under way.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Behind overlapping writes: until this sequence is committed.
    blocked: Vec<(Sequence, Reading)>,
    /// At the engine.
    active: BTreeMap<Token, Reading>,
    /// Waiting for a good copy from another replica, by the token sent there.
    fetching: BTreeMap<u64, Fetch>,
    /// Read, and not answered.
    held: Vec<Held>,
    fetches: u64,
}

/// One read.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    reader: Reader,
    range: BlockRange,
    /// Who was already asked for a good copy.
    asked: Vec<NodeId>,
    /// Who of them has said that he has none.
    without: Vec<NodeId>,
}

/// Blocks that this replica can't give.
#[derive(Clone, Copy, Debug)]
struct Lack {
    range: BlockRange,
    why: Why,
}

/// Why it can't, with the version that the map has for them.
#[derive(Clone, Copy, Debug)]
enum Why {
    /// They don't match their checksums.
    Rotten(Version),
    /// They are missing.
    Missing(Version),
}

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// A client.
    Client(Asker),
    /// The copy to the joining replica on this node.
    Join(NodeId),
}

/// The client's request that a read is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) id: RequestId,
    pub(super) from: NodeId,
    pub(super) credential: Credential,
    pub(super) wants: Wants,
}

/// What of the blocks is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    Data,
    Versions,
}

#[derive(Debug)]
struct Held {
    asker: Asker,
    /// The newest version in it.
    until: Sequence,
    extents: Vec<Extent>,
}

#[derive(Debug)]
struct Fetch {
    reading: Reading,
    lack: Lack,
    from: NodeId,
    since: Time,
    /// All that the reader wants, since there is no space for a repair.
    direct: bool,
}

impl Reads {
    /// Whether an answer waits for a lease or a commit.
    pub(super) fn waits_for_lease(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether a client waits for a read.
    pub(super) fn has_clients(&self) -> bool {
        let client = |reading: &Reading| matches!(reading.reader, Reader::Client(_));
        !self.blocked.is_empty()
            || !self.held.is_empty()
            || self.active.values().any(client)
            || self.fetching.values().any(|fetch| client(&fetch.reading))
    }

    /// The clients' reads, all forgotten.
    pub(super) fn take_clients(&mut self) -> Vec<RequestId> {
        let reads = std::mem::take(self);
        self.fetches = reads.fetches;
        let blocked = reads.blocked.into_iter().map(|(_, reading)| reading.reader);
        let active = reads.active.into_values().map(|reading| reading.reader);
        let fetching = reads.fetching.into_values().map(|fetch| fetch.reading.reader);
        let client = |reader| match reader {
            Reader::Client(asker) => Some(asker.id),
            Reader::Join(_) => None,
        };
        let held = reads.held.into_iter().map(|held| held.asker.id);
        blocked.chain(active).chain(fetching).filter_map(client).chain(held).collect()
    }

    /// Forgets what was read for the joining replica on `node`.
    pub(super) fn forget_join(&mut self, node: NodeId) {
        let other = |reader: Reader| reader != Reader::Join(node);
        self.active.retain(|_, reading| other(reading.reader));
        self.fetching.retain(|_, fetch| other(fetch.reading.reader));
    }
}

impl Primary {
    pub(super) fn begin_read(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        asker: Asker,
        range: BlockRange,
    ) {
        let reading = Reading::new(Reader::Client(asker), range);
        match self.last_overlapping(range).filter(|_| !mutated!(core, ReadUncommitted)) {
            Some(sequence) => self.reads.blocked.push((sequence, reading)),
            None => self.read(core, turn, reading),
        }
    }

    /// Reads blocks to copy them to the joining replica on `node`.
    pub(super) fn read_for_join(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        node: NodeId,
        range: BlockRange,
    ) {
        self.read(core, turn, Reading::new(Reader::Join(node), range));
    }

    fn read(&mut self, core: &mut Core, turn: &mut Turn<'_>, reading: Reading) {
        let token = core.token();
        turn.out.push(Command::Read { token, range: reading.range });
        self.reads.active.insert(token, reading);
    }

    pub(crate) fn on_read(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        token: Token,
        result: Result<Vec<Extent>, ReadFault>,
    ) {
        let Some(reading) = self.reads.active.get(&token).cloned() else { return };
        match result {
            // The failure of the pool follows, and answers all.
            Err(ReadFault::Failed) => return,
            Err(ReadFault::Corrupt { block, version }) => {
                self.reads.active.remove(&token);
                let range = BlockRange::new(block, 1);
                self.fetch(core, turn, reading, Lack { range, why: Why::Rotten(version) });
            }
            Ok(extents) => {
                self.reads.active.remove(&token);
                let missing = extents.iter().find_map(|extent| match extent {
                    Extent::Missing { version, range } => {
                        Some(Lack { range: *range, why: Why::Missing(*version) })
                    }
                    Extent::Data { .. } | Extent::Hole { .. } => None,
                });
                match missing {
                    Some(lack) => self.fetch(core, turn, reading, lack),
                    None => self.finish_read(core, turn, reading.reader, extents),
                }
            }
        }
        self.advance(core, turn);
    }

    fn finish_read(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        reader: Reader,
        extents: Vec<Extent>,
    ) {
        match reader {
            Reader::Join(node) => self.copy(core, turn, node, extents),
            Reader::Client(asker) => {
                let newest = extents.iter().filter_map(Extent::version).map(|v| v.sequence).max();
                let until = newest.unwrap_or(Sequence(0));
                self.reads.held.push(Held { asker, until, extents });
            }
        }
    }

    /// Answers what may be answered, and begins what was blocked.
    pub(super) fn release_reads(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        if !self.reads.held.is_empty() && self.holds_leases(core, turn) {
            let all = mutated!(core, ReadUncommitted);
            let committed = self.committed;
            let ready = |held: &mut Held| all || held.until <= committed;
            let ready: Vec<Held> = self.reads.held.extract_if(.., ready).collect();
            for held in ready {
                self.release(core, turn, held);
            }
        }
        if !self.reads.blocked.is_empty() {
            let committed = self.committed;
            let free = |(until, _): &mut (Sequence, Reading)| *until <= committed;
            let free: Vec<(Sequence, Reading)> = self.reads.blocked.extract_if(.., free).collect();
            for (_, reading) in free {
                self.read(core, turn, reading);
            }
        }
    }

    /// Answers a read: but not to a session that was fenced while it was under way.
    fn release(&mut self, core: &Core, turn: &mut Turn<'_>, held: Held) {
        let Asker { id, from, credential, wants } = held.asker;
        let entitled = match credential {
            Credential::Session { attachment, session } => {
                self.check_session(core, turn, attachment, (session, from))
            }
            Credential::Attachment(_) => Ok(()),
        };
        let outcome = match (entitled, wants) {
            (Err(refusal), _) => Outcome::Refused(refusal),
            (Ok(()), Wants::Data) => Outcome::Read(held.extents),
            (Ok(()), Wants::Versions) => {
                let of = |extent: &Extent| Some((extent.range(), extent.version()?));
                Outcome::Versions(held.extents.iter().filter_map(of).collect())
            }
        };
        self.reply(turn, id, outcome);
    }

    /// Gets a good copy of what is lacking from the next in-sync replica that was not asked yet.
    fn fetch(&mut self, core: &mut Core, turn: &mut Turn<'_>, mut reading: Reading, lack: Lack) {
        let next = self.required.iter().map(|member| member.node).find(|&node| {
            !reading.asked.contains(&node)
                && core.connected.contains(&node)
                && self.counts(core, node)
        });
        let Some(from) = next else {
            return self.give_up(core, turn, &reading, lack);
        };
        reading.asked.push(from);
        let (since, direct) = (turn.now, false);
        self.ask_for_blocks(core, turn, Fetch { reading, lack, from, since, direct });
    }

    fn ask_for_blocks(&mut self, core: &Core, turn: &mut Turn<'_>, fetch: Fetch) {
        self.reads.fetches += 1;
        let token = self.reads.fetches;
        let range = if fetch.direct { fetch.reading.range } else { fetch.lack.range };
        let from = fetch.from;
        self.reads.fetching.insert(token, fetch);
        let incarnation = self.peers.get(&from).and_then(|peer| peer.incarnation);
        let read = ReadBlocks { token, range };
        core.send(turn, from, incarnation, MessageBody::ReadBlocks(read));
    }

    /// No in-sync replica that can be asked has a good copy.
    fn give_up(&mut self, core: &mut Core, turn: &mut Turn<'_>, reading: &Reading, lack: Lack) {
        let block = lack.range.first;
        core.note(turn, Note::BlockLost { block });
        match reading.reader {
            Reader::Client(asker) => {
                let refusal = Refusal::Corrupt { slice: core.slice, block, node: core.me.node };
                self.reply(turn, asker.id, Outcome::Refused(refusal));
            }
            Reader::Join(node) => self.copy_without(core, turn, node, reading, lack),
        }
    }

    /// Goes on with a join without a block that nobody can give now. Left out, it would read as zeros
    /// on a joiner that never had it, or as what it was before; so it is copied as lost, if every
    /// in-sync replica that can be asked has said that it hasn't got it. Those that can't be are waited
    /// for, but not for ever: whoever returns with it repairs it.
    fn copy_without(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        node: NodeId,
        reading: &Reading,
        lack: Lack,
    ) {
        let others = self.required.iter().map(|member| member.node);
        let (answer, silent): (Vec<_>, Vec<_>) = others
            .filter(|other| *other != node && !reading.without.contains(other))
            .partition(|other| core.connected.contains(other) && self.counts(core, *other));
        let waits = !answer.is_empty() || self.waits_for(core, turn, node, !silent.is_empty());
        if waits || core.version < ClusterVersion::LOST_BLOCKS {
            self.stall_join(core, turn, node);
        } else if lack.range.count > 1 && !reading.without.is_empty() {
            // Another replica may have some of them.
            self.copy_singly(node, lack.range);
        } else {
            let (Why::Rotten(version) | Why::Missing(version)) = lack.why;
            self.copy_lost(core, turn, node, lack.range, version);
        }
    }

    pub(super) fn on_blocks_read(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        from: NodeId,
        token: u64,
        extents: Vec<Extent>,
    ) {
        if self.reads.fetching.get(&token).is_none_or(|fetch| fetch.from != from) {
            return;
        }
        let Some(mut fetch) = self.reads.fetching.remove(&token) else { return };
        let cost = space::cost_of_payload(fetch.lack.range.bytes());
        if fetch.direct && covers(fetch.reading.range, &extents) {
            // What an in-sync replica has is at least all that is committed.
            return self.finish_read(core, turn, fetch.reading.reader, extents);
        }
        let unpaid = core.space.reserved < cost && !mutated!(core, RepairUnpaid);
        if !fetch.direct && !extents.is_empty() && unpaid {
            fetch.direct = true;
            fetch.since = turn.now;
            return self.ask_for_blocks(core, turn, fetch);
        }
        if !extents.iter().any(|extent| fetch.lack.is_met_by(extent)) {
            fetch.reading.without.push(from);
        }
        let mut repaired = false;
        for extent in extents {
            repaired |= repair(core, turn, &fetch, extent);
        }
        if repaired {
            core.note(turn, Note::BlockRepaired { block: fetch.lack.range.first, from });
            self.read(core, turn, fetch.reading);
        } else {
            self.fetch(core, turn, fetch.reading, fetch.lack);
        }
    }

    /// Asks another where one doesn't answer.
    pub(super) fn retry_fetches(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        let late: Vec<u64> = self
            .reads
            .fetching
            .iter()
            .filter(|(_, fetch)| turn.now >= fetch.since + core.options.lease)
            .map(|(&token, _)| token)
            .collect();
        for token in late {
            if let Some(fetch) = self.reads.fetching.remove(&token) {
                self.fetch(core, turn, fetch.reading, fetch.lack);
            }
        }
    }

    pub(super) fn fetch_deadline(&self, options: &Options) -> Option<Time> {
        self.reads.fetching.values().map(|fetch| fetch.since + options.lease).min()
    }
}

impl Reading {
    fn new(reader: Reader, range: BlockRange) -> Self {
        Self { reader, range, asked: Vec::new(), without: Vec::new() }
    }
}

impl Lack {
    /// Whether the extent holds something of what is lacking, whatever its version: a replica that
    /// lags behind, or a block that was overwritten meanwhile, doesn't mean that it is lost.
    fn is_met_by(&self, extent: &Extent) -> bool {
        is_sound(extent) && extent.range().overlaps(&self.range)
    }
}

fn is_sound(extent: &Extent) -> bool {
    match extent {
        Extent::Data { data, .. } => data.first_corrupt().is_none(),
        Extent::Hole { .. } => true,
        Extent::Missing { .. } => false,
    }
}

/// Whether the extents are whole, sound and all of `range`.
fn covers(range: BlockRange, extents: &[Extent]) -> bool {
    let mut at = range.first;
    for extent in extents {
        if !is_sound(extent) || extent.range().first != at {
            return false;
        }
        at = extent.range().end();
    }
    at == range.end()
}

/// Appends a fetched extent where it fits; tells whether it did.
fn repair(core: &mut Core, turn: &mut Turn<'_>, fetch: &Fetch, extent: Extent) -> bool {
    let range = extent.range();
    let wanted = fetch.lack.range;
    let inside = wanted.first <= range.first && range.end() <= wanted.end();
    if !inside || !is_sound(&extent) {
        return false;
    }
    let entry = match (fetch.lack.why, extent) {
        (Why::Rotten(expected), Extent::Data { version, first, data }) if version == expected => {
            Entry::Repair { version, first, data }
        }
        // Another version than the map has: it was overwritten meanwhile, or that replica lags.
        (Why::Rotten(_), _) => return false,
        // What a replica in sync has is right, even where it is older than what was said to be lost:
        // of a lost piece of the map only the newest version is known.
        (Why::Missing(lost), Extent::Data { version, first, data }) if version < lost => {
            Entry::Repair { version, first, data }
        }
        (Why::Missing(lost), Extent::Hole { version, range }) if version < lost => {
            let zeros = vec![0; range.count as usize * BLOCK_SIZE];
            let (first, data) = (range.first, Data::checksummed(zeros.into()));
            Entry::Repair { version, first, data }
        }
        (Why::Missing(_), extent) => copy_entry(extent),
    };
    core.space.spend(space::cost_of_payload(entry.payload_bytes()));
    core.log.append_aside(turn.out, entry);
    true
}
