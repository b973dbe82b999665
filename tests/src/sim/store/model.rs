//! A pool as ordered maps: what [`mooring_terms::Entry`] says, and nothing of how it is done.
//!
//! Invariant: `durable <= log.len()`; the replicas are what replaying `log` gives.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mooring_replication::{Found, Opened, Query, ReadFault};
use mooring_terms::{
    BlockIndex, BlockRange, Body, Data, Entry, Extent, Record, Sequence, SliceId, Version,
};

use super::{AppendFault, Pool};
use crate::sim::prng::Prng;

/// What is in the log.
#[derive(Clone, Debug)]
pub enum Logged {
    /// A replica was made.
    Created(SliceId),
    /// A replica was taken away.
    Removed(SliceId),
    /// A replica's entry.
    Entry(SliceId, Entry),
}

#[derive(Clone, Debug)]
struct Cell {
    version: Version,
    /// One block; `None` for a hole.
    data: Option<Data>,
}

#[derive(Clone, Debug, Default)]
struct Replica {
    last: Version,
    state: Option<Bytes>,
    cells: BTreeMap<BlockIndex, Cell>,
    /// What isn't here, and the oldest version that takes its place.
    missing: BTreeMap<BlockIndex, Version>,
    /// Blocks that ever held data.
    written: BTreeSet<BlockIndex>,
    records: BTreeMap<Sequence, Record>,
}

/// A pool in memory.
#[derive(Debug, Default)]
pub struct ModelPool {
    log: Vec<Logged>,
    durable: usize,
    replicas: BTreeMap<SliceId, Replica>,
    /// In a mirror, whose log begins behind it: the replicas as far as they are durable.
    settled: BTreeMap<SliceId, Replica>,
    committed: BTreeMap<SliceId, Sequence>,
    /// Reserved bytes; gone when the pool is closed.
    reserved: BTreeMap<SliceId, u64>,
    rotten: BTreeSet<(SliceId, BlockIndex, Version)>,
    full: bool,
    failing: Option<bool>,
    failed: bool,
}

impl Replica {
    fn put(&mut self, block: BlockIndex, version: Version, data: Option<Data>) {
        self.missing.remove(&block);
        if data.is_some() {
            self.written.insert(block);
        }
        self.cells.insert(block, Cell { version, data });
    }

    /// Whether a copy of `version` belongs into the map.
    fn wants(&self, block: BlockIndex, version: Version) -> bool {
        let present = self.cells.get(&block).map_or(Version::ZERO, |cell| cell.version);
        self.missing.get(&block).map_or(version > present, |least| version >= *least)
    }

    fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Record { record, state } => {
                let next = self.last.sequence.next();
                assert_eq!(record.version.sequence, next, "a record doesn't follow the last one");
                self.last = record.version;
                self.apply_body(record.version, &record.body);
                self.records.insert(record.version.sequence, record.clone());
                if state.is_some() {
                    self.state.clone_from(state);
                }
            }
            Entry::State(state) => self.state = Some(state.clone()),
            Entry::Copy { version, first, data } => {
                for (i, block) in blocks(BlockRange::new(*first, data.blocks())).enumerate() {
                    if self.wants(block, *version) {
                        self.put(block, *version, Some(data.slice(i, 1)));
                    }
                }
            }
            Entry::CopyHole { version: Version::ZERO, range } => {
                self.missing
                    .retain(|block, least| !range.contains(*block) || *least > Version::ZERO);
            }
            Entry::CopyLost { version, range } => {
                for block in blocks(*range) {
                    let present = self.cells.get(&block).map(|cell| cell.version);
                    let known = present.max(self.missing.get(&block).copied());
                    if known < Some(*version) {
                        self.cells.remove(&block);
                        self.missing.insert(block, *version);
                    }
                }
            }
            Entry::CopyHole { version, range } => {
                for block in blocks(*range) {
                    if self.wants(block, *version) {
                        self.put(block, *version, None);
                    }
                }
            }
            Entry::Repair { version, first, data } => {
                for (i, block) in blocks(BlockRange::new(*first, data.blocks())).enumerate() {
                    let cell = self.cells.get(&block);
                    if self.missing.contains_key(&block)
                        || cell.is_some_and(|cell| cell.version == *version)
                    {
                        self.put(block, *version, Some(data.slice(i, 1)));
                    }
                }
            }
            Entry::Joined => {}
            Entry::Supersede { after, state } => {
                let newer: Vec<BlockIndex> = self
                    .cells
                    .iter()
                    .filter(|(_, cell)| cell.version > *after)
                    .map(|(block, _)| *block)
                    .collect();
                for block in newer {
                    self.cells.remove(&block);
                    self.missing.insert(block, Version::ZERO);
                }
                for least in self.missing.values_mut().filter(|least| **least > *after) {
                    *least = Version::ZERO;
                }
                self.records.retain(|sequence, _| *sequence <= after.sequence);
                self.last = *after;
                self.state = Some(state.clone());
            }
            Entry::Position { last, state } => {
                self.records.clear();
                self.last = *last;
                self.state = Some(state.clone());
            }
        }
    }

    fn apply_body(&mut self, version: Version, body: &Body) {
        match body {
            Body::Write { first, data } => {
                for (i, block) in blocks(BlockRange::new(*first, data.blocks())).enumerate() {
                    if self.wants(block, version) {
                        self.put(block, version, Some(data.slice(i, 1)));
                    }
                }
            }
            Body::Discard(range) => {
                for block in
                    blocks(*range).filter(|block| self.wants(*block, version)).collect::<Vec<_>>()
                {
                    self.put(block, version, None);
                }
            }
            Body::Control(_) => {}
        }
    }
}

