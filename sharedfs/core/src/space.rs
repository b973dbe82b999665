//! Where the blocks of the data area are, and how they move.
//!
//! ```text
//!              reserve                commit
//!      free ────────────> reserved ────────────> extent of a file
//!       ^  ^                  │                        │
//!       │  └── give back ─────┘                        │ truncate, punch, unlink, replace
//!       └───────────── quarantine <────────────────────┘
//!            release: the record that freed them is durable, and nobody can write them any more
//! ```
//! Free runs are merged with their neighbours, so no two rows touch. A search goes on where it is
//! told to (each session has its own place, so that files grow in one piece and slices share the
//! work) and wraps around once; it looks at a bounded number of rows, never at all of them.
//!
//! Every file whose block 0 lies in the tree is *charged* one free block: the sum of charges is
//! never above what is free, so such a file can always move out.

use crate::error::Damage;
use crate::format::{CountRow, EXTENT_BLOCKS_MAX, Key, KeyRange};
use crate::transaction::damaged;
use crate::{BlockAddress, FsError, QuarantineNumber, Result, Run, SessionId, Transaction};

/// The most free runs that one search takes, so that a record has a bound on a fragmented volume.
const RUNS_MAX: usize = 256;

impl Transaction<'_> {
    /// Moves up to `want` blocks, at least one, from the free ones to the reservation of `session`;
    /// looks for them from `near` on. Fewer come if space is short or in small pieces.
    ///
    /// # Errors
    /// [`FsError::NoSpace`] if there is none at all.
    pub fn reserve(
        &mut self,
        session: SessionId,
        want: u64,
        near: BlockAddress,
    ) -> Result<Vec<Run>> {
        let runs = self.take_free(want, near)?;
        for &run in &runs {
            self.state_mut()?.reserved += run.count;
            self.put(&Key::Reservation(session, run.start), CountRow(run.count).encode());
        }
        Ok(runs)
    }

    /// How many blocks one session should reserve ahead at most: an eighth of what is free, so that
    /// a nearly full volume is not kept from others.
    ///
    /// # Errors
    /// Damage.
    pub fn fair_share(&self) -> Result<u64> {
        let state = self.state()?;
        Ok(((state.free - state.charged) / 8).max(1))
    }

    /// Gives up to `limit` runs of a session's reservation back; whether any are left. Only for a
    /// session that can't write any more: it has said so, or it is fenced.
    ///
    /// # Errors
    /// Damage.
    pub fn end_reservations(&mut self, session: SessionId, limit: usize) -> Result<bool> {
        let rows = self.scan(&KeyRange::reservations(session), limit + 1)?;
        let more = rows.len() > limit;
        for (key, value) in rows.into_iter().take(limit) {
            let (key, count) = decode_run(&key, &value)?;
            if let Key::Reservation(_, start) = key {
                self.delete(&key);
                self.state_mut()?.reserved -= count;
                self.add_free(Run::new(start, count))?;
            }
        }
        Ok(more)
    }

    /// Moves up to `limit` runs that wait under `number` to the free ones; whether any are left.
    /// Whoever calls this has made sure that nobody can write them any more, and has discarded them.
    ///
    /// # Errors
    /// Damage.
    pub fn release(&mut self, number: QuarantineNumber, limit: usize) -> Result<bool> {
        let rows = self.scan(&KeyRange::quarantine(number), limit + 1)?;
        let more = rows.len() > limit;
        for (key, value) in rows.into_iter().take(limit) {
            let (key, count) = decode_run(&key, &value)?;
            if let Key::Quarantine(_, start) = key {
                self.delete(&key);
                self.state_mut()?.quarantined -= count;
                self.add_free(Run::new(start, count))?;
            }
        }
        Ok(more)
    }

    /// What waits under `number`: at most `limit` runs.
    ///
    /// # Errors
    /// Damage.
    pub fn quarantined(&self, number: QuarantineNumber, limit: usize) -> Result<Vec<Run>> {
        let rows = self.scan(&KeyRange::quarantine(number), limit)?;
        rows.iter()
            .map(|(key, value)| match decode_run(key, value)? {
                (Key::Quarantine(_, start), count) => Ok(Run::new(start, count)),
                (key, _) => Err(damaged(&key)),
            })
            .collect()
    }

    /// All numbers under which blocks wait.
    ///
    /// # Errors
    /// Damage.
    pub fn quarantine_numbers(&self) -> Result<Vec<QuarantineNumber>> {
        let mut range = KeyRange::all_quarantine();
        let mut numbers = Vec::new();
        while let Some((key, _)) = self.scan(&range, 1)?.pop() {
            let Some(Key::Quarantine(number, _)) = Key::decode(&key) else { break };
            numbers.push(number);
            range.from = KeyRange::quarantine(QuarantineNumber(number.0 + 1)).from;
        }
        Ok(numbers)
    }

    /// Adds `count` blocks at the end of the data area.
    ///
    /// # Errors
    /// Damage.
    pub fn grow(&mut self, count: u64) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let state = self.state_mut()?;
        let start = state.data_first.plus(state.capacity);
        state.capacity += count;
        self.add_free(Run::new(start, count))
    }

    /// Takes up to `want` blocks, at least one, out of the free runs.
    pub(crate) fn take_free(&mut self, want: u64, near: BlockAddress) -> Result<Vec<Run>> {
        let state = self.state()?;
        let available = (state.free - state.charged).min(want);
        if available == 0 {
            return Err(FsError::NoSpace { coming: state.quarantined > 0 });
        }
        let mut left = available;
        let mut taken = Vec::new();
        self.take_from(&KeyRange::free(near), Some(near), &mut left, &mut taken)?;
        let before = KeyRange::between(&Key::Free(BlockAddress(0)), &Key::Free(near));
        self.take_from(&before, None, &mut left, &mut taken)?;
        if taken.is_empty() {
            return Err(FsError::Damaged(Damage::Counters));
        }
        Ok(taken)
    }

    fn take_from(
        &mut self,
        range: &KeyRange,
        near: Option<BlockAddress>,
        left: &mut u64,
        taken: &mut Vec<Run>,
    ) -> Result<()> {
        let slice_blocks = self.state()?.slice_blocks;
        if let Some(near) = near
            && let Some(run) = self.free_run_over(near)?
            && *left > 0
        {
            // The run that `near` lies in the middle of: its second part.
            let behind = Run::new(near, run.end().0 - near.0);
            self.take_pieces(behind, run, slice_blocks, left, taken)?;
        }
        while *left > 0 && taken.len() < RUNS_MAX {
            let Some((key, value)) = self.scan(range, 1)?.pop() else { break };
            let (key, count) = decode_run(&key, &value)?;
            let Key::Free(start) = key else { return Err(damaged(&key)) };
            let run = Run::new(start, count);
            self.take_pieces(run, run, slice_blocks, left, taken)?;
        }
        Ok(())
    }

    /// Takes from the beginning of `part`, which is the end of the free run `whole`, in pieces that
    /// lie in one slice each and are no larger than an extent can be.
    fn take_pieces(
        &mut self,
        part: Run,
        whole: Run,
        slice_blocks: u64,
        left: &mut u64,
        taken: &mut Vec<Run>,
    ) -> Result<()> {
        let mut at = part.start;
        while *left > 0 && at < part.end() && taken.len() < RUNS_MAX {
            let in_slice = slice_blocks - at.0 % slice_blocks;
            let count = (*left).min(part.end().0 - at.0).min(in_slice).min(EXTENT_BLOCKS_MAX);
            taken.push(Run::new(at, count));
            at = at.plus(count);
            *left -= count;
        }
        self.delete(&Key::Free(whole.start));
        if whole.start < part.start {
            let count = part.start.0 - whole.start.0;
            self.put(&Key::Free(whole.start), CountRow(count).encode());
        }
        if at < whole.end() {
            self.put(&Key::Free(at), CountRow(whole.end().0 - at.0).encode());
        }
        self.state_mut()?.free -= at.0 - part.start.0;
        Ok(())
    }

    /// The free run that begins before `address` and reaches behind it.
    fn free_run_over(&self, address: BlockAddress) -> Result<Option<Run>> {
        Ok(self.free_run_before(address)?.filter(|run| address < run.end()))
    }

    fn free_run_before(&self, address: BlockAddress) -> Result<Option<Run>> {
        let range = KeyRange::between(&Key::Free(BlockAddress(0)), &Key::Free(address));
        let Some((key, value)) = self.scan_back(&range, 1)?.pop() else { return Ok(None) };
        match decode_run(&key, &value)? {
            (Key::Free(start), count) => Ok(Some(Run::new(start, count))),
            (key, _) => Err(damaged(&key)),
        }
    }

    /// Puts a run among the free ones, merged with its neighbours.
    pub(crate) fn add_free(&mut self, run: Run) -> Result<()> {
        self.state_mut()?.free += run.count;
        let mut merged = run;
        if let Some(before) = self.free_run_before(run.start)? {
            if run.start < before.end() {
                return Err(FsError::Damaged(Damage::Space(run.start)));
            }
            if before.end() == run.start {
                self.delete(&Key::Free(before.start));
                merged = Run::new(before.start, before.count + run.count);
            }
        }
        if let Some((key, value)) = self.scan(&KeyRange::free(run.start), 1)?.pop() {
            let (key, count) = decode_run(&key, &value)?;
            let Key::Free(start) = key else { return Err(damaged(&key)) };
            if start < run.end() {
                return Err(FsError::Damaged(Damage::Space(start)));
            }
            if start == run.end() {
                self.delete(&key);
                merged.count += count;
            }
        }
        self.put(&Key::Free(merged.start), CountRow(merged.count).encode());
        Ok(())
    }

    /// Sends a file's former blocks into quarantine.
    pub(crate) fn free(&mut self, run: Run) -> Result<()> {
        let number = self.quarantine_number()?;
        self.state_mut()?.quarantined += run.count;
        self.put(&Key::Quarantine(number, run.start), CountRow(run.count).encode());
        Ok(())
    }

    /// Takes `run` out of the reservation of `session`.
    ///
    /// # Errors
    /// [`FsError::Invalid`] if the session has not reserved all of it.
    pub(crate) fn use_reserved(&mut self, session: SessionId, run: Run) -> Result<()> {
        let range = KeyRange::between(
            &Key::Reservation(session, BlockAddress(0)),
            &Key::Reservation(session, run.start.plus(1)),
        );
        let (key, value) = self.scan_back(&range, 1)?.pop().ok_or(FsError::Invalid)?;
        let (key, count) = decode_run(&key, &value)?;
        let Key::Reservation(_, start) = key else { return Err(damaged(&key)) };
        let reserved = Run::new(start, count);
        if !reserved.covers(&run) {
            return Err(FsError::Invalid);
        }
        self.delete(&key);
        for (from, end) in [(reserved.start, run.start), (run.end(), reserved.end())] {
            if from < end {
                let key = Key::Reservation(session, from);
                self.put(&key, CountRow(end.0 - from.0).encode());
            }
        }
        self.state_mut()?.reserved -= run.count;
        Ok(())
    }

    /// Promises a free block to a file that begins to lie in the tree.
    pub(crate) fn charge(&mut self) -> Result<()> {
        let state = self.state_mut()?;
        if state.charged == state.free {
            return Err(FsError::NoSpace { coming: state.quarantined > 0 });
        }
        state.charged += 1;
        Ok(())
    }

    /// Takes the promise back.
    pub(crate) fn discharge(&mut self) -> Result<()> {
        let state = self.state_mut()?;
        state.charged = state.charged.checked_sub(1).ok_or(Damage::Counters)?;
        Ok(())
    }
}

/// A row whose value is a number of blocks, and whose key says where they begin.
pub(crate) fn decode_run(key: &[u8], value: &[u8]) -> Result<(Key, u64)> {
    let key_kind = key.first().copied().unwrap_or(0);
    let key = Key::decode(key).ok_or(Damage::Row(key_kind))?;
    match CountRow::decode(value) {
        Some(CountRow(count)) if count > 0 => Ok((key, count)),
        _ => Err(damaged(&key)),
    }
}
