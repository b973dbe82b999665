//! A pool on the real engine and its memory disk.
//!
//! Segments are so small, and the pool too, that segments are reclaimed and used again within one
//! run; checkpoints come every few dozen writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use mooring_engine::{
    Area, Disk, DiskOperation, EngineError, FormatOptions, MemoryDisk, OpenOptions, ReadContent,
    Root, SegmentId,
};
use mooring_replication::{Found, Opened, Query, ReadFault};
use mooring_terms::{
    BLOCK_SIZE, BlockIndex, BlockRange, Body, Data, Entry, Epoch, Extent, Record, Sequence,
    SliceId, SliceIndex, Version, VolumeId,
};

use super::{AppendFault, Pool};
use crate::sim::prng::Prng;

/// Bytes of a segment: a record may have a quarter of it.
const SEGMENT_BYTES: u64 = 128 << 10;
/// More steps of housekeeping than lead to the next reclaim.
const MOST_STEPS: u32 = 500;
/// Takes all space when the pool is to be full; no volume has this number.
const FILLER: SliceId = SliceId { volume: VolumeId(u64::MAX), index: SliceIndex(0) };

/// A pool on the engine.
pub struct EnginePool {
    segments: u64,
    disk: Arc<MemoryDisk>,
    pool: Option<mooring_engine::Pool>,
    prng: Prng,
    full: bool,
    filled: u64,
    /// Why the pool could not be opened.
    refused: Option<String>,
    /// What the replicas count as promised to them: the engine counts blocks.
    promised: BTreeMap<SliceId, u64>,
}

impl EnginePool {
    /// An empty pool of so many segments.
    #[must_use]
    pub fn new(seed: u64, segments: u64) -> Self {
        let disk = Arc::new(MemoryDisk::new(segments * SEGMENT_BYTES + (1 << 20)));
        let options = FormatOptions {
            size_bytes: segments * SEGMENT_BYTES,
            segment_bytes: SEGMENT_BYTES,
            tag: seed,
        };
        mooring_engine::Pool::format(&*disk, &options).expect("an empty disk takes a pool");
        Self {
            segments,
            disk,
            pool: None,
            prng: Prng::new(seed),
            full: false,
            filled: 0,
            refused: None,
            promised: BTreeMap::new(),
        }
    }

    /// One step of housekeeping; says whether there was anything to do.
    pub fn step(&self) -> bool {
        // What fails here shows at the next append or sync.
        let step = self.pool.as_ref().map(mooring_engine::Pool::maintain);
        matches!(step, Some(Ok(mooring_engine::Maintained::Worked)))
    }

    /// Whether a segment is being emptied.
    #[must_use]
    pub fn is_reclaiming(&self) -> bool {
        self.pool.as_ref().is_some_and(mooring_engine::Pool::is_reclaiming)
    }

    /// The pool that would be found if the power went now.
    #[must_use]
    pub fn crashed(&self, seed: u64) -> Self {
        let disk = self.disk.fork();
        disk.crash(seed);
        let mut pool = Self {
            segments: self.segments,
            disk: Arc::new(disk),
            pool: None,
            prng: Prng::new(seed),
            full: false,
            filled: 0,
            refused: None,
            promised: BTreeMap::new(),
        };
        pool.open();
        pool
    }

