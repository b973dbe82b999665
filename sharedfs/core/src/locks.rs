//! File locks, over all hosts: `fcntl` ranges (by process, and by open file: OFD) and `flock`.
//!
//! ```text
//!   set ──free──> held ──set, unlock, owner or session ends──> free
//!    └──conflict──> EAGAIN, EDEADLK, or waiting ──freed──> held
//!                                          └──cancel──> gone
//! ```
//! Ranges and flocks don't see each other, as on a local Linux. The table is in the coordinator's
//! memory alone: after a failover clients reclaim what they hold, before anybody else is served.
//!
//! A wait that would close a circle of owners, each waiting for the next, is refused (`EDEADLK`) where
//! the waiting owner is a process; for open files Linux doesn't look, and an owner with several
//! threads may well be freed by another of them.
//!
//! Invariants ([`Locks::check_invariants`]): no two owners hold what conflicts; an owner's ranges are
//! sorted, don't overlap and aren't mergeable; whoever waits has a conflict.

mod range;
#[cfg(test)]
mod tests;
mod waits;

use serde::{Deserialize, Serialize};

use std::collections::BTreeMap;

use range::RangeTable;
use waits::{Wait, Waits};

use crate::{FsError, Ino, Result, SessionId};

/// Who holds a lock: a process or an open file of one mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LockOwner {
    /// The mount.
    pub session: SessionId,
    /// What its kernel calls the owner.
    pub owner: u64,
}

/// Which locks see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LockSpace {
    /// `fcntl`: ranges of bytes.
    Range,
    /// `flock`: the whole file.
    Flock,
}

/// Shared or exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LockMode {
    /// Any number of owners.
    Read,
    /// One.
    Write,
}

/// Bytes `start..=end` of a file. The end of a lock "to the end of the file" is `u64::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LockRange {
    /// The first byte.
    pub start: u64,
    /// The last byte.
    pub end: u64,
}

/// A lock that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRequest {
    /// The file.
    pub ino: Ino,
    /// For whom.
    pub owner: LockOwner,
    /// Among which locks.
    pub space: LockSpace,
    /// What.
    pub mode: LockMode,
    /// Where; all of the file for a flock.
    pub range: LockRange,
    /// The process, for whoever asks who holds the lock.
    pub pid: u32,
}

/// What to do about a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnConflict {
    /// Say so.
    Fail,
    /// Wait under this number. `process`: the owner is a process, so a circle is an error.
    Wait {
        /// The caller's number for the wait; in use once at a time.
        wait: WaitId,
        /// Whether to look for circles.
        process: bool,
    },
}

/// A wait's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WaitId(pub u64);

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Locked {
    /// It is held.
    Held,
    /// It waits; its number is told when it is held.
    Waiting,
}

/// A lock that somebody holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldLock {
    /// Who.
    pub owner: LockOwner,
    /// What.
    pub mode: LockMode,
    /// Where.
    pub range: LockRange,
    /// The process.
    pub pid: u32,
}

impl LockRange {
    /// The whole file.
    pub const ALL: Self = Self { start: 0, end: u64::MAX };

    fn overlaps(self, other: Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }
}

impl LockMode {
    fn conflicts(self, other: Self) -> bool {
        self == Self::Write || other == Self::Write
    }
}

/// One file's locks of one space.
type Place = (Ino, LockSpace);

/// All locks of a volume, and who waits for them.
#[derive(Clone, Debug, Default)]
pub struct Locks {
    tables: BTreeMap<Place, RangeTable>,
    waits: Waits,
    /// How many ranges each session holds.
    counts: BTreeMap<SessionId, usize>,
    /// How many a session can hold and wait for; no bound if there is none.
    most: Option<usize>,
}

impl Locks {
    /// No locks. A session can hold and wait for `most` of them.
    #[must_use]
    pub fn bounded(most: usize) -> Self {
        Self { most: Some(most), ..Self::default() }
    }

