//! Reading blocks: look up without I/O under a lock, read without any lock, check.
//!
//! ```text
//!   moment ─> view (root, layer runs: short read lock) ─> tree walk ─> moves ─> pread ─> crc
//!      ^                                                                                  │
//!      └──────────── a segment that was touched has been freed since the moment ──────────┘
//! ```
//! A reader that loses the race against reclaim looks everything up again; no lock keeps a segment
//! from being freed.

use bytes::Bytes;
use mooring_terms::{
    BLOCK_SIZE, BlockIndex, BlockRange, Data, Record, Sequence, SliceId, SnapshotId, Version,
    crc32c,
};
use std::sync::atomic::Ordering;

use crate::address::Address;
use crate::disk::Area;
use crate::format::RECORD_HEADER_BYTES;
use crate::format::record::{Logged, RecordHeader};
use crate::map::{Content, Extent, Filter, MAX_BLOCKS, Root as TreeRoot, Upper, Walk, combine};
use crate::mutation::{Mutation, is_on};
use crate::pool::{Nodes, Pool};
use crate::replica::Pinned;
use crate::{EngineError, Result};

/// Which map of a replica is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Root {
    /// The present one.
    Live,
    /// A snapshot's.
    Snapshot(SnapshotId),
}

/// What a run of blocks holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadContent {
    /// Zeros that occupy nothing.
    Hole,
    /// Bytes that match their checksums.
    Data(Data),
    /// This replica hasn't got them; a peer may have.
    Missing,
}

/// A run of blocks of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBlock {
    /// The blocks.
    pub range: BlockRange,
    /// The version of each of them; [`Version::ZERO`] if they were never written. Of missing ones: the
    /// newest that they can have.
    pub version: Version,
    /// What they hold.
    pub content: ReadContent,
}

/// A root and the runs of the layers over it, oldest layer first.
pub(crate) struct View {
    pub(crate) root: TreeRoot,
    pub(crate) layers: Vec<(Option<Version>, Vec<Upper>)>,
    /// Where the layers' runs end: beyond it they were not gathered.
    pub(crate) end: u64,
}

impl View {
    /// The lowest cut of all layers.
    pub(crate) fn cut(&self) -> Option<Version> {
        self.layers.iter().filter_map(|(cut, _)| *cut).min()
    }

    /// The tree's extents with the layers over them.
    pub(crate) fn over(&self, mut extents: Vec<Extent>, end: u64) -> Vec<Extent> {
        for (cut, uppers) in &self.layers {
            let within = uppers.partition_point(|upper| upper.first < end);
            let mut uppers = uppers[..within].to_vec();
            if let Some(last) = uppers.last_mut() {
                last.count = last.end().min(end) - last.first;
            }
            if cut.is_some() || !uppers.is_empty() {
                extents = combine(&extents, *cut, &uppers);
            }
        }
        extents
    }
}

impl Pool {
    /// Gathers at most `limit` runs a layer of what lies over the tree in `first..end`.
    pub(crate) fn view(
        &self,
        slice: SliceId,
        root: Root,
        (first, end): (u64, u64),
        limit: usize,
    ) -> Result<View> {
        let replica = self.find(slice)?;
        let state = replica.inner.read();
        let (root, sealed, fresh) = match root {
            Root::Live => (state.root, &state.sealed, Some(&state.fresh)),
            Root::Snapshot(id) => {
                let found = state.snapshot(id).ok_or(EngineError::NoSnapshot(slice, id))?;
                (found.root, &found.layers, None)
            }
        };
        let mut view = View { root, layers: Vec::new(), end };
        for layer in sealed.iter().map(|sealed| &*sealed.layer).chain(fresh) {
            let mut uppers = Vec::new();
            let stopped = layer.uppers(first, view.end, limit, &mut uppers);
            view.end = view.end.min(stopped);
            view.layers.push((layer.cut_at(), uppers));
        }
        Ok(view)
    }

    /// What the map says of `first..end`, in order, gaps where nothing was written.
    pub(crate) fn extents(
        &self,
        slice: SliceId,
        root: Root,
        first: u64,
        end: u64,
    ) -> Result<Vec<Extent>> {
        loop {
            let nodes = Nodes::now(&self.core);
            let view = self.view(slice, root, (first, end), usize::MAX)?;
            let (source, filter) = (&nodes, Filter::All);
            let mut walk = Walk { source, filter, limit: usize::MAX, out: Vec::new() };
            // Only what was freed meanwhile stops a walk; what can't be read counts as missing.
            if walk.run(&view.root, first, end).is_ok() {
                return Ok(view.over(walk.out, end));
            }
        }
    }