    /// What takes the pool's space, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let usage = self.pool.as_ref().map(mooring_engine::Pool::usage);
        format!("{usage:?}, {} of it taken away", self.filled)
    }

    /// Why the last opening failed, if it did.
    pub fn refused(&mut self) -> Option<String> {
        self.refused.take()
    }

    /// Whether all that was appended is known to be durable.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.pool.as_ref().is_some_and(|pool| pool.durable() >= pool.last_appended())
    }

    fn close(&mut self) {
        self.pool = None;
        self.filled = 0;
        self.promised.clear();
    }

    /// Overwrites a few blocks of nobody's, so that there is something to reclaim.
    fn overwrite(&self) -> bool {
        let Some(pool) = self.pool.as_ref().filter(|_| !self.full) else { return false };
        let Ok(info) = pool.replica(FILLER) else { return false };
        let version = Version::new(Epoch(1), info.last.sequence.next());
        let bytes = vec![version.sequence.0 as u8 | 1; 4 * BLOCK_SIZE];
        let body = Body::Write { first: BlockIndex(0), data: Data::checksummed(bytes.into()) };
        let entry = Entry::Record { record: Record { version, body }, state: None };
        let written = pool.append(FILLER, &[entry]).is_ok();
        pool.committed(FILLER, version.sequence);
        written
    }

    /// Takes `bytes` off what is promised, here and in the engine.
    fn promised_less(&mut self, slice: SliceId, bytes: u64) {
        let promised = self.promised.entry(slice).or_default();
        *promised = promised.saturating_sub(bytes);
        if let Some(pool) = &self.pool {
            pool.keep_reserved(slice, *promised);
        }
    }

    fn take_all_space(&mut self) {
        let Some(pool) = &self.pool else { return };
        if self.full {
            let free = pool.usage().free;
            self.filled += pool.reserve(FILLER, free).unwrap_or(0);
        } else {
            pool.release(FILLER, std::mem::take(&mut self.filled));
        }
    }

    /// Flips a bit in every place of the disk that holds `block`'s bytes.
    fn flip(&self, bytes: &[u8], bit: u64) -> bool {
        let mut hit = false;
        for segment in 0..self.segments {
            let area = Area::Segment(SegmentId(u32::try_from(segment).expect("few")));
            let Ok(Some(length)) = self.disk.length(area) else { continue };
            let mut all = vec![0; usize::try_from(length).expect("small")];
            if self.disk.read(area, 0, &mut all).is_err() {
                continue;
            }
            let mut at = 0;
            while at + BLOCK_SIZE <= all.len() {
                if all[at..at + BLOCK_SIZE] == *bytes {
                    let offset = at as u64 + bit / 8 % BLOCK_SIZE as u64;
                    let which = u8::try_from(bit % 8).expect("below 8");
                    hit |= self.disk.rot(area, offset, which);
                    at += BLOCK_SIZE;
                } else {
                    // A record's data begins wherever its header ends.
                    at += 1;
                }
            }
        }
        hit
    }
}

impl Pool for EnginePool {
    fn open(&mut self) -> bool {
        let options = OpenOptions {
            memory_bytes: 1 << 20,
            checkpoint_bytes: 3 * SEGMENT_BYTES,
            opening: self.prng.next(),
            zero_ahead: false,
            counts: true,
        };
        match mooring_engine::Pool::open(self.disk.clone(), options) {
            Ok((pool, _)) => {
                if pool.replica(FILLER).is_err() {
                    pool.create(FILLER, Bytes::new()).expect("an open pool takes a replica");
                }
                self.pool = Some(pool);
                self.take_all_space();
                true
            }
            Err(error) => {
                self.refused = Some(error.to_string());
                false
            }
        }
    }

    fn kill(&mut self) {
        self.close();
        self.disk.kill();
    }

    fn cut(&mut self, prng: &mut Prng) {
        self.close();
        self.disk.crash(prng.next());
    }

    fn slices(&self) -> Vec<SliceId> {
        let all = self.pool.as_ref().map(mooring_engine::Pool::replicas).unwrap_or_default();
        all.into_iter().filter(|slice| *slice != FILLER).collect()
    }

    fn create(&mut self, slice: SliceId) {
        if let Some(pool) = &self.pool {
            // A disk that fails now is found out by the first append.
            let _ = pool.create(slice, Bytes::new());
            let _ = pool.sync();
        }
    }

    fn remove(&mut self, slice: SliceId) {
        self.promised.remove(&slice);
        if let Some(pool) = &self.pool {
            let _ = pool.remove(slice);
            let _ = pool.sync();
        }
    }

    fn recovered(&self, slice: SliceId) -> Opened {
        let info = self.pool.as_ref().and_then(|pool| pool.replica(slice).ok());
        info.map_or_else(Opened::default, |info| Opened {
            state: info.state,
            last: info.last,
            kept: Vec::new(),
            damaged: info.damaged,
        })
    }

    fn append(&mut self, slice: SliceId, entries: &[Entry]) -> Result<(), AppendFault> {
        let Some(pool) = &self.pool else { return Err(AppendFault::Failed) };
        match pool.append(slice, entries) {
            Ok(_) => {
                self.promised_less(slice, entries.iter().map(Entry::cost_bytes).sum());
                Ok(())
            }
            Err(EngineError::NoSpace { .. }) => Err(AppendFault::NoSpace),
            // An earlier disk fault may have kept the replica from being made.
            Err(EngineError::Io { .. } | EngineError::Poisoned | EngineError::NoReplica(_)) => {
                Err(AppendFault::Failed)
            }
            Err(error) => panic!("{slice}: {error}; {entries:?}"),
        }
    }

    fn sync(&mut self) -> bool {
        self.pool.as_ref().is_some_and(|pool| pool.sync().is_ok())
    }

    fn committed(&mut self, slice: SliceId, sequence: Sequence) {
        if let Some(pool) = &self.pool {
            pool.committed(slice, sequence);
        }
    }

