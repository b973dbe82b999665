//! Clients' sessions: who may ask, until when, and which request a request is.
//!
//! ```text
//!   begin ──> active ──lease over, evicted, given up──> ending ──fenced──> gone
//!               ^                                         ^
//!   restore ──> reclaiming ──all reclaimed──┘             │
//!                    └──────── grace over ────────────────┘
//! ```
//! A session is renewed by everything that is heard of its client. The client counts its lease from
//! the *sending* of what was answered last, the coordinator from hearing it, which is later: so a
//! client that is cut off has stopped serving from its caches when its session ends here.
//!
//! Slots (RFC 8881, 2.10.6): a session has a fixed number; a slot has one request on the way, and the
//! reply to its last one is kept until the next one comes, which acknowledges it. A request that
//! comes again gets that reply and is not done twice, over failovers too: the reply is in the journal
//! with what it answers.
//!
//! Invariant: a session that is ending is never active again, and nothing of it is served.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use mooring_terms::Time;
use serde::{Deserialize, Serialize};

use crate::format::{ReplyRow, SessionRow};
use crate::{RequestNumber, SessionId, SlotIndex};

/// The most slots a session can have.
pub const SLOTS_MAX: u32 = 1024;

/// Where a session is in its life; see the picture above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// After a failover: only what the client reclaims is served.
    Reclaiming,
    /// Served.
    Active,
    /// Not served any more; what it has is given away once it is fenced.
    Ending,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EndReason {
    /// Nothing was heard of the client for a lease, or it didn't reclaim in time, or nobody remembers
    /// such a session.
    Silent,
    /// It was heard, and did not answer a recall in time.
    RecallUnanswered,
    /// It gave up, or somebody evicted it.
    Ended,
}

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotCheck {
    /// It is new: do it.
    Execute,
    /// It was done: this was the reply.
    Replay(Vec<u8>),
    /// It is being done: its reply will come.
    Underway,
    /// It is older than the last one in its slot: nobody waits for it.
    Old,
    /// There is no such slot: a faulty client.
    Misordered,
    /// The session doesn't exist or isn't served.
    NoSession,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    last: RequestNumber,
    reply: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
struct Session {
    row: SessionRow,
    state: SessionState,
    /// When it ends, unless something is heard.
    until: Time,
    /// Why it is ending, if it is.
    reason: EndReason,
    slots: BTreeMap<SlotIndex, Slot>,
}

/// All sessions of a volume.
#[derive(Clone, Debug)]
pub struct Sessions {
    sessions: BTreeMap<SessionId, Session>,
    lease: Duration,
}

impl Sessions {
    /// No sessions; `lease` is how long one lives without being heard.
    #[must_use]
    pub fn new(lease: Duration) -> Self {
        Self { sessions: BTreeMap::new(), lease }
    }

    /// A new client's session.
    pub fn begin(&mut self, now: Time, id: SessionId, row: SessionRow) {
        let (until, slots) = (now + self.lease, BTreeMap::new());
        let (state, reason) = (SessionState::Active, EndReason::Silent);
        self.sessions.insert(id, Session { row, state, until, reason, slots });
    }

    /// A session of the coordinator before: it has until `grace_end` to reclaim.
    pub fn restore(
        &mut self,
        grace_end: Time,
        id: SessionId,
        row: SessionRow,
        replies: Vec<(SlotIndex, ReplyRow)>,
    ) {
        let slot = |row: ReplyRow| Slot { last: row.number, reply: Some(row.reply) };
        let slots = replies.into_iter().map(|(index, row)| (index, slot(row))).collect();
        let (state, reason) = (SessionState::Reclaiming, EndReason::Silent);
        self.sessions.insert(id, Session { row, state, until: grace_end, reason, slots });
    }

    /// A client has reclaimed what it had.
    pub fn reclaimed(&mut self, now: Time, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id)
            && session.state == SessionState::Reclaiming
            && now < session.until
        {
            session.state = SessionState::Active;
            session.until = now + self.lease;
        }
    }

    /// Something was heard of a client; whether its session is still served. Once its time is over it
    /// is, even if nobody has looked yet.
    pub fn heard(&mut self, now: Time, id: SessionId) -> bool {
        let lease = self.lease;
        match self.sessions.get_mut(&id) {
            Some(session) if session.state != SessionState::Ending && now < session.until => {
                if session.state == SessionState::Active {
                    session.until = now + lease;
                }
                true
            }
            _ => false,
        }
    }

    /// What to do with a request. If it is new it is under way from now on, and the slot's last reply
    /// is forgotten.
    pub fn check(&mut self, id: SessionId, index: SlotIndex, number: RequestNumber) -> SlotCheck {
        let Some(session) = self.sessions.get_mut(&id) else { return SlotCheck::NoSession };
        if session.state != SessionState::Active {
            return SlotCheck::NoSession;
        }
        if index.0 >= session.row.slots.min(SLOTS_MAX) {
            return SlotCheck::Misordered;
        }
        let slot = session.slots.entry(index).or_default();
        if number == slot.last && number.0 > 0 {
            return slot.reply.clone().map_or(SlotCheck::Underway, SlotCheck::Replay);
        }
        if number < slot.last {
            return SlotCheck::Old;
        }
        // Replies of failed and of reading requests aren't kept over a failover, so the numbers may
        // have gone on by more than one.
        *slot = Slot { last: number, reply: None };
        SlotCheck::Execute
    }

    /// Keeps a reply for the case that its request comes again.
    pub fn replied(
        &mut self,
        id: SessionId,
        index: SlotIndex,
        number: RequestNumber,
        reply: &[u8],
    ) {
        let slot = self.sessions.get_mut(&id).and_then(|session| session.slots.get_mut(&index));
        if let Some(slot) = slot.filter(|slot| slot.last == number) {
            slot.reply = Some(reply.to_vec());
        }
    }

    /// Sessions whose time is over: they are ending from now on.
    pub fn expire(&mut self, now: Time) -> Vec<SessionId> {
        let over = self
            .sessions
            .iter_mut()
            .filter(|(_, session)| session.state != SessionState::Ending && session.until <= now);
        over.map(|(&id, session)| {
            session.state = SessionState::Ending;
            id
        })
        .collect()
    }

    /// Ends a session now. Whether there was one to end.
    pub fn end(&mut self, id: SessionId, reason: EndReason) -> bool {
        match self.sessions.get_mut(&id) {
            Some(session) if session.state != SessionState::Ending => {
                session.state = SessionState::Ending;
                session.reason = reason;
                true
            }
            _ => false,
        }
    }

    /// Forgets a session that was fenced.
    pub fn remove(&mut self, id: SessionId) {
        self.sessions.remove(&id);
    }

    /// When the next session's time is over.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Time> {
        let serving = self.sessions.values().filter(|s| s.state != SessionState::Ending);
        serving.map(|session| session.until).min()
    }

    /// Why a session is over, if it is.
    #[must_use]
    pub fn reason(&self, id: SessionId) -> EndReason {
        self.sessions.get(&id).map_or(EndReason::Silent, |session| session.reason)
    }

    /// Where a session is in its life.
    #[must_use]
    pub fn state(&self, id: SessionId) -> Option<SessionState> {
        self.sessions.get(&id).map(|session| session.state)
    }

    /// Whose a session is, until it is forgotten.
    #[must_use]
    pub fn row(&self, id: SessionId) -> Option<&SessionRow> {
        self.sessions.get(&id).map(|session| &session.row)
    }

    /// Whether some have still to reclaim.
    #[must_use]
    pub fn in_grace(&self) -> bool {
        self.sessions.values().any(|session| session.state == SessionState::Reclaiming)
    }

    /// All sessions that are not ending.
    pub fn serving(&self) -> impl Iterator<Item = (SessionId, &SessionRow)> {
        let serving = self.sessions.iter().filter(|(_, s)| s.state != SessionState::Ending);
        serving.map(|(&id, session)| (id, &session.row))
    }
}
