//! What happens to a coordinator, and what it wants done.

use std::collections::BTreeSet;

use mooring_terms::{SliceIndex, Version};
use serde::{Deserialize, Serialize};

use crate::coordinator::request::{Answer, Request, RequestId};
use crate::format::{Record, SessionRow};
use crate::leases::{LeaseLevel, LeaseNumber, Recall};
use crate::locks::{LockRequest, WaitId};
use crate::sessions::EndReason;
use crate::{BlockAddress, Damage, Ino, QuarantineNumber, Result, SessionId};

/// The number of a record that a coordinator gave out: 1, 2, ... in this coordinator's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordNumber(pub u64);

/// The number of something that a coordinator wants done with blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IoNumber(pub u64);

/// A client's number for one asking; the answer carries it, so that the client knows when it asked.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct RenewNumber(pub u64);

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A mount asks for a session; `token` comes back with it.
    Begin {
        /// Names this asking.
        token: u64,
        /// Who asks.
        row: SessionRow,
    },
    /// A client asks for something.
    Request(Request),
    /// A client is there, and asks whether its session is.
    Renew(SessionId, RenewNumber),
    /// A client has come on a new stream: what was sent on an older one may be lost, and nothing more
    /// of what it sent there will be given to this coordinator.
    Connected(SessionId),
    /// A client has written back and invalidated what was recalled, or gives a lease back: it keeps
    /// `kept`. Commits of what it wrote back came before.
    Answered {
        /// Who.
        session: SessionId,
        /// Of what.
        ino: Ino,
        /// The number of what was recalled.
        number: LeaseNumber,
        /// What is left.
        kept: LeaseLevel,
    },
    /// A client names no blocks that waited under this number when it was asked.
    LayoutsReturned {
        /// Who.
        session: SessionId,
        /// Of which freed blocks.
        number: QuarantineNumber,
    },
    /// All records up to this one are received by all in-sync replicas.
    Received(RecordNumber),
    /// All records up to this one are durable.
    Durable(RecordNumber),
    /// The slices will not take anything from this session any more.
    Fenced(SessionId),
    /// The freed blocks under this number were discarded.
    Discarded(QuarantineNumber),
    /// What these blocks hold, in the order in which they were asked for; or why one can't be read.
    BlocksRead(IoNumber, Result<Vec<Vec<u8>>>),
    /// The blocks are written, everywhere, with these versions, in order; or one can't be.
    BlocksWritten(IoNumber, Result<Vec<Version>>),
    /// What the slices had taken when this was asked for is on media.
    Flushed(IoNumber),
    /// A mount gives its session up, or somebody evicts it.
    End(SessionId),
    /// After a failover: a client says what it holds.
    Reclaim {
        /// Who.
        session: SessionId,
        /// What.
        claim: Claim,
    },
    /// [`Command::Continue`] has come around.
    Continue,
    /// Time has passed.
    Tick,
}

/// What a client reclaims after a failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Claim {
    /// An inode that it has open, and how many times.
    Open(Ino, u64),
    /// A lease.
    Lease(Ino, LeaseLevel),
    /// A lock that it holds.
    Lock(LockRequest),
    /// That was all.
    Done,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Journal this record, behind those before it. It is in the tree already.
    Journal(RecordNumber, Record),
    /// Answer a request. Only what is in the journal everywhere is ever told.
    Answer(RequestId, Answer),
    /// The request is none of a session that is served.
    NoSession(RequestId),
    /// The client is to reclaim what it has before it asks for anything.
    ReclaimFirst(RequestId),
    /// Tell a mount its session.
    Begun(u64, SessionId),
    /// Tell a client that a lock it waited for is held.
    LockHeld(SessionId, WaitId),
    /// Ask a client to give something back.
    Recall(Recall),
    /// Ask a client to return layouts that name these freed blocks.
    ReturnLayouts(SessionId, QuarantineNumber),
    /// The session is there, as of when this number was asked.
    Renewed(SessionId, RenewNumber),
    /// The client is to reclaim what it has.
    Reclaim(SessionId),
    /// Tell the client that its session is over: it will be fenced, and nothing that it has cached or
    /// not yet written back is good any more.
    Ended(SessionId, EndReason),
    /// Read these blocks; [`Event::BlocksRead`] answers.
    ReadBlocks(IoNumber, Vec<BlockAddress>),
    /// Write these blocks, whole; [`Event::BlocksWritten`] answers.
    WriteBlocks(IoNumber, Vec<(BlockAddress, Vec<u8>)>),
    /// Flush these slices, or all; [`Event::Flushed`] answers.
    FlushSlices(IoNumber, Option<BTreeSet<SliceIndex>>),
    /// Let the slices take writes of this session.
    Register(SessionId),
    /// Make sure that the slices take nothing more of this session; [`Event::Fenced`] answers.
    Fence(SessionId),
    /// Discard the blocks that wait under this number; [`Event::Discarded`] answers.
    Discard(QuarantineNumber),
    /// Tell a client what became of its claim.
    Claimed(SessionId, Claim, Option<LeaseNumber>),
    /// There is more to do: come back with [`Event::Continue`], after what else has happened.
    Continue,
    /// Make all records durable soon: somebody waits for it.
    Sync,
    /// Report damage, as an event that people see.
    Damaged(Damage),
}
