//! Background work, one bounded step at a time: checkpoint, counting, reclaim, zeroing ahead.
//!
//! ```text
//!   step: a checkpoint is under way ──────> its next step
//!         trees were dropped ─────────────> count some of them
//!         a checkpoint is due ────────────> begin it
//!         emptied segments wait for a slot > write the other slot
//!         few segments are free ──────────> scan or copy a little (reclaim)
//!         nothing is prepared ahead ──────> zero a segment
//! ```
//! A worker thread calls [`Pool::maintain`] until it says idle, and again now and then. Without
//! one, appends do steps themselves: some when memory or segments run short, all that is needed
//! when they can't go on otherwise.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mooring_terms::SliceId;

use crate::checkpoint::Checkpointing;
use crate::disk::Area;
use crate::pool::Pool;
use crate::reclaim::Reclaim;
use crate::replica::Replica;
use crate::space::Class;
use crate::trash::Dropped;
use crate::{EngineError, Result, SegmentId};

/// Segments zeroed ahead of their first use.
const ZEROED_AHEAD: usize = 1;
/// Syncs in one segment from which on zeroing the next ones is worth it.
const SYNCS_WORTH_ZEROING: u32 = 32;

/// A removed replica.
pub(crate) struct Grave {
    pub(crate) replica: Arc<Replica>,
}

/// What is going on in the background.
#[derive(Default)]
pub(crate) struct Maintenance {
    pub(crate) checkpoint: Option<Box<Checkpointing>>,
    pub(crate) reclaim: Option<Box<Reclaim>>,
    /// Segments emptied since the last freeze.
    pub(crate) emptied: Vec<SegmentId>,
    pub(crate) trash: VecDeque<Dropped>,
    /// The checkpoint that each slot holds.
    pub(crate) slots: [u64; 2],
    /// The bytes of the newest slot, to be written into the other under a higher number.
    pub(crate) newest: Option<crate::format::Slot>,
    /// Bytes appended when the last checkpoint was begun.
    pub(crate) begun_at: u64,
    pub(crate) zeroed: Vec<SegmentId>,
}

/// What a step did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Maintained {
    /// There was something to do; there may be more.
    Worked,
    /// There is nothing to do now.
    Idle,
}

impl Maintenance {
    pub(crate) fn oldest_slot(&self) -> u64 {
        self.slots[0].min(self.slots[1])
    }
}

impl Pool {
    /// Does one bounded step of background work, if any is due.
    ///
    /// # Errors
    /// [`EngineError::Io`], [`EngineError::Poisoned`]; [`EngineError::NoSpace`] if a full pool has
    /// no room for the work (freeing something helps).
    pub fn maintain(&self) -> Result<Maintained> {
        let mut maintenance = self.maintenance.lock();
        if maintenance.checkpoint.is_none()
            && self.space_wanted.swap(false, Ordering::Relaxed)
            && self.layer_bytes.load(Ordering::Relaxed) > 0
        {
            self.begin_checkpoint(&mut maintenance);
            return Ok(Maintained::Worked);
        }
        self.step(&mut maintenance, false)
    }

    /// Whether a segment is being emptied now: some of it may be copied, and none of it is free.
    #[must_use]
    pub fn is_reclaiming(&self) -> bool {
        self.maintenance.lock().reclaim.is_some()
    }

    /// Asks maintenance to count what discards and overwrites have freed: that is known only after a
    /// checkpoint, and a holder of promises that gets none would otherwise never see it.
    pub fn want_space(&self) {
        self.space_wanted.store(true, Ordering::Relaxed);
    }

    /// Makes a checkpoint now, and waits for it.
    ///
    /// # Errors
    /// Those of [`Pool::maintain`].
    pub fn checkpoint(&self) -> Result<()> {
        let mut maintenance = self.maintenance.lock();
        while maintenance.checkpoint.is_some() {
            self.advance_checkpoint(&mut maintenance)?;
        }
        self.begin_checkpoint(&mut maintenance);
        while maintenance.checkpoint.is_some() {
            self.advance_checkpoint(&mut maintenance)?;
        }
        Ok(())
    }

    /// Makes a checkpoint and ends. Dropping a pool without it is safe too: the next opening reads
    /// more of the log.
    ///
    /// # Errors
    /// Those of [`Pool::maintain`].
    pub fn close(self) -> Result<()> {
        self.checkpoint()
    }

