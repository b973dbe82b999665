//! What a volume's client wants done.

use mooring_terms::{
    AttachmentEpoch, BlockIndex, Data, ErrorKind, NodeId, SessionId, SliceId, SliceIndex, Version,
};

use super::event::IoId;
use crate::request::RequestMessage;

/// What is to be done; in order.
#[derive(Clone, Debug)]
pub enum ClientCommand {
    /// Keep a stream to `node` up: answered by `Connected` or `Disconnected`, the latter at once if
    /// it can't be made. Said again after each `Disconnected` while the node is needed.
    Connect {
        /// The node.
        node: NodeId,
    },
    /// Send a request on the stream to `node`.
    Send {
        /// The node.
        node: NodeId,
        /// The request.
        message: RequestMessage,
    },
    /// Read a slice's configuration from Raft; answered by `Config`, or not at all.
    QueryConfig {
        /// The slice.
        slice: SliceIndex,
    },
    /// An I/O is done.
    Done {
        /// Which.
        id: IoId,
        /// What came of it: for a read or a look at versions its parts in order; for a write or
        /// discard on a shared volume what it was written as; for all else none.
        result: Result<Vec<IoPart>, IoError>,
    },
    /// Every slice has sealed the attachment: the device may appear. For a coordinator: slice 0 has,
    /// so that the tree can be opened; the others follow.
    Sealed,
    /// A session's: the primary of the slice doesn't know it. The coordinator is to register it there;
    /// answered by [`ClientEvent::Admitted`](super::ClientEvent::Admitted), and said again until it is.
    Knock {
        /// The slice.
        slice: SliceIndex,
    },
    /// A coordinator's: the primary of the slice serves the session from now on.
    Admitted {
        /// The slice.
        slice: SliceIndex,
        /// The session.
        session: SessionId,
    },
    /// A coordinator's: nothing of the session will be served in any slice any more.
    SessionFenced {
        /// The session.
        session: SessionId,
    },
    /// A newer attachment has begun. Everything has failed and will fail; final.
    Fenced {
        /// The newer attachment.
        by: AttachmentEpoch,
    },
    /// Everything fails from now on: acknowledged writes are gone for good, and what is known of the
    /// volume's blocks is no longer so.
    TailLost,
}

/// A part of what an I/O gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IoPart {
    /// Blocks with data, still with their checksums: the device verifies them.
    Data(Data),
    /// This many blocks of zeros.
    Zeros(u64),
    /// This many blocks have this version in their slice.
    Versions(u64, Version),
    /// Written or discarded in this slice with this version.
    Written(SliceIndex, Version),
}

/// Why an I/O failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IoError {
    /// A newer attachment has begun.
    #[error("fenced by attachment {by}")]
    Fenced {
        /// The newer attachment.
        by: AttachmentEpoch,
    },
    /// The attachment was ended by force.
    #[error("the attachment was ended")]
    Closed,
    /// A pool is full.
    #[error("no space in the pool of node {node}")]
    NoSpace {
        /// Its node.
        node: NodeId,
    },
    /// A block is corrupt on the node named, and no other in-sync replica has a good copy.
    #[error(
        "block {block} of slice {slice} is corrupt on node {node}, and no good copy is in sync"
    )]
    Corrupt {
        /// The slice.
        slice: SliceId,
        /// The block in it.
        block: BlockIndex,
        /// The node.
        node: NodeId,
    },
    /// The range is empty or not inside the volume.
    #[error("the range is not inside the volume")]
    Invalid,
    /// The volume's `io_timeout` ran out.
    #[error("no answer within the volume's io_timeout")]
    TimedOut,
    /// All replicas lost writes that had been acknowledged and not flushed, and they are not at hand
    /// to be sent again. A device gives errors from now on; on a shared volume it is the error of
    /// the next flush, and that of no later one.
    #[error("acknowledged writes were lost with all replicas")]
    TailLost,
}

impl IoError {
    /// What the caller must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Fenced { .. } => ErrorKind::Fenced,
            Self::Closed | Self::TailLost => ErrorKind::Fatal,
            Self::NoSpace { .. } => ErrorKind::NoSpace,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Invalid => ErrorKind::Invalid,
            Self::TimedOut => ErrorKind::Unavailable,
        }
    }
}
