//! Checkpoints of the tree: the slices that records claim data of first, then the tree, then the journal is
//! free up to there.
//!
//! ```text
//!   idle or half full ──> FLUSH what was claimed (nobody waits) ──> FLUSH what was claimed since (waits)
//!                                                                        └──> tree, durably; ring trimmed
//! ```
//! After a recovery the tree is believed, only what the journal says of data is compared with the slices: so
//! a claim may leave the journal only when it is true for good.

use std::collections::BTreeSet;

use mooring_sharedfs_core::format::Record;
use mooring_sharedfs_store::{Blocks, Room};
use mooring_terms::{SliceIndex, Time};

use crate::opening::wait_for;
use crate::report::Stopped;
use crate::shell::{Arrival, Shell};

/// Where it stands.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    /// Slices of which records in the journal claim data, not flushed since.
    claimed: BTreeSet<SliceIndex>,
    flushing: bool,
    /// There are records since the last checkpoint.
    behind: bool,
    /// When the last of them was journaled.
    last_record: Time,
}

impl Checkpoints {
    /// After opening: what was replayed claims data of these slices.
    pub(crate) fn new(claimed: BTreeSet<SliceIndex>, behind: bool) -> Self {
        Self { claimed, flushing: false, behind, last_record: Time::ZERO }
    }
}

impl<B: Blocks> Shell<B> {
    /// When a checkpoint is to be made that nothing presses for.
    pub(crate) fn next_checkpoint(&self) -> Option<Time> {
        let (checkpoints, idle) = (&self.checkpoints, self.options.checkpoint_idle);
        let waits = checkpoints.behind && !checkpoints.flushing;
        waits.then(|| checkpoints.last_record + idle)
    }

    /// Records are in the journal.
    pub(crate) fn note_records(&mut self, records: &[Record]) {
        let now = self.now();
        self.syncing.journaled(self.recorded, now);
        self.checkpoints.behind = true;
        self.checkpoints.last_record = now;
        let claims = records.iter().flat_map(|record| &record.claims);
        let slices = claims.map(|claim| {
            let slice = claim.run.start.0 / self.options.slice_blocks;
            SliceIndex(u32::try_from(slice).unwrap_or(u32::MAX))
        });
        self.checkpoints.claimed.extend(slices);
    }

    /// Flushes the journal and begins a checkpoint, if it is time.
    pub(crate) fn keep_safe(&mut self) -> Result<(), Stopped> {
        self.sync_if_due();
        let due = self.next_checkpoint().is_some_and(|at| at <= self.now());
        let pressing = self.checkpoints.behind && self.store.is_almost_full();
        if self.checkpoints.flushing || !(due || pressing) {
            return Ok(());
        }
        let claimed = std::mem::take(&mut self.checkpoints.claimed);
        if claimed.is_empty() {
            return self.checkpoint();
        }
        self.checkpoints.flushing = true;
        let sender = self.sender.clone();
        let done = move |flushed| drop(sender.send(Arrival::Claimed(flushed)));
        self.slices.flush(Some(claimed), Box::new(done));
        Ok(())
    }

    /// Makes the checkpoint, once what was claimed before is on media. Everything that was applied is in
    /// the journal now, or is kept out of the tree's commits until it is.
    pub(crate) fn checkpoint(&mut self) -> Result<(), Stopped> {
        self.checkpoints.flushing = false;
        let since = std::mem::take(&mut self.checkpoints.claimed);
        if !since.is_empty() {
            let slices = &self.slices;
            wait_for(|done| slices.flush(Some(since), done))?;
        }
        let number = self.syncing.last_journaled();
        self.store.checkpoint()?;
        self.shown.count(|counters| counters.checkpoints += 1);
        self.checkpoints.behind = false;
        self.all_durable(number)
    }

    /// Journals records that were applied. Where the journal has no room for them a checkpoint is made
    /// first; where it never has, one that holds them.
    pub(crate) fn journal(&mut self, records: &[Record]) -> Result<(), Stopped> {
        let bytes = records.iter().map(Record::bytes).sum();
        let room = self.store.room(bytes);
        if room != Room::Enough {
            // Seldom: a flush took as long as it took to fill the other half of the journal. What a flush
            // on its way covers is flushed once more: nobody knows when it will be done.
            let slices = &self.slices;
            wait_for(|done| slices.flush(None, done))?;
            self.checkpoints.claimed.clear();
            self.shown.count(|counters| counters.checkpoints += 1);
        }
        match room {
            Room::Never => return Ok(self.store.checkpoint_applied()?),
            Room::AfterCheckpoint => self.store.checkpoint()?,
            Room::Enough => {}
        }
        self.store.write(records)?;
        Ok(())
    }
}
