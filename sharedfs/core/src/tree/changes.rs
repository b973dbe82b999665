//! The rows that an operation puts and deletes.

use std::collections::BTreeMap;

use super::Row;
use crate::Result;
use crate::format::KeyRange;

/// Rows to put, and keys to delete. At most one change a key: the last one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl Changes {
    /// Puts `value` at `key`, or deletes what is there.
    pub fn insert(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.0.insert(key, value);
    }

    /// What is to become of `key`: `None` if nothing, `Some(None)` if it is to be deleted.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        self.0.get(key).map(Option::as_deref)
    }

    /// All changes, in the order of their keys.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], Option<&[u8]>)> {
        self.0.iter().map(|(key, value)| (key.as_slice(), value.as_deref()))
    }

    /// Takes over `later` changes, which count where both have one.
    pub fn append(&mut self, later: &Self) {
        self.0.extend(later.0.iter().map(|(key, value)| (key.clone(), value.clone())));
    }

    /// The first `limit` rows of `range`, as they are with these changes on top of what `stored`
    /// gives: the first rows below, as many as it is asked for.
    ///
    /// # Errors
    /// Those of `stored`.
    pub fn over(
        &self,
        range: &KeyRange,
        limit: usize,
        stored: impl FnOnce(usize) -> Result<Vec<Row>>,
    ) -> Result<Vec<Row>> {
        let changes: Vec<_> = self.range(range).collect();
        // As many more as are deleted or replaced, so that `limit` are left.
        let stored = stored(limit.saturating_add(changes.len()))?;
        Ok(merge(stored, &changes, |a, b| a <= b, limit))
    }

    /// [`Changes::over`] for the last rows, in descending order.
    ///
    /// # Errors
    /// Those of `stored`.
    pub fn over_back(
        &self,
        range: &KeyRange,
        limit: usize,
        stored: impl FnOnce(usize) -> Result<Vec<Row>>,
    ) -> Result<Vec<Row>> {
        let changes: Vec<_> = self.range(range).rev().collect();
        let stored = stored(limit.saturating_add(changes.len()))?;
        Ok(merge(stored, &changes, |a, b| a >= b, limit))
    }

    /// The changes of keys in `range`, in order.
    fn range(
        &self,
        range: &KeyRange,
    ) -> impl DoubleEndedIterator<Item = (&Vec<u8>, &Option<Vec<u8>>)> {
        // `BTreeMap::range` panics where a range ends before it begins; here that is no rows.
        let end = range.end.clone().max(range.from.clone());
        self.0.range(range.from.clone()..end)
    }

    /// How many keys change.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

type Change<'a> = (&'a Vec<u8>, &'a Option<Vec<u8>>);

/// Rows of the tree and changes, both in the order of `before`, as one sequence of `limit` rows.
fn merge(
    stored: Vec<Row>,
    changes: &[Change<'_>],
    before: impl Fn(&[u8], &[u8]) -> bool,
    limit: usize,
) -> Vec<Row> {
    let mut merged = Vec::with_capacity(limit.min(stored.len() + changes.len()));
    let mut stored = stored.into_iter().peekable();
    let mut changes = changes.iter().peekable();
    while merged.len() < limit {
        let row = match (stored.peek(), changes.peek()) {
            (None, None) => break,
            (Some((key, _)), Some((changed, _))) if key == *changed => {
                stored.next();
                continue;
            }
            (Some((key, _)), Some((changed, _))) if before(key, changed) => stored.next(),
            (Some(_), None) => stored.next(),
            (_, Some(_)) => {
                let next = changes.next();
                next.and_then(|(key, value)| Some(((*key).clone(), (*value).clone()?)))
            }
        };
        merged.extend(row);
    }
    merged
}
