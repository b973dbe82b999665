//! Property: **flushed is durable.** What a primary calls durable is on media on every in-sync
//! replica at that moment; a FLUSH is answered when every write that was acknowledged before it
//! came is durable, and a write with FUA when it is durable itself.
//!
//! And what was once called durable is in the log of every primary that begins to serve later, the
//! loss of a tail notwithstanding: only an operator who accepts a loss gives it up.
//!
//! (That no client is told "flushed" about writes that went with all replicas, `register` says: a
//! declared loss takes nothing back that was flushed.)

use std::collections::BTreeMap;

use mooring_config::ClusterState;
use mooring_replication::{ClientId, Operation, Outcome, Reply, RequestId, RequestMessage};
use mooring_terms::{Epoch, NodeId, Sequence, SliceId, Version};

use super::lineage::Lineage;
use super::{Checked, violated};
use crate::sim::store::Pool;

const PROPERTY: &str = "flushed is durable";

/// What is on media, and who asked for that.
#[derive(Debug, Default)]
pub struct Flushed {
    durable: BTreeMap<(NodeId, SliceId), Sequence>,
    /// FLUSHes and writes with FUA: what must be durable when they are answered. `None`: what the
    /// answer itself names.
    asked: BTreeMap<(SliceId, ClientId, u64), Option<Sequence>>,
    /// The newest record of each slice that was called durable.
    promised: BTreeMap<SliceId, Version>,
}

impl Flushed {
    /// A request has arrived.
    pub fn requested(&mut self, message: &RequestMessage, acknowledged: Sequence) {
        let key = (message.slice, message.id.client, message.id.number);
        match &message.request.operation {
            Operation::Flush => {
                // Sent again, it must cover no more than it did at first.
                self.asked.entry(key).or_insert(Some(acknowledged));
            }
            Operation::Write { fua: true, .. } | Operation::Discard { fua: true, .. } => {
                self.asked.insert(key, None);
            }
            _ => {}
        }
    }

    /// A loss was declared: what was acknowledged before it is not what is acknowledged now.
    pub fn forget(&mut self, slice: SliceId) {
        self.asked.retain(|(of, ..), _| *of != slice);
    }

    /// An operator lets an older history go on: what was flushed may be gone with the newer one.
    pub fn loss_accepted(&mut self, slice: SliceId) {
        self.promised.remove(&slice);
    }

    /// A primary begins to serve with this log.
    ///
    /// # Errors
    /// A violation.
    pub fn serving(
        &self,
        (node, slice): (NodeId, SliceId),
        epoch: Epoch,
        log: Version,
        lineage: &Lineage,
    ) -> Checked {
        match self.promised.get(&slice) {
            Some(promised) if !lineage.holds(slice, log, *promised) => {
                let text = format!(
                    "{node:?} serves {slice} in epoch {epoch} with a log up to {log}, \
                     but {promised} was called durable"
                );
                violated(PROPERTY, text)
            }
            _ => Ok(()),
        }
    }

    /// A pool has made durable whatever it had.
    pub fn synced(&mut self, node: NodeId, pool: &dyn Pool) {
        for slice in pool.slices() {
            self.durable.insert((node, slice), pool.recovered(slice).last.sequence);
        }
    }

    /// A primary answers.
    ///
    /// # Errors
    /// A violation.
    pub fn replied(
        &mut self,
        (node, slice): (NodeId, SliceId),
        id: RequestId,
        reply: &Reply,
        state: &ClusterState,
        lineage: &Lineage,
    ) -> Checked {
        let needed = match reply.outcome {
            Outcome::Flushed => self.asked.get(&(slice, id.client, id.number)).copied().flatten(),
            Outcome::Written(version) => {
                let asked = self.asked.get(&(slice, id.client, id.number));
                asked.map(|_| version.sequence)
            }
            _ => None,
        };
        if let Some(needed) = needed
            && reply.durable < needed
        {
            let text = format!(
                "{slice}: {id:?} is answered {:?} with {} durable, but {needed} must be",
                reply.outcome, reply.durable
            );
            return violated(PROPERTY, text);
        }
        // A primary that doesn't know yet that it was succeeded answers nothing that counts.
        let Some(config) = state.slice(slice).filter(|config| config.epoch == reply.epoch) else {
            return Ok(());
        };
        for member in &config.in_sync {
            let durable = self.durable.get(&(member.node, slice)).copied().unwrap_or_default();
            if durable < reply.durable {
                let text = format!(
                    "{slice}: {id:?} is told that {} is durable, but {:?} has {durable} on media",
                    reply.durable, member.node
                );
                return violated(PROPERTY, text);
            }
        }
        let log = lineage.end(node, slice);
        if let Some(version) = lineage.version_at(slice, log, reply.durable) {
            let promised = self.promised.entry(slice).or_default();
            *promised = version.max(*promised);
        }
        Ok(())
    }
}
