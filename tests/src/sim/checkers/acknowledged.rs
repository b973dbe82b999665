//! Property: **acknowledged is kept.** When a primary begins to serve, its log holds every record
//! that any primary before it has acknowledged to a client; unless every in-sync replica was
//! restarted or an operator accepted a loss, and the configuration says so (*tail lost*).
//!
//! (That the record's content is kept too, `writers` and `register` say.)

use std::collections::BTreeMap;

use mooring_config::ClusterState;
use mooring_replication::{Outcome, Reply};
use mooring_terms::{Epoch, NodeId, Sequence, SliceId, Version};

use super::{Checked, violated};

/// What was acknowledged in each slice.
#[derive(Debug, Default)]
pub struct Acknowledged {
    last: BTreeMap<SliceId, Sequence>,
    served: BTreeMap<SliceId, Epoch>,
}

impl Acknowledged {
    /// The newest record of a slice that was acknowledged to a client.
    #[must_use]
    pub fn last(&self, slice: SliceId) -> Sequence {
        self.last.get(&slice).copied().unwrap_or_default()
    }

    /// A primary answers.
    pub fn replied(&mut self, slice: SliceId, reply: &Reply) {
        if let Outcome::Written(sequence) = reply.outcome {
            let last = self.last.entry(slice).or_default();
            *last = sequence.max(*last);
        }
    }

    /// A primary begins to serve with this log.
    ///
    /// # Errors
    /// A violation.
    pub fn serving(
        &mut self,
        node: NodeId,
        slice: SliceId,
        epoch: Epoch,
        log: Version,
        state: &ClusterState,
    ) -> Checked {
        let acknowledged = self.last(slice);
        let before = self.served.insert(slice, epoch).unwrap_or_default();
        let declared = state.slice(slice).is_some_and(|config| config.tail_lost > before);
        if log.sequence >= acknowledged {
            return Ok(());
        }
        if declared {
            self.last.insert(slice, log.sequence);
            return Ok(());
        }
        let text = format!(
            "{node:?} serves {slice} in epoch {epoch} with a log up to {log}, \
             but record {acknowledged} was acknowledged"
        );
        violated("acknowledged is kept", text)
    }
}
