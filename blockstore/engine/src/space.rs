//! Segments, what lives in them, and who may still write.
//!
//! ```text
//!         take                 log moves on            reclaim has copied what lived
//!   Free ──────> Open (head, ──────────────> Closed ──────────────────────> Evacuated(k)
//!     ^          successor)                    │ its records can't all be read     │
//!     │                                        v                                   │
//!     │                                   Quarantined                              │
//!     └──────────────── both checkpoint slots are k or newer ──────────────────────┘
//! ```
//! `live` counts, a segment, the bytes of blocks and nodes that some map names. It chooses victims
//! and answers "how much is left"; it never decides that a segment is free: that takes a scan.
//!
//! Invariants: live + reserved <= usable; a segment is written from its start only when Free.

use std::collections::{BTreeMap, BTreeSet};

use mooring_terms::{BLOCK_SIZE, SliceId};

use crate::address::Address;
use crate::format::RECORD_HEADER_BYTES;
use crate::{EngineError, Result, SegmentId};

/// What a live block counts: its bytes, and its part of header, padding and map.
pub(crate) const BLOCK_WEIGHT: u64 = BLOCK_SIZE as u64 + 104;

/// Head, successor, and the victim of the moment.
const OPEN_SEGMENTS: u64 = 3;

/// What a live node of `length` bytes counts.
pub(crate) fn node_weight(length: u32) -> u64 {
    (RECORD_HEADER_BYTES as u64 + u64::from(length)).next_multiple_of(8)
}

/// What a segment is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SegmentState {
    Free,
    /// The log's head or its successor.
    Open,
    Closed,
    /// Nothing in it is needed once both slots have reached this checkpoint.
    Evacuated(u64),
    /// Some of its records can't be read: what the map names there stays.
    Quarantined,
}

/// One segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Segment {
    pub(crate) state: SegmentState,
    /// How often it has been written from its start.
    pub(crate) use_count: u32,
    pub(crate) live: u64,
    /// Bytes from its start to the end of its last record.
    pub(crate) end: u64,
}

impl Segment {
    pub(crate) const NEW: Self = Self { state: SegmentState::Free, use_count: 0, live: 0, end: 0 };
}

/// How far an allocation may go into the reserve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// Data of callers: leaves the reserve alone.
    Ordinary,
    /// Discards, control records, states: what gets a full pool working again.
    Exempt,
    /// Nodes, checkpoints, reclaim: all there is.
    Internal,
}

/// The table of segments and the promises made about them.
pub(crate) struct Space {
    segment_bytes: u64,
    segments: Vec<Segment>,
    /// Free segments that were written before, and those that never were: the former first, so
    /// that a pool's files stay few.
    recycled: BTreeSet<SegmentId>,
    untouched: BTreeSet<SegmentId>,
    /// Never written, and the disk had no space for them when they were asked for.
    withheld: BTreeSet<SegmentId>,
    live: u64,
    reserved: BTreeMap<SliceId, u64>,
    reserved_total: u64,
}

