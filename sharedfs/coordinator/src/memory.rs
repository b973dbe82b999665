//! The slices' twin in memory: attachments that seal, sessions that are let in and fenced, versions, and a
//! power that can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mooring_sharedfs_core::{BlockAddress, Run, SessionId};
use mooring_sharedfs_store::Blocks;
use mooring_terms::{BLOCK_SIZE, Epoch, NodeId, Sequence, SliceIndex, Version};
use parking_lot::{Condvar, Mutex};

use crate::slices::{Done, SliceError, Slices};

/// How long a session waits to be let in; then nobody will.
const LET_IN: Duration = Duration::from_secs(10);

/// The tree's range begins here, as on real volumes.
const TREE_FIRST: u64 = 1 << 40;

/// The volume of several attachments and sessions, one after the other and beside each other.
#[derive(Debug)]
pub struct MemorySlices {
    slice_blocks: u64,
    inner: Mutex<Inner>,
    let_in: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    blocks: BTreeMap<u64, Stored>,
    /// What was there before each write since the slice's last flush, in order.
    fresh: BTreeMap<SliceIndex, Vec<(u64, Option<Stored>)>>,
    sequences: BTreeMap<SliceIndex, u64>,
    epoch: u32,
    sessions: BTreeSet<SessionId>,
    fenced: BTreeSet<SessionId>,
    /// For each slice the newest epoch that began without what was there before.
    tail_lost: BTreeMap<SliceIndex, Epoch>,
    /// How many more writes of coordinators are taken before their attachment ends.
    writes_left: Option<u64>,
    /// No slice has space for what a coordinator writes.
    full: bool,
    /// Blocks that no replica has whole.
    damaged: BTreeSet<u64>,
    /// Why no discard is done.
    no_discards: Option<SliceError>,
    unleased: bool,
    held: bool,
}

#[derive(Clone, Debug)]
struct Stored {
    /// `None`: discarded; holes have versions too.
    bytes: Option<Bytes>,
    version: Version,
}

impl MemorySlices {
    /// Empty, in slices of `slice_blocks`.
    #[must_use]
    pub fn new(slice_blocks: u64) -> Arc<Self> {
        let (inner, let_in) = (Mutex::default(), Condvar::new());
        Arc::new(Self { slice_blocks, inner, let_in })
    }

    /// Begins an attachment: every older one is fenced, and no session is let in yet.
    #[must_use]
    pub fn attach(self: &Arc<Self>) -> MemoryAttachment {
        let mut inner = self.inner.lock();
        inner.epoch += 1;
        inner.sessions.clear();
        MemoryAttachment { slices: Arc::clone(self), epoch: inner.epoch }
    }

    /// Ends the attachment there is, without another.
    pub fn detach(&self) {
        self.inner.lock().epoch += 1;
        self.let_in.notify_all();
    }

    /// Whether slice 0 is surely its primary's.
    pub fn set_leased(&self, leased: bool) {
        self.inner.lock().unleased = !leased;
    }

    /// Holds every write of the attachment, as a slice in failover does; or lets them go on.
    pub fn hold(&self, held: bool) {
        self.inner.lock().held = held;
        self.let_in.notify_all();
    }

    /// The power of every replica goes: in each slice the flushed remains, and as many of the writes since
    /// as `kept` says (of how many there are).
    pub fn power_cut(&self, mut kept: impl FnMut(SliceIndex, usize) -> usize) {
        let mut inner = self.inner.lock();
        let slices: Vec<SliceIndex> = inner.sequences.keys().copied().collect();
        for slice in slices {
            inner.lose_tail(slice, &mut kept);
        }
        inner.end_attachment();
        self.let_in.notify_all();
    }

    /// The power of every replica of one slice goes, of which all remains that was flushed. As on real
    /// volumes that ends the attachment.
    pub fn lose_tail(&self, slice: SliceIndex) {
        let mut inner = self.inner.lock();
        inner.lose_tail(slice, &mut |_, _| 0);
        inner.end_attachment();
        self.let_in.notify_all();
    }

    /// The coordinator that begins next dies after so many more writes to slices.
    pub fn stop_after_writes(&self, writes: u64) {
        self.inner.lock().writes_left = Some(writes);
    }

    /// Whether there is no space for what a coordinator writes to slices.
    pub fn set_full(&self, full: bool) {
        self.inner.lock().full = full;
    }

    /// Has discards fail for this reason, or lets them be done.
    pub fn refuse_discards(&self, why: Option<SliceError>) {
        self.inner.lock().no_discards = why;
    }

