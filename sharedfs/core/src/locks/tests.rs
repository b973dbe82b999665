use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn owner(session: u64, owner: u64) -> LockOwner {
    LockOwner { session: SessionId(session), owner }
}

fn range(start: u64, end: u64) -> LockRange {
    LockRange { start, end }
}

fn write(owner: LockOwner, ino: u64, start: u64, end: u64) -> LockRequest {
    LockRequest {
        ino: Ino(ino),
        owner,
        space: LockSpace::Range,
        mode: LockMode::Write,
        range: range(start, end),
        pid: 1,
    }
}

fn flock(owner: LockOwner, mode: LockMode) -> LockRequest {
    LockRequest { space: LockSpace::Flock, mode, range: LockRange::ALL, ..write(owner, 9, 0, 0) }
}

fn wait(wait: u64) -> OnConflict {
    OnConflict::Wait { wait: WaitId(wait), process: true }
}

/// Sets a lock that ends nobody's wait.
fn set(locks: &mut Locks, request: LockRequest, on_conflict: OnConflict) -> Result<Locked> {
    let mut held = Vec::new();
    let result = locks.set(request, on_conflict, &mut held);
    assert_eq!(held, []);
    locks.check_invariants();
    result
}

#[test]
fn a_waiter_gets_the_lock_when_it_is_freed_and_not_before() {
    let (mut locks, mut held) = (Locks::default(), Vec::new());
    let (a, b) = (owner(1, 1), owner(2, 1));
    assert_eq!(set(&mut locks, write(a, 9, 0, 99), OnConflict::Fail), Ok(Locked::Held));
    assert_eq!(set(&mut locks, write(b, 9, 50, 60), OnConflict::Fail), Err(FsError::WouldBlock));
    assert_eq!(set(&mut locks, write(b, 9, 50, 60), wait(7)), Ok(Locked::Waiting));
    let place = (Ino(9), LockSpace::Range);
    locks.unlock(place, a, range(0, 49), &mut held);
    assert_eq!(held, []);
    locks.unlock(place, a, range(50, 55), &mut held);
    assert_eq!(held, []);
    locks.unlock(place, a, range(56, 70), &mut held);
    assert_eq!(held, [WaitId(7)]);
    locks.check_invariants();
    assert_eq!(locks.conflict(&write(a, 9, 0, 65)).map(|lock| lock.owner), Some(b));
}

#[test]
fn a_circle_of_waiting_processes_is_refused() {
    let mut locks = Locks::default();
    let owners = [owner(1, 1), owner(2, 1), owner(3, 1)];
    for (i, &owner) in owners.iter().enumerate() {
        assert_eq!(set(&mut locks, write(owner, i as u64, 0, 9), wait(0)), Ok(Locked::Held));
    }
    assert_eq!(set(&mut locks, write(owners[0], 1, 0, 9), wait(1)), Ok(Locked::Waiting));
    assert_eq!(set(&mut locks, write(owners[1], 2, 0, 9), wait(2)), Ok(Locked::Waiting));
    assert_eq!(set(&mut locks, write(owners[2], 0, 5, 6), wait(3)), Err(FsError::Deadlock));
    // An open file may be freed by another thread: nobody can know.
    let by_file = OnConflict::Wait { wait: WaitId(3), process: false };
    assert_eq!(set(&mut locks, write(owners[2], 0, 5, 6), by_file), Ok(Locked::Waiting));
    // Once one of them gives up there is no circle.
    assert!(locks.cancel(WaitId(1)));
    assert!(locks.cancel(WaitId(3)));
    assert!(!locks.cancel(WaitId(3)));
    assert_eq!(set(&mut locks, write(owners[2], 0, 5, 6), wait(4)), Ok(Locked::Waiting));
}

#[test]
fn the_end_of_a_session_frees_its_locks_and_forgets_its_waits() {
    let (mut locks, mut held) = (Locks::default(), Vec::new());
    let (a, b, c) = (owner(1, 1), owner(2, 1), owner(1, 2));
    assert_eq!(set(&mut locks, write(a, 9, 0, 9), wait(0)), Ok(Locked::Held));
    assert_eq!(set(&mut locks, write(c, 9, 0, 9), wait(1)), Ok(Locked::Waiting));
    assert_eq!(set(&mut locks, write(b, 9, 0, 9), wait(2)), Ok(Locked::Waiting));
    locks.end_session(SessionId(1), &mut held);
    assert_eq!(held, [WaitId(2)]);
    assert_eq!(locks.waiting(), 0);
    locks.check_invariants();
    locks.end_owner(Ino(9), b, &mut held);
    assert_eq!(locks.of(Ino(9), LockSpace::Range).count(), 0);
}