impl Space {
    pub(crate) fn new(segment_bytes: u64, segments: Vec<Segment>) -> Self {
        let mut space = Self {
            segment_bytes,
            live: segments.iter().map(|segment| segment.live).sum(),
            recycled: BTreeSet::new(),
            untouched: BTreeSet::new(),
            withheld: BTreeSet::new(),
            reserved: BTreeMap::new(),
            reserved_total: 0,
            segments,
        };
        for i in 0..space.segments.len() {
            if space.segments[i].state == SegmentState::Free {
                space.put_free(SegmentId(i as u32));
            }
        }
        space
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub(crate) fn get(&self, segment: SegmentId) -> &Segment {
        &self.segments[segment.0 as usize]
    }

    fn get_mut(&mut self, segment: SegmentId) -> &mut Segment {
        &mut self.segments[segment.0 as usize]
    }

    fn put_free(&mut self, segment: SegmentId) {
        if self.get(segment).use_count == 0 {
            self.untouched.insert(segment);
        } else {
            self.recycled.insert(segment);
        }
    }

    pub(crate) fn free_count(&self) -> usize {
        self.recycled.len() + self.untouched.len()
    }

    /// The next free segments that were never written, for zeroing ahead.
    pub(crate) fn next_untouched(&self, count: usize) -> Vec<SegmentId> {
        let wanted = count.saturating_sub(self.recycled.len());
        self.untouched.iter().take(wanted).copied().collect()
    }

    /// Takes a free segment and raises its use count.
    pub(crate) fn take(&mut self) -> Option<(SegmentId, u32)> {
        let segment = self.recycled.pop_first().or_else(|| self.untouched.pop_first())?;
        let taken = self.get_mut(segment);
        taken.state = SegmentState::Open;
        taken.use_count += 1;
        taken.end = 0;
        let use_count = taken.use_count;
        let live = std::mem::take(&mut taken.live);
        self.live -= live;
        Some((segment, use_count))
    }

    /// The disk has no space for a segment that was taken and never written: nor for its like.
    pub(crate) fn withhold(&mut self, segment: SegmentId) {
        *self.get_mut(segment) = Segment::NEW;
        self.withheld.insert(segment);
        self.withheld.append(&mut self.untouched);
    }

    /// One of the segments that the disk had no space for.
    pub(crate) fn first_withheld(&self) -> Option<SegmentId> {
        self.withheld.first().copied()
    }

    /// The disk has space again.
    pub(crate) fn offer_withheld(&mut self) {
        self.untouched.append(&mut self.withheld);
    }

    /// Notes, on opening, that the log had gone on into a segment.
    pub(crate) fn found_open(&mut self, segment: SegmentId, use_count: u32) {
        self.recycled.remove(&segment);
        self.untouched.remove(&segment);
        self.withheld.remove(&segment);
        let found = self.get_mut(segment);
        found.state = SegmentState::Open;
        found.use_count = use_count;
    }

    pub(crate) fn set_state(&mut self, segment: SegmentId, state: SegmentState) {
        self.get_mut(segment).state = state;
    }

    pub(crate) fn close(&mut self, segment: SegmentId, end: u64) {
        let closed = self.get_mut(segment);
        closed.state = SegmentState::Closed;
        closed.end = end;
    }

    /// Nothing that lives is left in the segment.
    pub(crate) fn evacuated(&mut self, segment: SegmentId, checkpoint: u64) {
        let emptied = self.get_mut(segment);
        emptied.state = SegmentState::Evacuated(checkpoint);
        let live = std::mem::take(&mut emptied.live);
        self.live -= live;
    }

    /// Frees what neither slot refers to; `oldest` is the older slot's checkpoint.
    pub(crate) fn free_evacuated(&mut self, oldest: u64) -> Vec<SegmentId> {
        let mut freed = Vec::new();
        for i in 0..self.segments.len() {
            if let SegmentState::Evacuated(since) = self.segments[i].state
                && crate::order::may_reuse(since, oldest)
            {
                self.segments[i].state = SegmentState::Free;
                freed.push(SegmentId(i as u32));
                self.put_free(SegmentId(i as u32));
            }
        }
        freed
    }

    pub(crate) fn has_evacuated(&self) -> bool {
        self.segments.iter().any(|s| matches!(s.state, SegmentState::Evacuated(_)))
    }

    pub(crate) fn add(&mut self, segment: SegmentId, bytes: u64) {
        self.get_mut(segment).live += bytes;
        self.live += bytes;
    }

    pub(crate) fn free(&mut self, segment: SegmentId, bytes: u64) {
        let from = self.get_mut(segment);
        let bytes = bytes.min(from.live);
        from.live -= bytes;
        self.live -= bytes;
    }

    pub(crate) fn free_block(&mut self, address: Address) {
        self.free(address.segment(), BLOCK_WEIGHT);
    }

    /// Segments kept for the pool's own work. A checkpoint after random moves rewrites the whole
    /// map, about 0.7 % of what lives, and must gain more than that: so reclaim empties many
    /// segments for one checkpoint, and needs room for their contents before it frees any.
    fn reserve_segments(&self) -> u64 {
        (self.segments.len() as u64 / 12).max(6)
    }

    /// Whether an allocation of `class` finds enough segments free to go ahead.
    pub(crate) fn has_room(&self, class: Class, bytes: u64) -> bool {
        let free = self.free_count() as u64;
        let wanted = bytes.div_ceil(self.segment_bytes / 2);
        free >= self.floor(class) + wanted
    }

    fn floor(&self, class: Class) -> u64 {
        match class {
            Class::Ordinary => self.reserve_segments() / 2,
            Class::Exempt => self.reserve_segments() / 4,
            Class::Internal => 0,
        }
    }

    /// Whether reclaim should be at work.
    pub(crate) fn is_low(&self) -> bool {
        (self.free_count() as u64) < self.reserve_segments() + 3
    }

    /// Whether reclaim must be at work before anything else.
    pub(crate) fn is_pressing(&self) -> bool {
        (self.free_count() as u64) <= self.floor(Class::Ordinary) + 1
    }

    /// Whether `emptied` segments that wait for a checkpoint are worth one.
    pub(crate) fn is_batch(&self, emptied: usize) -> bool {
        let scarce = (self.free_count() as u64) <= self.floor(Class::Exempt) + 1;
        emptied as u64 >= self.reserve_segments() / 2 || (scarce && emptied > 0)
    }

    /// The most that may live: above it, reclaim would copy more than it frees.
    pub(crate) fn usable(&self) -> u64 {
        let segments = self.segments.len() as u64;
        let quarantined = self.segments.iter().filter(|s| s.state == SegmentState::Quarantined);
        let lost = quarantined.count() + self.withheld.len();
        let taken = self.reserve_segments() + OPEN_SEGMENTS + lost as u64;
        let room = segments.saturating_sub(taken);
        room * self.segment_bytes / 100 * 92
    }

    pub(crate) fn live(&self) -> u64 {
        self.live
    }

    pub(crate) fn reserved(&self) -> u64 {
        self.reserved_total
    }

    /// What could still be promised.
    pub(crate) fn available(&self) -> u64 {
        self.usable().saturating_sub(self.live + self.reserved_total)
    }

    /// Promises up to `bytes` of payload to a slice; returns how many it got.
    pub(crate) fn reserve(&mut self, slice: SliceId, bytes: u64) -> u64 {
        let blocks = (self.available() / BLOCK_WEIGHT).min(bytes.div_ceil(BLOCK_SIZE as u64));
        *self.reserved.entry(slice).or_default() += blocks * BLOCK_WEIGHT;
        self.reserved_total += blocks * BLOCK_WEIGHT;
        (blocks * BLOCK_SIZE as u64).min(bytes)
    }

    /// Gives back what a slice was promised.
    pub(crate) fn release(&mut self, slice: SliceId, bytes: u64) {
        self.spend(slice, bytes.div_ceil(BLOCK_SIZE as u64));
    }

    /// Uses up the promises of a slice for `blocks` blocks.
    pub(crate) fn spend(&mut self, slice: SliceId, blocks: u64) {
        if let Some(held) = self.reserved.get_mut(&slice) {
            let spent = (*held).min(blocks * BLOCK_WEIGHT);
            *held -= spent;
            self.reserved_total -= spent;
            if *held == 0 {
                self.reserved.remove(&slice);
            }
        }
    }

    /// Lowers what a slice is promised to `bytes` of payload, rounded up to blocks.
    pub(crate) fn keep(&mut self, slice: SliceId, bytes: u64) {
        let kept = bytes.div_ceil(BLOCK_SIZE as u64) * BLOCK_WEIGHT;
        let held = self.reserved.get(&slice).copied().unwrap_or(0);
        if kept < held {
            self.reserved_total -= held - kept;
            self.reserved.insert(slice, kept);
        }
        if kept == 0 {
            self.reserved.remove(&slice);
        }
    }

    /// All promises of a slice end.
    pub(crate) fn forget(&mut self, slice: SliceId) {
        self.reserved_total -= self.reserved.remove(&slice).unwrap_or(0);
    }

    /// Whether `blocks` blocks of a slice can be written.
    ///
    /// # Errors
    /// [`EngineError::NoSpace`].
    pub(crate) fn admit(&self, slice: SliceId, blocks: u64) -> Result<()> {
        let wanted = blocks * BLOCK_WEIGHT;
        let held = self.reserved.get(&slice).copied().unwrap_or(0);
        if wanted <= held || wanted - held <= self.available() {
            return Ok(());
        }
        Err(EngineError::NoSpace { wanted: blocks * BLOCK_SIZE as u64, free: self.available() })
    }
}
