//! Attachments: granted to one node at a time, each grant with a higher epoch.
//!
//! ```text
//!   none ──attach──> held ──attach by another: holder gone, or forced──> held (epoch + 1)
//!     ^                │
//!     └── detach, ─────┘  restart of the holder, removal of its node
//! ```
//!
//! Ending an attachment fences nobody by itself: the next holder's seal does, in every slice's log.
//!
//! That of a shared volume is its coordinator's: it goes to the node of slice 0's primary whenever that
//! asks for it, with a higher epoch each time, and to nobody else (`coordinator.rs`).

use mooring_terms::{AttachmentEpoch, NodeId, VolumeId};

use super::What;
use crate::{Actor, AttachMode, Attachment, Boot, ClusterState, Done, Refused, Response};

impl ClusterState {
    pub(super) fn attach(
        &mut self,
        by: &Actor,
        id: VolumeId,
        (node, boot): (NodeId, Boot),
        mode: AttachMode,
        holder_gone: bool,
        force: bool,
    ) -> Response {
        let volume = self.volumes.get(&id).ok_or(Refused::NoVolume(id))?;
        let known = self.nodes.get(&node).ok_or(Refused::NoNode(node))?;
        if boot != known.boot {
            return Err(Refused::EarlierBoot { node, claimed: boot, current: known.boot });
        }
        let held = volume.attachment;
        let coordinator = volume.coordinator();
        if let Some(owner) = coordinator.filter(|owner| *owner != node) {
            let (name, node) = (volume.name.clone(), self.node_name(owner));
            return Err(Refused::CoordinatedElsewhere { name, node });
        }
        if let Some(held) = held.filter(|_| coordinator.is_none()) {
            if held.node == node && held.boot == boot && held.mode == mode {
                return Ok(Done::Attached { epoch: held.epoch, fenced: None });
            }
            let alive = held.node != node && !holder_gone;
            let in_use_otherwise = held.node == node && held.boot == boot;
            if (alive || in_use_otherwise) && !force {
                let holder = self.node_name(held.node);
                return Err(Refused::Attached { name: volume.name.clone(), holder });
            }
        }
        let epoch = AttachmentEpoch(volume.last_attachment.0 + 1);
        let since = self.now;
        if let Some(volume) = self.volumes.get_mut(&id) {
            volume.last_attachment = epoch;
            volume.attachment = Some(Attachment { epoch, node, boot, mode, since });
        }
        let fenced = held.map(|held| held.node).filter(|holder| *holder != node);
        let forced = fenced.is_some() && !holder_gone && coordinator.is_none();
        self.record(by, What::Attached { volume: id, node, fenced, forced });
        Ok(Done::Attached { epoch, fenced })
    }

    pub(super) fn detach(
        &mut self,
        by: &Actor,
        id: VolumeId,
        epoch: Option<AttachmentEpoch>,
        node: NodeId,
        force: bool,
    ) -> Response {
        let volume = self.volumes.get(&id).ok_or(Refused::NoVolume(id))?;
        let Some(held) = volume.attachment else {
            return Ok(Done::Ok);
        };
        if epoch.is_some_and(|epoch| epoch != held.epoch) {
            return Err(Refused::NotAttached { name: volume.name.clone() });
        }
        if held.node != node && !force {
            let holder = self.node_name(held.node);
            return Err(Refused::Attached { name: volume.name.clone(), holder });
        }
        if let Some(volume) = self.volumes.get_mut(&id) {
            volume.attachment = None;
        }
        self.record(by, What::Detached { volume: id, node: held.node, forced: held.node != node });
        Ok(Done::Ok)
    }
}