fn blocks(range: BlockRange) -> impl Iterator<Item = BlockIndex> {
    (range.first.0..range.end().0).map(BlockIndex)
}

impl ModelPool {
    fn take(&mut self, logged: Logged) {
        match &logged {
            Logged::Created(slice) => {
                self.replicas.insert(*slice, Replica::default());
            }
            Logged::Removed(slice) => {
                self.replicas.remove(slice);
                self.reserved.remove(slice);
                self.committed.remove(slice);
            }
            Logged::Entry(slice, entry) => {
                if let Entry::Repair { version, first, data } = entry {
                    for block in blocks(BlockRange::new(*first, data.blocks())) {
                        self.rotten.remove(&(*slice, block, *version));
                    }
                }
                if let Some(replica) = self.replicas.get_mut(slice) {
                    replica.apply(entry);
                }
            }
        }
        self.log.push(logged);
    }

    /// Takes whatever an engine was given, without a word on space or faults.
    pub fn mirror(&mut self, logged: Logged) {
        let of = match &logged {
            Logged::Created(slice) | Logged::Removed(slice) | Logged::Entry(slice, _) => *slice,
        };
        self.take(logged);
        if let Some(replica) = self.replicas.get_mut(&of) {
            replica.records.clear();
        }
    }

    /// Whatever a mirror has taken is durable.
    pub fn settle(&mut self) {
        self.settled.clone_from(&self.replicas);
        self.log.clear();
    }

    /// Whether a block of a replica has ever held data.
    #[must_use]
    pub fn ever_held_data(&self, slice: SliceId, block: BlockIndex) -> bool {
        self.replicas.get(&slice).is_some_and(|replica| replica.written.contains(&block))
    }

    /// How many entries of a mirror are not known durable.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.log.len()
    }

    /// The shortest prefix of a mirror's log that is `same` as what an engine has recovered: with all
    /// that is durable, or all of the log if `all`.
    pub fn prefix(&self, all: bool, mut same: impl FnMut(&mut Self) -> bool) -> Option<Self> {
        let mut past = Self {
            replicas: self.settled.clone(),
            settled: self.settled.clone(),
            ..Self::default()
        };
        for logged in &self.log {
            if !all && same(&mut past) {
                return Some(past);
            }
            past.take(logged.clone());
        }
        same(&mut past).then_some(past)
    }

    fn fails(&mut self, sync: bool) -> bool {
        if self.failing == Some(sync) {
            self.failing = None;
            self.failed = true;
        }
        self.failed
    }

    /// Takes `entry` out of the slice's reservation; false if it isn't covered.
    fn pay(&mut self, slice: SliceId, entry: &Entry) -> bool {
        let cost = entry.cost_bytes();
        if cost == 0 {
            return true;
        }
        let reserved = self.reserved.entry(slice).or_default();
        let covered = *reserved >= cost;
        *reserved = reserved.saturating_sub(cost);
        // What nobody promised may still find space, as long as there is any.
        covered || !self.full
    }
}

impl Pool for ModelPool {
    fn open(&mut self) -> bool {
        self.failed = false;
        self.failing = None;
        self.reserved.clear();
        true
    }

    fn kill(&mut self) {
        self.reserved.clear();
    }

    fn cut(&mut self, prng: &mut Prng) {
        let lost = (self.log.len() - self.durable) as u64;
        let kept = self.durable + usize::try_from(prng.within(0..lost + 1)).expect("few");
        let mut log = std::mem::take(&mut self.log);
        log.truncate(kept);
        self.replicas.clear();
        self.reserved.clear();
        for logged in log {
            if let Logged::Entry(slice, entry) = &logged
                && let Some(replica) = self.replicas.get_mut(slice)
            {
                replica.apply(entry);
                self.log.push(logged);
            } else {
                self.take(logged);
            }
        }
        self.durable = self.log.len();
        for (slice, replica) in &mut self.replicas {
            let committed = self.committed.get(slice).copied().unwrap_or_default();
            replica.records.retain(|sequence, _| *sequence > committed);
        }
    }

    fn slices(&self) -> Vec<SliceId> {
        self.replicas.keys().copied().collect()
    }

    fn create(&mut self, slice: SliceId) {
        self.take(Logged::Created(slice));
        self.durable = self.log.len();
    }

    fn remove(&mut self, slice: SliceId) {
        self.take(Logged::Removed(slice));
        self.durable = self.log.len();
    }

