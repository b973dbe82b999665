//! Updates that are not in the tree yet, ordered by block.
//!
//! ```text
//!   points   block -> entry                   one a written block
//!   ranges   start -> end, hole or lost       one a discard, whatever its length
//!   cut      versions above it, below this layer, are missing (a supersede; it begins the layer)
//! ```
//! A discard turns the points it covers into holes with a version: they may have been seen by
//! others, so the hole must travel. Over what was never written it leaves nothing behind in the
//! tree, unless it is `solid`: a replica that is still gathering must not take an older copy later.
//! A range that is lost is always solid.
//!
//! `forced` marks an entry that replaces what lies below, whatever its version: a repair.

use std::collections::BTreeMap;

use mooring_terms::Version;

use super::{Entry, Packed};
use crate::address::Address;

/// Memory a point takes: 32 bytes in a B-tree whose nodes are two thirds full.
const POINT_BYTES: usize = 52;
const RANGE_BYTES: usize = 96;
/// A cut holds a layer in its place, even an empty one.
const CUT_BYTES: usize = size_of::<Layer>();

#[derive(Clone, Copy, Debug)]
struct Range {
    end: u64,
    /// A hole, or lost.
    entry: Entry,
    forced: bool,
    solid: bool,
}

/// One run of blocks of a layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Upper {
    pub(crate) first: u64,
    pub(crate) count: u64,
    pub(crate) entry: Entry,
    /// Replaces what lies below, whatever its version.
    pub(crate) forced: bool,
    /// Leaves an entry where nothing lies below.
    pub(crate) solid: bool,
}

impl Upper {
    pub(crate) fn end(&self) -> u64 {
        self.first + self.count
    }

    /// What a block beneath this run holds, if it held `below`.
    pub(crate) fn over(&self, below: Option<Entry>) -> Option<Entry> {
        match below {
            None => self.solid.then_some(self.entry),
            Some(below) if self.forced || self.entry.beats(&below) => Some(self.entry),
            Some(below) => Some(below),
        }
    }
}

/// A layer of updates.
#[derive(Default)]
pub(crate) struct Layer {
    points: BTreeMap<u64, Packed>,
    ranges: BTreeMap<u64, Range>,
    cut: Option<Version>,
}

impl Layer {
    pub(crate) fn is_empty(&self) -> bool {
        self.points.is_empty() && self.ranges.is_empty() && self.cut.is_none()
    }

