//! The epochs of a log, and what two logs have in common.
//!
//! ```text
//!   table   e3@0    e4@7         e7@12                epoch@after: its first record is after + 1
//!   log     1...7 | 8 ..... 12 | 13 ........ last
//! ```
//!
//! Every epoch has one primary, which numbers its records densely. So two logs that both have epoch
//! `e` from the same position on agree on everything before it and on all of `e` that both have: the
//! common position is found in the tables, never by believing a replica's own opinion of itself
//! (KIP-101).
//!
//! Invariant: epochs and positions both rise strictly; the last entry's epoch is that of the last
//! record.

use mooring_terms::{Epoch, Sequence, Version};

use crate::message::EpochStart;

/// The last version that two logs have in common; `Version::ZERO` if none is certain.
pub(crate) fn common(mine: (&[EpochStart], Version), theirs: (&[EpochStart], Version)) -> Version {
    for (i, start) in theirs.0.iter().enumerate().rev() {
        let Some(j) = mine.0.iter().position(|own| own == start) else { continue };
        let end = end_of(theirs, i).min(end_of(mine, j));
        if end > start.after {
            return Version::new(start.epoch, end);
        }
    }
    Version::ZERO
}

/// The last sequence of the `i`th epoch of a log.
fn end_of((epochs, last): (&[EpochStart], Version), i: usize) -> Sequence {
    epochs.get(i + 1).map_or(last.sequence, |next| next.after)
}

/// The version of the record `sequence`; `None` if it lies before the table.
pub(crate) fn version_of(epochs: &[EpochStart], sequence: Sequence) -> Option<Version> {
    if sequence == Sequence(0) {
        return Some(Version::ZERO);
    }
    let start = epochs.iter().rev().find(|start| start.after < sequence)?;
    Some(Version::new(start.epoch, sequence))
}

/// Whether the table rises and ends with the epoch of `last`.
pub(crate) fn is_sound(epochs: &[EpochStart], last: Version) -> bool {
    let rises =
        |pair: &[EpochStart]| pair[0].epoch < pair[1].epoch && pair[0].after < pair[1].after;
    let ends = epochs
        .last()
        .map_or(last == Version::ZERO, |end| end.epoch == last.epoch && end.after < last.sequence);
    ends && epochs.windows(2).all(rises)
}

/// Forgets the epochs whose first record lies behind `last`.
pub(crate) fn truncate(epochs: &mut Vec<EpochStart>, last: Sequence) {
    epochs.retain(|start| start.after < last);
}

/// Adds the epoch that begins behind `after`, and forgets those before `keep_from`.
pub(crate) fn begin(epochs: &mut Vec<EpochStart>, start: EpochStart, keep_from: Epoch) {
    epochs.retain(|old| old.epoch >= keep_from);
    epochs.push(start);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(u32, u64)]) -> Vec<EpochStart> {
        let entry = |&(epoch, after)| EpochStart { epoch: Epoch(epoch), after: Sequence(after) };
        entries.iter().map(entry).collect()
    }

    fn version(epoch: u32, sequence: u64) -> Version {
        Version::new(Epoch(epoch), Sequence(sequence))
    }

    #[test]
    fn a_prefix_has_its_own_end_in_common() {
        let mine = table(&[(1, 0), (2, 10)]);
        let theirs = table(&[(1, 0)]);
        let both = common((&mine, version(2, 15)), (&theirs, version(1, 7)));
        assert_eq!(both, version(1, 7));
    }

    #[test]
    fn a_tail_that_lost_its_epoch_ends_where_the_next_began() {
        let mine = table(&[(1, 0), (3, 10)]);
        let theirs = table(&[(1, 0), (2, 12)]);
        let both = common((&mine, version(3, 20)), (&theirs, version(2, 30)));
        assert_eq!(both, version(1, 10));
    }

    #[test]
    fn logs_without_a_common_epoch_share_nothing() {
        let mine = table(&[(5, 100)]);
        let theirs = table(&[(1, 0)]);
        assert_eq!(common((&mine, version(5, 120)), (&theirs, version(1, 50))), Version::ZERO);
        assert_eq!(common((&mine, version(5, 120)), (&[], Version::ZERO)), Version::ZERO);
    }

    #[test]
    fn versions_are_found_by_sequence() {
        let epochs = table(&[(1, 0), (3, 10)]);
        assert_eq!(version_of(&epochs, Sequence(10)), Some(version(1, 10)));
        assert_eq!(version_of(&epochs, Sequence(11)), Some(version(3, 11)));
        assert_eq!(version_of(&epochs[1..], Sequence(10)), None);
        assert_eq!(version_of(&epochs, Sequence(0)), Some(Version::ZERO));
    }
}