    /// Sets a lock, in the place of whatever its owner holds there. Waits that this ends (a write
    /// lock became a read lock) are in `held`, in the order in which they came.
    ///
    /// # Errors
    /// [`FsError::WouldBlock`] on a conflict, [`FsError::Deadlock`] if waiting would never end,
    /// [`FsError::NoLocks`] if the session has too many, [`FsError::Invalid`] if the range ends before
    /// it begins.
    pub fn set(
        &mut self,
        request: LockRequest,
        on_conflict: OnConflict,
        held: &mut Vec<WaitId>,
    ) -> Result<Locked> {
        if request.range.start > request.range.end {
            return Err(FsError::Invalid);
        }
        let session = request.owner.session;
        let count = || self.count(session) + self.waits.of_session(session);
        if self.most.is_some_and(|most| count() >= most) {
            return Err(FsError::NoLocks);
        }
        let place = (request.ino, request.space);
        if request.space == LockSpace::Flock {
            self.drop_for_conversion(&request, held);
        }
        if self.conflict(&request).is_none() {
            self.hold(&request);
            self.wake(place, held);
            return Ok(Locked::Held);
        }
        match on_conflict {
            OnConflict::Fail => Err(FsError::WouldBlock),
            OnConflict::Wait { process: true, .. } if self.closes_circle(&request) => {
                Err(FsError::Deadlock)
            }
            OnConflict::Wait { wait, process } => {
                self.waits.insert(wait, Wait { request, process });
                Ok(Locked::Waiting)
            }
        }
    }

    /// Takes a lock that a client held before a failover. Whether it could: nobody else has it.
    pub fn reclaim(&mut self, request: &LockRequest) -> bool {
        let free = self.conflict(request).is_none() && request.range.start <= request.range.end;
        if free {
            self.hold(request);
        }
        free
    }

    /// Frees what `owner` holds in `range`. Waits that this ends are in `held`.
    pub fn unlock(
        &mut self,
        (ino, space): (Ino, LockSpace),
        owner: LockOwner,
        range: LockRange,
        held: &mut Vec<WaitId>,
    ) {
        if self.tables.contains_key(&(ino, space)) {
            self.change((ino, space), owner, |table| table.remove(owner, range));
            self.wake((ino, space), held);
        }
    }

    /// How many ranges a session holds.
    #[must_use]
    pub fn count(&self, session: SessionId) -> usize {
        self.counts.get(&session).copied().unwrap_or(0)
    }

    /// Changes what `owner` holds at `place`, and counts it.
    fn change(&mut self, place: Place, owner: LockOwner, change: impl FnOnce(&mut RangeTable)) {
        let table = self.tables.entry(place).or_default();
        let before = table.count(owner);
        change(table);
        let after = table.count(owner);
        let count = self.counts.entry(owner.session).or_default();
        *count = *count + after - before;
        if *count == 0 {
            self.counts.remove(&owner.session);
        }
    }

    /// What stands in the way of a lock: the first of it, as F_GETLK tells.
    #[must_use]
    pub fn conflict(&self, request: &LockRequest) -> Option<HeldLock> {
        let table = self.tables.get(&(request.ino, request.space))?;
        table.conflicts(request.owner, request.mode, request.range).min_by_key(|l| l.range.start)
    }

    /// Ends a wait; whether it was there. If it isn't, it has ended already: the lock is held.
    pub fn cancel(&mut self, wait: WaitId) -> bool {
        self.waits.remove(wait).is_some()
    }

    /// Frees all that `owner` holds of a file: its last descriptor was closed.
    pub fn end_owner(&mut self, ino: Ino, owner: LockOwner, held: &mut Vec<WaitId>) {
        self.waits.remove_if(|wait| wait.request.ino == ino && wait.request.owner == owner);
        for space in [LockSpace::Range, LockSpace::Flock] {
            self.unlock((ino, space), owner, LockRange::ALL, held);
        }
    }

    /// Frees all that a session holds, and ends its waits.
    pub fn end_session(&mut self, session: SessionId, held: &mut Vec<WaitId>) {
        self.waits.remove_if(|wait| wait.request.owner.session == session);
        let places: Vec<Place> = self.tables.keys().copied().collect();
        for place in places {
            let table = self.tables.get_mut(&place);
            if table.is_some_and(|table| table.remove_session(session) > 0) {
                self.wake(place, held);
            }
        }
        self.counts.remove(&session);
    }

