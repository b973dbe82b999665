//! Property: **in-sync replicas agree**, the part of it that their logs show at once: wherever a
//! version lies in a log, the same records lie before it.
//!
//! And what the other checkers ask: which record lies before which, in every log there ever was, so
//! that a log's last version alone says what it holds.
//!
//! ```text
//!   e3   1 ── 2 ── 3 ── 4 ── 5          starts: e3 after 0.0, e4 after e3.3
//!                   \
//!   e4               4 ── 5 ── 6        a log up to e4.6 holds e3.2, but not e3.5
//! ```
//! A version names one record (`writers` sees to that), and each epoch has one first record. So a
//! log is known by its last version alone, whatever the replica says about itself.

use std::collections::BTreeMap;

use mooring_terms::{Entry, Epoch, NodeId, Sequence, SliceId, Version};

use super::{Checked, violated};

/// The epochs' beginnings, and the ends of all logs.
#[derive(Debug, Default)]
pub struct Lineage {
    /// The last version of each replica's log, with all that it was told to append.
    ends: BTreeMap<(NodeId, SliceId), Version>,
    /// The version before each epoch's first record.
    starts: BTreeMap<(SliceId, Epoch), Version>,
}

impl Lineage {
    /// A replica begins with what its pool has.
    pub fn opened(&mut self, node: NodeId, slice: SliceId, last: Version) {
        self.ends.insert((node, slice), last);
    }

    /// A replica appends.
    ///
    /// # Errors
    /// A violation.
    pub fn appended(&mut self, node: NodeId, slice: SliceId, entry: &Entry) -> Checked {
        let end = self.ends.entry((node, slice)).or_default();
        match entry {
            Entry::Record { record, .. } => {
                let version = record.version;
                let start = self.starts.entry((slice, version.epoch)).or_insert(*end);
                let follows = if version.sequence == start.sequence.next() {
                    *end == *start
                } else {
                    end.epoch == version.epoch && version.sequence == end.sequence.next()
                };
                if !follows {
                    let text = format!(
                        "{node:?} appends {version} of {slice} behind {end}, but that epoch began \
                         behind {start}"
                    );
                    violated("in-sync replicas agree", text)?;
                }
                *end = version;
            }
            Entry::Supersede { after, .. } => *end = *after,
            Entry::Position { last, .. } => *end = *last,
            Entry::State(_)
            | Entry::Copy { .. }
            | Entry::CopyHole { .. }
            | Entry::CopyLost { .. }
            | Entry::Repair { .. }
            | Entry::Joined => {}
        }
        Ok(())
    }

    /// The last version of a replica's log.
    #[must_use]
    pub fn end(&self, node: NodeId, slice: SliceId) -> Version {
        self.ends.get(&(node, slice)).copied().unwrap_or_default()
    }

    /// The record number `sequence` of the log that ends with `log`.
    #[must_use]
    pub fn version_at(&self, slice: SliceId, log: Version, sequence: Sequence) -> Option<Version> {
        let mut part = log;
        while part.sequence >= sequence {
            let before = self.starts.get(&(slice, part.epoch)).copied().unwrap_or_default();
            if sequence > before.sequence || part == before {
                return Some(Version::new(part.epoch, sequence));
            }
            part = before;
        }
        None
    }

    /// Whether the log that ends with `log` holds the record `version`.
    #[must_use]
    pub fn holds(&self, slice: SliceId, log: Version, version: Version) -> bool {
        version == Version::ZERO || self.version_at(slice, log, version.sequence) == Some(version)
    }

    /// The last record of the log that ends with `log` which lies in the history of `version` too.
    #[must_use]
    pub fn shared(&self, slice: SliceId, log: Version, version: Version) -> Version {
        let mut sequence = version.sequence.min(log.sequence);
        while sequence > Sequence(0) {
            let found = self.version_at(slice, log, sequence);
            if let Some(found) = found
                && self.holds(slice, version, found)
            {
                return found;
            }
            sequence = Sequence(sequence.0 - 1);
        }
        Version::ZERO
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mooring_terms::{Body, Record, SliceIndex, VolumeId};

    use super::*;

    const SLICE: SliceId = SliceId { volume: VolumeId(1), index: SliceIndex(0) };

    fn version(epoch: u32, sequence: u64) -> Version {
        Version::new(Epoch(epoch), Sequence(sequence))
    }

    fn record(epoch: u32, sequence: u64) -> Entry {
        let body = Body::Control(Bytes::new());
        Entry::Record { record: Record { version: version(epoch, sequence), body }, state: None }
    }

    #[test]
    fn a_log_holds_what_lies_on_its_own_way_only() {
        let mut lineage = Lineage::default();
        for sequence in 1..=5 {
            lineage.appended(NodeId(1), SLICE, &record(3, sequence)).unwrap();
        }
        lineage.opened(NodeId(2), SLICE, version(3, 3));
        for sequence in 4..=6 {
            lineage.appended(NodeId(2), SLICE, &record(4, sequence)).unwrap();
        }
        let log = lineage.end(NodeId(2), SLICE);
        assert_eq!(log, version(4, 6));
        assert!(lineage.holds(SLICE, log, version(3, 2)));
        assert!(lineage.holds(SLICE, log, version(4, 4)));
        assert!(!lineage.holds(SLICE, log, version(3, 4)), "that way was left");
        assert!(!lineage.holds(SLICE, log, version(4, 7)), "it isn't there yet");
        assert_eq!(lineage.shared(SLICE, log, version(3, 5)), version(3, 3));
    }

    #[test]
    fn a_record_behind_another_than_its_own_predecessor_is_noticed() {
        let mut lineage = Lineage::default();
        for sequence in 1..=3 {
            lineage.appended(NodeId(1), SLICE, &record(3, sequence)).unwrap();
        }
        lineage.appended(NodeId(1), SLICE, &record(4, 4)).unwrap();
        lineage.opened(NodeId(2), SLICE, version(3, 4));
        assert!(lineage.appended(NodeId(2), SLICE, &record(4, 5)).is_err());
        lineage.opened(NodeId(3), SLICE, version(3, 2));
        assert!(lineage.appended(NodeId(3), SLICE, &record(4, 4)).is_err());
    }
}