    /// An estimate of the memory it takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let cut = if self.cut.is_some() { CUT_BYTES } else { 0 };
        self.points.len() * POINT_BYTES + self.ranges.len() * RANGE_BYTES + cut
    }

    /// Versions above this are missing in whatever lies below the layer.
    pub(crate) fn cut_at(&self) -> Option<Version> {
        self.cut
    }

    /// Offers `entry` for `block`; tells `freed` the address that lost.
    pub(crate) fn put(
        &mut self,
        block: u64,
        entry: Entry,
        forced: bool,
        freed: &mut dyn FnMut(Address),
    ) {
        let loser = if let Some(point) = self.points.get_mut(&block) {
            let present = point.entry();
            if forced || entry.beats(&present) {
                *point = Packed::new(entry, forced || point.forced());
                Some(present)
            } else {
                Some(entry)
            }
        } else {
            let below = self.range_at(block);
            if !forced && below.is_some_and(|range| !entry.beats(&range.entry)) {
                Some(entry)
            } else {
                let forced = forced || below.is_some_and(|range| range.forced);
                self.points.insert(block, Packed::new(entry, forced));
                None
            }
        };
        if let Some(address) = loser.and_then(|entry| entry.address()) {
            freed(address);
        }
    }

    /// Offers `entry`, a hole or lost, for `first..end`; tells `freed` the addresses that lost.
    pub(crate) fn put_range(
        &mut self,
        first: u64,
        end: u64,
        entry: Entry,
        solid: bool,
        freed: &mut dyn FnMut(Address),
    ) {
        for point in self.points.range_mut(first..end).map(|(_, point)| point) {
            let present = point.entry();
            if entry.beats(&present) {
                if let Some(address) = present.address() {
                    freed(address);
                }
                *point = Packed::new(entry, point.forced());
            }
        }
        let mut from = first;
        for (start, old) in self.take_overlapping(first, end) {
            if start < first {
                self.ranges.insert(start, Range { end: first, ..old });
            }
            if old.end > end {
                self.ranges.insert(end, old);
            }
            let (start, stop) = (start.max(first), old.end.min(end));
            if from < start {
                let gap = Range { end: start, entry, forced: false, solid };
                self.ranges.insert(from, gap);
            }
            let piece = if entry.beats(&old.entry) {
                Range { end: stop, entry, forced: old.forced, solid: solid || old.solid }
            } else {
                Range { end: stop, ..old }
            };
            self.ranges.insert(start, piece);
            from = stop;
        }
        if from < end {
            self.ranges.insert(from, Range { end, entry, forced: false, solid });
        }
    }

    /// Marks missing whatever below this layer is newer than `after`. The layer must be empty: what
    /// came before the cut has to be compared with what lies below as it was before the cut.
    pub(crate) fn put_cut(&mut self, after: Version) {
        assert!(self.points.is_empty() && self.ranges.is_empty(), "a cut begins a layer");
        self.cut = Some(self.cut.map_or(after, |cut| cut.min(after)));
    }

    fn take_overlapping(&mut self, first: u64, end: u64) -> Vec<(u64, Range)> {
        let before = self.ranges.range(..first).next_back().filter(|(_, range)| range.end > first);
        let mut starts: Vec<u64> = before.map(|(start, _)| *start).into_iter().collect();
        starts.extend(self.ranges.range(first..end).map(|(start, _)| *start));
        starts.into_iter().filter_map(|s| self.ranges.remove(&s).map(|range| (s, range))).collect()
    }

    fn range_at(&self, block: u64) -> Option<Range> {
        let (_, range) = self.ranges.range(..=block).next_back()?;
        (block < range.end).then_some(*range)
    }

    /// Whether the layer says anything about `first..end`, its cut aside.
    pub(crate) fn touches(&self, first: u64, end: u64) -> bool {
        self.points.range(first..end).next().is_some()
            || self.ranges.range(..end).next_back().is_some_and(|(_, range)| range.end > first)
    }

    /// Whether the layer has something for a single block of `first..end`: only that can be data.
    pub(crate) fn has_points(&self, first: u64, end: u64) -> bool {
        self.points.range(first..end).next().is_some()
    }

    /// The first block from `from` on about which the layer says something, its cut aside.
    pub(crate) fn next(&self, from: u64) -> Option<u64> {
        if self.range_at(from).is_some() {
            return Some(from);
        }
        let point = self.points.range(from..).next().map(|(block, _)| *block);
        let range = self.ranges.range(from..).next().map(|(start, _)| *start);
        point.into_iter().chain(range).min()
    }

    /// The run that covers all of `first..end`, if there is one and no point lies within.
    pub(crate) fn covers(&self, first: u64, end: u64) -> Option<Upper> {
        let range = self.range_at(first).filter(|range| range.end >= end)?;
        if self.points.range(first..end).next().is_some() {
            return None;
        }
        Some(range.upper(first, end))
    }

    /// Appends the runs of `first..end` to `out`, in order, at most `limit` of them; says where it
    /// stopped (`end` if it got through).
    pub(crate) fn uppers(&self, first: u64, end: u64, limit: usize, out: &mut Vec<Upper>) -> u64 {
        let room = out.len() + limit;
        let mut at = first;
        let mut points = self.points.range(first..end).peekable();
        let before = self.ranges.range(..first).next_back().filter(|(_, range)| range.end > first);
        let mut ranges = before.into_iter().chain(self.ranges.range(first..end)).peekable();
        while at < end {
            if out.len() >= room {
                return at;
            }
            let point = points.peek().map_or(end, |(block, _)| **block);
            if point == at
                && let Some((block, packed)) = points.next()
            {
                let (entry, forced) = (packed.entry(), packed.forced());
                out.push(Upper { first: *block, count: 1, entry, forced, solid: true });
                at += 1;
                continue;
            }
            while ranges.peek().is_some_and(|(_, range)| range.end <= at) {
                ranges.next();
            }
            match ranges.peek() {
                Some((start, range)) if **start <= at => {
                    let stop = range.end.min(point).min(end);
                    out.push(range.upper(at, stop));
                    at = stop;
                }
                Some((start, _)) => at = point.min(**start).min(end),
                None => at = point,
            }
        }
        end
    }

    /// A block behind the next `items` points and ranges from `from` on, at a multiple of `align`;
    /// `None` if there are fewer.
    pub(crate) fn chunk_end(&self, from: u64, items: usize, align: u64) -> Option<u64> {
        let point = self.points.range(from..).nth(items).map(|(block, _)| *block);
        let range = self.ranges.range(from..).nth(items).map(|(start, _)| *start);
        let end = match (point, range) {
            (Some(point), Some(range)) => point.min(range),
            (found, other) => found.or(other)?,
        };
        Some((end + 1).next_multiple_of(align))
    }

    /// The first block behind all points and all solid ranges.
    pub(crate) fn end(&self) -> u64 {
        let point = self.points.last_key_value().map_or(0, |(block, _)| block + 1);
        let solid = self.ranges.values().rev().find(|range| range.solid).map_or(0, |r| r.end);
        point.max(solid)
    }

    /// What the layer says about one block.
    pub(crate) fn upper(&self, block: u64) -> Option<Upper> {
        if let Some(packed) = self.points.get(&block) {
            let (entry, forced) = (packed.entry(), packed.forced());
            return Some(Upper { first: block, count: 1, entry, forced, solid: true });
        }
        self.range_at(block).map(|range| range.upper(block, block + 1))
    }
}

impl Range {
    fn upper(&self, first: u64, end: u64) -> Upper {
        Upper {
            first,
            count: end - first,
            entry: self.entry,
            forced: self.forced,
            solid: self.solid,
        }
    }
}
