//! Property: **appends don't tear, overlap or leave holes.** A log that several hosts append to is a
//! sequence of whole records, each of them once; and those that were fsynced, or were written by a
//! mount that was never fenced (and no power was cut), are all there.

use std::collections::{BTreeMap, BTreeSet};

use mooring_terms::Time;

use super::Violation;

/// The checker's name.
pub const PROPERTY: &str = "appends follow each other";

/// Bytes in a record.
pub const RECORD: usize = 104;

/// What was appended.
#[derive(Debug, Default)]
pub struct Appends {
    /// By record: by whom, and when it returned.
    records: BTreeMap<u64, (u64, Option<Time>)>,
    synced: BTreeSet<u64>,
    fenced: BTreeSet<u64>,
    power_cut: bool,
}

impl Appends {
    /// A record is about to be appended.
    pub fn began(&mut self, record: u64, mount: u64) {
        self.records.insert(record, (mount, None));
    }

    /// It was.
    pub fn returned(&mut self, record: u64, at: Time) {
        if let Some(of) = self.records.get_mut(&record) {
            of.1 = Some(at);
        }
    }

    /// An fsync of the log, asked for at `began`, has succeeded.
    pub fn synced(&mut self, mount: u64, began: Time) {
        let kept = self
            .records
            .iter()
            .filter(|(_, (of, at))| *of == mount && at.is_some_and(|at| at < began));
        self.synced.extend(kept.map(|(&record, _)| record));
    }

    /// A mount has lost what it had buffered.
    pub fn fenced(&mut self, mount: u64) {
        self.fenced.insert(mount);
    }

    /// Everything has lost what was not fsynced.
    pub fn power_cut(&mut self) {
        self.power_cut = true;
    }

    /// The whole log, read at the end.
    ///
    /// # Errors
    /// It isn't what was appended.
    pub fn check(&self, log: &[u8]) -> Result<usize, Violation> {
        let wrong = |text: String| Err(Violation { property: PROPERTY, text });
        let mut found = BTreeSet::new();
        for (index, record) in log.chunks(RECORD).enumerate() {
            let mut word = [0; 8];
            word.copy_from_slice(&record[..8]);
            let value = u64::from_le_bytes(word);
            let whole = record.len() == RECORD && record.chunks(8).all(|of| of == word);
            if self.power_cut && (value == 0 || !whole) {
                // What was committed and went with the power is a hole, and is reported.
                continue;
            }
            if !whole || !self.records.contains_key(&value) {
                return wrong(format!("record {index} is {record:x?}"));
            }
            if !found.insert(value) {
                return wrong(format!("record {value:x} is there twice"));
            }
        }
        for (record, (mount, returned)) in &self.records {
            let kept = returned.is_some() && !self.power_cut && !self.fenced.contains(mount);
            if (kept || self.synced.contains(record)) && !found.contains(record) {
                return wrong(format!("record {record:x} of mount {mount} is missing"));
            }
        }
        Ok(found.len())
    }
}