    /// All locks of a file that are held.
    pub fn of(&self, ino: Ino, space: LockSpace) -> impl Iterator<Item = HeldLock> + '_ {
        self.tables.get(&(ino, space)).into_iter().flat_map(RangeTable::iter)
    }

    /// All locks that are held, and where.
    pub fn all(&self) -> impl Iterator<Item = (Ino, LockSpace, HeldLock)> + '_ {
        let of = |(&(ino, space), table): (&Place, &'_ RangeTable)| {
            let held: Vec<HeldLock> = table.iter().collect();
            held.into_iter().map(move |lock| (ino, space, lock))
        };
        self.tables.iter().flat_map(of)
    }

    /// Whether this wait has not ended.
    #[must_use]
    pub fn is_waiting(&self, wait: WaitId) -> bool {
        self.waits.contains(wait)
    }

    /// How many requests wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waits.len()
    }

    /// `flock` changes a lock by giving it up and asking anew, so that two who both want to go from
    /// shared to exclusive don't wait for each other for ever. Whoever fails has lost it.
    fn drop_for_conversion(&mut self, request: &LockRequest, held: &mut Vec<WaitId>) {
        let place = (request.ino, request.space);
        let Some(table) = self.tables.get_mut(&place) else { return };
        if table.iter().any(|lock| lock.owner == request.owner && lock.mode != request.mode) {
            self.change(place, request.owner, |table| table.remove(request.owner, LockRange::ALL));
            self.wake(place, held);
        }
    }

    fn hold(&mut self, request: &LockRequest) {
        let &LockRequest { ino, owner, space, mode, range, pid } = request;
        let lock = HeldLock { owner, mode, range, pid };
        self.change((ino, space), owner, |table| table.insert(lock));
    }

    /// Gives locks to those who wait at `place` and have no conflict any more, first come first
    /// served. A lock given may be a conversion that frees something, so it begins again after each.
    fn wake(&mut self, place: Place, held: &mut Vec<WaitId>) {
        loop {
            let free =
                self.waits.at(place).find(|(_, wait)| self.conflict(&wait.request).is_none());
            let Some((id, _)) = free else { break };
            let Some(wait) = self.waits.remove(id) else { break };
            self.hold(&wait.request);
            held.push(id);
        }
        if self.tables.get(&place).is_some_and(RangeTable::is_empty) {
            self.tables.remove(&place);
        }
    }

    /// Whether somebody in whose way `request` would have to wait is waiting, directly or through
    /// others, for its owner.
    fn closes_circle(&self, request: &LockRequest) -> bool {
        let mut seen = std::collections::BTreeSet::new();
        let mut open = self.blockers(request);
        while let Some(owner) = open.pop() {
            if owner == request.owner {
                return true;
            }
            if seen.insert(owner) {
                for wait in self.waits.of_process(owner) {
                    open.extend(self.blockers(&wait.request));
                }
            }
        }
        false
    }

    fn blockers(&self, request: &LockRequest) -> Vec<LockOwner> {
        let table = self.tables.get(&(request.ino, request.space)).into_iter();
        table
            .flat_map(|table| table.conflicts(request.owner, request.mode, request.range))
            .map(|lock| lock.owner)
            .collect()
    }

    /// Panics if the table is not what the module's comment promises.
    ///
    /// # Panics
    /// See there.
    pub fn check_invariants(&self) {
        for (place, table) in &self.tables {
            assert!(!table.is_empty(), "{place:?}: an empty table is kept");
            table.check_invariants();
        }
        let held = self.tables.values().map(|table| table.iter().count());
        assert_eq!(held.sum::<usize>(), self.counts.values().sum::<usize>());
        for wait in self.waits.iter() {
            assert!(self.conflict(&wait.request).is_some(), "{wait:?} waits for nothing");
        }
    }
}
