//! Which session has which inode open, and how many times.

use std::collections::BTreeMap;

use crate::{Ino, SessionId};

/// As often as a client that says so can't have opened an inode.
const COUNT_MAX: u64 = u32::MAX as u64;

#[derive(Clone, Debug, Default)]
pub(super) struct Opens {
    by_ino: BTreeMap<Ino, BTreeMap<SessionId, u64>>,
}

impl Opens {
    pub(super) fn open(&mut self, session: SessionId, ino: Ino) {
        let count = self.by_ino.entry(ino).or_default().entry(session).or_default();
        *count = count.saturating_add(1);
    }

    /// The session says how many times it has it open.
    pub(super) fn reclaim(&mut self, session: SessionId, ino: Ino, count: u64) {
        if count > 0 {
            self.by_ino.entry(ino).or_default().insert(session, count.min(COUNT_MAX));
        }
    }

    /// Closes once; whether the session has it open no more.
    pub(super) fn close(&mut self, session: SessionId, ino: Ino) -> bool {
        let Some(sessions) = self.by_ino.get_mut(&ino) else { return false };
        let Some(count) = sessions.get_mut(&session) else { return false };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        sessions.remove(&session);
        if sessions.is_empty() {
            self.by_ino.remove(&ino);
        }
        true
    }

    pub(super) fn is_open_by(&self, session: SessionId, ino: Ino) -> bool {
        self.by_ino.get(&ino).is_some_and(|sessions| sessions.contains_key(&session))
    }

    pub(super) fn is_open(&self, ino: Ino) -> bool {
        self.by_ino.contains_key(&ino)
    }

    /// How many inodes a session has open.
    pub(super) fn count(&self, session: SessionId) -> u64 {
        let open = self.by_ino.values().filter(|sessions| sessions.contains_key(&session));
        open.count() as u64
    }

    /// Closes all that a session has open; those inodes that nobody has open any more.
    pub(super) fn end_session(&mut self, session: SessionId) -> Vec<Ino> {
        let mut closed = Vec::new();
        self.by_ino.retain(|&ino, sessions| {
            let had = sessions.remove(&session).is_some();
            if had && sessions.is_empty() {
                closed.push(ino);
            }
            !sessions.is_empty()
        });
        closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_claims_to_have_opened_it_without_end_can_open_and_close_it() {
        let (session, ino) = (SessionId(1), Ino(2));
        let mut opens = Opens::default();
        opens.reclaim(session, ino, u64::MAX);
        opens.open(session, ino);
        assert!(!opens.close(session, ino));
        assert!(opens.is_open_by(session, ino));
        assert_eq!(opens.end_session(session), [ino]);
    }
}
