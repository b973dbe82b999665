//! The coordinators of shared volumes: which of them this node is to run, and under which attachment.
//!
//! What is decided is decided by [`Volume::coordinator_duty`](mooring_config::Volume::coordinator_duty);
//! whoever runs coordinators asks at every change of the configuration ([`Node::watch`]), and does it:
//!
//! ```text
//!   Claim ── claim_coordinator ──> epoch ── open_coordinator(volume, epoch) ──> it runs under `epoch`
//!   End   ── drop it              (it is fenced, or about to be)
//! ```
//! A coordinator that ends by itself is dropped; the next look says Claim, and the next one has a higher
//! epoch.

use std::time::Duration;

use mooring_config::{AttachMode, Command, CoordinatorDuty, Done, Refused};
use mooring_terms::{AttachmentEpoch, VolumeId};

use super::{Node, NodeError};

/// Between two tries while the cluster doesn't know this start of the node.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How many there are.
const TRIES: u32 = 50;

impl Node {
    /// The shared volumes, as applied here.
    #[must_use]
    pub fn shared_volumes(&self) -> Vec<VolumeId> {
        let state = self.state();
        let shared = state.volumes().iter().filter(|(_, row)| row.spec.is_shared());
        shared.map(|(_, row)| row.id).collect()
    }

    /// What is to be done here about a volume's coordinator; `running` is the attachment of the one that
    /// runs here, if one does. Of a volume that is no more, it is to end.
    #[must_use]
    pub fn coordinator_duty(
        &self,
        volume: VolumeId,
        running: Option<AttachmentEpoch>,
    ) -> CoordinatorDuty {
        match self.state().volume(volume) {
            Some(row) => row.coordinator_duty(self.id, running),
            None if running.is_some() => CoordinatorDuty::End,
            None => CoordinatorDuty::Rest,
        }
    }

    /// Has Raft grant the coordinator's attachment to this node: for one coordinator, the next one
    /// needs another. Waits for a change of Raft's leader, and for the cluster to know of this node's
    /// start.
    ///
    /// # Errors
    /// [`NodeError::Refused`]: slice 0's primary is elsewhere by now, or the volume is gone; the
    /// configuration here is about to say so, too. [`NodeError::Control`]: there is no majority now;
    /// try again after a pause.
    pub async fn claim_coordinator(&self, volume: VolumeId) -> Result<AttachmentEpoch, NodeError> {
        let mut tries = 0;
        loop {
            let claim = Command::Attach {
                volume,
                node: self.id,
                boot: self.boot,
                mode: AttachMode::ReadWrite,
                holder_gone: false,
                force: false,
            };
            match self.propose_as_system(claim).await {
                Ok(Done::Attached { epoch, .. }) => return Ok(epoch),
                Ok(_) => unreachable!("an attachment is answered with its epoch"),
                Err(NodeError::Refused(Refused::EarlierBoot { claimed, current, .. }))
                    if claimed > current && tries < TRIES =>
                {
                    tries += 1;
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