    /// No replica has this block whole any more.
    pub fn damage(&self, block: BlockAddress) {
        self.inner.lock().damaged.insert(block.0);
    }

    /// Reads blocks under a session; waits until it is let in.
    ///
    /// # Errors
    /// [`SliceError::Fenced`].
    pub fn read(
        &self,
        session: SessionId,
        blocks: &[BlockAddress],
    ) -> Result<Vec<Bytes>, SliceError> {
        let inner = self.enter(session)?;
        Ok(blocks.iter().map(|block| inner.get(block.0)).collect())
    }

    /// Writes whole blocks under a session; waits until it is let in.
    ///
    /// # Errors
    /// [`SliceError::Fenced`].
    pub fn write(
        &self,
        session: SessionId,
        blocks: &[(BlockAddress, Bytes)],
    ) -> Result<Vec<Version>, SliceError> {
        let mut inner = self.enter(session)?;
        let put = |(block, bytes): &(BlockAddress, Bytes)| {
            assert_eq!(bytes.len(), BLOCK_SIZE, "whole blocks");
            inner.put(self.slice_of(block.0), block.0, Some(bytes.clone()))
        };
        Ok(blocks.iter().map(put).collect())
    }

    fn enter(&self, session: SessionId) -> Result<parking_lot::MutexGuard<'_, Inner>, SliceError> {
        let mut inner = self.inner.lock();
        while !inner.sessions.contains(&session) {
            if inner.fenced.contains(&session)
                || self.let_in.wait_for(&mut inner, LET_IN).timed_out()
            {
                return Err(SliceError::Fenced);
            }
        }
        Ok(inner)
    }

    /// The tree lies in slice 0, wherever its addresses are.
    fn slice_of(&self, block: u64) -> SliceIndex {
        let slice = if block < TREE_FIRST { block / self.slice_blocks } else { 0 };
        SliceIndex(u32::try_from(slice).unwrap_or(u32::MAX))
    }
}

impl Inner {
    fn end_attachment(&mut self) {
        self.epoch += 1;
        self.sessions.clear();
        self.writes_left = None;
    }

    /// Of what was not flushed `kept` writes remain, of so many.
    fn lose_tail(&mut self, slice: SliceIndex, kept: &mut impl FnMut(SliceIndex, usize) -> usize) {
        let fresh = self.fresh.remove(&slice).unwrap_or_default();
        let kept = kept(slice, fresh.len());
        for (block, before) in fresh.into_iter().skip(kept).rev() {
            match before {
                Some(before) => self.blocks.insert(block, before),
                None => self.blocks.remove(&block),
            };
        }
        self.tail_lost.insert(slice, Epoch(self.epoch + 1));
    }

    fn get(&self, block: u64) -> Bytes {
        let stored = self.blocks.get(&block).and_then(|stored| stored.bytes.clone());
        stored.unwrap_or_else(|| Bytes::from_static(&[0; BLOCK_SIZE]))
    }

    fn put(&mut self, slice: SliceIndex, block: u64, bytes: Option<Bytes>) -> Version {
        let sequence = self.sequences.entry(slice).or_default();
        *sequence += 1;
        let version = Version::new(Epoch(self.epoch), Sequence(*sequence));
        let before = self.blocks.insert(block, Stored { bytes, version });
        self.fresh.entry(slice).or_default().push((block, before));
        version
    }
}

/// One attachment of [`MemorySlices`]: the coordinator's slices, and the store's blocks.
#[derive(Clone, Debug)]
pub struct MemoryAttachment {
    slices: Arc<MemorySlices>,
    epoch: u32,
}

impl MemoryAttachment {
    /// Its number.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        u64::from(self.epoch)
    }

    fn enter(&self) -> Result<parking_lot::MutexGuard<'_, Inner>, SliceError> {
        let mut inner = self.slices.inner.lock();
        while inner.held && inner.epoch == self.epoch {
            self.slices.let_in.wait(&mut inner);
        }
        if inner.epoch == self.epoch { Ok(inner) } else { Err(SliceError::Fenced) }
    }

    fn discard_run(&self, inner: &mut Inner, run: Run) {
        let there = inner.blocks.range(run.start.0..run.end().0);
        let there: Vec<u64> = there.map(|(&block, _)| block).collect();
        for block in there {
            inner.put(self.slices.slice_of(block), block, None);
        }
    }

    fn flushed(&self, slices: Option<&BTreeSet<SliceIndex>>) -> Result<(), SliceError> {
        let mut inner = self.enter()?;
        inner.fresh.retain(|slice, _| slices.is_some_and(|slices| !slices.contains(slice)));
        Ok(())
    }
}

