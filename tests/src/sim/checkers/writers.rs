//! Property: **one writer per epoch, one content per version.** A record is ordered by the node
//! that the configuration names as the primary of the record's epoch; and whatever two replicas
//! have under one version is the same.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use mooring_config::ClusterState;
use mooring_terms::{Body, Epoch, NodeId, Record, SliceId, Version};

use super::violated;
use crate::sim::Violation;

/// Every version ever seen, and every epoch's primary.
#[derive(Debug, Default)]
pub struct Writers {
    contents: BTreeMap<(SliceId, Version), u64>,
    primaries: BTreeMap<(SliceId, Epoch), NodeId>,
}

/// What a record does, as a number: `DefaultHasher::new()` has fixed keys.
fn fingerprint(record: &Record) -> u64 {
    let mut hasher = DefaultHasher::new();
    match &record.body {
        Body::Write { first, data } => (0, first.0, data.crcs()).hash(&mut hasher),
        Body::Discard(range) => (1, range.first.0, range.count).hash(&mut hasher),
        Body::Control(bytes) => (2, bytes).hash(&mut hasher),
    }
    hasher.finish()
}

impl Writers {
    /// The configuration has changed.
    pub fn configured(&mut self, state: &ClusterState) {
        for (slice, config) in state.slices() {
            self.primaries.insert((slice, config.epoch), config.primary);
        }
    }

    /// A replica appends a record; gives whether nobody had it before.
    ///
    /// # Errors
    /// A violation.
    pub fn appended(
        &mut self,
        node: NodeId,
        slice: SliceId,
        record: &Record,
        state: &ClusterState,
    ) -> Result<bool, Violation> {
        let content = fingerprint(record);
        if let Some(known) = self.contents.get(&(slice, record.version)) {
            if *known != content {
                let text = format!(
                    "{node:?} {slice}: version {} has two contents; now {:?}",
                    record.version, record.body
                );
                violated("one content per version", text)?;
            }
            return Ok(false);
        }
        self.contents.insert((slice, record.version), content);
        let epoch = record.version.epoch;
        let current = state.slice(slice).filter(|config| config.epoch == epoch);
        let primary = current
            .map(|config| config.primary)
            .or_else(|| self.primaries.get(&(slice, epoch)).copied());
        if primary != Some(node) {
            let text = format!(
                "{node:?} orders {} of {slice}, but the primary of that epoch is {primary:?}",
                record.version
            );
            violated("one writer per epoch", text)?;
        }
        Ok(true)
    }
}
