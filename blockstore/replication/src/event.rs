//! What happens to a replica: the one way in.

use mooring_config::{ChangeRefused, ClusterVersion, SliceConfig};
use mooring_terms::{BlockIndex, BlockRange, Extent, NodeId, Record, Version};

use crate::message::Message;
use crate::request::{ClientId, Request, RequestId, StreamId};

/// A position in what was handed to the engine: completions are cumulative. The core counts up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mark(pub u64);

/// Names a read or query of the engine until its answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Token(pub u64);

/// Names a proposed change until its outcome is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ProposalId(pub u64);

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The slice's configuration, applied from Raft or read from it. An older epoch is ignored.
    Config(SliceConfig),
    /// What nodes may write to each other from now on. Before the first of these: the oldest version.
    Version(ClusterVersion),
    /// What became of a proposed change.
    Proposed {
        /// Which.
        id: ProposalId,
        /// Its outcome.
        outcome: ProposalOutcome,
    },
    /// A client asks, in the order of its stream.
    Request {
        /// From which node, as its stream vouches for.
        from: NodeId,
        /// Who, and the number.
        id: RequestId,
        /// What.
        request: Request,
    },
    /// A client has a new stream to this node. Comes before the first request on it.
    ClientStream {
        /// The client.
        client: ClientId,
        /// Its new stream.
        stream: StreamId,
    },
    /// My outgoing stream to `peer` is new: what I sent before may be lost, from here on it is in
    /// order.
    Connected {
        /// The other node.
        peer: NodeId,
    },
    /// My outgoing stream to `peer` is gone.
    Disconnected {
        /// The other node.
        peer: NodeId,
    },
    /// A message of another replica of the slice.
    Message {
        /// The node it came from, as authenticated.
        from: NodeId,
        /// The message.
        message: Message,
    },
    /// Everything appended up to `mark` is with the kernel.
    Received {
        /// The last of them.
        mark: Mark,
    },
    /// Everything appended up to `mark` is on media.
    Durable {
        /// The last of them.
        mark: Mark,
    },
    /// The pool has failed (an I/O error on append, a failed sync, or it was taken away). Nothing
    /// more is asked of it, and nothing outstanding is answered.
    StoreFailed,
    /// Answer to [`crate::Command::Read`].
    ReadDone {
        /// Which.
        token: Token,
        /// Extents in order that cover the range.
        result: Result<Vec<Extent>, ReadFault>,
    },
    /// Answer to [`crate::Command::Query`].
    QueryDone {
        /// Which.
        token: Token,
        /// What was found.
        result: Result<Found, ReadFault>,
    },
    /// Answer to [`crate::Command::ReadRecords`]: records in order from the one asked for on;
    /// empty if the engine no longer has it.
    RecordsRead {
        /// Which.
        token: Token,
        /// The records.
        records: Vec<Record>,
    },
    /// Answer to [`crate::Command::Reserve`]: all that was asked for, or nothing if the pool has
    /// not as much to spare.
    Reserved {
        /// Bytes added to the slice's reservation: those asked for, or 0.
        bytes: u64,
    },
    /// Hand the slice's primary over to `to`, as planned (an operator, placement or attach asks).
    HandOver {
        /// The node of an in-sync replica.
        to: NodeId,
    },
    /// Give up being primary, if another can: the pool hangs, or the node is going away. The
    /// replica keeps out of the in-sync set until it is brought level again.
    Resign,
    /// The deadline has come, or beacons say that a node fell silent or is back.
    Tick,
}

/// What became of a proposed change.
#[derive(Clone, Debug)]
pub enum ProposalOutcome {
    /// Raft has it; this is the configuration now.
    Accepted(SliceConfig),
    /// Raft refused it; this is the configuration now.
    Refused(ChangeRefused, SliceConfig),
    /// It may or may not have been, or still be, accepted.
    Unknown,
}

/// Why the engine could not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFault {
    /// A block failed its checksum.
    Corrupt {
        /// The first such block.
        block: BlockIndex,
        /// The version that the map has for it.
        version: Version,
    },
    /// The pool doesn't answer; [`Event::StoreFailed`] follows or went before.
    Failed,
}

/// What a query found.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Found {
    /// Ranges in order, each wholly of blocks that match.
    pub ranges: Vec<BlockRange>,
    /// Where to go on; `None` at the end of the slice.
    pub next: Option<BlockIndex>,
}
