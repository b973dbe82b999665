//! Who coordinates a shared volume: the node of slice 0's primary, and nobody else.
//!
//! ```text
//!   slice 0's primary moves to B (compare-and-set, as ever) ──> B: Claim ──> attachment, epoch + 1
//!                                                               B seals slice 0 with it
//!                                                               A: End
//! ```
//! The primary moves when its node is gone, or hands it over; nothing else has to be found out before
//! the attachment follows it. Being granted it fences nobody: the seal in slice 0 does.
//!
//! Invariant: no two coordinators ever have one epoch, not even two of one node, one after the other.

use mooring_terms::{AttachmentEpoch, NodeId};

use crate::Volume;

/// What a node has to do about the coordinator of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoordinatorDuty {
    /// Nothing: all is as it should be.
    Rest,
    /// Ask for the attachment ([`Command::Attach`](crate::Command::Attach)), and begin one under it.
    Claim,
    /// End the one that runs here.
    End,
}

impl Volume {
    /// What `node` has to do about this volume's coordinator; `running` is the attachment of the one
    /// that runs there, if one does.
    #[must_use]
    pub fn coordinator_duty(
        &self,
        node: NodeId,
        running: Option<AttachmentEpoch>,
    ) -> CoordinatorDuty {
        let is_due = self.coordinator() == Some(node);
        match running {
            // The grant may be newer than this state.
            Some(epoch) if is_due && !self.is_over(epoch) => CoordinatorDuty::Rest,
            Some(_) => CoordinatorDuty::End,
            None if is_due => CoordinatorDuty::Claim,
            None => CoordinatorDuty::Rest,
        }
    }

    /// The node where the volume's coordinator belongs; none if the volume isn't shared.
    #[must_use]
    pub fn coordinator(&self) -> Option<NodeId> {
        let first = self.slices.first().filter(|_| self.spec.is_shared());
        first.map(|slice| slice.primary)
    }

    /// Whether an attachment that was granted has ended: another followed, or it was taken away. A
    /// state that lags behind may not know the attachment yet; then it has not.
    #[must_use]
    pub fn is_over(&self, epoch: AttachmentEpoch) -> bool {
        let held = self.attachment.is_some_and(|held| held.epoch == epoch);
        self.last_attachment > epoch || (self.last_attachment == epoch && !held)
    }
}
