//! The locks of one file: each owner's ranges, sorted.

use std::collections::BTreeMap;

use super::{HeldLock, LockMode, LockOwner, LockRange};
use crate::SessionId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    range: LockRange,
    mode: LockMode,
    pid: u32,
}

/// One file's locks. An owner without any has no entry.
#[derive(Clone, Debug, Default)]
pub(super) struct RangeTable(BTreeMap<LockOwner, Vec<Piece>>);

impl RangeTable {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = HeldLock> + '_ {
        self.0.iter().flat_map(|(&owner, pieces)| {
            pieces.iter().map(move |&Piece { range, mode, pid }| HeldLock {
                owner,
                mode,
                range,
                pid,
            })
        })
    }

    /// What others hold that stands in the way of `mode` on `range`.
    pub(super) fn conflicts(
        &self,
        owner: LockOwner,
        mode: LockMode,
        range: LockRange,
    ) -> impl Iterator<Item = HeldLock> + '_ {
        self.iter().filter(move |lock| {
            lock.owner != owner && lock.range.overlaps(range) && lock.mode.conflicts(mode)
        })
    }

    /// How many pieces `owner` holds.
    pub(super) fn count(&self, owner: LockOwner) -> usize {
        self.0.get(&owner).map_or(0, Vec::len)
    }

    /// Frees what `owner` holds in `range`: pieces that reach out of it keep their rest.
    pub(super) fn remove(&mut self, owner: LockOwner, range: LockRange) {
        let Some(pieces) = self.0.get_mut(&owner) else { return };
        let mut left = Vec::with_capacity(pieces.len() + 1);
        for &piece in pieces.iter() {
            if !piece.range.overlaps(range) {
                left.push(piece);
                continue;
            }
            if piece.range.start < range.start {
                let end = range.start - 1;
                left.push(Piece { range: LockRange { end, ..piece.range }, ..piece });
            }
            if piece.range.end > range.end {
                let start = range.end + 1;
                left.push(Piece { range: LockRange { start, ..piece.range }, ..piece });
            }
        }
        if left.is_empty() {
            self.0.remove(&owner);
        } else {
            *pieces = left;
        }
    }

    /// Frees all that a session holds; how much it was.
    pub(super) fn remove_session(&mut self, session: SessionId) -> usize {
        let mut removed = 0;
        self.0.retain(|owner, pieces| {
            let stays = owner.session != session;
            removed += if stays { 0 } else { pieces.len() };
            stays
        });
        removed
    }

    /// Holds `lock` in the place of what its owner has there, as one with equal neighbours.
    pub(super) fn insert(&mut self, lock: HeldLock) {
        self.remove(lock.owner, lock.range);
        let HeldLock { owner, mode, mut range, pid } = lock;
        let pieces = self.0.entry(owner).or_default();
        // Neighbours that touch: nothing overlaps any more.
        pieces.retain(|piece| {
            let before = piece.range.end.checked_add(1) == Some(range.start);
            let behind = range.end.checked_add(1) == Some(piece.range.start);
            let joins = piece.mode == mode && (before || behind);
            if joins {
                range.start = range.start.min(piece.range.start);
                range.end = range.end.max(piece.range.end);
            }
            !joins
        });
        let at = pieces.partition_point(|piece| piece.range.start < range.start);
        pieces.insert(at, Piece { range, mode, pid });
    }

    pub(super) fn check_invariants(&self) {
        for (owner, pieces) in &self.0 {
            assert!(!pieces.is_empty(), "{owner:?} has an empty list");
            for pair in pieces.windows(2) {
                let (a, b) = (&pair[0], &pair[1]);
                assert!(a.range.end < b.range.start, "{owner:?}: {a:?} and {b:?} overlap");
                let touch = a.range.end + 1 == b.range.start;
                assert!(!touch || a.mode != b.mode, "{owner:?}: {a:?} and {b:?} are one");
            }
        }
        for lock in self.iter() {
            let conflict = self.conflicts(lock.owner, lock.mode, lock.range).next();
            assert_eq!(conflict, None, "two hold what conflicts: {lock:?}");
        }
    }
}
