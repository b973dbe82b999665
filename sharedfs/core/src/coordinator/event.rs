//! What happens to a coordinator, and what it wants done.

use crate::coordinator::request::{Answer, Request, RequestId};
use crate::format::{Record, SessionRow};
use crate::leases::{LeaseLevel, LeaseNumber, Recall};
use crate::locks::{LockRequest, WaitId};
use crate::{Damage, Ino, QuarantineNumber, SessionId};

/// The number of a record that a coordinator gave out: 1, 2, ... in this coordinator's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordNumber(pub u64);

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
    /// A client is there.
    Renew(SessionId),
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// An inode that it has open.
    Open(Ino),
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
    /// Make all records durable soon: somebody waits for space.
    Sync,
    /// Report damage, as an event that people see.
    Damaged(Damage),
}
