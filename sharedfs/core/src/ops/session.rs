//! Sessions and their slots, as far as they must outlive the coordinator.

use super::{Progress, STEP_ROWS};
use crate::format::{Key, KeyRange, ReplyRow, SessionRow};
use crate::transaction::damaged;
use crate::{RequestNumber, Result, SessionId, SlotIndex, Transaction};

impl Transaction<'_> {
    /// Begins a session.
    ///
    /// # Errors
    /// Damage.
    pub fn begin_session(&mut self, row: &SessionRow) -> Result<SessionId> {
        let state = self.state_mut()?;
        let session = state.next_session;
        state.next_session = SessionId(session.0 + 1);
        self.put(&Key::Session(session), row.encode());
        Ok(session)
    }

    /// All sessions; instead of each whose row can't be read what is wrong with it.
    ///
    /// # Errors
    /// Damage of the store.
    pub fn sessions(&self) -> Result<Vec<Result<(SessionId, SessionRow)>>> {
        let rows = self.scan(&KeyRange::sessions(), usize::MAX >> 8)?;
        let session = |(key, value): &(Vec<u8>, Vec<u8>)| match Key::decode(key) {
            Some(Key::Session(session)) => SessionRow::decode(value)
                .map(|row| (session, row))
                .ok_or_else(|| damaged(&Key::Session(session))),
            _ => Err(damaged(&Key::Session(SessionId(0)))),
        };
        Ok(rows.iter().map(session).collect())
    }

    /// Keeps a reply, in the same record as what it answers: after a failover a request that comes
    /// again is answered as it was, and not done twice.
    pub fn record_reply(
        &mut self,
        session: SessionId,
        slot: SlotIndex,
        number: RequestNumber,
        reply: Vec<u8>,
    ) {
        let row = ReplyRow { number, reply };
        self.put(&Key::Reply(session, slot), row.encode());
    }

    /// The last replies of a session, one a slot that was ever used.
    ///
    /// # Errors
    /// Damage.
    pub fn replies(&self, session: SessionId) -> Result<Vec<(SlotIndex, ReplyRow)>> {
        let rows = self.scan(&KeyRange::replies(session), usize::MAX >> 8)?;
        rows.iter()
            .map(|(key, value)| match (Key::decode(key), ReplyRow::decode(value)) {
                (Some(Key::Reply(_, slot)), Some(row)) => Ok((slot, row)),
                _ => Err(damaged(&Key::Reply(session, SlotIndex(0)))),
            })
            .collect()
    }

    /// Says that a session is over, before anything that it held is given away: the next coordinator
    /// must not take it for one that may reclaim. Its row stays, without slots, until
    /// [`Transaction::end_session`] is through with it.
    ///
    /// # Errors
    /// Damage.
    pub fn mark_session_over(&mut self, session: SessionId) -> Result<()> {
        let Some(row) = self.get(&Key::Session(session))? else { return Ok(()) };
        let row = SessionRow::decode(&row).ok_or_else(|| damaged(&Key::Session(session)))?;
        self.put(&Key::Session(session), SessionRow { slots: 0, ..row }.encode());
        Ok(())
    }

    /// Ends a session that can't write any more: its reservations are free, its replies forgotten.
    ///
    /// # Errors
    /// Damage.
    pub fn end_session(&mut self, session: SessionId) -> Result<Progress> {
        if self.end_reservations(session, STEP_ROWS)? {
            return Ok(Progress::More);
        }
        for (slot, _) in self.replies(session)? {
            self.delete(&Key::Reply(session, slot));
        }
        self.delete(&Key::Session(session));
        Ok(Progress::Done)
    }
}