    fn read(&mut self, slice: SliceId, range: BlockRange) -> Result<Vec<Extent>, ReadFault> {
        let pool = self.pool.as_ref().ok_or(ReadFault::Failed)?;
        let mut found = Vec::new();
        match pool.read(slice, range, &mut found) {
            Ok(()) => {}
            Err(EngineError::Corrupt { block, version, .. }) => {
                return Err(ReadFault::Corrupt { block, version });
            }
            Err(_) => return Err(ReadFault::Failed),
        }
        let extents = found.into_iter().map(|part| match part.content {
            ReadContent::Hole => Extent::Hole { version: part.version, range: part.range },
            ReadContent::Data(data) => {
                Extent::Data { version: part.version, first: part.range.first, data }
            }
            ReadContent::Missing => Extent::Missing { version: part.version, range: part.range },
        });
        Ok(extents.collect())
    }

    fn query(
        &mut self,
        slice: SliceId,
        query: Query,
        from: BlockIndex,
        limit_blocks: u64,
    ) -> Result<Found, ReadFault> {
        let pool = self.pool.as_ref().ok_or(ReadFault::Failed)?;
        let runs = usize::try_from(limit_blocks).unwrap_or(usize::MAX).clamp(1, 1024);
        let (ranges, next) = match query {
            Query::NewerThan(version) => {
                let found = pool.newer_than(slice, Root::Live, version, from, runs);
                let found = found.map_err(|_| ReadFault::Failed)?;
                (found.extents.iter().map(|extent| extent.range).collect(), found.next)
            }
            Query::Missing => pool.missing(slice, from, runs).map_err(|_| ReadFault::Failed)?,
        };
        Ok(cut(ranges, next, limit_blocks.max(1)))
    }

    fn records(&mut self, slice: SliceId, after: Sequence, limit_bytes: u64) -> Vec<Record> {
        let Some(pool) = &self.pool else { return Vec::new() };
        let mut records = pool.records(slice, after, limit_bytes.max(1)).unwrap_or_default();
        let wanted = after.next();
        if records.first().is_some_and(|first| first.version.sequence != wanted) {
            records.clear();
        }
        records
    }

    fn reserve(&mut self, slice: SliceId, bytes: u64) -> u64 {
        let Some(pool) = &self.pool else { return 0 };
        let got = pool.reserve(slice, bytes).unwrap_or(0);
        if got < bytes {
            pool.release(slice, got);
            pool.want_space();
            return 0;
        }
        *self.promised.entry(slice).or_default() += got;
        got
    }

    fn release(&mut self, slice: SliceId, bytes: u64) {
        self.promised_less(slice, bytes);
    }

    fn fill(&mut self, full: bool) {
        self.full = full;
        self.take_all_space();
    }

    fn rot(&mut self, slice: SliceId, candidates: &[BlockIndex]) -> Option<BlockIndex> {
        for block in candidates {
            let extents = self.read(slice, BlockRange::new(*block, 1)).ok()?;
            if let Some(Extent::Data { data, .. }) = extents.first() {
                let bit = self.prng.next();
                return self.flip(data.bytes(), bit).then_some(*block);
            }
        }
        None
    }

    fn fail_next(&mut self, sync: bool) {
        let operation = if sync { DiskOperation::Sync } else { DiskOperation::Write };
        self.disk.fail_next(operation, 1);
    }

    fn tend(&mut self) {
        if self.full {
            self.take_all_space();
        }
    }

    fn reclaim_and_stop(&mut self, operations: u64) -> bool {
        let Some(pool) = &self.pool else { return false };
        let works = || matches!(pool.maintain(), Ok(mooring_engine::Maintained::Worked));
        for _ in 0..MOST_STEPS {
            if pool.is_reclaiming() {
                self.disk.stop_after(operations);
                while works() {}
                return true;
            }
            if !works() && !self.overwrite() {
                return false;
            }
        }
        false
    }

    fn reused(&self) -> u64 {
        self.pool.as_ref().map_or(0, |pool| pool.usage().reused_segments)
    }
}

/// Cuts ranges to `limit` blocks, and says where to go on.
fn cut(ranges: Vec<BlockRange>, next: Option<BlockIndex>, limit: u64) -> Found {
    let mut left = limit;
    let mut found = Found { ranges: Vec::new(), next };
    for range in ranges {
        if left == 0 {
            found.next = Some(range.first);
            break;
        }
        let count = range.count.min(left);
        left -= count;
        found.ranges.push(BlockRange::new(range.first, count));
        if count < range.count {
            found.next = Some(range.first.plus(count));
            break;
        }
    }
    found
}
