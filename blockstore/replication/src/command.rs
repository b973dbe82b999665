//! What a replica wants done: the one way out. The shell runs commands in their order.

use mooring_config::SliceChange;
use mooring_terms::{BlockIndex, BlockRange, Entry, Epoch, NodeId, Sequence, Version};

use crate::event::{Mark, ProposalId, Token};
use crate::message::Message;
use crate::note::Note;
use crate::request::{Reply, RequestId};

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Command {
    /// Append to the replica's log; answered by `Received` with this mark or a later one.
    Append {
        /// The mark of the last entry.
        mark: Mark,
        /// The entries, in order.
        entries: Vec<Entry>,
    },
    /// Make everything appended up to `mark` durable; answered by `Durable` with this mark or a
    /// later one.
    Sync {
        /// The mark.
        mark: Mark,
    },
    /// The engine may forget the addresses of records up to here: every in-sync replica has them
    /// durably, and nobody will pull them.
    Committed {
        /// The last of them.
        sequence: Sequence,
    },
    /// Read blocks, of the log as appended by the commands before; answered by `ReadDone`.
    Read {
        /// Names the answer.
        token: Token,
        /// The blocks.
        range: BlockRange,
    },
    /// Search the map; answered by `QueryDone`.
    Query {
        /// Names the answer.
        token: Token,
        /// What is sought.
        query: Query,
        /// From which block on.
        from: BlockIndex,
        /// Blocks in the answer at most (counted in the ranges found).
        limit_blocks: u64,
    },
    /// Read records after `after`; answered by `RecordsRead`.
    ReadRecords {
        /// Names the answer.
        token: Token,
        /// The sequence before the first one wanted.
        after: Sequence,
        /// Bytes of payload at most, but at least one record.
        limit_bytes: u64,
    },
    /// Set space aside in the pool for this slice; answered by `Reserved`. Entries appended later
    /// are taken out of it: payload and [`Entry::OVERHEAD_BYTES`] for each record, copy or repair
    /// that has a payload; the rest lives on the engine's own reserve.
    Reserve {
        /// Bytes to add to the reservation.
        bytes: u64,
    },
    /// Give a part of the reservation back.
    Release {
        /// Bytes to take out of the reservation.
        bytes: u64,
    },
    /// Send a message to the slice's replica on another node. Dropped where there is no stream.
    Send {
        /// The node.
        to: NodeId,
        /// The message.
        message: Message,
    },
    /// Answer a client's request. Dropped where its stream is gone.
    Reply {
        /// Which request.
        id: RequestId,
        /// The answer.
        reply: Reply,
    },
    /// Propose a change to Raft; answered by `Proposed`.
    Propose {
        /// Names the answer.
        id: ProposalId,
        /// The change.
        change: SliceChange,
    },
    /// Read the slice's configuration from Raft, linearizably; answered by `Config`, or not at all
    /// while there is no quorum.
    QueryConfig,
    /// From now on this node's beacons to `peers` vouch for this slice at `epoch` (to no other node,
    /// and at no other epoch; `None`: to nobody). Must have taken effect before the next command.
    Vouch {
        /// The epoch.
        epoch: Option<Epoch>,
        /// The nodes.
        peers: Vec<NodeId>,
    },
    /// Tell people.
    Note(Note),
}

/// What is sought in a replica's map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// Blocks, holes too, whose version is newer than this.
    NewerThan(Version),
    /// Blocks that are missing.
    Missing,
}
