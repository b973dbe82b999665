//! Sessions of a shared volume: whom the coordinator has let in, and for how long.
//!
//! ```text
//!   coordinator ── Register(number, as_of, sessions) ──> primary      all that are to be served
//!               <── Registered(at, used) ───────────────              `at` is the next `as_of`
//! ```
//!
//! A primary begins with none, so what another primary was told is worth nothing here; it keeps what
//! it was told for as long as it stays primary without a break, and no longer than the seal of the
//! attachment that told it.
//!
//! A session is its node's: whoever asks in its name from another is refused.
//!
//! Why a session that was left out is never served again, whatever is late or comes twice:
//! - a request is checked when it is *admitted*, which is when it is ordered, and a read once more
//!   when it is answered; nothing that waits has been admitted;
//! - an older registration that comes late has a lower number, and changes nothing;
//! - a registration holds for a lease from a moment of *this* primary that the coordinator was told.
//!   So when the coordinator has let a lease pass since it last heard such a moment and named the
//!   session with it, the session is over here, even if this primary can't be reached.

use std::collections::BTreeMap;
use std::time::Duration;

use mooring_terms::{AttachmentEpoch, NodeId, SessionId, Time};

use super::Primary;
use crate::core::{Core, Turn, mutated};
use crate::request::{Credential, Outcome, Refusal, Registration, RequestId};

/// Sessions in one registration at most.
pub(super) const MOST_SESSIONS: usize = 4096;

/// The sessions that are served.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// Of the newest registration under this attachment; 0 before the first.
    number: u64,
    attachment: AttachmentEpoch,
    registered: BTreeMap<SessionId, Registered>,
}

#[derive(Debug)]
struct Registered {
    node: NodeId,
    until: Time,
    /// Whether it has asked for something since the last registration.
    used: bool,
}

impl Sessions {
    /// Serves those that are named, and nobody else; tells which of those before were there.
    fn register(
        &mut self,
        attachment: AttachmentEpoch,
        registration: &Registration,
        now: Time,
        lease: Duration,
    ) -> Vec<SessionId> {
        if self.attachment != attachment {
            *self = Self { attachment, ..Self::default() };
        }
        if registration.number <= self.number {
            return Vec::new();
        }
        self.number = registration.number;
        let before = std::mem::take(&mut self.registered);
        if let Some(as_of) = registration.as_of {
            // A moment that has not come is none of this primary's.
            let until = as_of.min(now) + lease;
            let named = registration.sessions.iter();
            let one = |&(session, node)| (session, Registered { node, until, used: false });
            self.registered = named.map(one).collect();
        }
        before.into_iter().filter(|(_, one)| one.used).map(|(session, _)| session).collect()
    }

    fn serves(
        &mut self,
        attachment: AttachmentEpoch,
        session: SessionId,
        from: NodeId,
        now: Time,
    ) -> bool {
        let is_due = |one: &&mut Registered| one.node == from && now < one.until;
        let one = self.registered.get_mut(&session).filter(is_due);
        match one.filter(|_| self.attachment == attachment) {
            Some(one) => {
                one.used = true;
                true
            }
            None => false,
        }
    }
}

impl Primary {
    /// Takes the coordinator's word for who is served.
    pub(super) fn register(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        id: RequestId,
        credential: Credential,
        registration: &Registration,
    ) {
        let lease = core.options.lease;
        let used = self.sessions.register(credential.attachment(), registration, turn.now, lease);
        self.reply(turn, id, Outcome::Registered { at: turn.now, used });
    }

    /// Whether what is asked `from` a node in the name of a session may be served now.
    pub(super) fn check_session(
        &mut self,
        core: &Core,
        turn: &Turn<'_>,
        attachment: AttachmentEpoch,
        (session, from): (SessionId, NodeId),
    ) -> Result<(), Refusal> {
        if attachment < self.seal {
            return Err(Refusal::Fenced { by: self.seal });
        }
        let forgotten = mutated!(core, FenceForgotten) && self.sessions.number == 0;
        let sealed = attachment == self.seal;
        let served = self.sessions.serves(attachment, session, from, turn.now) || forgotten;
        if sealed && served { Ok(()) } else { Err(Refusal::NotRegistered) }
    }
}
