//! An ordered map whose clones share what has not changed.
//!
//! ```text
//!   map ──> chunk 0 ──Arc──> { 0: Arc<V>, 1: Arc<V>, ... 255: Arc<V> }
//!      └──> chunk 1 ──Arc──> { 256: Arc<V>, ... }
//! ```
//!
//! The applied state is published after each batch of commands, so it is cloned all the time, and a
//! cluster may have 100,000 volumes. A clone costs one reference a chunk; a change after a clone
//! copies one chunk of references and the value itself. Two maps are compared chunk by chunk, and
//! chunks that they share are skipped.
//!
//! Invariants: no chunk is empty; every key lies in the chunk that its `chunk()` names.

use std::collections::BTreeMap;
use std::sync::Arc;

use mooring_terms::VolumeId;
use serde::{Deserialize, Serialize};

/// A key that knows its chunk. Keys of one chunk need not be neighbours.
pub trait ChunkKey: Ord + Clone {
    /// The chunk the key lies in.
    fn chunk(&self) -> u32;
}

impl ChunkKey for VolumeId {
    fn chunk(&self) -> u32 {
        // Volume numbers are dense, so neighbours share chunks of 256. The number of volumes ever
        // created fits: 2^40 of them are more than a cluster lives to see.
        u32::try_from(self.0 >> 8).unwrap_or(u32::MAX)
    }
}

impl ChunkKey for String {
    fn chunk(&self) -> u32 {
        // FNV-1a, folded to 256 chunks.
        let hash = self
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        (hash ^ (hash >> 16)) & 0xff
    }
}

/// One changed entry: its key, the value before and the value after.
pub type Changed<'a, K, V> = (&'a K, Option<&'a Arc<V>>, Option<&'a Arc<V>>);

/// The map. Iteration is by chunk, then by key: for [`VolumeId`] that is the order of the keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(
    serialize = "K: Serialize + Ord, V: Serialize",
    deserialize = "K: Deserialize<'de> + Ord, V: Deserialize<'de>"
))]
pub struct Chunked<K, V> {
    chunks: BTreeMap<u32, Arc<BTreeMap<K, Arc<V>>>>,
    len: usize,
}

impl<K, V> Default for Chunked<K, V> {
    fn default() -> Self {
        Self { chunks: BTreeMap::new(), len: 0 }
    }
}

impl<K: ChunkKey, V: Clone + PartialEq> Chunked<K, V> {
    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&Arc<V>> {
        self.chunks.get(&key.chunk())?.get(key)
    }

    /// The value of `key`, to change; it and its chunk are copied first if a clone shares them.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let chunk = self.chunks.get_mut(&key.chunk())?;
        if !chunk.contains_key(key) {
            return None;
        }
        Arc::make_mut(chunk).get_mut(key).map(Arc::make_mut)
    }

    /// Sets `key` to `value`.
    pub fn insert(&mut self, key: K, value: V) {
        let chunk = self.chunks.entry(key.chunk()).or_default();
        if Arc::make_mut(chunk).insert(key, Arc::new(value)).is_none() {
            self.len += 1;
        }
    }

    /// Removes `key`; its value if it had one.
    pub fn remove(&mut self, key: &K) -> Option<Arc<V>> {
        let chunk = self.chunks.get_mut(&key.chunk())?;
        if !chunk.contains_key(key) {
            return None;
        }
        let removed = Arc::make_mut(chunk).remove(key);
        if chunk.is_empty() {
            self.chunks.remove(&key.chunk());
        }
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// All entries, by chunk, then by key.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &Arc<V>)> {
        self.chunks.values().flat_map(|chunk| chunk.iter())
    }

    /// The keys whose values differ from those in `before`, with both values. Costs one comparison
    /// a shared chunk; chunks that are not shared are compared entry by entry.
    #[must_use]
    pub fn changed_since<'a>(&'a self, before: &'a Self) -> Vec<Changed<'a, K, V>> {
        let mut changed = Vec::new();
        for (number, new) in &self.chunks {
            match before.chunks.get(number) {
                Some(old) if Arc::ptr_eq(old, new) => {}
                Some(old) => compare(old, new, &mut changed),
                None => changed.extend(new.iter().map(|(key, value)| (key, None, Some(value)))),
            }
        }
        for (number, old) in &before.chunks {
            if !self.chunks.contains_key(number) {
                changed.extend(old.iter().map(|(key, value)| (key, Some(value), None)));
            }
        }
        changed
    }
}

/// Adds to `changed` what differs between two versions of one chunk.
fn compare<'a, K: Ord, V: PartialEq>(
    old: &'a BTreeMap<K, Arc<V>>,
    new: &'a BTreeMap<K, Arc<V>>,
    changed: &mut Vec<Changed<'a, K, V>>,
) {
    for (key, after) in new {
        match old.get(key) {
            Some(before) if Arc::ptr_eq(before, after) || before == after => {}
            before => changed.push((key, before, Some(after))),
        }
    }
    for (key, before) in old {
        if !new.contains_key(key) {
            changed.push((key, Some(before), None));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_keeps_its_values_and_shares_the_rest() {
        let mut map = Chunked::default();
        for id in 0..1_000 {
            map.insert(VolumeId(id), id);
        }
        let before = map.clone();
        *map.get_mut(&VolumeId(300)).unwrap() = 7;
        map.remove(&VolumeId(5));
        map.insert(VolumeId(2_000), 1);
        assert_eq!(before.get(&VolumeId(300)).map(|v| **v), Some(300));
        assert_eq!(before.len(), 1_000);
        assert_eq!(map.len(), 1_000);
        let keys: Vec<u64> = map.changed_since(&before).iter().map(|(key, ..)| key.0).collect();
        assert_eq!(keys, [5, 300, 2_000]);
        let shared = map
            .chunks
            .iter()
            .filter(|(number, chunk)| {
                before.chunks.get(number).is_some_and(|old| Arc::ptr_eq(old, chunk))
            })
            .count();
        assert_eq!(shared, 2, "chunks 2 and 3 were not touched");
    }

    #[test]
    fn emptied_chunks_go_away() {
        let mut map = Chunked::default();
        map.insert("alpha".to_owned(), 1);
        let full = map.clone();
        assert_eq!(map.remove(&"alpha".to_owned()).as_deref(), Some(&1));
        assert_eq!(map.remove(&"alpha".to_owned()), None);
        assert!(map.is_empty() && map.chunks.is_empty());
        assert_eq!(map.changed_since(&full).len(), 1);
    }
}