    /// Reads `range` of a replica and appends what it holds to `out`: runs of one version, in
    /// order, without gaps.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`] names the first block that can't be read or doesn't match its
    /// checksum; [`EngineError::NoReplica`], [`EngineError::BadRange`].
    pub fn read(&self, slice: SliceId, range: BlockRange, out: &mut Vec<ReadBlock>) -> Result<()> {
        self.read_root(slice, Root::Live, range, out)
    }

    /// As [`Pool::read`], of the present map or a snapshot.
    ///
    /// # Errors
    /// Those of [`Pool::read`], and [`EngineError::NoSnapshot`].
    pub fn read_root(
        &self,
        slice: SliceId,
        root: Root,
        range: BlockRange,
        out: &mut Vec<ReadBlock>,
    ) -> Result<()> {
        if range.count == 0 || range.end().0 > MAX_BLOCKS {
            return Err(EngineError::BadRange { first: range.first, count: range.count });
        }
        let kept = out.len();
        loop {
            let moment = self.core.moment.load(Ordering::SeqCst);
            let mut extents = self.extents(slice, root, range.first.0, range.end().0)?;
            self.translate(&mut extents);
            match self.read_extents(slice, range, &extents, moment, out)? {
                Done::Yes => return Ok(()),
                Done::Freed => out.truncate(kept),
            }
        }
    }

    fn translate(&self, extents: &mut [Extent]) {
        let moved = self.moved.read();
        if moved.is_empty() {
            return;
        }
        for extent in extents {
            if let Content::Data { address, .. } = &mut extent.entry.content {
                *address = moved.translate(*address);
            }
        }
    }

    fn read_extents(
        &self,
        slice: SliceId,
        range: BlockRange,
        extents: &[Extent],
        moment: u64,
        out: &mut Vec<ReadBlock>,
    ) -> Result<Done> {
        let bytes = match self.fetch(slice, extents) {
            // A segment that is being written anew may fail to read for that reason alone.
            Err(_) if self.any_freed(extents, moment) => return Ok(Done::Freed),
            other => other?,
        };
        if self.any_freed(extents, moment) {
            return Ok(Done::Freed);
        }
        let mut next = range.first.0;
        let mut place = 0;
        let mut i = 0;
        while i < extents.len() {
            let run = same_run(&extents[i..]);
            let first = extents[i].first;
            if next < first {
                out.push(hole(next, first - next, Version::ZERO));
            }
            let entry = extents[i].entry;
            let count = extents[i + run - 1].end() - first;
            let content = match entry.content {
                Content::Hole => ReadContent::Hole,
                Content::Missing | Content::Lost => ReadContent::Missing,
                Content::Data { .. } => {
                    let data = bytes.slice(place..place + run * BLOCK_SIZE);
                    place += run * BLOCK_SIZE;
                    ReadContent::Data(checked(slice, &extents[i..i + run], data)?)
                }
            };
            let range = BlockRange::new(BlockIndex(first), count);
            out.push(ReadBlock { range, version: entry.version, content });
            next = first + count;
            i += run;
        }
        if next < range.end().0 {
            out.push(hole(next, range.end().0 - next, Version::ZERO));
        }
        Ok(Done::Yes)
    }

    fn any_freed(&self, extents: &[Extent], moment: u64) -> bool {
        self.core.moment.load(Ordering::SeqCst) != moment
            && extents
                .iter()
                .filter_map(|extent| extent.entry.address())
                .any(|address| self.core.freed_since(address, moment))
    }

