//! A tree with changes on top that are not applied to it yet: what one step of a batch did is seen by the
//! next, and all of it becomes one record.

use super::{Changes, Row, Tree};
use crate::Result;
use crate::format::KeyRange;

/// A tree and changes of it.
pub struct Layered<'t> {
    below: &'t dyn Tree,
    changes: Changes,
}

impl<'t> Layered<'t> {
    /// `below` without any changes.
    #[must_use]
    pub fn new(below: &'t dyn Tree) -> Self {
        Self { below, changes: Changes::default() }
    }

    /// Puts changes on top.
    pub fn put(&mut self, changes: &Changes) {
        self.changes.append(changes);
    }

    /// All changes.
    #[must_use]
    pub fn into_changes(self) -> Changes {
        self.changes
    }
}

impl Tree for Layered<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.changes.get(key) {
            Some(changed) => Ok(changed.map(<[u8]>::to_vec)),
            None => self.below.get(key),
        }
    }

    fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>> {
        self.changes.over(range, limit, |limit| self.below.scan(range, limit))
    }

    fn scan_back(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>> {
        self.changes.over_back(range, limit, |limit| self.below.scan_back(range, limit))
    }
}
