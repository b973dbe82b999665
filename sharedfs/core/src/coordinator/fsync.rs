//! Making an inode durable: its data in every slice, then the journal.
//!
//! Whoever wrote it, and wherever fsync is asked for: the coordinator remembers, per inode, which
//! slices have taken bytes of it that it has not seen flushed, as commits name them. After a failover
//! it knows nothing of that, so it has everything flushed once before it answers any.
//!
//! Rule: an fsync is answered when a flush of those slices *that began after it was asked for* is done,
//! and the records given out before it was asked for are durable.

use std::collections::{BTreeMap, BTreeSet};

use mooring_terms::{Epoch, SliceIndex, Version};

use super::data::slice_of;
use super::event::{Command, IoNumber, RecordNumber};
use super::request::Operation;
use super::waiting::Stage;
use super::{Coordinator, Turn};
use crate::file::Commit;
use crate::format::Versions;
use crate::tree::TreeStore;
use crate::{Context, Ino, Result, SessionId, Transaction};

/// Beyond as many inodes everything is flushed and forgotten, so that memory has a bound.
const INODES_MAX: usize = 65_536;

/// Which slices hold bytes that are not known to be on media.
#[derive(Clone, Debug, Default)]
pub(super) struct Unflushed {
    inodes: BTreeMap<Ino, BTreeMap<SliceIndex, u64>>,
    /// Counts commits and flushes, so that what came after a flush began is not forgotten with it.
    moment: u64,
    flushes: BTreeMap<IoNumber, (u64, Option<BTreeSet<SliceIndex>>)>,
    /// The flush of everything after a failover, until it is done.
    first: Option<IoNumber>,
}

/// What an fsync waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syncing {
    flush: Option<IoNumber>,
    record: RecordNumber,
}

impl Unflushed {
    fn wrote(&mut self, ino: Ino, slices: impl Iterator<Item = SliceIndex>) {
        self.moment += 1;
        for slice in slices {
            self.inodes.entry(ino).or_default().insert(slice, self.moment);
        }
    }

    fn of(&self, ino: Ino) -> Option<BTreeSet<SliceIndex>> {
        self.inodes.get(&ino).map(|slices| slices.keys().copied().collect())
    }

    fn begin(&mut self, io: IoNumber, slices: Option<BTreeSet<SliceIndex>>) {
        self.moment += 1;
        self.flushes.insert(io, (self.moment, slices));
    }

    fn flushed(&mut self, io: IoNumber) {
        let Some((began, slices)) = self.flushes.remove(&io) else { return };
        if self.first == Some(io) {
            self.first = None;
        }
        let covered = |slice: &SliceIndex| slices.as_ref().is_none_or(|s| s.contains(slice));
        self.inodes.retain(|_, of| {
            of.retain(|slice, at| *at > began || !covered(slice));
            !of.is_empty()
        });
    }
}

impl Coordinator {
    /// After taking over: nobody knows what the slices have on media.
    pub(super) fn flush_everything(&mut self, out: &mut Vec<Command>) {
        let io = self.flush(None, out);
        self.unflushed.first = Some(io);
    }

    fn flush(&mut self, slices: Option<BTreeSet<SliceIndex>>, out: &mut Vec<Command>) -> IoNumber {
        self.last_io = IoNumber(self.last_io.0 + 1);
        self.unflushed.begin(self.last_io, slices.clone());
        out.push(Command::FlushSlices(self.last_io, slices));
        self.last_io
    }

