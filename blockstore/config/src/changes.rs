//! What differs between two states: how a node learns what it has to do.
//!
//! A follower keeps the state it last acted on; when a newer one is published it takes the changes
//! between the two. Nothing can be missed (there is no queue), several commands become one change,
//! and a snapshot from the leader is a newer state like any other. What two states share is skipped,
//! so that the cost follows what changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use mooring_terms::{NodeId, PoolId, SliceId, VolumeId};

use crate::{ClusterState, Node, Pool, SliceConfig, Volume};

/// One thing that differs; `before` is `None` if it is new, `after` if it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The cluster was created, or its version was raised.
    Cluster,
    /// The gossip keys changed.
    GossipKeys,
    /// The wrapped CA key changed.
    CaKey,
    /// The tokens (join or API) changed.
    Tokens,
    /// A node.
    Node {
        /// Which.
        node: NodeId,
        /// Its row before.
        before: Option<Arc<Node>>,
        /// Its row now.
        after: Option<Arc<Node>>,
    },
    /// A pool.
    Pool {
        /// Which.
        pool: PoolId,
        /// Its row before.
        before: Option<Arc<Pool>>,
        /// Its row now.
        after: Option<Arc<Pool>>,
    },
    /// A volume: created, removed, or changed in anything but its slices.
    Volume {
        /// Which.
        volume: VolumeId,
        /// It before.
        before: Option<Arc<Volume>>,
        /// It now.
        after: Option<Arc<Volume>>,
    },
    /// A slice's configuration.
    Slice {
        /// Which.
        slice: SliceId,
        /// It before.
        before: Option<Arc<SliceConfig>>,
        /// It now.
        after: Option<Arc<SliceConfig>>,
    },
}

/// What differs in `after` from `before`: nodes first, then pools, volumes, slices, each in order of
/// their numbers (a volume's own change comes before those of its slices).
#[must_use]
pub fn between(before: &ClusterState, after: &ClusterState) -> Vec<Change> {
    let mut changes = Vec::new();
    if before.identity != after.identity || before.version != after.version {
        changes.push(Change::Cluster);
    }
    if before.gossip_keys != after.gossip_keys {
        changes.push(Change::GossipKeys);
    }
    if before.ca_key != after.ca_key {
        changes.push(Change::CaKey);
    }
    if before.join_tokens != after.join_tokens || before.api_tokens != after.api_tokens {
        changes.push(Change::Tokens);
    }
    for (node, before, after) in rows(&before.nodes, &after.nodes) {
        changes.push(Change::Node { node, before, after });
    }
    for (pool, before, after) in rows(&before.pools, &after.pools) {
        changes.push(Change::Pool { pool, before, after });
    }
    for (id, old, new) in after.volumes.changed_since(&before.volumes) {
        volume_changes(*id, old, new, &mut changes);
    }
    changes
}

impl Change {
    /// Whether a replica on `node` is concerned: only ever true of a slice's change.
    #[must_use]
    pub fn concerns_replica_on(&self, node: NodeId) -> bool {
        let Self::Slice { before, after, .. } = self else { return false };
        let has = |config: &Option<Arc<SliceConfig>>| {
            config.as_ref().is_some_and(|config| config.member(node).is_some())
        };
        has(before) || has(after)
    }
}

fn volume_changes(
    id: VolumeId,
    before: Option<&Arc<Volume>>,
    after: Option<&Arc<Volume>>,
    changes: &mut Vec<Change>,
) {
    if !same_beside_slices(before, after) {
        let (before, after) = (before.cloned(), after.cloned());
        changes.push(Change::Volume { volume: id, before, after });
    }
    let count = |volume: Option<&Arc<Volume>>| volume.map_or(0, |volume| volume.slices.len());
    for index in 0..count(before).max(count(after)) {
        let slice = |volume: Option<&Arc<Volume>>| volume?.slices.get(index).cloned();
        let (old, new) = (slice(before), slice(after));
        let same = match (&old, &new) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new) || old == new,
            _ => false,
        };
        if let Some(volume) = after.or(before)
            && !same
        {
            let slice = volume.slice_id(index);
            changes.push(Change::Slice { slice, before: old, after: new });
        }
    }
}

fn same_beside_slices(before: Option<&Arc<Volume>>, after: Option<&Arc<Volume>>) -> bool {
    let (Some(before), Some(after)) = (before, after) else { return false };
    let Volume { id, name, spec, created, formatted, slices: _, attachment, last_attachment } =
        &**before;
    (id, name, spec, created, formatted, attachment, last_attachment)
        == (
            &after.id,
            &after.name,
            &after.spec,
            &after.created,
            &after.formatted,
            &after.attachment,
            &after.last_attachment,
        )
}

/// A row before and after.
type Row<K, V> = (K, Option<Arc<V>>, Option<Arc<V>>);

/// The rows that differ, by key.
fn rows<K: Ord + Copy, V: PartialEq>(
    before: &BTreeMap<K, Arc<V>>,
    after: &BTreeMap<K, Arc<V>>,
) -> Vec<Row<K, V>> {
    let mut found = Vec::new();
    for (key, new) in after {
        let old = before.get(key);
        if old.is_none_or(|old| !Arc::ptr_eq(old, new) && old != new) {
            found.push((*key, old.cloned(), Some(Arc::clone(new))));
        }
    }
    for (key, old) in before {
        if !after.contains_key(key) {
            found.push((*key, Some(Arc::clone(old)), None));
        }
    }
    found.sort_by_key(|(key, ..)| *key);
    found
}
