//! Property: **acknowledged is kept.** Three things, which together are it:
//!
//! - when a write is answered, every in-sync replica that still lives has its record;
//! - when a primary begins to serve, its log holds every record that was ever answered;
//! - a primary that answers after another has begun to serve a newer epoch answers nothing that the
//!   newer one's log lacks.
//!
//! Only a loss that the configuration declares excuses it: every in-sync replica was restarted, or
//! an operator accepted it (*tail lost*).
//!
//! (That the record's content is kept too, `writers` and `register` say.)

use std::collections::BTreeMap;

use mooring_config::ClusterState;
use mooring_replication::{Outcome, Reply};
use mooring_terms::{Epoch, NodeId, Sequence, SliceId, Version};

use super::lineage::Lineage;
use super::{Checked, violated};
use crate::sim::node::Node;

const PROPERTY: &str = "acknowledged is kept";

/// What was acknowledged in each slice.
#[derive(Debug, Default)]
pub struct Acknowledged {
    /// The newest record of each epoch that was answered.
    newest: BTreeMap<SliceId, BTreeMap<Epoch, Sequence>>,
    /// The newest epoch that has served, and its log at that moment.
    served: BTreeMap<SliceId, (Epoch, Version)>,
}

impl Acknowledged {
    /// The newest record of a slice that was acknowledged to a client.
    #[must_use]
    pub fn last(&self, slice: SliceId) -> Sequence {
        let newest = self.newest.get(&slice).into_iter().flat_map(BTreeMap::values);
        newest.max().copied().unwrap_or_default()
    }

    /// Whether a newer epoch of the slice has begun to serve.
    #[must_use]
    pub fn is_past(&self, slice: SliceId, epoch: Epoch) -> bool {
        self.served.get(&slice).is_some_and(|(newest, _)| *newest > epoch)
    }

    /// A primary answers.
    ///
    /// # Errors
    /// A violation.
    pub fn replied(
        &mut self,
        (node, slice): (NodeId, SliceId),
        reply: &Reply,
        nodes: &BTreeMap<NodeId, Node>,
        state: &ClusterState,
        lineage: &Lineage,
    ) -> Checked {
        let Outcome::Written(version) = reply.outcome else { return Ok(()) };
        let sequence = version.sequence;
        let log = lineage.end(node, slice);
        if lineage.version_at(slice, log, sequence) != Some(version) {
            let text =
                format!("{node:?} answers record {version} of {slice}, but its log is {log}");
            return violated(PROPERTY, text);
        }
        if let Some((epoch, log)) = self.served.get(&slice)
            && *epoch > reply.epoch
            && !lineage.holds(slice, *log, version)
        {
            let text = format!(
                "{node:?} answers record {version} of {slice} in epoch {}, but epoch {epoch} \
                 began to serve with {log}, without it",
                reply.epoch
            );
            return violated(PROPERTY, text);
        }
        let current = state.slice(slice).filter(|config| config.epoch == reply.epoch);
        for member in current.iter().flat_map(|config| &config.in_sync) {
            let lives = |node: &&Node| {
                node.exists() && !node.failed && node.incarnation == member.incarnation
            };
            let Some(node) = nodes.get(&member.node).filter(lives) else { continue };
            let log = node.pool.recovered(slice).last;
            if !lineage.holds(slice, log, version) {
                let text = format!(
                    "record {version} of {slice} is answered, but {:?}, in sync, has only {log}",
                    member.node
                );
                return violated(PROPERTY, text);
            }
        }
        let newest = self.newest.entry(slice).or_default().entry(version.epoch).or_default();
        *newest = sequence.max(*newest);
        Ok(())
    }

    /// A primary begins to serve with this log. Gives whether a declared loss took something.
    ///
    /// # Errors
    /// A violation.
    pub fn serving(
        &mut self,
        (node, slice): (NodeId, SliceId),
        epoch: Epoch,
        log: Version,
        state: &ClusterState,
        lineage: &Lineage,
    ) -> Result<bool, super::Violation> {
        let before = self.served.insert(slice, (epoch, log)).unwrap_or_default().0;
        let declared = state.slice(slice).is_some_and(|config| config.tail_lost > before);
        let newest = self.newest.entry(slice).or_default();
        let lost: Vec<Version> = newest
            .iter()
            .map(|(&epoch, &sequence)| Version::new(epoch, sequence))
            .filter(|version| !lineage.holds(slice, log, *version))
            .collect();
        if let Some(version) = lost.first()
            && !declared
        {
            let text = format!(
                "{node:?} serves {slice} in epoch {epoch} with a log up to {log}, \
                 but record {version} was acknowledged"
            );
            violated(PROPERTY, text)?;
        }
        for version in &lost {
            newest.remove(&version.epoch);
            let left = lineage.shared(slice, log, *version);
            let entry = newest.entry(left.epoch).or_default();
            *entry = left.sequence.max(*entry);
        }
        Ok(!lost.is_empty())
    }
}