impl Slices for MemoryAttachment {
    fn leased_for(&self) -> Option<Duration> {
        let inner = self.slices.inner.lock();
        (inner.epoch == self.epoch && !inner.unleased).then_some(Duration::from_secs(1))
    }

    fn is_over(&self) -> bool {
        self.slices.inner.lock().epoch != self.epoch
    }

    fn read(&self, blocks: Vec<BlockAddress>, done: Done<Vec<Vec<u8>>>) {
        let read = self.enter().and_then(|inner| {
            let damaged = blocks.iter().find(|block| inner.damaged.contains(&block.0));
            match damaged {
                Some(&block) => Err(SliceError::Damaged(block)),
                None => Ok(blocks.iter().map(|block| inner.get(block.0).to_vec()).collect()),
            }
        });
        done(read);
    }

    fn write(&self, blocks: Vec<(BlockAddress, Vec<u8>)>, done: Done<Vec<Version>>) {
        let written = self.enter().and_then(|mut inner| {
            match &mut inner.writes_left {
                Some(0) => {
                    inner.end_attachment();
                    return Err(SliceError::Fenced);
                }
                Some(left) => *left -= 1,
                None => {}
            }
            if inner.full {
                return Err(SliceError::NoSpace);
            }
            let put = |(block, bytes): (BlockAddress, Vec<u8>)| {
                inner.put(self.slices.slice_of(block.0), block.0, Some(bytes.into()))
            };
            Ok(blocks.into_iter().map(put).collect())
        });
        done(written);
    }

    fn discard(&self, runs: Vec<Run>, done: Done<()>) {
        let discarded = self.enter().and_then(|mut inner| {
            if let Some(why) = inner.no_discards {
                return Err(why);
            }
            runs.into_iter().for_each(|run| self.discard_run(&mut inner, run));
            Ok(())
        });
        done(discarded);
    }

    fn flush(&self, slices: Option<BTreeSet<SliceIndex>>, done: Done<()>) {
        done(self.flushed(slices.as_ref()));
    }

    fn versions(&self, run: Run, done: Done<Vec<(Run, Version)>>) {
        let versions = self.enter().and_then(|inner| {
            // As a primary answers: one stands for all.
            if let Some(&damaged) = inner.damaged.range(run.start.0..run.end().0).next() {
                return Err(SliceError::Damaged(BlockAddress(damaged)));
            }
            let version = |at| inner.blocks.get(&at).map_or(Version::ZERO, |stored| stored.version);
            let blocks = run.start.0..run.end().0;
            Ok(blocks.map(|at| (Run::new(BlockAddress(at), 1), version(at))).collect())
        });
        done(versions);
    }

    fn tail_lost(&self, slice: SliceIndex) -> Epoch {
        self.slices.inner.lock().tail_lost.get(&slice).copied().unwrap_or(Epoch(0))
    }

    fn register(&self, session: SessionId, _node: NodeId) {
        if let Ok(mut inner) = self.enter()
            && !inner.fenced.contains(&session)
        {
            inner.sessions.insert(session);
            self.slices.let_in.notify_all();
        }
    }

    fn fence(&self, session: SessionId, done: Done<()>) {
        let fenced = self.enter().map(|mut inner| {
            inner.sessions.remove(&session);
            inner.fenced.insert(session);
            self.slices.let_in.notify_all();
        });
        done(fenced);
    }
}

fn over(error: SliceError) -> io::Error {
    io::Error::other(error)
}

impl Blocks for MemoryAttachment {
    fn read(&self, first: BlockAddress, out: &mut [u8]) -> io::Result<()> {
        let inner = self.enter().map_err(over)?;
        for (i, part) in out.chunks_exact_mut(BLOCK_SIZE).enumerate() {
            part.copy_from_slice(&inner.get(first.0 + i as u64));
        }
        Ok(())
    }

    fn write(&self, first: BlockAddress, bytes: &[u8]) -> io::Result<()> {
        assert!(bytes.len().is_multiple_of(BLOCK_SIZE), "whole blocks");
        let mut inner = self.enter().map_err(over)?;
        for (i, part) in bytes.chunks_exact(BLOCK_SIZE).enumerate() {
            let block = first.0 + i as u64;
            inner.put(self.slices.slice_of(block), block, Some(Bytes::copy_from_slice(part)));
        }
        Ok(())
    }

    fn discard(&self, run: Run) -> io::Result<()> {
        let mut inner = self.enter().map_err(over)?;
        self.discard_run(&mut inner, run);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.flushed(Some(&BTreeSet::from([SliceIndex(0)]))).map_err(over)
    }
}
