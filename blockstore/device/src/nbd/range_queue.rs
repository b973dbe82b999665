//! Who may change which blocks now: changes that overlap go one after the other, in the order in
//! which they came. Pure.
//!
//! Three things rest on it:
//! - a change of a part of a block is a read and a write, between which nothing else may change that
//!   block;
//! - a client that lost its connection sends again, on a new one, what it had no answer to. The first
//!   execution may still be under way: it is over before the second begins, so that it can't undo
//!   what comes after the second;
//! - what a map says are holes has no change under way.
//!
//! Invariant: of two turns that overlap, at most one is running, and it is the older one.

use std::collections::VecDeque;
use std::ops::Range;

/// Names one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Turn(u64);

/// Turns that run and turns that wait, in the order in which they came; `T` is what is begun when a
/// turn comes.
#[derive(Debug)]
pub(crate) struct RangeQueue<T> {
    turns: VecDeque<Entry<T>>,
    next: u64,
}

#[derive(Debug)]
struct Entry<T> {
    turn: Turn,
    range: Range<u64>,
    /// None once it runs.
    waiting: Option<T>,
}

impl<T> Default for RangeQueue<T> {
    fn default() -> Self {
        Self { turns: VecDeque::new(), next: 0 }
    }
}

impl<T> RangeQueue<T> {
    /// Asks for a turn on `range`. What is given back is to be begun now; else [`RangeQueue::end`]
    /// gives it back when its turn has come.
    pub(crate) fn enter(&mut self, range: Range<u64>, what: T) -> Option<(Turn, T)> {
        let turn = Turn(self.next);
        self.next += 1;
        let free = !self.turns.iter().any(|other| overlap(&other.range, &range));
        let (now, waiting) = if free { (Some((turn, what)), None) } else { (None, Some(what)) };
        self.turns.push_back(Entry { turn, range, waiting });
        now
    }

    /// Ends a turn; what is appended to `begin` is to be begun now.
    pub(crate) fn end(&mut self, turn: Turn, begin: &mut Vec<(Turn, T)>) {
        let Some(at) = self.turns.iter().position(|entry| entry.turn == turn) else { return };
        let Some(ended) = self.turns.remove(at) else { return };
        // Only what came later and overlaps can have waited for it.
        for i in at..self.turns.len() {
            let range = &self.turns[i].range;
            if self.turns[i].waiting.is_none() || !overlap(range, &ended.range) {
                continue;
            }
            if self.turns.iter().take(i).any(|older| overlap(&older.range, range)) {
                continue;
            }
            let turn = self.turns[i].turn;
            begin.extend(self.turns[i].waiting.take().map(|what| (turn, what)));
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.turns.len()
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_overlaps_waits_for_its_turn_and_the_rest_does_not() {
        let mut queue = RangeQueue::default();
        let (first, _) = queue.enter(0..2, 'a').unwrap();
        assert!(queue.enter(1..3, 'b').is_none());
        // Behind `b`, which waits: nobody overtakes.
        assert!(queue.enter(2..4, 'c').is_none());
        assert!(queue.enter(4..5, 'd').is_some());
        let mut begin = Vec::new();
        queue.end(first, &mut begin);
        assert_eq!(begin.iter().map(|(_, what)| *what).collect::<String>(), "b");
        let second = begin.remove(0).0;
        queue.end(second, &mut begin);
        assert_eq!(begin.iter().map(|(_, what)| *what).collect::<String>(), "c");
    }

    proptest! {
        #[test]
        fn overlapping_turns_run_in_order_and_every_turn_comes(
            ranges in prop::collection::vec((0_u64..12, 1_u64..5), 1..40),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 200),
        ) {
            let mut queue = RangeQueue::default();
            let mut running: Vec<(Turn, usize)> = Vec::new();
            let mut ended = vec![false; ranges.len()];
            let range = |i: usize| ranges[i].0..ranges[i].0 + ranges[i].1;
            let mut picks = picks.iter().cycle();
            let mut entered = 0;
            while entered < ranges.len() || !running.is_empty() {
                let enters = entered < ranges.len()
                    && (running.is_empty() || picks.next().unwrap().index(2) == 0);
                if enters {
                    running.extend(queue.enter(range(entered), entered));
                    entered += 1;
                } else {
                    let at = picks.next().unwrap().index(running.len());
                    let (turn, what) = running.swap_remove(at);
                    ended[what] = true;
                    queue.end(turn, &mut running);
                }
                for (_, what) in &running {
                    for older in (0..*what).filter(|older| overlap(&range(*older), &range(*what))) {
                        prop_assert!(ended[older], "{what} runs beside {older}");
                    }
                }
            }
            prop_assert!(ended.iter().all(|ended| *ended));
            prop_assert_eq!(queue.len(), 0);
        }
    }
}
