//! What goes on in steps beside the requests: ending sessions, freeing orphans, giving blocks back.

use std::collections::BTreeSet;

use super::event::Command;
use super::{Coordinator, Turn};
use crate::ops::{Progress, STEP_ROWS};
use crate::sessions::SessionState;
use crate::transaction::Outcome;
use crate::tree::TreeStore;
use crate::{Context, FsError, Ino, QuarantineNumber, Result, SessionId, Transaction};

/// Something to be done in steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Work {
    /// Give discarded blocks back.
    Release(QuarantineNumber),
    /// End a session that is fenced.
    EndSession(SessionId),
    /// Free an inode, if it is an orphan that nobody has open.
    Reap(Ino),
    /// After a failover: look for orphans, from this one on.
    Orphans(Ino),
    /// After a failover: free what the coordinator before had reserved for itself.
    ReservationsOfNobody,
}

impl Coordinator {
    /// A session can't write any more: what it held is given away.
    pub(super) fn fenced<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        session: SessionId,
    ) -> Result<()> {
        if self.sessions.state(session) != Some(SessionState::Ending) {
            return Ok(());
        }
        // In the journal before anybody is told of what is given away now: a coordinator that takes
        // over must not let the session reclaim it.
        let mut transaction = Transaction::new(turn.store, Context { now: turn.date });
        match transaction.mark_session_over(session) {
            Ok(()) => {
                let outcome = transaction.finish();
                self.record(turn, outcome.record)?;
            }
            // Nobody can take it for one that may reclaim.
            Err(FsError::Damaged(damage)) => turn.out.push(Command::Damaged(damage)),
            Err(error) => return Err(error),
        }
        self.leases.end_session(session);
        let mut held = Vec::new();
        self.locks.end_session(session, &mut held);
        self.tell_locks(turn, held);
        self.forget_lock_waits();
        for ino in self.opens.end_session(session) {
            self.work.insert(Work::Reap(ino));
        }
        self.layouts.retain(|_, holders| {
            holders.remove(&session);
            !holders.is_empty()
        });
        self.quarantine.end_session(session, turn.out);
        for sessions in self.lost.values_mut() {
            sessions.remove(&session);
        }
        self.sessions.remove(session);
        self.work.insert(Work::EndSession(session));
        turn.out.push(Command::Continue);
        self.retry(turn)
    }

    /// Does one step of the first work there is, and lets requests go on that waited for it.
    pub(super) fn work<S: TreeStore>(&mut self, turn: &mut Turn<'_, S>) -> Result<()> {
        let in_grace = self.sessions.in_grace();
        // Whose orphans and reservations these are is known after the grace period.
        let ready = |work: &Work| !in_grace || matches!(work, Work::Release(_));
        if let Some(work) = self.work.iter().copied().find(ready) {
            let (done, outcome) = match self.step(turn, work) {
                // It is left as it is, and the rest of the volume goes on.
                Err(FsError::Damaged(damage)) => {
                    turn.out.push(Command::Damaged(damage));
                    if let Work::Release(number) = work {
                        self.quarantine.released(number);
                    }
                    (true, Outcome::default())
                }
                stepped => stepped?,
            };
            if done {
                self.work.remove(&work);
            }
            self.record(turn, outcome.record)?;
            if let Some(number) = outcome.freed {
                // Whoever was told where an orphan's blocks are without having it open.
                let holders = match work {
                    Work::Reap(ino) => self.layouts.get(&ino).cloned().unwrap_or_default(),
                    _ => BTreeSet::new(),
                };
                self.freed(turn, number, holders);
            }
            if self.work.iter().any(ready) {
                turn.out.push(Command::Continue);
            }
        }
        self.retry_later();
        self.retry(turn)
    }

    fn step<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        work: Work,
    ) -> Result<(bool, Outcome)> {
        let mut transaction = Transaction::new(turn.store, Context { now: turn.date });
        let progress = match work {
            Work::Release(number) => {
                let more = transaction.release(number, STEP_ROWS)?;
                if !more {
                    self.quarantine.released(number);
                }
                if more { Progress::More } else { Progress::Done }
            }
            Work::EndSession(session) => transaction.end_session(session)?,
            Work::ReservationsOfNobody => {
                let more = transaction.end_reservations(SessionId::COORDINATOR, STEP_ROWS)?;
                if more { Progress::More } else { Progress::Done }
            }
            Work::Reap(ino) if self.opens.is_open(ino) => Progress::Done,
            Work::Reap(ino) => match transaction.reap(ino) {
                Ok(progress) => progress,
                // It has a name, or is gone already.
                Err(FsError::Invalid | FsError::Stale) => Progress::Done,
                Err(error) => return Err(error),
            },
            Work::Orphans(from) => {
                let found = transaction.orphans(from, STEP_ROWS)?;
                if let Some(last) = found.last() {
                    self.work.insert(Work::Orphans(Ino(last.0 + 1)));
                }
                self.work.extend(found.into_iter().map(Work::Reap));
                Progress::Done
            }
        };
        Ok((progress == Progress::Done, transaction.finish()))
    }
}
