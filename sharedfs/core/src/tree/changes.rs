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
    /// gives: the first rows below, as many as it is asked for. It is asked for more when changes hide
    /// them, and no change is looked at behind the last row: rows that are replaced by others, over and
    /// over, leave many deletions.
    ///
    /// # Errors
    /// Those of `stored`.
    pub fn over(
        &self,
        range: &KeyRange,
        limit: usize,
        stored: impl FnMut(usize) -> Result<Vec<Row>>,
    ) -> Result<Vec<Row>> {
        merge(stored, self.range(range), |a, b| a <= b, limit)
    }

    /// [`Changes::over`] for the last rows, in descending order.
    ///
    /// # Errors
    /// Those of `stored`.
    pub fn over_back(
        &self,
        range: &KeyRange,
        limit: usize,
        stored: impl FnMut(usize) -> Result<Vec<Row>>,
    ) -> Result<Vec<Row>> {
        merge(stored, self.range(range).rev(), |a, b| a >= b, limit)
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
fn merge<'a>(
    mut stored: impl FnMut(usize) -> Result<Vec<Row>>,
    changes: impl Iterator<Item = Change<'a>>,
    before: impl Fn(&[u8], &[u8]) -> bool,
    limit: usize,
) -> Result<Vec<Row>> {
    let mut merged = Vec::new();
    if limit == 0 {
        return Ok(merged);
    }
    // No more than that at first: there may be changes below as well, and one row more may lie behind all
    // that they delete.
    let mut asked = limit;
    let mut rows = stored(asked)?;
    let mut at = 0;
    let mut changes = changes.peekable();
    while merged.len() < limit {
        if at == rows.len() && rows.len() == asked {
            // All of them were hidden or taken, and there may be more.
            asked = asked.saturating_mul(2);
            rows = stored(asked)?;
            continue;
        }
        let row = match (rows.get_mut(at), changes.peek()) {
            (None, None) => break,
            (Some((key, _)), Some((changed, _))) if key == *changed => {
                // The change is taken with the row that it hides: what lies below it isn't needed yet.
                at += 1;
                let next = changes.next();
                next.and_then(|(key, value)| Some((key.clone(), value.clone()?)))
            }
            (Some(row), Some((changed, _))) if before(&row.0, changed) => {
                at += 1;
                Some(std::mem::take(row))
            }
            (Some(row), None) => {
                at += 1;
                Some(std::mem::take(row))
            }
            (_, Some(_)) => {
                let next = changes.next();
                next.and_then(|(key, value)| Some((key.clone(), value.clone()?)))
            }
        };
        merged.extend(row);
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Vec<u8> {
        number.to_be_bytes().to_vec()
    }

    #[test]
    fn deletions_in_front_of_a_row_are_not_looked_at_and_those_before_it_are_passed() {
        let mut changes = Changes::default();
        (0..10_000).for_each(|number| changes.insert(key(number), None));
        changes.insert(key(10_000), Some(vec![1]));
        let below: Vec<Row> = (0..20_000).map(|number| (key(number), vec![0])).collect();
        let range = KeyRange { from: key(0), end: key(10_001) };
        let mut asked = Vec::new();
        let last = changes.over_back(&range, 1, |limit| {
            asked.push(limit);
            Ok(below[..=10_000].iter().rev().take(limit).cloned().collect())
        });
        assert_eq!(last, Ok(vec![(key(10_000), vec![1])]));
        assert_eq!(asked, [1]);
        let range = KeyRange { from: key(0), end: key(20_000) };
        let first = changes.over(&range, 3, |limit| Ok(below[..limit.min(20_000)].to_vec()));
        let found: Vec<Vec<u8>> = first.unwrap().into_iter().map(|(key, _)| key).collect();
        assert_eq!(found, [key(10_000), key(10_001), key(10_002)]);
    }
}