#[test]
fn flocks_are_converted_by_giving_them_up_first() {
    let (mut locks, mut held) = (Locks::default(), Vec::new());
    let (a, b) = (owner(1, 1), owner(2, 1));
    for owner in [a, b] {
        assert_eq!(
            set(&mut locks, flock(owner, LockMode::Read), OnConflict::Fail),
            Ok(Locked::Held)
        );
    }
    // A range lock is another thing.
    assert_eq!(set(&mut locks, write(a, 9, 0, u64::MAX), OnConflict::Fail), Ok(Locked::Held));
    assert_eq!(set(&mut locks, flock(a, LockMode::Write), wait(1)), Ok(Locked::Waiting));
    // Both want to be alone: the second gives up its share, so the first gets what it wants.
    let second = locks.set(flock(b, LockMode::Write), OnConflict::Fail, &mut held);
    assert_eq!((second, held), (Err(FsError::WouldBlock), vec![WaitId(1)]));
    locks.check_invariants();
    let owners: Vec<_> = locks.of(Ino(9), LockSpace::Flock).map(|lock| lock.owner).collect();
    assert_eq!(owners, [a]);
}

#[test]
fn a_write_lock_that_becomes_a_read_lock_lets_readers_in() {
    let (mut locks, mut held) = (Locks::default(), Vec::new());
    let (a, b) = (owner(1, 1), owner(2, 1));
    assert_eq!(set(&mut locks, write(a, 9, 0, 9), wait(0)), Ok(Locked::Held));
    let read = LockRequest { mode: LockMode::Read, ..write(b, 9, 3, 4) };
    assert_eq!(set(&mut locks, read, wait(1)), Ok(Locked::Waiting));
    let down = LockRequest { mode: LockMode::Read, ..write(a, 9, 0, 9) };
    assert_eq!(locks.set(down, OnConflict::Fail, &mut held), Ok(Locked::Held));
    assert_eq!(held, [WaitId(1)]);
}

/// Bytes 0..16 of one file, one cell each: who reads it, who writes it.
#[derive(Default)]
struct Bytes(BTreeMap<u64, BTreeMap<LockOwner, LockMode>>);

impl Bytes {
    fn conflicts(&self, request: &LockRequest) -> bool {
        (request.range.start..=request.range.end).any(|byte| {
            let cell = self.0.get(&byte).into_iter().flatten();
            cell.into_iter().any(|(&owner, &mode)| {
                owner != request.owner
                    && (mode == LockMode::Write || request.mode == LockMode::Write)
            })
        })
    }

    fn set(&mut self, owner: LockOwner, range: LockRange, mode: Option<LockMode>) {
        for byte in range.start..=range.end {
            let cell = self.0.entry(byte).or_default();
            match mode {
                Some(mode) => drop(cell.insert(owner, mode)),
                None => drop(cell.remove(&owner)),
            }
        }
    }
}

proptest! {
    /// Compared byte by byte with a table that has one cell a byte.
    #[test]
    fn ranges_are_what_bytes_would_be(
        steps in proptest::collection::vec(
            (0..3_u64, 0..16_u64, 0..16_u64, proptest::option::of(any::<bool>()), any::<bool>()),
            1..60,
        )
    ) {
        let (mut locks, mut bytes) = (Locks::default(), Bytes::default());
        let mut waiting: BTreeMap<WaitId, LockRequest> = BTreeMap::new();
        for (i, (who, a, b, mode, waits)) in steps.into_iter().enumerate() {
            let (who, range) = (owner(who, 1), range(a.min(b), a.max(b)));
            let mode = mode.map(|write| if write { LockMode::Write } else { LockMode::Read });
            let mut held = Vec::new();
            match mode {
                None => {
                    locks.unlock((Ino(9), LockSpace::Range), who, range, &mut held);
                    bytes.set(who, range, None);
                }
                Some(mode) => {
                    let request = LockRequest { mode, range, ..write(who, 9, 0, 0) };
                    let id = WaitId(i as u64);
                    let on_conflict = if waits {
                        OnConflict::Wait { wait: id, process: false }
                    } else {
                        OnConflict::Fail
                    };
                    match locks.set(request, on_conflict, &mut held) {
                        Ok(Locked::Held) => {
                            prop_assert!(!bytes.conflicts(&request));
                            bytes.set(who, range, Some(mode));
                        }
                        Ok(Locked::Waiting) => {
                            prop_assert!(bytes.conflicts(&request) && waits);
                            waiting.insert(id, request);
                        }
                        Err(error) => {
                            prop_assert!(bytes.conflicts(&request) && !waits);
                            prop_assert_eq!(error, FsError::WouldBlock);
                        }
                    }
                }
            }
            for id in held {
                let request = waiting.remove(&id).expect("only a wait can end");
                prop_assert!(!bytes.conflicts(&request));
                bytes.set(request.owner, request.range, Some(request.mode));
            }
            for request in waiting.values() {
                prop_assert!(bytes.conflicts(request), "nobody waits for nothing");
            }
            locks.check_invariants();
            for byte in 0..16 {
                for who in 0..3 {
                    let cell = bytes.0.get(&byte).and_then(|cell| cell.get(&owner(who, 1)));
                    let mut of = locks.of(Ino(9), LockSpace::Range);
                    let found = of.find(|lock| {
                        lock.owner == owner(who, 1) && lock.range.start <= byte && byte <= lock.range.end
                    });
                    prop_assert_eq!(found.map(|lock| lock.mode), cell.copied());
                }
            }
        }
    }
}
