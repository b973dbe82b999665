//! Getting the right to do I/O on a volume.
//!
//! A node that is alive keeps its attachment; one that is gone loses it. In between lies the time in
//! which nobody knows: the grant is asked for again until the leader finds the holder gone, or the
//! holder itself answers that it is alive.

use std::time::Duration;

use blockstore::{Attachment, NodeError, Volume};
use mooring_config::{AttachMode, Command, Done, Refused};
use mooring_device::DeviceKind;
use mooring_terms::{AttachmentEpoch, VolumeId};

use super::Attachments;
use crate::error::DaemonError;

/// How often a refused grant is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(150);
/// For how long: well above the time after which a silent node is found gone.
const ASK_FOR: Duration = Duration::from_secs(8);
/// How long the slices may take to seal an attachment: a failover in the middle is waited for.
const SEAL_WAIT: Duration = Duration::from_secs(40);

/// What is asked for.
#[derive(Clone, Debug)]
pub struct GrantRequest {
    /// On whose behalf, for the events.
    pub by: String,
    /// The volume.
    pub volume: VolumeId,
    /// For what.
    pub mode: AttachMode,
    /// As what kind of device; none for what it is attached as, or the best.
    pub kind: Option<DeviceKind>,
    /// Take it from a holder that is alive.
    pub force: bool,
}

impl Attachments {
    /// Has Raft grant the attachment: the volume's name, and the attachment's epoch.
    pub(super) async fn grant(
        &self,
        request: &GrantRequest,
    ) -> Result<(String, AttachmentEpoch), DaemonError> {
        let deadline = tokio::time::Instant::now() + ASK_FOR;
        loop {
            let volume = self
                .node
                .state()
                .volume(request.volume)
                .cloned()
                .ok_or(NodeError::Refused(Refused::NoVolume(request.volume)))?;
            let command = Command::Attach {
                volume: request.volume,
                node: self.node.id(),
                boot: self.node.boot(),
                mode: request.mode,
                holder_gone: false,
                force: request.force,
            };
            match self.node.propose(&request.by, command).await {
                Ok(Done::Attached { epoch, .. }) => return Ok((volume.name.clone(), epoch)),
                Ok(_) => return Err(DaemonError::UnexpectedAnswer),
                Err(NodeError::Refused(refused @ Refused::Attached { .. })) => {
                    let held_here =
                        volume.attachment.is_none_or(|held| held.node == self.node.id());
                    let answers = match volume.attachment {
                        Some(held) if !held_here => self.node.is_alive(held.node).await,
                        _ => false,
                    };
                    if answers || tokio::time::Instant::now() > deadline {
                        return Err(NodeError::Refused(refused).into());
                    }
                }
                // That this node has started is on its way to the cluster.
                Err(NodeError::Refused(Refused::EarlierBoot { claimed, current, .. }))
                    if claimed > current && tokio::time::Instant::now() < deadline => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Waits until every slice has sealed the attachment.
    pub(super) async fn sealed(&self, volume: &Volume, name: &str) -> Result<(), DaemonError> {
        let mut state = volume.state();
        let reached = state.wait_for(|state| *state != Attachment::Opening);
        match tokio::time::timeout(SEAL_WAIT, reached).await {
            Ok(Ok(state)) if *state == Attachment::Serving => Ok(()),
            Ok(_) => Err(DaemonError::Fenced { volume: name.to_owned() }),
            Err(_) => Err(DaemonError::NotServed { volume: name.to_owned() }),
        }
    }
}