    fn recovered(&self, slice: SliceId) -> Opened {
        self.replicas.get(&slice).map_or_else(Opened::default, |replica| Opened {
            state: replica.state.clone().unwrap_or_default(),
            last: replica.last,
            kept: Vec::new(),
            damaged: false,
        })
    }

    fn append(&mut self, slice: SliceId, entries: &[Entry]) -> Result<(), AppendFault> {
        if self.fails(false) {
            return Err(AppendFault::Failed);
        }
        for entry in entries {
            if !self.pay(slice, entry) {
                return Err(AppendFault::NoSpace);
            }
            self.take(Logged::Entry(slice, entry.clone()));
        }
        Ok(())
    }

    fn sync(&mut self) -> bool {
        if self.fails(true) {
            return false;
        }
        self.durable = self.log.len();
        true
    }

    fn committed(&mut self, slice: SliceId, sequence: Sequence) {
        let committed = self.committed.entry(slice).or_default();
        *committed = sequence.max(*committed);
        if let Some(replica) = self.replicas.get_mut(&slice) {
            replica.records.retain(|record, _| record > committed);
        }
    }

    fn read(&mut self, slice: SliceId, range: BlockRange) -> Result<Vec<Extent>, ReadFault> {
        let replica = self.replicas.get(&slice).ok_or(ReadFault::Failed)?;
        let mut extents: Vec<Extent> = Vec::new();
        for block in blocks(range) {
            let one = BlockRange::new(block, 1);
            if let Some(version) = replica.missing.get(&block) {
                extents.push(Extent::Missing { version: *version, range: one });
                continue;
            }
            let Some(cell) = replica.cells.get(&block) else {
                push_hole(&mut extents, Version::ZERO, one);
                continue;
            };
            match &cell.data {
                None => push_hole(&mut extents, cell.version, one),
                Some(_) if self.rotten.contains(&(slice, block, cell.version)) => {
                    return Err(ReadFault::Corrupt { block, version: cell.version });
                }
                Some(data) => {
                    let data = data.clone();
                    extents.push(Extent::Data { version: cell.version, first: block, data });
                }
            }
        }
        Ok(extents)
    }

    fn query(
        &mut self,
        slice: SliceId,
        query: Query,
        from: BlockIndex,
        limit_blocks: u64,
    ) -> Result<Found, ReadFault> {
        let replica = self.replicas.get(&slice).ok_or(ReadFault::Failed)?;
        let all: Vec<BlockIndex> = match query {
            Query::NewerThan(version) => {
                let cells = replica.cells.range(from..).map(|(block, cell)| (block, &cell.version));
                let all = cells.chain(replica.missing.range(from..));
                let newer: BTreeSet<BlockIndex> =
                    all.filter(|(_, of)| **of > version).map(|(block, _)| *block).collect();
                newer.into_iter().collect()
            }
            Query::Missing => replica.missing.range(from..).map(|(block, _)| *block).collect(),
        };
        let limit = usize::try_from(limit_blocks.max(1)).unwrap_or(usize::MAX);
        let next = all.get(limit).copied();
        let mut ranges: Vec<BlockRange> = Vec::new();
        for block in all.into_iter().take(limit) {
            match ranges.last_mut() {
                Some(last) if last.end() == block => last.count += 1,
                _ => ranges.push(BlockRange::new(block, 1)),
            }
        }
        Ok(Found { ranges, next })
    }

    fn records(&mut self, slice: SliceId, after: Sequence, limit_bytes: u64) -> Vec<Record> {
        let Some(replica) = self.replicas.get(&slice) else { return Vec::new() };
        let mut found = Vec::new();
        let mut bytes = 0;
        let mut next = after.next();
        while let Some(record) = replica.records.get(&next) {
            bytes += record.payload_bytes();
            if !found.is_empty() && bytes > limit_bytes {
                break;
            }
            found.push(record.clone());
            next = next.next();
        }
        found
    }

    fn reserve(&mut self, slice: SliceId, bytes: u64) -> u64 {
        if self.full || self.failed {
            return 0;
        }
        *self.reserved.entry(slice).or_default() += bytes;
        bytes
    }

    fn release(&mut self, slice: SliceId, bytes: u64) {
        let reserved = self.reserved.entry(slice).or_default();
        *reserved = reserved.saturating_sub(bytes);
    }

    fn fill(&mut self, full: bool) {
        self.full = full;
    }

    fn rot(&mut self, slice: SliceId, candidates: &[BlockIndex]) -> Option<BlockIndex> {
        let replica = self.replicas.get(&slice)?;
        for block in candidates {
            if let Some(cell) = replica.cells.get(block)
                && cell.data.is_some()
            {
                self.rotten.insert((slice, *block, cell.version));
                return Some(*block);
            }
        }
        None
    }

    fn fail_next(&mut self, sync: bool) {
        self.failing = Some(sync);
    }

    fn tend(&mut self) {}
}

/// Adds a hole, as a part of the one before it where they are one.
fn push_hole(extents: &mut Vec<Extent>, version: Version, one: BlockRange) {
    if let Some(Extent::Hole { version: before, range }) = extents.last_mut()
        && *before == version
    {
        range.count += 1;
        return;
    }
    extents.push(Extent::Hole { version, range: one });
}
