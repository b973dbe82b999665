//! What clients ask of a primary, and what it answers. Wire messages of the boundary between client
//! and primary.
//!
//! Version history
//! - 1: read, write, discard, flush, seal, versions, register (for shared volumes: nobody says that
//!   below cluster version 2).
//!
//! A request names the epoch that its client knows. A primary takes it only if it has been primary
//! without a break since that epoch: so nothing that a client sent long ago, to an earlier primary,
//! can be taken after the client went on elsewhere.

mod codec;

use mooring_terms::{
    AttachmentEpoch, BlockIndex, BlockRange, Data, Epoch, Extent, NodeId, Sequence, SessionId,
    SliceId, Time, Version,
};
use serde::{Deserialize, Serialize};

/// One client: one attachment's owner in one process. Drawn at random by the shell when it begins.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct ClientId(pub u64);

/// One connection of a client to a slice's primary; a higher one supersedes a lower one.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct StreamId(pub u64);

/// Names one request of one client. A request that is sent again keeps its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// Who asks.
    pub client: ClientId,
    /// On which stream.
    pub stream: StreamId,
    /// The client's number for it.
    pub number: u64,
}

/// What gives a client the right to do I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credential {
    /// The attachment of a private volume, or of a shared volume's coordinator; valid from its seal
    /// on, until a higher one's.
    Attachment(AttachmentEpoch),
    /// A session that the coordinator with this attachment has registered with this primary; valid
    /// until the coordinator leaves it out of a registration, or has not renewed it for a lease.
    Session {
        /// The coordinator's attachment.
        attachment: AttachmentEpoch,
        /// The session.
        session: SessionId,
    },
}

impl Credential {
    /// The attachment under which it does I/O.
    #[must_use]
    pub fn attachment(&self) -> AttachmentEpoch {
        match self {
            Self::Attachment(attachment) | Self::Session { attachment, .. } => *attachment,
        }
    }

    /// The session, if it is one.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Self::Attachment(_) => None,
            Self::Session { session, .. } => Some(*session),
        }
    }
}

/// All sessions that a primary is to serve from now on, and for how long: said by the coordinator,
/// again and again. A session that is left out is fenced in this slice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Grows with each registration of one attachment. One that isn't newer than another that came
    /// before it changes nothing: it came late.
    pub number: u64,
    /// The primary's own moment in its newest answer that the coordinator has: the sessions are
    /// served for a lease from *then*, however late this arrives. `None`: the coordinator knows no
    /// moment of this primary yet, and nobody is served.
    pub as_of: Option<Time>,
    /// The sessions, each with the node that its client is on: asked from anywhere else, it is nobody's.
    pub sessions: Vec<(SessionId, NodeId)>,
}

/// A request, as the primary gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The newest epoch of the slice that the client knows.
    pub epoch: Epoch,
    /// Its right to ask.
    pub credential: Credential,
    /// What it asks.
    pub operation: Operation,
}

/// What can be asked of a slice. Ranges are in blocks of the slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read blocks.
    Read(BlockRange),
    /// Write blocks; `fua` answers only when they are durable on every in-sync replica.
    Write {
        /// Where the data begins.
        first: BlockIndex,
        /// The blocks.
        data: Data,
        /// Force unit access.
        fua: bool,
    },
    /// Make blocks read as zeros and free their space (discard and write-zeroes are one).
    Discard {
        /// The blocks.
        range: BlockRange,
        /// Force unit access.
        fua: bool,
    },
    /// Make every write that was answered before durable on every in-sync replica.
    Flush,
    /// Begin the attachment of the credential and end all older ones. Answered when durable.
    Seal,
    /// Read the versions of blocks, without their data.
    Versions(BlockRange),
    /// Serve these sessions and no others. Answered when whatever the others had admitted is ordered
    /// or dropped, and nothing of theirs will be served. Only for a coordinator.
    Register(Registration),
}

impl Operation {
    /// Whether it changes nothing that replicas keep: it is done beside writes that wait for room.
    #[must_use]
    pub fn writes_nothing(&self) -> bool {
        matches!(self, Self::Read(_) | Self::Versions(_) | Self::Register(_))
    }
}

/// The primary's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The primary's epoch when it answered.
    pub epoch: Epoch,
    /// Every record up to here is durable on every in-sync replica: what a client must keep of its
    /// acknowledged writes lies above.
    pub durable: Sequence,
    /// The answer itself.
    pub outcome: Outcome,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The blocks read, in order and covering the range; never missing.
    Read(Vec<Extent>),
    /// Written or discarded, as this record: the blocks have this version.
    Written(Version),
    /// All earlier acknowledged writes are durable.
    Flushed,
    /// The attachment has begun in this slice.
    Sealed,
    /// Not done.
    Refused(Refusal),
    /// The versions of the blocks asked for: in order and covering the range. What was never written
    /// has `Version::ZERO`.
    Versions(Vec<(BlockRange, Version)>),
    /// The sessions that are served are those of the newest registration.
    Registered {
        /// The primary's moment now, for the next registration.
        at: Time,
        /// Those of the sessions registered before that have asked for something since.
        used: Vec<SessionId>,
    },
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Not primary, or no longer without a break since the request's epoch. Send it again, to the
    /// primary named and with the epoch named; nothing of it was done that an answer could tell.
    #[error("the slice has moved to epoch {epoch}, primary {primary:?}")]
    Moved {
        /// The epoch known here.
        epoch: Epoch,
        /// Its primary, if known.
        primary: Option<NodeId>,
        /// The newest epoch known here that began with its tail lost. A client whose newest
        /// acknowledged and not durable write is of an older epoch sends what it kept again, first.
        tail_lost: Epoch,
    },
    /// A newer attachment has begun. Final.
    #[error("fenced by attachment {by}")]
    Fenced {
        /// The attachment sealed last.
        by: AttachmentEpoch,
    },
    /// The attachment has not been sealed in this slice.
    #[error("the attachment has not begun in this slice")]
    NotSealed,
    /// A pool is full.
    #[error("no space in the pool of node {node}")]
    NoSpace {
        /// The node with the full pool.
        node: NodeId,
    },
    /// A block is corrupt or missing here and on every other in-sync replica.
    #[error(
        "block {block} of slice {slice} is corrupt on node {node}, and no good copy is in sync"
    )]
    Corrupt {
        /// The slice.
        slice: SliceId,
        /// The block.
        block: BlockIndex,
        /// The primary's node.
        node: NodeId,
    },
    /// The data didn't match its checksums when it arrived. Send it again.
    #[error("the data of block {block} was damaged on the way")]
    Damaged {
        /// The first block that didn't match.
        block: BlockIndex,
    },
    /// Too much is waiting. Send it again, later.
    #[error("too many requests are waiting")]
    Busy,
    /// The request makes no sense (an empty range, say).
    #[error("the request is malformed")]
    Invalid,
    /// The coordinator has not registered the session with this primary, or not renewed it in time.
    /// Ask the coordinator, and send it again.
    #[error("the session is not registered with this primary")]
    NotRegistered,
}

/// A request on its way to a primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestMessage {
    /// The slice.
    pub slice: SliceId,
    /// Who asks, and the number.
    pub id: RequestId,
    /// What is asked.
    pub request: Request,
}

/// A reply on its way to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyMessage {
    /// The slice.
    pub slice: SliceId,
    /// Which request it answers.
    pub id: RequestId,
    /// The answer.
    pub reply: Reply,
}
