//! Property: **fenced never writes.** Once a slice has answered the seal of an attachment, no
//! write of an older attachment that is ordered behind it is acknowledged (one ordered before it may
//! be, however late); and nothing that an older client submits after a newer one serves ever
//! succeeds. An accepted loss takes nothing of this back.
//!
//! (That such a write doesn't change data unacknowledged either, `register` says: what older
//! clients had in flight ends there with the seal.)

use std::collections::BTreeMap;

use mooring_replication::{ClientId, Outcome, Reply, RequestId};
use mooring_terms::{AttachmentEpoch, Sequence, SliceId, VolumeId};

use super::{Checked, violated};
use crate::sim::history::OpId;

/// Who holds what since when.
#[derive(Debug, Default)]
pub struct Fenced {
    attachments: BTreeMap<ClientId, AttachmentEpoch>,
    clients: BTreeMap<u32, (VolumeId, AttachmentEpoch)>,
    /// The newest seal answered, and a record that is not before it.
    sealed: BTreeMap<SliceId, (AttachmentEpoch, Sequence)>,
    serving: BTreeMap<VolumeId, AttachmentEpoch>,
    /// Operations that were submitted when a newer client served already.
    late: BTreeMap<OpId, AttachmentEpoch>,
}

impl Fenced {
    /// A client was granted an attachment.
    pub fn granted(
        &mut self,
        number: u32,
        volume: VolumeId,
        epoch: AttachmentEpoch,
        client: ClientId,
    ) {
        self.attachments.insert(client, epoch);
        self.clients.insert(number, (volume, epoch));
    }

    /// A primary answers.
    ///
    /// # Errors
    /// A violation.
    pub fn replied(&mut self, slice: SliceId, id: RequestId, reply: &Reply) -> Checked {
        let Some(mine) = self.attachments.get(&id.client).copied() else { return Ok(()) };
        let sealed = self.sealed.entry(slice).or_default();
        match reply.outcome {
            Outcome::Sealed => {
                *sealed = (mine, reply.durable).max(*sealed);
                Ok(())
            }
            Outcome::Written(version) if mine < sealed.0 && version.sequence > sealed.1 => {
                let (sealed, _) = *sealed;
                let text = format!(
                    "{slice}: record {version} of attachment {mine} is acknowledged \
                     after the seal of attachment {sealed} was"
                );
                violated("fenced never writes", text)
            }
            _ => Ok(()),
        }
    }

    /// All slices have sealed a client's attachment.
    pub fn serves(&mut self, number: u32) {
        if let Some((volume, epoch)) = self.clients.get(&number) {
            let serving = self.serving.entry(*volume).or_default();
            *serving = (*epoch).max(*serving);
        }
    }

    /// A client has submitted an operation.
    pub fn submitted(&mut self, number: u32, op: OpId) {
        if let Some((volume, epoch)) = self.clients.get(&number)
            && let Some(serving) = self.serving.get(volume)
            && serving > epoch
        {
            self.late.insert(op, *serving);
        }
    }

    /// An operation has succeeded.
    ///
    /// # Errors
    /// A violation.
    pub fn answered(&self, number: u32, op: OpId) -> Checked {
        match self.late.get(&op) {
            None => Ok(()),
            Some(newer) => {
                let text = format!(
                    "operation {op} of client {number} succeeds, though it was submitted \
                     when attachment {newer} served already"
                );
                violated("fenced never writes", text)
            }
        }
    }
}
