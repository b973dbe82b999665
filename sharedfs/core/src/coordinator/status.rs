//! What people ask a coordinator: who its clients are, and what each holds and waits for.

use serde::{Deserialize, Serialize};

use super::Coordinator;
use crate::SessionId;
use crate::format::SessionRow;
use crate::leases::LeaseLevel;
use crate::sessions::SessionState;

/// One client, as its coordinator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientStatus {
    /// Its session.
    pub session: SessionId,
    /// Whose it is.
    pub row: SessionRow,
    /// Whether it has still to reclaim what it had under the coordinator before.
    pub reclaiming: bool,
    /// Inodes that it has open.
    pub open: u64,
    /// Leases to read.
    pub reading: u64,
    /// Leases to write: what it changes under them, it may not have sent yet.
    pub writing: u64,
    /// Leases that it was asked to give back, and has not.
    pub recalled: u64,
    /// Ranges that it holds locked.
    pub locked: u64,
    /// Locks that it waits for.
    pub lock_waits: u64,
    /// Requests that wait: for others' leases, for blocks, for disks.
    pub requests: u64,
}

impl Coordinator {
    /// The clients, by session. Looks at every lease and every open file.
    #[must_use]
    pub fn clients(&self) -> Vec<ClientStatus> {
        self.sessions().map(|(session, row)| self.client(session, *row)).collect()
    }

    fn client(&self, session: SessionId, row: SessionRow) -> ClientStatus {
        let (mut reading, mut writing) = (0, 0);
        for level in self.leases.levels_of(session) {
            match level {
                LeaseLevel::None => {}
                LeaseLevel::Read | LeaseLevel::Sole => reading += 1,
                LeaseLevel::Write | LeaseLevel::Exclusive => writing += 1,
            }
        }
        let of = |other: SessionId| other == session;
        let locks = self.locks.all().filter(|(_, _, held)| of(held.owner.session));
        let requests = self.waiting.values().filter(|w| of(w.request().id.session));
        ClientStatus {
            session,
            row,
            reclaiming: self.sessions.state(session) == Some(SessionState::Reclaiming),
            open: self.opens.count(session),
            reading,
            writing,
            recalled: self.leases.recalls_of(session).count() as u64,
            locked: locks.count() as u64,
            lock_waits: self.lock_waits.values().filter(|(by, _)| of(*by)).count() as u64,
            requests: requests.count() as u64,
        }
    }
}
