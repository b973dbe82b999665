//! One slice's copy in the pool: position, state, map, snapshots and the records to keep.
//!
//! `apply` is the one place where a record changes a replica: appends call it after writing, and
//! roll-forward with what it reads back, so both lead to the same state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use mooring_terms::{BLOCK_SIZE, BlockRange, Sequence, SliceId, SnapshotId, Version};
use parking_lot::RwLock;

use crate::LogNumber;
use crate::address::Address;
use crate::format::record::{Blocks, Logged, Operation};
use crate::log::Placed;
use crate::map::{Entry, Layer, Root};

/// A layer that waits to be merged.
#[derive(Clone)]
pub(crate) struct Sealed {
    pub(crate) layer: Arc<Layer>,
    /// Distinguishes the layers of one replica.
    pub(crate) number: u64,
}

/// A frozen view of a replica.
#[derive(Clone)]
pub(crate) struct Snapshot {
    /// The position at which it was taken.
    pub(crate) version: Version,
    /// The log number of its record: the order of a replica's snapshots.
    pub(crate) order: LogNumber,
    pub(crate) root: Root,
    /// Layers of the live map that the root does not hold yet, oldest first.
    pub(crate) layers: Vec<Sealed>,
    /// It was removed; its blocks are freed at the next freeze.
    pub(crate) dying: bool,
}

/// Where a record of the slice's log lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pinned {
    pub(crate) record: Address,
    pub(crate) bytes: u32,
}

/// A replica.
pub(crate) struct Replica {
    pub(crate) slice: SliceId,
    pub(crate) inner: RwLock<ReplicaState>,
    /// Whether what is written of it may be read soon.
    pub(crate) read_here: AtomicBool,
}

impl Replica {
    pub(crate) fn new(slice: SliceId, state: ReplicaState) -> Self {
        Self { slice, inner: RwLock::new(state), read_here: AtomicBool::new(true) }
    }
}

/// What changes in a replica.
pub(crate) struct ReplicaState {
    pub(crate) last: Version,
    pub(crate) state: Bytes,
    pub(crate) committed: Sequence,
    /// Between a supersede or position and the end of the join.
    pub(crate) gathering: bool,
    /// Rot in the log took records from it that were durable; only a join makes it whole.
    pub(crate) damaged: bool,
    pub(crate) root: Root,
    pub(crate) sealed: Vec<Sealed>,
    pub(crate) fresh: Layer,
    pub(crate) next_layer: u64,
    /// By order of taking.
    pub(crate) snapshots: BTreeMap<LogNumber, (SnapshotId, Snapshot)>,
    /// Records past the committed position.
    pub(crate) pinned: BTreeMap<Sequence, Pinned>,
    pub(crate) removed: bool,
}

/// What an applied record means for the space.
#[derive(Default)]
pub(crate) struct Effects {
    /// Blocks that the map now names, by their place.
    pub(crate) gained: Vec<(Address, u64)>,
    /// Places that it no longer names.
    pub(crate) freed: Vec<Address>,
    /// Records that must be kept now, and those that need not any more.
    pub(crate) pinned: Vec<Pinned>,
    pub(crate) unpinned: Vec<Pinned>,
}

/// How blocks enter the map.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Put {
    /// The higher version wins; zeros over what was never written leave nothing.
    Thin,
    /// The higher version wins; zeros leave a hole with a version.
    Solid,
    /// Whatever is there.
    Forced,
}

impl ReplicaState {
    pub(crate) fn new(state: Bytes) -> Self {
        Self {
            last: Version::ZERO,
            state,
            committed: Sequence(0),
            gathering: false,
            damaged: false,
            root: Root::EMPTY,
            sealed: Vec::new(),
            fresh: Layer::default(),
            next_layer: 0,
            snapshots: BTreeMap::new(),
            pinned: BTreeMap::new(),
            removed: false,
        }
    }

    pub(crate) fn snapshot(&self, id: SnapshotId) -> Option<&Snapshot> {
        self.snapshots.values().find(|(found, s)| *found == id && !s.dying).map(|(_, s)| s)
    }

    /// Closes the fresh layer, so that it can be merged or shared with a snapshot.
    pub(crate) fn seal(&mut self) {
        if !self.fresh.is_empty() {
            let layer = Arc::new(std::mem::take(&mut self.fresh));
            self.sealed.push(Sealed { layer, number: self.next_layer });
            self.next_layer += 1;
        }
    }