    /// One step. With `wanted`, space is what matters.
    pub(crate) fn step(&self, m: &mut Maintenance, wanted: bool) -> Result<Maintained> {
        self.core.check()?;
        if m.checkpoint.is_some() {
            self.advance_checkpoint(m)?;
            return Ok(Maintained::Worked);
        }
        if !m.trash.is_empty() {
            self.count_dropped(&mut m.trash);
            self.free_emptied(m);
            return Ok(Maintained::Worked);
        }
        if self.checkpoint_is_due(m) {
            self.begin_checkpoint(m);
            return Ok(Maintained::Worked);
        }
        if self.second_slot_is_due(m) {
            self.write_second_slot(m)?;
            return Ok(Maintained::Worked);
        }
        let low = wanted || self.core.space.lock().is_low();
        if low && self.ask_disk_again() {
            return Ok(Maintained::Worked);
        }
        if m.reclaim.is_some() || low {
            let worked = self.reclaim_step(m)?;
            if worked {
                return Ok(Maintained::Worked);
            }
            if !m.emptied.is_empty() {
                self.begin_checkpoint(m);
                return Ok(Maintained::Worked);
            }
        }
        self.zero_ahead(m)
    }

    fn checkpoint_is_due(&self, m: &Maintenance) -> bool {
        let layers = self.layer_bytes.load(Ordering::Relaxed) + self.moved.read().bytes();
        let appended = self.log.lock().appended_bytes;
        let logged = appended - m.begun_at.min(appended);
        let limit = self.core.options.checkpoint_bytes.min(
            // A small pool can't leave much of itself to be replayed.
            u64::from(self.core.superblock.segments) * self.core.superblock.segment_bytes / 4,
        );
        let space = self.core.space.lock();
        layers * 4 >= self.core.options.memory_bytes
            || logged >= limit
            // What was removed is seen to be free only then; several that come at once share one.
            || self.snapshot_removed.load(Ordering::Relaxed)
            || !self.graves.lock().is_empty()
            || space.is_batch(m.emptied.len())
    }

    /// O5: an emptied segment waits until both slots are past it.
    fn second_slot_is_due(&self, m: &Maintenance) -> bool {
        let space = self.core.space.lock();
        m.slots[0] != m.slots[1]
            && m.newest.is_some()
            && space.is_low()
            && space.has_evacuated()
            && space.segments().iter().any(|segment| {
                matches!(segment.state, crate::space::SegmentState::Evacuated(since)
                    if since > m.oldest_slot())
            })
    }

    /// Frees what O5 and O6 allow.
    pub(crate) fn free_emptied(&self, m: &Maintenance) {
        if !m.trash.is_empty() {
            return;
        }
        let mut space = self.core.space.lock();
        let freed = space.free_evacuated(m.oldest_slot());
        if !freed.is_empty() {
            // O8: marked before anything can take them, since the space is still locked.
            let moment = self.core.moment.fetch_add(1, Ordering::SeqCst) + 1;
            for segment in freed {
                self.core.freed_at[segment.0 as usize].store(moment, Ordering::SeqCst);
            }
        }
    }

    /// A disk that had no space for a segment may have some now.
    fn ask_disk_again(&self) -> bool {
        let Some(segment) = self.core.space.lock().first_withheld() else { return false };
        let (area, bytes) = (Area::Segment(segment), self.core.superblock.segment_bytes);
        let given = self.core.disk.prepare(area, bytes, false).is_ok();
        if given {
            self.core.space.lock().offer_withheld();
        }
        given
    }

    fn zero_ahead(&self, m: &mut Maintenance) -> Result<Maintained> {
        if !self.core.options.zero_ahead {
            return Ok(Maintained::Idle);
        }
        let syncs = self.log.lock().syncs;
        // Zeroing writes every byte twice; it pays where syncs are many, and nowhere else.
        if syncs < SYNCS_WORTH_ZEROING {
            return Ok(Maintained::Idle);
        }
        let next = self.core.space.lock().next_untouched(ZEROED_AHEAD);
        m.zeroed.retain(|segment| next.contains(segment));
        let Some(segment) = next.into_iter().find(|segment| !m.zeroed.contains(segment)) else {
            return Ok(Maintained::Idle);
        };
        let (area, bytes) = (Area::Segment(segment), self.core.superblock.segment_bytes);
        // A disk that is full of other things is no failure yet: nothing was promised from it.
        if self.core.disk.prepare(area, bytes, true).is_err() {
            return Ok(Maintained::Idle);
        }
        m.zeroed.push(segment);
        Ok(Maintained::Worked)
    }

