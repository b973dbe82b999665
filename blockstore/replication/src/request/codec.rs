//! Requests and replies as bytes.

use bytes::Bytes;
use mooring_terms::{BlockIndex, BlockRange, Epoch, Sequence, SessionId, SliceId, Time, Version};
use serde::{Deserialize, Serialize};

use super::{
    Credential, Operation, Outcome, Refusal, Registration, Reply, ReplyMessage, Request, RequestId,
    RequestMessage,
};
use crate::wire::{self, Frames, WireData, WireError, WireExtent};

#[derive(Serialize, Deserialize)]
struct RequestHeader {
    slice: SliceId,
    id: RequestId,
    epoch: Epoch,
    credential: Credential,
    operation: WireOperation,
}

/// [`Operation`] without its data. The order of the variants is the format.
#[derive(Serialize, Deserialize)]
enum WireOperation {
    Read(BlockRange),
    Write { first: BlockIndex, data: WireData, fua: bool },
    Discard { range: BlockRange, fua: bool },
    Flush,
    Seal,
    Versions(BlockRange),
    Register(Registration),
}

#[derive(Serialize, Deserialize)]
struct ReplyHeader {
    slice: SliceId,
    id: RequestId,
    epoch: Epoch,
    durable: Sequence,
    outcome: WireOutcome,
}

/// [`Outcome`] without its data. The order of the variants is the format.
#[derive(Serialize, Deserialize)]
enum WireOutcome {
    Read(Vec<WireExtent>),
    /// In the epoch of the reply.
    Written(Sequence),
    Flushed,
    Sealed,
    Refused(Refusal),
    /// In an earlier epoch than that of the reply.
    WrittenBefore(Version),
    Versions(Vec<(BlockRange, Version)>),
    Registered {
        at: Time,
        used: Vec<SessionId>,
    },
}

impl RequestMessage {
    /// The header, and one frame for each run of data, which shares the request's bytes.
    #[must_use]
    pub fn encode(self) -> (Bytes, Vec<Bytes>) {
        let mut frames = Vec::new();
        let operation = match self.request.operation {
            Operation::Read(range) => WireOperation::Read(range),
            Operation::Write { first, data, fua } => {
                WireOperation::Write { first, data: WireData::pack(data, &mut frames), fua }
            }
            Operation::Discard { range, fua } => WireOperation::Discard { range, fua },
            Operation::Flush => WireOperation::Flush,
            Operation::Seal => WireOperation::Seal,
            Operation::Versions(range) => WireOperation::Versions(range),
            Operation::Register(registration) => WireOperation::Register(registration),
        };
        let Request { epoch, credential, .. } = self.request;
        let header = RequestHeader { slice: self.slice, id: self.id, epoch, credential, operation };
        (wire::write_header(&header), frames)
    }

    /// The request of a header and its frames.
    ///
    /// # Errors
    /// [`WireError`] for whatever [`RequestMessage::encode`] doesn't write.
    pub fn decode(header: &[u8], frames: Vec<Bytes>) -> Result<Self, WireError> {
        let header: RequestHeader = wire::read_header(header)?;
        let mut frames = Frames::from(frames);
        let operation = match header.operation {
            WireOperation::Read(range) => Operation::Read(range),
            WireOperation::Write { first, data, fua } => {
                Operation::Write { first, data: data.unpack(&mut frames)?, fua }
            }
            WireOperation::Discard { range, fua } => Operation::Discard { range, fua },
            WireOperation::Flush => Operation::Flush,
            WireOperation::Seal => Operation::Seal,
            WireOperation::Versions(range) => Operation::Versions(range),
            WireOperation::Register(registration) => Operation::Register(registration),
        };
        wire::end_of_frames(&frames)?;
        let request = Request { epoch: header.epoch, credential: header.credential, operation };
        Ok(Self { slice: header.slice, id: header.id, request })
    }
}

impl ReplyMessage {
    /// The header, and one frame for each run of data, which shares the reply's bytes.
    #[must_use]
    pub fn encode(self) -> (Bytes, Vec<Bytes>) {
        let mut frames = Vec::new();
        let outcome = match self.reply.outcome {
            Outcome::Read(extents) => WireOutcome::Read(wire::pack_extents(extents, &mut frames)),
            Outcome::Written(version) if version.epoch == self.reply.epoch => {
                WireOutcome::Written(version.sequence)
            }
            Outcome::Written(version) => WireOutcome::WrittenBefore(version),
            Outcome::Flushed => WireOutcome::Flushed,
            Outcome::Sealed => WireOutcome::Sealed,
            Outcome::Refused(refusal) => WireOutcome::Refused(refusal),
            Outcome::Versions(versions) => WireOutcome::Versions(versions),
            Outcome::Registered { at, used } => WireOutcome::Registered { at, used },
        };
        let Reply { epoch, durable, .. } = self.reply;
        let header = ReplyHeader { slice: self.slice, id: self.id, epoch, durable, outcome };
        (wire::write_header(&header), frames)
    }

    /// The reply of a header and its frames.
    ///
    /// # Errors
    /// [`WireError`] for whatever [`ReplyMessage::encode`] doesn't write.
    pub fn decode(header: &[u8], frames: Vec<Bytes>) -> Result<Self, WireError> {
        let header: ReplyHeader = wire::read_header(header)?;
        let mut frames = Frames::from(frames);
        let outcome = match header.outcome {
            WireOutcome::Read(extents) => {
                Outcome::Read(wire::unpack_extents(extents, &mut frames)?)
            }
            WireOutcome::Written(sequence) => {
                Outcome::Written(Version::new(header.epoch, sequence))
            }
            WireOutcome::WrittenBefore(version) => Outcome::Written(version),
            WireOutcome::Flushed => Outcome::Flushed,
            WireOutcome::Sealed => Outcome::Sealed,
            WireOutcome::Refused(refusal) => Outcome::Refused(refusal),
            WireOutcome::Versions(versions) => Outcome::Versions(versions),
            WireOutcome::Registered { at, used } => Outcome::Registered { at, used },
        };
        wire::end_of_frames(&frames)?;
        let reply = Reply { epoch: header.epoch, durable: header.durable, outcome };
        Ok(Self { slice: header.slice, id: header.id, reply })
    }
}
