//! What happens to a volume's client.

use std::time::Duration;

use mooring_config::SliceConfig;
use mooring_terms::{AttachmentEpoch, Data, NodeId, SessionId, SliceIndex, Time};

use crate::request::{ReplyMessage, StreamId};

/// A block's place in its *volume*, in units of `BLOCK_SIZE` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct VolumeBlock(pub u64);

/// Blocks of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeRange {
    /// The first.
    pub first: VolumeBlock,
    /// How many.
    pub count: u64,
}

/// Names one I/O of the device until it is done. Drawn by the shell, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IoId(pub u64);

/// What the device asks of its volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Io {
    /// Read blocks.
    Read(VolumeRange),
    /// Write blocks.
    Write {
        /// Where the data begins.
        first: VolumeBlock,
        /// The blocks.
        data: Data,
        /// Done only when durable.
        fua: bool,
    },
    /// Discard or write zeroes.
    Discard {
        /// The blocks.
        range: VolumeRange,
        /// Done only when durable.
        fua: bool,
    },
    /// Make everything done before durable.
    Flush,
    /// Make everything durable that was done before in these slices, by whomever.
    FlushSlices(Vec<SliceIndex>),
    /// Look at the versions of blocks.
    Versions(VolumeRange),
}

/// What happened.
#[derive(Clone, Debug)]
pub enum ClientEvent {
    /// The configuration of a slice, from Raft. An older epoch than the one known is ignored.
    Config {
        /// The slice.
        slice: SliceIndex,
        /// Its configuration.
        config: SliceConfig,
    },
    /// The device asks. I/Os that are in flight together have no order among each other but that
    /// overlapping ones are done in the order in which they were submitted.
    Submit {
        /// Names it.
        id: IoId,
        /// What.
        io: Io,
    },
    /// A stream to `node` is up (at once, for this node itself). Its handshake told the node the
    /// client and this stream number; numbers go up over the client's life, whatever the node.
    Connected {
        /// The node.
        node: NodeId,
        /// The stream's number.
        stream: StreamId,
    },
    /// The stream to `node` is gone, or could not be made.
    Disconnected {
        /// The node.
        node: NodeId,
    },
    /// A reply arrived.
    Reply {
        /// From which node.
        from: NodeId,
        /// The reply.
        message: ReplyMessage,
    },
    /// The volume has grown.
    Resized {
        /// Its blocks now.
        blocks: u64,
    },
    /// A session's: another coordinator serves the volume, or the same under a newer attachment.
    Coordinator {
        /// Its attachment.
        attachment: AttachmentEpoch,
    },
    /// A session's: it is registered in the slice.
    Admitted {
        /// The slice.
        slice: SliceIndex,
    },
    /// A coordinator's: the session may be let in from now on. Never one that was fenced.
    Register {
        /// The session.
        session: SessionId,
        /// Where its client is: asked from anywhere else, it is not served.
        node: NodeId,
    },
    /// A coordinator's: it may name sessions to slices until this moment, since slice 0 can't have
    /// been taken from it before. Comes again and again while there are sessions.
    Leased {
        /// The moment.
        until: Time,
    },
    /// A coordinator's: the session is to be served in the slice; said when it first asks for
    /// something there. Answered by [`ClientCommand::Admitted`](super::ClientCommand::Admitted),
    /// unless the session was fenced.
    Admit {
        /// The slice.
        slice: SliceIndex,
        /// The session.
        session: SessionId,
    },
    /// A coordinator's: the session is never to be served again. Answered by
    /// [`ClientCommand::SessionFenced`](super::ClientCommand::SessionFenced).
    Fence {
        /// The session.
        session: SessionId,
    },
    /// How long I/O is held has been set anew; `None` is for ever. It holds for what waits already,
    /// too, counted from when that was submitted.
    IoTimeout {
        /// How long.
        timeout: Option<Duration>,
    },
    /// Give up: everything fails from now on (detach by force, end of the attachment).
    Close,
    /// The deadline has come.
    Tick,
}
