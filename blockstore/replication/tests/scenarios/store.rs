//! A replica's engine in memory: a list of entries, of which a power cut keeps what was synced.

use std::collections::BTreeMap;

use bytes::Bytes;
use mooring_replication::{Found, Query, ReadFault};
use mooring_terms::{
    BLOCK_SIZE, BlockIndex, BlockRange, Body, Data, Entry, Extent, Record, Sequence, Version,
};

/// A pool with one replica.
#[derive(Default)]
pub struct Store {
    entries: Vec<Entry>,
    /// How many entries a power cut keeps.
    pub durable: usize,
    pub view: View,
    /// Bytes that the pool can still promise; none: no end.
    pub space: Option<u64>,
    pub reserved: u64,
    pub appended_bytes: u64,
    pub copied_blocks: u64,
}

/// What the entries amount to.
#[derive(Default)]
pub struct View {
    pub blocks: BTreeMap<u64, Slot>,
    pub last: Version,
    pub state: Bytes,
    /// A supersede or position began a join that has not ended.
    pub joining: bool,
    records: Vec<Record>,
    forgotten: Sequence,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub version: Version,
    /// None is a hole.
    pub data: Option<Data>,
    pub missing: bool,
    pub rotten: bool,
}

impl Store {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn append(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            let cost = entry.cost_bytes();
            self.appended_bytes += cost;
            let beyond = cost.saturating_sub(self.reserved);
            self.reserved -= cost - beyond;
            if let Some(space) = &mut self.space {
                *space = space.checked_sub(beyond).expect("an append never finds the pool full");
            }
            if let Entry::Copy { data, .. } = &entry {
                self.copied_blocks += data.blocks();
            }
            self.view.apply(&entry);
            self.entries.push(entry);
        }
    }

    pub fn reserve(&mut self, bytes: u64) -> u64 {
        match &mut self.space {
            Some(space) if *space < bytes => 0,
            space => {
                if let Some(space) = space {
                    *space -= bytes;
                }
                self.reserved += bytes;
                bytes
            }
        }
    }

    pub fn release(&mut self, bytes: u64) {
        assert!(bytes <= self.reserved, "released more than was reserved");
        self.reserved -= bytes;
        if let Some(space) = &mut self.space {
            *space += bytes;
        }
    }

    /// The process ends; a power cut takes what was not synced with it.
    pub fn reopen(&mut self, power_cut: bool) {
        if power_cut {
            self.entries.truncate(self.durable);
        }
        self.durable = self.durable.min(self.entries.len());
        let held = self.reserved;
        self.release(held);
        self.view = View::default();
        for entry in &self.entries {
            self.view.apply(entry);
        }
    }

    pub fn forget(&mut self, sequence: Sequence) {
        self.view.forgotten = self.view.forgotten.max(sequence);
    }
}

impl Slot {
    /// Whether something of `version` takes its place; `there`: it isn't lost itself.
    fn loses_to(&self, version: Version, there: bool) -> bool {
        (version, there) > (self.version, !self.missing)
    }
}

