//! Virtual time: a queue of what happens next, and the clock each node believes in.
//!
//! Two events of one moment come in the order in which they were scheduled, so a run depends on
//! its seed alone.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use mooring_terms::Time;

/// Events ordered by time, and by the order of scheduling within one moment.
#[derive(Debug)]
pub struct Queue<E> {
    now: Time,
    next_number: u64,
    heap: BinaryHeap<Reverse<Entry<E>>>,
}

#[derive(Debug)]
struct Entry<E> {
    at: Time,
    number: u64,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { now: Time::ZERO, next_number: 0, heap: BinaryHeap::new() }
    }
}

impl<E> Queue<E> {
    /// The present.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    /// Lets `event` happen after `delay`.
    pub fn after(&mut self, delay: Duration, event: E) {
        self.at(self.now + delay, event);
    }

    /// Lets `event` happen at `at`, or now if that is past.
    pub fn at(&mut self, at: Time, event: E) {
        let number = self.next_number;
        self.next_number += 1;
        self.heap.push(Reverse(Entry { at: at.max(self.now), number, event }));
    }

    /// Goes on to the next event, if it comes before `end`; else to `end`.
    pub fn pop_before(&mut self, end: Time) -> Option<E> {
        if self.heap.peek().is_none_or(|Reverse(entry)| entry.at >= end) {
            self.now = self.now.max(end);
            return None;
        }
        let Reverse(entry) = self.heap.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }
}

/// The clock of one node: starts anywhere, and runs up to 1 % fast or slow.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset: Duration,
    /// Parts per million by which it runs fast (positive) or slow.
    drift_ppm: i64,
}

impl Clock {
    /// A clock that shows `offset` at the start of the run.
    #[must_use]
    pub fn new(offset: Duration, drift_ppm: i64) -> Self {
        assert!(drift_ppm.abs() <= 10_000, "leases are made for clocks within 1 %");
        Self { offset, drift_ppm }
    }

    /// What the clock shows at `time`.
    #[must_use]
    pub fn shows(&self, time: Time) -> Time {
        let nanos = i128::try_from(time.0.as_nanos()).expect("a run is short");
        let shown = nanos + nanos * i128::from(self.drift_ppm) / 1_000_000;
        Time(self.offset + Duration::from_nanos(u64::try_from(shown).expect("a run is short")))
    }

    /// The moment at which the clock shows `shown`, rounded up so that a timer set for it never
    /// fires early.
    #[must_use]
    pub fn when(&self, shown: Time) -> Time {
        let ahead = shown.0.saturating_sub(self.offset);
        let nanos = i128::try_from(ahead.as_nanos()).expect("a run is short");
        let time = nanos * 1_000_000 / (1_000_000 + i128::from(self.drift_ppm)) + 2;
        Time(Duration::from_nanos(u64::try_from(time).expect("a run is short")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_moment_come_in_the_order_of_scheduling() {
        let mut queue = Queue::default();
        queue.after(Duration::from_secs(2), 'c');
        queue.after(Duration::from_secs(1), 'a');
        queue.after(Duration::from_secs(1), 'b');
        let end = Time(Duration::from_secs(2));
        assert_eq!(queue.pop_before(end), Some('a'));
        assert_eq!(queue.pop_before(end), Some('b'));
        assert_eq!(queue.pop_before(end), None, "the end is not part of the span");
        assert_eq!(queue.now(), end);
    }

    #[test]
    fn a_timer_never_fires_before_the_clock_shows_its_moment() {
        for drift in [-10_000, -17, 0, 3, 10_000] {
            let clock = Clock::new(Duration::from_millis(777), drift);
            for ms in [0, 1, 778, 1200, 99_999] {
                let shown = Time(Duration::from_millis(ms));
                assert!(clock.shows(clock.when(shown)) >= shown, "drift {drift}, {ms} ms");
            }
        }
    }
}