    /// Takes in a record that is in the log.
    pub(crate) fn apply(&mut self, logged: &Logged, placed: &Placed, effects: &mut Effects) {
        if let Some(state) = &logged.state
            && !matches!(logged.operation, Operation::Kept(_))
        {
            self.state = state.clone();
        }
        if logged.numbered() {
            self.last = logged.version;
            if logged.version.sequence > self.committed {
                self.pin(logged.version.sequence, placed, effects);
            }
        }
        let version = logged.version;
        match &logged.operation {
            Operation::Write(blocks) => {
                let how = if self.gathering { Put::Solid } else { Put::Thin };
                self.put_blocks(blocks, version, how, placed.data, effects);
            }
            Operation::Copy(blocks) => {
                self.put_blocks(blocks, version, Put::Solid, placed.data, effects);
            }
            Operation::Repair(blocks) => {
                self.put_blocks(blocks, version, Put::Forced, placed.data, effects);
            }
            Operation::Discard(range) => {
                self.put_range(range, Entry::hole(version), self.gathering, effects);
            }
            Operation::CopyHole(range) => {
                self.put_range(range, Entry::hole(version), true, effects);
            }
            Operation::CopyLost(range) => {
                self.put_range(range, Entry::lost(version), true, effects);
            }
            Operation::Supersede => {
                self.seal();
                self.fresh.put_cut(version);
                let lost = self.pinned.split_off(&version.sequence.next());
                effects.unpinned.extend(lost.into_values());
                self.last = version;
                self.gathering = true;
                self.damaged = false;
            }
            Operation::Position => {
                effects.unpinned.extend(std::mem::take(&mut self.pinned).into_values());
                self.last = version;
                self.gathering = true;
                self.damaged = false;
            }
            Operation::Joined => self.gathering = false,
            Operation::Snapshot(id) => self.take_snapshot(*id, placed.log),
            Operation::RemoveSnapshot(id) => {
                for (found, snapshot) in self.snapshots.values_mut() {
                    snapshot.dying |= found == id;
                }
            }
            Operation::Kept(_) => {
                if self.pinned.contains_key(&version.sequence) {
                    self.pin(version.sequence, placed, effects);
                }
            }
            // The whole pool's, not one replica's.
            Operation::Control(_)
            | Operation::State
            | Operation::Create
            | Operation::Remove
            | Operation::Moved(_)
            | Operation::Node(_)
            | Operation::Chunk(_) => {}
        }
    }

    fn pin(&mut self, sequence: Sequence, placed: &Placed, effects: &mut Effects) {
        let pinned = Pinned { record: placed.record, bytes: placed.bytes };
        effects.pinned.push(pinned);
        effects.unpinned.extend(self.pinned.insert(sequence, pinned));
    }

    fn put_range(&mut self, range: &BlockRange, entry: Entry, solid: bool, effects: &mut Effects) {
        let freed = &mut |address| effects.freed.push(address);
        self.fresh.put_range(range.first.0, range.end().0, entry, solid, freed);
    }

    fn put_blocks(
        &mut self,
        blocks: &Blocks,
        version: Version,
        how: Put,
        data: Address,
        effects: &mut Effects,
    ) {
        let (forced, solid) = (how == Put::Forced, how != Put::Thin);
        let freed = &mut effects.freed;
        let count = blocks.stored_count() as u64;
        if count > 0 {
            effects.gained.push((data, count));
        }
        let mut address = data;
        let mut zeros: Option<(u64, u64)> = None;
        for (i, crc) in blocks.crcs.iter().enumerate() {
            let block = blocks.first + i as u64;
            if blocks.is_stored(i) {
                let entry = Entry::data(version, address, *crc);
                self.fresh.put(block, entry, forced, &mut |address| freed.push(address));
                address = address.plus(BLOCK_SIZE as u64);
            } else if forced {
                let entry = Entry::hole(version);
                self.fresh.put(block, entry, true, &mut |address| freed.push(address));
            } else {
                match &mut zeros {
                    Some((_, end)) if *end == block => *end += 1,
                    other => {
                        if let Some((first, end)) = other.replace((block, block + 1)) {
                            let freed = &mut |address| freed.push(address);
                            let hole = Entry::hole(version);
                            self.fresh.put_range(first, end, hole, solid, freed);
                        }
                    }
                }
            }
        }
        if let Some((first, end)) = zeros {
            let freed = &mut |address| freed.push(address);
            self.fresh.put_range(first, end, Entry::hole(version), solid, freed);
        }
    }

    fn take_snapshot(&mut self, id: SnapshotId, order: LogNumber) {
        self.seal();
        let snapshot = Snapshot {
            version: self.last,
            order,
            root: self.root,
            layers: self.sealed.clone(),
            dying: false,
        };
        self.snapshots.insert(order, (id, snapshot));
    }

    /// Forgets where the records up to `sequence` are, and returns those.
    pub(crate) fn commit(&mut self, sequence: Sequence) -> BTreeMap<Sequence, Pinned> {
        if sequence <= self.committed {
            return BTreeMap::new();
        }
        self.committed = sequence;
        let kept = self.pinned.split_off(&sequence.next());
        std::mem::replace(&mut self.pinned, kept)
    }
}
