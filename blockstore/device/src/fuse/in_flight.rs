//! Requests that wait for their answer: counted, bounded, and each answered at most once.
//!
//! ```text
//!   free ──enter──> waiting(unique) ──answered / interrupted / failed──> settled ──leave──> free
//! ```
//! `answer` and whoever wants to answer early (an interrupt, `fail`) race for `unique`; the winner
//! writes to the kernel. The place is free again only when the answer's owner is done with it, so
//! the bound also holds for what a volume still has in hand after an early answer.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};

/// Where a request is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(usize);

struct Entry {
    /// The request's number; 0 when nobody needs to answer.
    unique: AtomicU64,
    /// The channel it came over, where its answer must go.
    channel: AtomicUsize,
}

/// All places of one session.
pub(super) struct InFlight {
    entries: Vec<Entry>,
    free: Mutex<Free>,
    left: Condvar,
}

struct Free {
    places: Vec<usize>,
    /// Nothing may enter any more.
    closed: bool,
}

impl InFlight {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            entries: (0..limit)
                .map(|_| Entry { unique: AtomicU64::new(0), channel: AtomicUsize::new(0) })
                .collect(),
            free: Mutex::new(Free { places: (0..limit).rev().collect(), closed: false }),
            left: Condvar::new(),
        }
    }

    /// Notes a request; waits while all places are taken. `None` once the table is closed.
    pub(super) fn enter(&self, unique: u64, channel: usize) -> Option<Place> {
        let mut free = self.free.lock();
        let place = loop {
            if free.closed {
                return None;
            }
            match free.places.pop() {
                Some(place) => break place,
                None => self.left.wait(&mut free),
            }
        };
        // Under the lock: whoever closes the table finds all that entered before.
        self.entries[place].channel.store(channel, Ordering::Relaxed);
        self.entries[place].unique.store(unique, Ordering::Release);
        Some(Place(place))
    }

    /// Lets nothing enter any more, and returns all waiting requests with their channels; the
    /// caller must answer them now.
    pub(super) fn close(&self) -> Vec<(u64, usize)> {
        self.free.lock().closed = true;
        self.left.notify_all();
        self.entries
            .iter()
            .filter_map(|entry| {
                let unique = entry.unique.swap(0, Ordering::AcqRel);
                (unique != 0).then(|| (unique, entry.channel.load(Ordering::Relaxed)))
            })
            .collect()
    }

    /// Whether the caller is the one to answer the request at `place`.
    pub(super) fn settle(&self, place: Place, unique: u64) -> bool {
        self.entries[place.0]
            .unique
            .compare_exchange(unique, 0, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Frees the place.
    pub(super) fn leave(&self, place: Place) {
        self.free.lock().places.push(place.0);
        self.left.notify_one();
    }

    /// The channel of the waiting request `unique`, which the caller must answer now; `None` if it
    /// isn't waiting.
    pub(super) fn settle_unique(&self, unique: u64) -> Option<usize> {
        self.entries.iter().find_map(|entry| {
            let channel = entry.channel.load(Ordering::Relaxed);
            entry
                .unique
                .compare_exchange(unique, 0, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
                .then_some(channel)
        })
    }

    /// Whether more than one request waits: then further ones may be about to come.
    pub(super) fn is_shared(&self) -> bool {
        self.count() > 1
    }

    /// How many places are taken.
    pub(super) fn count(&self) -> u64 {
        (self.entries.len() - self.free.lock().places.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_settled_once() {
        let table = InFlight::new(2);
        let place = table.enter(8, 1).unwrap();
        assert_eq!(table.settle_unique(8), Some(1));
        assert!(!table.settle(place, 8), "the interrupt has answered already");
        assert_eq!(table.count(), 1, "the volume still has it in hand");
        table.leave(place);
        assert_eq!(table.count(), 0);
    }

    #[test]
    fn a_late_answer_does_not_settle_the_place_of_another() {
        let table = InFlight::new(1);
        let old = table.enter(8, 0).unwrap();
        assert_eq!(table.settle_unique(8), Some(0));
        table.leave(old);
        let new = table.enter(10, 0).unwrap();
        assert_eq!(old, new);
        assert!(!table.settle(old, 8));
        assert!(table.settle(new, 10));
    }

    #[test]
    fn the_bound_holds_up_who_comes_too_many() {
        let table = std::sync::Arc::new(InFlight::new(1));
        let place = table.enter(2, 0).unwrap();
        let waiting = {
            let table = table.clone();
            std::thread::spawn(move || table.enter(4, 0))
        };
        assert!(table.settle(place, 2));
        assert_eq!(table.count(), 1);
        table.leave(place);
        assert!(waiting.join().unwrap().is_some());
        assert_eq!(table.count(), 1);
    }

    #[test]
    fn closing_frees_who_waits_for_a_place() {
        let table = std::sync::Arc::new(InFlight::new(1));
        table.enter(2, 1).unwrap();
        let waiting = {
            let table = table.clone();
            std::thread::spawn(move || table.enter(4, 0))
        };
        assert_eq!(table.close(), vec![(2, 1)]);
        assert!(waiting.join().unwrap().is_none());
        assert!(table.enter(6, 0).is_none());
    }
}