    /// The bytes of all data extents, one after the other; neighbours in the log in one read. What
    /// the disk doesn't give is as lost as what it gives wrong, and repaired alike.
    fn fetch(&self, slice: SliceId, extents: &[Extent]) -> Result<Bytes> {
        let places: Vec<(&Extent, Address)> =
            extents.iter().filter_map(|extent| Some((extent, extent.entry.address()?))).collect();
        let mut bytes = vec![0; places.len() * BLOCK_SIZE];
        let mut start = 0;
        while start < places.len() {
            let mut end = start + 1;
            while end < places.len() && places[end].1 == places[end - 1].1.plus(BLOCK_SIZE as u64) {
                end += 1;
            }
            let out = &mut bytes[start * BLOCK_SIZE..end * BLOCK_SIZE];
            let at = places[start].1;
            let failed = self.core.read(Area::Segment(at.segment()), at.offset(), out).err();
            if let Some(error) = failed {
                tracing::warn!(%slice, %error, "blocks can't be read");
                let blocks = places[start..end].iter().zip(out.chunks_exact_mut(BLOCK_SIZE));
                let bad = |(_, at): &(&Extent, Address), out: &mut [u8]| {
                    self.core.read(Area::Segment(at.segment()), at.offset(), out).is_err()
                };
                let bad =
                    blocks.into_iter().find_map(|(place, out)| bad(place, out).then_some(place.0));
                // Each by itself could be read: whatever it was has passed.
                if let Some(extent) = bad {
                    let block = BlockIndex(extent.first);
                    return Err(EngineError::Corrupt {
                        slice,
                        block,
                        version: extent.entry.version,
                    });
                }
            }
            start = end;
        }
        Ok(bytes.into())
    }

    /// Records of a slice's log after `after`, oldest first, until about `limit_bytes` of payload:
    /// what a peer lacks. Those up to the committed position may be gone; then the result begins
    /// later, or is empty.
    ///
    /// # Errors
    /// [`EngineError::LostRecord`], [`EngineError::NoReplica`].
    pub fn records(
        &self,
        slice: SliceId,
        after: Sequence,
        limit_bytes: u64,
    ) -> Result<Vec<Record>> {
        let replica = self.find(slice)?;
        let mut out = Vec::new();
        let mut next = after.next();
        let mut bytes = 0;
        while bytes < limit_bytes {
            let moment = self.core.moment.load(Ordering::SeqCst);
            let found = replica.inner.read().pinned.range(next..).next().map(|(s, p)| (*s, *p));
            let Some((sequence, pinned)) = found else { break };
            if !out.is_empty() && sequence != next {
                break;
            }
            let record = self.read_record(slice, sequence, &pinned);
            if self.core.freed_since(pinned.record, moment) {
                continue;
            }
            let record = record.ok_or(EngineError::LostRecord { slice, sequence })?;
            bytes += record.payload_bytes() + RECORD_HEADER_BYTES as u64;
            out.push(record);
            next = sequence.next();
        }
        Ok(out)
    }

    fn read_record(&self, slice: SliceId, sequence: Sequence, pinned: &Pinned) -> Option<Record> {
        let mut bytes = vec![0; pinned.bytes as usize];
        let area = Area::Segment(pinned.record.segment());
        self.core.read(area, pinned.record.offset(), &mut bytes).ok()?;
        let header = RecordHeader::decode(&bytes)?;
        let data_at = RECORD_HEADER_BYTES + header.meta_bytes as usize;
        let meta = bytes.get(RECORD_HEADER_BYTES..data_at)?;
        let ours = header.slice == slice && header.version.sequence == sequence;
        if !ours || !RecordHeader::verify(&bytes, meta) {
            return None;
        }
        let logged = Logged::decode(&header, meta)?;
        let data = bytes.get(data_at..)?;
        logged.matches(data).then(|| logged.record(data))?
    }
}

enum Done {
    Yes,
    /// A segment was freed meanwhile: look up again.
    Freed,
}

fn hole(first: u64, count: u64, version: Version) -> ReadBlock {
    let range = BlockRange::new(BlockIndex(first), count);
    ReadBlock { range, version, content: ReadContent::Hole }
}

/// How many extents at the front are one run of one version and kind.
fn same_run(extents: &[Extent]) -> usize {
    let mut run = 1;
    while run < extents.len() {
        let (last, next) = (&extents[run - 1], &extents[run]);
        let same_kind = last.entry.content.same_kind(&next.entry.content);
        if !same_kind || last.end() != next.first || last.entry.version != next.entry.version {
            break;
        }
        run += 1;
    }
    run
}

fn checked(slice: SliceId, extents: &[Extent], bytes: Bytes) -> Result<Data> {
    let crcs: Vec<u32> = extents
        .iter()
        .filter_map(|extent| match extent.entry.content {
            Content::Data { crc, .. } => Some(crc),
            _ => None,
        })
        .collect();
    for (i, block) in bytes.chunks_exact(BLOCK_SIZE).enumerate() {
        if crc32c(block) != crcs[i] && !is_on(Mutation::CrcUnchecked) {
            return Err(EngineError::Corrupt {
                slice,
                block: BlockIndex(extents[i].first),
                version: extents[i].entry.version,
            });
        }
    }
    Ok(Data::from_parts(bytes, crcs.into()).expect("one checksum a block"))
}
