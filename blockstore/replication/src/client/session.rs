//! A session's side: asking to be let in, going on under another coordinator, and what was lost.
//!
//! Being refused is no end: the primary may be new, or the coordinator. I/O waits until the
//! coordinator has let the session in again, or tells that it is over ([`ClientEvent::Close`]).
//!
//! [`ClientEvent::Close`]: super::ClientEvent::Close

use mooring_terms::{AttachmentEpoch, SliceIndex, Time};

use super::command::{ClientCommand, IoError};
use super::lane::Place;
use super::{Operation, VolumeClient};

impl VolumeClient {
    /// A primary doesn't know the session (any more).
    pub(super) fn knock(
        &mut self,
        now: Time,
        slice: SliceIndex,
        place: Place,
        out: &mut Vec<ClientCommand>,
    ) {
        let retry = self.options.retry;
        if let Some(lane) = self.lanes.get_mut(slice)
            && lane.knocked.is_none_or(|knocked| now >= knocked + retry)
        {
            lane.knocked = Some(now);
            out.push(ClientCommand::Knock { slice });
        }
        self.put_off(now, slice, place, out);
    }

    /// Another coordinator.
    pub(super) fn on_coordinator(
        &mut self,
        now: Time,
        attachment: AttachmentEpoch,
        out: &mut Vec<ClientCommand>,
    ) {
        if attachment <= self.options.attachment {
            return;
        }
        self.options.attachment = attachment;
        self.lanes.change_busy(|_, lane| {
            lane.knocked = None;
            lane.unsend();
        });
        self.pump_all(now, out);
    }

    /// The primary of the slice knows the session now.
    pub(super) fn on_admitted(
        &mut self,
        now: Time,
        slice: SliceIndex,
        out: &mut Vec<ClientCommand>,
    ) {
        let Some(lane) = self.lanes.get_mut(slice) else { return };
        lane.knocked = None;
        for part in lane.parts.values_mut().filter(|part| part.sent.is_none()) {
            part.again = None;
        }
        self.pump(now, slice, out);
    }

    /// Acknowledged writes of the slice are gone with all replicas: the flushes that wait fail, or the
    /// next one does.
    pub(super) fn note_loss(&mut self, slice: SliceIndex, out: &mut Vec<ClientCommand>) {
        let Some(lane) = self.lanes.get_mut(slice) else { return };
        lane.kept.forget();
        let flushes = lane.parts.values().filter(|part| part.operation == Operation::Flush);
        let waiting: Vec<_> = flushes.filter_map(|part| part.io).map(|(io, _)| io).collect();
        lane.lost = waiting.is_empty();
        for io in waiting {
            self.done(io, Err(IoError::TailLost), out);
        }
    }

    /// Whether a flush of these slices has a loss to tell, which is then told.
    pub(super) fn take_loss(&mut self, parts: &[(SliceIndex, Operation)]) -> bool {
        let mut lost = false;
        for (index, _) in parts {
            if let Some(lane) = self.lanes.get_mut(*index) {
                lost |= std::mem::take(&mut lane.lost);
            }
        }
        lost
    }
}
