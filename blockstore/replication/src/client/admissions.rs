//! The sessions that a coordinator has let into one slice, and when each is surely out of it.
//!
//! ```text
//!   wanted ──named in a registration──> named ──one without it answered, or `lapse` over──> out
//! ```
//!
//! A primary serves a session for a lease from its own moment `at` that the registration names; the
//! coordinator heard that moment later than it was. So `lapse` (more than the lease) after hearing
//! the newest moment with which a session was named, the session is over in the slice, whatever
//! became of messages and primaries.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mooring_terms::{SessionId, Time};

use super::coordinator::Sessions;
use crate::request::Registration;

/// A coordinator's sessions in one slice.
#[derive(Debug, Default)]
pub(super) struct Admissions {
    /// Who is to be served here, and when it was last known to ask for something.
    wanted: BTreeMap<SessionId, Time>,
    /// Who wants to be told that it is served.
    asking: BTreeSet<SessionId>,
    /// Who may be served: when the moment was heard that it was named with.
    named: BTreeMap<SessionId, Time>,
    /// The primary's newest moment in this epoch, and when it was heard.
    heard: Option<(Time, Time)>,
    /// Whom the registration on its way names.
    on_the_way: BTreeSet<SessionId>,
}

impl Admissions {
    /// The session is to be served here.
    pub(super) fn admit(&mut self, now: Time, session: SessionId) {
        self.wanted.insert(session, now);
        self.asking.insert(session);
    }

    /// The session is not to be served here; tells whether it may be.
    pub(super) fn expel(&mut self, session: SessionId) -> bool {
        self.wanted.remove(&session);
        self.asking.remove(&session);
        self.named.contains_key(&session)
    }

    /// Whether anybody is to be served.
    pub(super) fn is_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Whether the primary is to be told something: someone is to be named for the first time (which
    /// only a coordinator may that `is_leased`), or to be left out.
    pub(super) fn is_pending(&self, is_leased: bool) -> bool {
        (is_leased && !self.asking.is_empty())
            || self.named.keys().any(|one| !self.wanted.contains_key(one))
    }

    /// Whether the session may still be served here.
    pub(super) fn may_serve(&self, now: Time, session: SessionId, lapse: Duration) -> bool {
        self.named.get(&session).is_some_and(|heard| now < *heard + lapse)
    }

    /// When the session is over here at the latest.
    pub(super) fn over_at(&self, session: SessionId, lapse: Duration) -> Option<Time> {
        self.named.get(&session).map(|heard| *heard + lapse)
    }

    /// Another epoch: moments known are of another primary, perhaps; it knows nobody.
    pub(super) fn next_epoch(&mut self) {
        self.heard = None;
        self.asking.extend(self.wanted.keys());
    }

    /// What is sent now. Names nobody unless the coordinator is known to be the volume's.
    pub(super) fn registration(
        &mut self,
        number: u64,
        is_leased: bool,
        live: &Sessions,
    ) -> Registration {
        self.on_the_way.clear();
        let Some((at, heard)) = self.heard.filter(|_| is_leased) else {
            return Registration { number, as_of: None, sessions: Vec::new() };
        };
        for &session in self.wanted.keys() {
            self.on_the_way.insert(session);
            self.named.insert(session, heard);
        }
        let named = self.on_the_way.iter();
        let sessions = named.filter_map(|&one| Some((one, live.node_of(one)?))).collect();
        Registration { number, as_of: Some(at), sessions }
    }

    /// The registration sent last is answered; gives who is served and wanted to know it.
    pub(super) fn answered(
        &mut self,
        now: Time,
        at: Time,
        used: &[SessionId],
        idle: Duration,
    ) -> Vec<SessionId> {
        self.heard = Some((at, now));
        for session in used {
            if let Some(last) = self.wanted.get_mut(session) {
                *last = now;
            }
        }
        let served = std::mem::take(&mut self.on_the_way);
        self.named.retain(|session, _| served.contains(session));
        let asking = &self.asking;
        self.wanted.retain(|one, last| now < *last + idle || asking.contains(one));
        let told: Vec<SessionId> =
            served.iter().filter(|one| self.asking.remove(one)).copied().collect();
        told
    }
}
