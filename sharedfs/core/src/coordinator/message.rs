//! What clients and the coordinator say to each other.
//!
//! History of the version, [`VERSION`]:
//! - 1: the first.
//! - 2: batches of what was done under exclusive leases; directories' attributes with answers.
//!
//! All messages of one client go over one stream, in order. A client that opens a new stream says so
//! with its first message ([`ToCoordinator::Hello`]); from then on nothing that comes over the older
//! one is given to anybody, on both sides: an answer that was overtaken by a recall would be believed.

use serde::{Deserialize, Serialize};

use super::event::{Claim, Command, Event, RenewNumber};
use super::request::{Answer, Request, RequestId};
use crate::format::SessionRow;
use crate::leases::{LeaseLevel, LeaseNumber, Recall};
use crate::locks::WaitId;
use crate::sessions::EndReason;
use crate::{Ino, QuarantineNumber, SessionId};

/// The version of these messages.
pub const VERSION: u32 = 2;

/// From a client. The session that a message names must be the one of the stream it came on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToCoordinator {
    /// The first on a new stream: who it is.
    Hello(SessionId),
    /// Asks for a session; the number comes back.
    Begin(u64, SessionRow),
    /// Asks for something.
    Request(Request),
    /// Asks whether the session is there.
    Renew(SessionId, RenewNumber),
    /// Has written back and invalidated, or gives back; keeps this.
    Answered(SessionId, Ino, LeaseNumber, LeaseLevel),
    /// Names no blocks any more that were freed under this number.
    LayoutsReturned(SessionId, QuarantineNumber),
    /// Reclaims after a failover.
    Reclaim(SessionId, Claim),
    /// Gives the session up.
    End(SessionId),
}

/// To a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToClient {
    /// The session that was asked for under this number.
    Begun(u64, SessionId),
    /// Answers a request.
    Answer(RequestId, Answer),
    /// The request is none of a session that is served.
    NoSession(RequestId),
    /// The client is to reclaim what it has before it asks for anything.
    Reclaim,
    /// What became of a claim.
    Claimed(Claim, Option<LeaseNumber>),
    /// The session was there when this number was asked.
    Renewed(RenewNumber),
    /// Something is to be given back.
    Recall(Recall),
    /// Blocks were freed that may still be named.
    ReturnLayouts(QuarantineNumber),
    /// A lock that was waited for is held.
    LockHeld(WaitId),
    /// The session is over.
    Ended(EndReason),
}

impl From<ToCoordinator> for Event {
    fn from(message: ToCoordinator) -> Self {
        match message {
            ToCoordinator::Hello(session) => Self::Connected(session),
            ToCoordinator::Begin(token, row) => Self::Begin { token, row },
            ToCoordinator::Request(request) => Self::Request(request),
            ToCoordinator::Renew(session, number) => Self::Renew(session, number),
            ToCoordinator::Answered(session, ino, number, kept) => {
                Self::Answered { session, ino, number, kept }
            }
            ToCoordinator::LayoutsReturned(session, number) => {
                Self::LayoutsReturned { session, number }
            }
            ToCoordinator::Reclaim(session, claim) => Self::Reclaim { session, claim },
            ToCoordinator::End(session) => Self::End(session),
        }
    }
}

impl ToClient {
    /// The message that a command is, and to whom. `Begun` goes where its number came from: nobody has
    /// that session yet. `None`: the command is no message.
    #[must_use]
    pub fn of(command: &Command) -> Option<(SessionId, Self)> {
        Some(match command {
            Command::Begun(token, session) => (*session, Self::Begun(*token, *session)),
            Command::Answer(id, answer) => (id.session, Self::Answer(*id, answer.clone())),
            Command::NoSession(id) => (id.session, Self::NoSession(*id)),
            Command::ReclaimFirst(id) => (id.session, Self::Reclaim),
            Command::Reclaim(session) => (*session, Self::Reclaim),
            Command::Claimed(session, claim, number) => (*session, Self::Claimed(*claim, *number)),
            Command::Renewed(session, number) => (*session, Self::Renewed(*number)),
            Command::Recall(recall) => (recall.session, Self::Recall(*recall)),
            Command::ReturnLayouts(session, number) => (*session, Self::ReturnLayouts(*number)),
            Command::LockHeld(session, wait) => (*session, Self::LockHeld(*wait)),
            Command::Ended(session, reason) => (*session, Self::Ended(*reason)),
            _ => return None,
        })
    }
}