impl View {
    fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Record { record, state } => {
                assert_eq!(record.version.sequence, self.last.sequence.next(), "records are dense");
                self.last = record.version;
                self.records.push(record.clone());
                match &record.body {
                    Body::Write { first, data } => {
                        self.put(*first, data, record.version, |_| true);
                    }
                    Body::Discard(range) => self.punch(*range, record.version, |_| true),
                    Body::Control(_) => {}
                }
                if let Some(state) = state {
                    self.state = state.clone();
                }
            }
            Entry::State(state) => self.state = state.clone(),
            Entry::Copy { version, first, data } => {
                let version = *version;
                self.put(*first, data, version, |slot| slot.loses_to(version, true));
            }
            Entry::CopyHole { version, range } => {
                let version = *version;
                self.punch(*range, version, |slot| slot.loses_to(version, true));
            }
            Entry::CopyLost { version, range } => {
                for block in range.first.0..range.end().0 {
                    let slot = self.slot(block);
                    if slot.loses_to(*version, false) {
                        *slot =
                            Slot { version: *version, data: None, missing: true, rotten: false };
                    }
                }
            }
            Entry::Repair { version, first, data } => {
                let version = *version;
                self.put(*first, data, version, |slot| slot.missing || version == slot.version);
            }
            Entry::Joined => self.joining = false,
            Entry::Supersede { after, state } => {
                for slot in self.blocks.values_mut().filter(|slot| slot.version > *after) {
                    slot.missing = true;
                    slot.version = Version::ZERO;
                }
                self.records.retain(|record| record.version <= *after);
                self.joining = true;
                self.last = *after;
                self.state = state.clone();
            }
            Entry::Position { last, state } => {
                self.records.clear();
                self.joining = true;
                self.last = *last;
                self.state = state.clone();
            }
        }
    }

    fn slot(&mut self, block: u64) -> &mut Slot {
        self.blocks.entry(block).or_insert(Slot {
            version: Version::ZERO,
            data: None,
            missing: false,
            rotten: false,
        })
    }

    fn put(
        &mut self,
        first: BlockIndex,
        data: &Data,
        version: Version,
        fits: impl Fn(&Slot) -> bool,
    ) {
        for i in 0..data.blocks() {
            let slot = self.slot(first.0 + i);
            if fits(slot) {
                let data = Some(data.slice(i as usize, 1));
                *slot = Slot { version, data, missing: false, rotten: false };
            }
        }
    }

    fn punch(&mut self, range: BlockRange, version: Version, fits: impl Fn(&Slot) -> bool) {
        for block in range.first.0..range.end().0 {
            let slot = self.slot(block);
            if fits(slot) {
                *slot = Slot { version, data: None, missing: false, rotten: false };
            }
        }
    }

    pub fn read(&self, range: BlockRange) -> Result<Vec<Extent>, ReadFault> {
        let mut extents = Vec::new();
        for block in range.first.0..range.end().0 {
            let here = BlockRange::new(BlockIndex(block), 1);
            extents.push(match self.blocks.get(&block) {
                None => Extent::Hole { version: Version::ZERO, range: here },
                Some(Slot { version, missing: true, .. }) => {
                    Extent::Missing { version: *version, range: here }
                }
                Some(slot) if slot.rotten => {
                    let (block, version) = (BlockIndex(block), slot.version);
                    return Err(ReadFault::Corrupt { block, version });
                }
                Some(Slot { version, data: None, .. }) => {
                    Extent::Hole { version: *version, range: here }
                }
                Some(Slot { version, data: Some(data), .. }) => {
                    Extent::Data { version: *version, first: here.first, data: data.clone() }
                }
            });
        }
        Ok(extents)
    }

    pub fn query(&self, query: Query, from: BlockIndex, limit: u64) -> Found {
        let matches = |slot: &Slot| match query {
            Query::NewerThan(version) => slot.version > version,
            Query::Missing => slot.missing,
        };
        let mut found = Found::default();
        for (&block, _) in self.blocks.range(from.0..).filter(|(_, slot)| matches(slot)) {
            if found.ranges.len() as u64 == limit {
                found.next = Some(BlockIndex(block));
                break;
            }
            found.ranges.push(BlockRange::new(BlockIndex(block), 1));
        }
        found
    }

    pub fn records(&self, after: Sequence, limit_bytes: u64) -> Vec<Record> {
        if after < self.forgotten {
            return Vec::new();
        }
        let mut left = limit_bytes;
        let behind = self.records.iter().filter(|record| record.version.sequence > after);
        let fits = |record: &&Record| {
            let fits = left > 0;
            left = left.saturating_sub(record.payload_bytes().max(1));
            fits
        };
        behind.take_while(fits).cloned().collect()
    }

    /// The number in a block: 0 for a hole.
    pub fn value(&self, block: u64) -> Option<u64> {
        let Some(slot) = self.blocks.get(&block) else { return Some(0) };
        if slot.missing {
            return None;
        }
        Some(slot.data.as_ref().map_or(0, |data| value_of(data.bytes())))
    }
}

/// Blocks that all hold one number.
pub fn data_of(value: u64, blocks: u64) -> Data {
    let mut bytes = vec![0; blocks as usize * BLOCK_SIZE];
    for block in bytes.chunks_exact_mut(BLOCK_SIZE) {
        block[..8].copy_from_slice(&value.to_le_bytes());
    }
    Data::checksummed(Bytes::from(bytes))
}

pub fn value_of(block: &[u8]) -> u64 {
    u64::from_le_bytes(block[..8].try_into().expect("eight bytes"))
}