    /// Before an append: waits, working, until there is room for it.
    pub(crate) fn make_room(
        &self,
        slice: SliceId,
        class: Class,
        blocks: u64,
        bytes: u64,
    ) -> Result<()> {
        for _ in 0..MAX_TRIES {
            let refused = {
                let mut space = self.core.space.lock();
                let admitted = space.admit(slice, blocks);
                if admitted.is_ok() && space.has_room(class, bytes) {
                    space.spend(slice, blocks);
                    return Ok(());
                }
                admitted
            };
            self.core.check()?;
            let gained = match &refused {
                Err(_) => self.gain_admission(slice, blocks)?,
                Ok(()) => self.gain_segments(class, bytes)?,
            };
            if !gained {
                refused?;
                break;
            }
        }
        Err(EngineError::NoSpace { wanted: bytes, free: self.core.space.lock().available() })
    }

    /// Finds out what was overwritten or given up and not yet counted; says whether it was anything.
    fn gain_admission(&self, slice: SliceId, blocks: u64) -> Result<bool> {
        let mut m = self.maintenance.lock();
        let admitted = || self.core.space.lock().admit(slice, blocks).is_ok();
        self.ask_disk_again();
        if admitted() {
            return Ok(true);
        }
        // What is in the trees already has been counted; a pool that is full stays so.
        let news = self.layer_bytes.load(Ordering::Relaxed) > 0
            || self.snapshot_removed.load(Ordering::Relaxed)
            || !self.graves.lock().is_empty();
        if news && m.checkpoint.is_none() {
            self.begin_checkpoint(&mut m);
        }
        while m.checkpoint.is_some() || !m.trash.is_empty() {
            match self.step(&mut m, false) {
                Ok(_) => {}
                Err(EngineError::NoSpace { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(admitted())
    }

    /// Works until there are segments enough; says whether there are.
    fn gain_segments(&self, class: Class, bytes: u64) -> Result<bool> {
        let mut m = self.maintenance.lock();
        for _ in 0..MAX_STEPS + 16 * self.core.superblock.segments {
            let done = match self.step(&mut m, true) {
                Ok(done) => done,
                Err(EngineError::NoSpace { .. }) => Maintained::Idle,
                Err(error) => return Err(error),
            };
            if self.core.space.lock().has_room(class, bytes) {
                return Ok(true);
            }
            if done == Maintained::Idle {
                break;
            }
        }
        Ok(false)
    }

    /// After an append: takes part in the work when memory or segments run short.
    pub(crate) fn keep_pace(&self, bytes: u64) {
        let budget = self.core.options.memory_bytes;
        let layers = self.layer_bytes.load(Ordering::Relaxed);
        let (low, pressing) = {
            let space = self.core.space.lock();
            (space.is_low(), space.is_pressing())
        };
        let full = layers * 2 >= budget;
        if !(full || low || layers * 4 >= budget) {
            return;
        }
        // With a worker at it, only what presses makes a writer wait for its turn.
        let m = if full || pressing {
            Some(self.maintenance.lock())
        } else {
            self.maintenance.try_lock()
        };
        let Some(mut m) = m else { return };
        let steps = if full || pressing { 1 + bytes / (256 << 10) } else { 1 };
        for _ in 0..steps {
            match self.step(&mut m, false) {
                Ok(Maintained::Worked) => {}
                Ok(Maintained::Idle) | Err(EngineError::NoSpace { .. }) => break,
                // The append has succeeded. Whoever maintains meets the error too, and a failed
                // write has poisoned the pool.
                Err(error) => {
                    tracing::warn!(%error, "background work failed beside an append");
                    break;
                }
            }
        }
    }
}

/// Bounds on the work for one append; a pool that needs more is full.
const MAX_TRIES: u32 = 64;
const MAX_STEPS: u32 = 1000;
