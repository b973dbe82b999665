//! Hints: small facts about a node that may be stale.
//!
//! ```text
//!   key                  value
//!   version              "1 0.1.0"        cluster version it can write, software
//!   load                 "350"            thousandths of a core in use
//!   pool.7               "1000 200"       bytes it may use, bytes used
//!   resync.4/0           "17 4000"        blocks done, blocks in all
//! ```
//! A key or value of an unknown kind is another version's, and is skipped.

use std::collections::BTreeMap;

use mooring_config::ClusterVersion;
use mooring_terms::{PoolId, SliceId, SliceIndex, VolumeId};

/// How many hints a node gives at most: all of them fit some messages.
const MOST: usize = 512;

/// What a node says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeHints {
    /// The newest cluster version it can write, and its software's version.
    pub version: Option<(ClusterVersion, String)>,
    /// Thousandths of a core in use.
    pub load: Option<u32>,
    /// Its pools.
    pub pools: BTreeMap<PoolId, PoolHint>,
    /// The resyncs of its replicas.
    pub resyncs: BTreeMap<SliceId, ResyncHint>,
}

/// How full a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolHint {
    /// Bytes it may use.
    pub size: u64,
    /// Bytes used.
    pub used: u64,
}

/// How far a resync is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResyncHint {
    /// Blocks done.
    pub done: u64,
    /// Blocks in all.
    pub total: u64,
}

impl NodeHints {
    /// As keys and values, bounded in number.
    pub(super) fn to_pairs(&self) -> BTreeMap<String, String> {
        let mut pairs = BTreeMap::new();
        if let Some((version, software)) = &self.version {
            let software: String = software.chars().take(64).collect();
            pairs.insert("version".to_owned(), format!("{version} {software}"));
        }
        if let Some(load) = self.load {
            pairs.insert("load".to_owned(), load.to_string());
        }
        for (pool, hint) in &self.pools {
            pairs.insert(format!("pool.{pool}"), format!("{} {}", hint.size, hint.used));
        }
        for (slice, hint) in &self.resyncs {
            if pairs.len() >= MOST {
                break;
            }
            pairs.insert(format!("resync.{slice}"), format!("{} {}", hint.done, hint.total));
        }
        pairs
    }

    /// From keys and values, as far as they can be read.
    pub(crate) fn from_pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut hints = Self::default();
        for (key, value) in pairs.take(2 * MOST) {
            // What can't be read is not ours to complain about: nothing depends on a hint.
            let _ = hints.read(key, value);
        }
        hints
    }

    fn read(&mut self, key: &str, value: &str) -> Option<()> {
        if key == "version" {
            let (version, software) = value.split_once(' ')?;
            let software = software.chars().take(64).collect();
            self.version = Some((ClusterVersion(version.parse().ok()?), software));
        } else if key == "load" {
            self.load = Some(value.parse().ok()?);
        } else if let Some(pool) = key.strip_prefix("pool.") {
            let (size, used) = two_numbers(value)?;
            self.pools.insert(PoolId(pool.parse().ok()?), PoolHint { size, used });
        } else if let Some(slice) = key.strip_prefix("resync.") {
            let (volume, index) = slice.split_once('/')?;
            let volume = VolumeId(volume.parse().ok()?);
            let slice = SliceId { volume, index: SliceIndex(index.parse().ok()?) };
            let (done, total) = two_numbers(value)?;
            self.resyncs.insert(slice, ResyncHint { done, total });
        }
        Some(())
    }
}

fn two_numbers(text: &str) -> Option<(u64, u64)> {
    let (first, second) = text.split_once(' ')?;
    Some((first.parse().ok()?, second.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_come_back_and_nonsense_is_skipped() {
        let slice = SliceId { volume: VolumeId(4), index: SliceIndex(2) };
        let hints = NodeHints {
            version: Some((ClusterVersion(1), "0.1.0".to_owned())),
            load: Some(350),
            pools: [(PoolId(7), PoolHint { size: 1_000, used: 20 })].into(),
            resyncs: [(slice, ResyncHint { done: 1, total: 9 })].into(),
        };
        let mut pairs = hints.to_pairs();
        let nonsense = [("load", "much"), ("pool.x", "1 2"), ("pool.8", "1"), ("later", "?")];
        pairs.extend(nonsense[1..].iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let read = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        assert_eq!(NodeHints::from_pairs(read), hints);
        assert_eq!(NodeHints::from_pairs(nonsense.into_iter()), NodeHints::default());
    }

    #[test]
    fn hints_are_bounded_in_number() {
        let slice = |n| SliceId { volume: VolumeId(n), index: SliceIndex(0) };
        let resyncs = (0..10_000).map(|n| (slice(n), ResyncHint { done: 0, total: 1 })).collect();
        let hints = NodeHints { resyncs, ..NodeHints::default() };
        assert_eq!(hints.to_pairs().len(), MOST);
    }
}
