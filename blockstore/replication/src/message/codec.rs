//! Messages between replicas as bytes.

use bytes::Bytes;
use mooring_config::SliceConfig;
use mooring_terms::{Epoch, Incarnation, Sequence, SliceId, Version};
use serde::{Deserialize, Serialize};

use super::{
    Ack, Append, BlocksRead, Copied, CopyStep, Hello, JoinBegin, JoinDone, JoinFinish, JoinFrom,
    JoinId, JoinReady, Message, MessageBody, Missing, MissingWanted, Promised, Pull, Pulled, Raise,
    ReadBlocks, Want,
};
use crate::wire::{self, Frames, WireError, WireExtent, WireRecord};

#[derive(Serialize, Deserialize)]
struct Header {
    slice: SliceId,
    epoch: Epoch,
    from: Incarnation,
    to: Option<Incarnation>,
    body: Body,
}

/// [`MessageBody`] without its data. The order of the variants is the format.
#[derive(Serialize, Deserialize)]
enum Body {
    Hello(Hello),
    Newer(SliceConfig),
    Raise(Raise),
    Promised(Promised),
    Pull(Pull),
    Pulled {
        after: Sequence,
        records: Vec<WireRecord>,
    },
    Append {
        previous: Version,
        records: Vec<WireRecord>,
        committed: Sequence,
        stable: Sequence,
        sync: Sequence,
    },
    Ack(Ack),
    Want(Want),
    ReadBlocks(ReadBlocks),
    BlocksRead {
        token: u64,
        extents: Vec<WireExtent>,
    },
    JoinBegin(JoinBegin),
    JoinReady(JoinReady),
    MissingWanted(MissingWanted),
    Missing(Missing),
    JoinFrom(JoinFrom),
    Copy {
        join: JoinId,
        number: u64,
        extents: Vec<WireExtent>,
    },
    Copied(Copied),
    JoinFinish(JoinFinish),
    JoinDone(JoinDone),
    Failed,
}

impl Message {
    /// The header, and one frame for each run of data, which shares the message's bytes.
    #[must_use]
    pub fn encode(self) -> (Bytes, Vec<Bytes>) {
        let mut frames = Vec::new();
        let header = Header {
            slice: self.slice,
            epoch: self.epoch,
            from: self.from,
            to: self.to,
            body: pack(self.body, &mut frames),
        };
        (wire::write_header(&header), frames)
    }

    /// The message of a header and its frames.
    ///
    /// # Errors
    /// [`WireError`] for whatever [`Message::encode`] doesn't write.
    pub fn decode(header: &[u8], frames: Vec<Bytes>) -> Result<Self, WireError> {
        let header: Header = wire::read_header(header)?;
        let mut frames = Frames::from(frames);
        let message = Self {
            slice: header.slice,
            epoch: header.epoch,
            from: header.from,
            to: header.to,
            body: unpack(header.body, &mut frames)?,
        };
        wire::end_of_frames(&frames)?;
        Ok(message)
    }
}

/// Moves the data of `body` to `frames`.
fn pack(body: MessageBody, frames: &mut Vec<Bytes>) -> Body {
    match body {
        MessageBody::Hello(x) => Body::Hello(x),
        MessageBody::Newer(x) => Body::Newer(x),
        MessageBody::Raise(x) => Body::Raise(x),
        MessageBody::Promised(x) => Body::Promised(x),
        MessageBody::Pull(x) => Body::Pull(x),
        MessageBody::Pulled(Pulled { after, records }) => {
            Body::Pulled { after, records: wire::pack_records(records, frames) }
        }
        MessageBody::Append(Append { previous, records, committed, stable, sync }) => {
            let records = wire::pack_records(records, frames);
            Body::Append { previous, records, committed, stable, sync }
        }
        MessageBody::Ack(x) => Body::Ack(x),
        MessageBody::Want(x) => Body::Want(x),
        MessageBody::ReadBlocks(x) => Body::ReadBlocks(x),
        MessageBody::BlocksRead(BlocksRead { token, extents }) => {
            Body::BlocksRead { token, extents: wire::pack_extents(extents, frames) }
        }
        MessageBody::JoinBegin(x) => Body::JoinBegin(x),
        MessageBody::JoinReady(x) => Body::JoinReady(x),
        MessageBody::MissingWanted(x) => Body::MissingWanted(x),
        MessageBody::Missing(x) => Body::Missing(x),
        MessageBody::JoinFrom(x) => Body::JoinFrom(x),
        MessageBody::Copy(CopyStep { join, number, extents }) => {
            Body::Copy { join, number, extents: wire::pack_extents(extents, frames) }
        }
        MessageBody::Copied(x) => Body::Copied(x),
        MessageBody::JoinFinish(x) => Body::JoinFinish(x),
        MessageBody::JoinDone(x) => Body::JoinDone(x),
        MessageBody::Failed => Body::Failed,
    }
}

/// Takes the data of `body` from `frames`.
fn unpack(body: Body, frames: &mut Frames) -> Result<MessageBody, WireError> {
    Ok(match body {
        Body::Hello(x) => MessageBody::Hello(x),
        Body::Newer(x) => MessageBody::Newer(x),
        Body::Raise(x) => MessageBody::Raise(x),
        Body::Promised(x) => MessageBody::Promised(x),
        Body::Pull(x) => MessageBody::Pull(x),
        Body::Pulled { after, records } => {
            MessageBody::Pulled(Pulled { after, records: wire::unpack_records(records, frames)? })
        }
        Body::Append { previous, records, committed, stable, sync } => {
            let records = wire::unpack_records(records, frames)?;
            MessageBody::Append(Append { previous, records, committed, stable, sync })
        }
        Body::Ack(x) => MessageBody::Ack(x),
        Body::Want(x) => MessageBody::Want(x),
        Body::ReadBlocks(x) => MessageBody::ReadBlocks(x),
        Body::BlocksRead { token, extents } => {
            let extents = wire::unpack_extents(extents, frames)?;
            MessageBody::BlocksRead(BlocksRead { token, extents })
        }
        Body::JoinBegin(x) => MessageBody::JoinBegin(x),
        Body::JoinReady(x) => MessageBody::JoinReady(x),
        Body::MissingWanted(x) => MessageBody::MissingWanted(x),
        Body::Missing(x) => MessageBody::Missing(x),
        Body::JoinFrom(x) => MessageBody::JoinFrom(x),
        Body::Copy { join, number, extents } => {
            let extents = wire::unpack_extents(extents, frames)?;
            MessageBody::Copy(CopyStep { join, number, extents })
        }
        Body::Copied(x) => MessageBody::Copied(x),
        Body::JoinFinish(x) => MessageBody::JoinFinish(x),
        Body::JoinDone(x) => MessageBody::JoinDone(x),
        Body::Failed => MessageBody::Failed,
    })
}
