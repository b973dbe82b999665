//! The tree's twin in memory.

use std::collections::BTreeMap;

use super::{Changes, Row, Tree, TreeStore};
use crate::Result;
use crate::format::KeyRange;

/// A tree in an ordered map. Cloning it is taking a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryTree(BTreeMap<Vec<u8>, Vec<u8>>);

impl MemoryTree {
    fn rows(&self, range: &KeyRange) -> impl DoubleEndedIterator<Item = Row> {
        let end = range.end.clone().max(range.from.clone());
        self.0.range(range.from.clone()..end).map(|(key, value)| (key.clone(), value.clone()))
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Tree for MemoryTree {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>> {
        Ok(self.rows(range).take(limit).collect())
    }

    fn scan_back(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>> {
        Ok(self.rows(range).rev().take(limit).collect())
    }
}

impl TreeStore for MemoryTree {
    fn apply(&mut self, changes: &Changes) -> Result<()> {
        for (key, value) in changes.iter() {
            match value {
                Some(value) => drop(self.0.insert(key.to_vec(), value.to_vec())),
                None => drop(self.0.remove(key)),
            }
        }
        Ok(())
    }
}
