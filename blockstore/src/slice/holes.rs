//! What of a slice are holes, out of the map of this node's own replica.
//!
//! ```text
//!   the primary, its leases held, nothing uncommitted ─> map ─> still so, in the same epoch
//! ```
//! Between the two looks the map holds all that was acknowledged and nothing that could be rolled
//! back, so that what it calls a hole is one, for whoever changes nothing meanwhile. Wherever that
//! can't be said, nothing is: the caller takes everything for data.

use mooring_engine::{ChangedKind, Changes, Root};
use mooring_terms::{BlockIndex, BlockRange, Version};

use super::Slice;
use crate::clock;

/// Runs of one answer.
const RUNS_MAX: usize = 256;

/// A run of blocks that all are holes, or all may hold data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// How many blocks.
    pub blocks: u64,
    /// Whether they are zeros that occupy nothing.
    pub hole: bool,
}

impl Slice {
    /// What lies in `range`, from its beginning on and perhaps not to its end; `None` if this
    /// replica can't say.
    #[must_use]
    pub fn holes(&self, range: BlockRange) -> Option<Vec<Run>> {
        let epoch = self.settled()?;
        let engine = self.pool.engine();
        let from = range.first;
        let missing = engine.missing(self.id, from, 1).ok()?.0;
        let found = engine.newer_than(self.id, Root::Live, Version::ZERO, from, RUNS_MAX).ok()?;
        (self.settled()? == epoch).then_some(())?;
        // What this replica hasn't got may be anything.
        let known = missing.first().map_or(range.end(), |missing| missing.first.min(range.end()));
        runs(&found, from, known)
    }

    /// See [`Replica::leased_until`](mooring_replication::Replica::leased_until).
    #[must_use]
    pub fn leased_until(
        &self,
        attachment: mooring_terms::AttachmentEpoch,
    ) -> Option<mooring_terms::Time> {
        let now = clock::now();
        self.serial.look(|replica| {
            self.beacons.with(|leases| replica.leased_until(now, leases, attachment))
        })
    }

    /// The epoch in which this replica is primary and knows every record there is to be committed.
    fn settled(&self) -> Option<mooring_terms::Epoch> {
        let now = clock::now();
        // In this order, as where the core is driven.
        self.serial.look(|replica| self.beacons.with(|leases| replica.settled(now, leases)))
    }
}

/// The runs between `from` and `end`, as far as `found` goes.
fn runs(found: &Changes, from: BlockIndex, end: BlockIndex) -> Option<Vec<Run>> {
    let end = found.next.map_or(end, |next| next.min(end)).0;
    let mut out: Vec<Run> = Vec::new();
    let mut push = |blocks: u64, hole: bool| match out.last_mut() {
        _ if blocks == 0 => {}
        Some(last) if last.hole == hole => last.blocks += blocks,
        _ => out.push(Run { blocks, hole }),
    };
    let mut at = from.0;
    for changed in &found.extents {
        let first = changed.range.first.0.clamp(at, end.max(at));
        let last = changed.range.end().0.clamp(first, end.max(first));
        push(first - at, true);
        push(last - first, changed.kind == ChangedKind::Hole);
        at = last;
    }
    push(end.saturating_sub(at), true);
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use mooring_engine::Changed;
    use mooring_terms::{Epoch, Sequence};

    use super::*;

    fn changed(first: u64, count: u64, kind: ChangedKind) -> Changed {
        let version = Version { epoch: Epoch(1), sequence: Sequence(1) };
        Changed { range: BlockRange::new(BlockIndex(first), count), version, kind }
    }

    fn told(extents: &[Changed], next: Option<u64>, from: u64, end: u64) -> Vec<(u64, bool)> {
        let found = Changes { extents: extents.to_vec(), next: next.map(BlockIndex) };
        let runs = runs(&found, BlockIndex(from), BlockIndex(end)).unwrap_or_default();
        runs.iter().map(|run| (run.blocks, run.hole)).collect()
    }

    #[test]
    fn what_was_never_written_is_a_hole_and_so_is_what_was_discarded() {
        let (data, hole) = (ChangedKind::Data, ChangedKind::Hole);
        assert_eq!(told(&[], None, 5, 15), [(10, true)]);
        let some = [changed(2, 2, data), changed(4, 1, data), changed(6, 1, hole)];
        assert_eq!(told(&some, None, 0, 10), [(2, true), (3, false), (5, true)]);
        // It may begin before what was asked for, and go on behind it.
        assert_eq!(told(&[changed(0, 100, data)], None, 10, 20), [(10, false)]);
        assert_eq!(told(&[changed(30, 9, data)], None, 10, 20), [(10, true)]);
        // What was not looked at is not answered for.
        assert_eq!(told(&[changed(0, 4, data)], Some(4), 0, 10), [(4, false)]);
        assert_eq!(told(&[], None, 10, 10), []);
    }
}