    /// Bytes of an inode are in slices, and its commit is in the journal.
    pub(super) fn wrote<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        ino: Ino,
        commit: &Commit,
    ) -> Result<()> {
        let slice_blocks =
            Transaction::new(turn.store, Context { now: turn.date }).slice_blocks()?;
        let new = commit.extents.iter().map(|extent| slice_of(extent.run.start, slice_blocks));
        self.unflushed.wrote(ino, new.chain(commit.overwritten.keys().copied()));
        if self.unflushed.inodes.len() > INODES_MAX && self.unflushed.flushes.is_empty() {
            self.flush(None, turn.out);
        }
        Ok(())
    }

    /// A slice began this epoch without all that had been acknowledged in it. What was claimed of it by
    /// then has been looked at; what is committed from now on must not name anything older.
    pub fn lost_tail(&mut self, slice: SliceIndex, epoch: Epoch) {
        if epoch > Epoch(0) {
            self.tail_lost.insert(slice, epoch);
        }
    }

    /// A file is not as it was committed: what was not fsynced is gone. Whoever may have written it keeps no
    /// lease on it, and its next fsync fails. To be said before the first event.
    pub fn lost_data(&mut self, ino: Ino) {
        let sessions = self.sessions.serving().map(|(id, _)| id).collect();
        self.lost.insert(ino, sessions);
    }

    /// Whether a session has not been told yet that an inode lost data; it is now.
    pub(super) fn take_loss(&mut self, session: SessionId, ino: Ino) -> bool {
        self.lost.get_mut(&ino).is_some_and(|sessions| sessions.remove(&session))
    }

    /// Whether a commit names data of an epoch of which a slice has lost the tail. Its writer was told that
    /// it is written: whether it is there nobody looks any more, and its blocks may hold somebody's bytes.
    pub(super) fn names_lost(&self, commit: &Commit, slice_blocks: u64) -> bool {
        let is_lost = |(slice, versions): (SliceIndex, &Versions)| {
            let lost = self.tail_lost.get(&slice);
            versions.oldest > Version::ZERO
                && lost.is_some_and(|lost| versions.oldest.epoch < *lost)
        };
        let new = commit.extents.iter();
        let new = new.map(|extent| (slice_of(extent.run.start, slice_blocks), &extent.versions));
        let in_place = commit.overwritten.iter().map(|(slice, versions)| (*slice, versions));
        !self.tail_lost.is_empty() && new.chain(in_place).any(is_lost)
    }

    /// Begins an fsync.
    pub(super) fn begin_fsync(&mut self, ino: Ino, out: &mut Vec<Command>) -> Stage {
        #[cfg(feature = "mutations")]
        if self.is_mutated(crate::Mutation::DurableBeforeData) {
            out.push(Command::Sync);
            return Stage::Syncing(Syncing { flush: None, record: self.recorded });
        }
        let flush = match (self.unflushed.first, self.unflushed.of(ino)) {
            // Everything is being flushed, and nothing of this inode came after.
            (Some(first), None) => Some(first),
            (None, None) => None,
            (_, Some(slices)) => {
                let all = self.unflushed.first.is_some();
                Some(self.flush((!all).then_some(slices), out))
            }
        };
        if self.recorded > self.durable {
            out.push(Command::Sync);
        }
        Stage::Syncing(Syncing { flush, record: self.recorded })
    }

    /// Whether an fsync is done.
    pub(super) fn is_synced(&self, syncing: Syncing) -> bool {
        let flushing = syncing.flush.is_some_and(|io| self.unflushed.flushes.contains_key(&io));
        !flushing && syncing.record <= self.durable
    }

    /// A flush is done.
    pub(super) fn flushed<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        io: IoNumber,
    ) -> Result<()> {
        self.unflushed.flushed(io);
        self.retry(turn)
    }

    /// Records are durable.
    pub(super) fn durable<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        number: RecordNumber,
    ) -> Result<()> {
        self.durable = self.durable.max(number);
        self.quarantine.durable(number, turn.out);
        if self.waiting.values().any(|w| matches!(w.stage, Stage::Syncing(_))) {
            self.retry(turn)?;
        }
        Ok(())
    }

    /// The inode of an fsync.
    pub(super) fn fsync_of(operation: &Operation) -> Option<Ino> {
        match operation {
            Operation::Fsync { ino } => Some(*ino),
            _ => None,
        }
    }
}
