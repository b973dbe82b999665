//! The records that a primary keeps in memory until every in-sync replica has them.

use std::collections::VecDeque;

use mooring_terms::{Record, Sequence, Version};

/// What a record counts beside its payload.
const RECORD_BYTES: u64 = 256;

/// Records behind `base`, dense.
#[derive(Debug)]
pub(super) struct Window {
    /// The version of the record before the first.
    base: Version,
    records: VecDeque<Record>,
    bytes: u64,
}

impl Window {
    /// An empty window behind `base`.
    pub(super) fn new(base: Version) -> Self {
        Self { base, records: VecDeque::new(), bytes: 0 }
    }

    /// What `record` counts.
    pub(super) fn weight(record: &Record) -> u64 {
        record.payload_bytes() + RECORD_BYTES
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn base(&self) -> Version {
        self.base
    }

    pub(super) fn push(&mut self, record: Record) {
        self.bytes += Self::weight(&record);
        self.records.push_back(record);
    }

    /// Forgets the records up to `sequence`.
    pub(super) fn trim(&mut self, sequence: Sequence) {
        while self.records.front().is_some_and(|first| first.version.sequence <= sequence) {
            let Some(first) = self.records.pop_front() else { break };
            self.bytes -= Self::weight(&first);
            self.base = first.version;
        }
    }

    /// The records behind `sequence`, up to about `limit_bytes` of them; `None` if the window
    /// begins later.
    pub(super) fn after(&self, sequence: Sequence, limit_bytes: u64) -> Option<Vec<Record>> {
        let skip = usize::try_from(sequence.0.checked_sub(self.base.sequence.0)?).ok()?;
        let mut left = limit_bytes;
        let fits = |record: &&Record| {
            let fits = left > 0;
            left = left.saturating_sub(Self::weight(record));
            fits
        };
        Some(self.records.iter().skip(skip).take_while(fits).cloned().collect())
    }
}
