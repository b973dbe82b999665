//! The log: one sequence of records over a chain of segments, written at one place.
//!
//! ```text
//!   segment 7                               segment 12 (named in 7's header)
//!   [hdr][rec][rec][rec]......[rec] |  -->  [hdr][rec][rec] <- head
//!                                                   ^^^^^^^ the last page, kept in memory
//! ```
//! Every write begins at a page boundary with what the page already held, and ends at one: the
//! kernel never has to read a page in order to change a part of it, recycled segments included.
//! Rewriting bytes that are already durable with the same bytes is safe, since sectors are written
//! whole.
//!
//! Invariants: numbers are dense; a record lies within one segment; only the head is written.

mod scan;
mod write_out;

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use mooring_terms::{SliceId, Version};

pub(crate) use scan::{Found, SegmentReader};
pub(crate) use write_out::Hints;

use crate::address::Address;
use crate::disk::Area;
use crate::format::record::{Logged, RecordHeader};
use crate::format::{RECORD_ALIGN, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::mutation::{Mutation, is_on};
use crate::pool::Core;
use crate::{EngineError, LogNumber, Result, SegmentId};
use write_out::WriteOut;

const PAGE: u64 = 4096;
/// In a header: the successor is not known yet.
pub(crate) const NO_SEGMENT: SegmentId = SegmentId(u32::MAX);

/// A record ready to be placed.
pub(crate) struct Piece {
    kind: u8,
    flags: u8,
    slice: SliceId,
    version: Version,
    meta: Vec<u8>,
    data: Vec<Bytes>,
}

impl Piece {
    pub(crate) fn new(logged: &Logged, data: Vec<Bytes>) -> Self {
        Self {
            kind: logged.kind(),
            flags: logged.flags(),
            slice: logged.slice,
            version: logged.version,
            meta: logged.encode_meta(),
            data,
        }
    }

    fn data_bytes(&self) -> u64 {
        self.data.iter().map(|run| run.len() as u64).sum()
    }

    /// Bytes in the log, padding included.
    pub(crate) fn bytes(&self) -> u64 {
        (RECORD_HEADER_BYTES as u64 + self.meta.len() as u64 + self.data_bytes())
            .next_multiple_of(RECORD_ALIGN)
    }
}

/// Where a record went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) log: LogNumber,
    pub(crate) record: Address,
    /// Where its meta begins, and its data.
    pub(crate) meta: Address,
    pub(crate) data: Address,
    pub(crate) bytes: u32,
}

/// The head of the log.
pub(crate) struct Log {
    pub(crate) head: SegmentId,
    pub(crate) use_count: u32,
    pub(crate) opening: u32,
    /// Where the next record goes.
    pub(crate) offset: u64,
    /// The number of the next record.
    pub(crate) next: LogNumber,
    pub(crate) successor: SegmentId,
    pub(crate) successor_use: u32,
    first: LogNumber,
    /// What the page at `offset` holds before it.
    tail: Vec<u8>,
    /// Written since they were last synced.
    pub(crate) unsynced: BTreeSet<SegmentId>,
    write_out: WriteOut,
    /// Syncs since the head was entered.
    pub(crate) syncs: u32,
    /// Bytes appended since the pool was opened.
    pub(crate) appended_bytes: u64,
}

impl Log {
    /// The log of a pool that is being opened: not to be written.
    pub(crate) fn idle() -> Self {
        Self {
            head: NO_SEGMENT,
            use_count: 0,
            opening: 0,
            offset: 0,
            next: LogNumber(0),
            successor: NO_SEGMENT,
            successor_use: 0,
            first: LogNumber(0),
            tail: Vec::new(),
            unsynced: BTreeSet::new(),
            write_out: WriteOut::default(),
            syncs: 0,
            appended_bytes: 0,
        }
    }

    /// A log that goes on at the start of `head`, which nothing was written to in this use.
    pub(crate) fn start(
        core: &Core,
        (head, use_count): (SegmentId, u32),
        next: LogNumber,
    ) -> Result<Self> {
        let mut log = Self { opening: core.opening, next, ..Self::idle() };
        core.prepare(head)?;
        log.enter(core, (head, use_count))?;
        Ok(log)
    }

    pub(crate) fn last(&self) -> LogNumber {
        LogNumber(self.next.0 - 1)
    }

    pub(crate) fn position(&self) -> Address {
        Address::new(self.head, self.offset)
    }

    /// Begins a segment: its header waits in the tail for the first record.
    fn enter(&mut self, core: &Core, (segment, use_count): (SegmentId, u32)) -> Result<()> {
        // The successor gets its space now: where a disk is full of other things, that must show
        // while the log can still go on.
        let successor = Self::take_prepared(core)?;
        (self.successor, self.successor_use) = successor.unwrap_or((NO_SEGMENT, 0));
        self.head = segment;
        self.use_count = use_count;
        self.first = self.next;
        self.tail = self.header(core).encode().to_vec();
        self.offset = SEGMENT_HEADER_BYTES as u64;
        self.write_out.enter();
        self.syncs = 0;
        Ok(())
    }

    /// A free segment that has its space on the disk, if there is one.
    fn take_prepared(core: &Core) -> Result<Option<(SegmentId, u32)>> {
        loop {
            let Some((segment, use_count)) = core.space.lock().take() else { return Ok(None) };
            match core.prepare(segment) {
                Ok(()) => return Ok(Some((segment, use_count))),
                // A recycled segment has had its space all along.
                Err(EngineError::NoSpace { .. }) if use_count == 1 => {
                    core.space.lock().withhold(segment);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn header(&self, core: &Core) -> SegmentHeader {
        SegmentHeader {
            tag: core.superblock.tag,
            segment: self.head,
            use_count: self.use_count,
            opening: self.opening,
            openings: core.openings,
            first: self.first,
            successor: self.successor,
            successor_use: self.successor_use,
        }
    }

    /// Goes on in the successor.
    fn roll(&mut self, core: &Core) -> Result<()> {
        if self.successor == NO_SEGMENT {
            let Some((successor, use_count)) = Self::take_prepared(core)? else {
                return Err(EngineError::NoSpace {
                    wanted: core.superblock.segment_bytes,
                    free: 0,
                });
            };
            (self.successor, self.successor_use) = (successor, use_count);
            self.write_header_late(core)?;
        }
        core.space.lock().close(self.head, self.offset);
        self.write_out.all(self.head, self.offset).tell(core);
        self.enter(core, (self.successor, self.successor_use))
    }

    /// Puts the successor into a header that was written without one.
    fn write_header_late(&mut self, core: &Core) -> Result<()> {
        let header = self.header(core).encode();
        let area = Area::Segment(self.head);
        if self.offset < PAGE {
            // Still in the tail; the tail is written below, a page of nothing new.
            self.tail[..SEGMENT_HEADER_BYTES].copy_from_slice(&header);
            let mut page = self.tail.clone();
            page.resize(PAGE as usize, 0);
            core.write(area, 0, &[IoSlice::new(&page)])?;
        } else {
            let mut page = vec![0; PAGE as usize];
            core.read(area, 0, &mut page)?;
            page[..SEGMENT_HEADER_BYTES].copy_from_slice(&header);
            core.write(area, 0, &[IoSlice::new(&page)])?;
        }
        self.unsynced.insert(self.head);
        Ok(())
    }

    /// Writes records, in order: one vectored write a segment. O1: when it returns, the kernel has
    /// them. `read_soon` tells whether somebody may be about to read them.
    ///
    /// # Errors
    /// [`EngineError::Io`], and the pool is poisoned; [`EngineError::NoSpace`] with nothing written.
    pub(crate) fn write(
        &mut self,
        core: &Core,
        pieces: &[Piece],
        read_soon: bool,
    ) -> Result<(Vec<Placed>, Hints)> {
        let mut placed = Vec::with_capacity(pieces.len());
        let mut batch = Batch::new(self);
        for piece in pieces {
            if read_soon {
                self.write_out.keep();
            }
            let bytes = piece.bytes();
            if self.offset + bytes > core.superblock.segment_bytes {
                let wrote = !placed.is_empty();
                batch.flush(self, core)?;
                self.roll(core).inspect_err(|_| {
                    if wrote {
                        core.poison("the log could not go on in the middle of a batch");
                    }
                })?;
                batch = Batch::new(self);
            }
            placed.push(self.place(core, piece, &mut batch));
        }
        let start = batch.start;
        batch.flush(self, core)?;
        self.write_out.wrote(start);
        Ok((placed, self.write_out.if_much(self.head, self.offset)))
    }

    /// What to say to the disk about the last write if its sync is about to come.
    pub(crate) fn early(&self) -> Hints {
        self.write_out.early(self.head, self.offset)
    }

    /// Notes that a sync has begun.
    pub(crate) fn synced(&mut self) {
        self.syncs = self.syncs.saturating_add(1);
        self.write_out.synced();
    }

    fn place(&mut self, core: &Core, piece: &Piece, batch: &mut Batch) -> Placed {
        let header = RecordHeader {
            kind: piece.kind,
            flags: piece.flags,
            meta_bytes: piece.meta.len() as u32,
            data_bytes: piece.data_bytes() as u32,
            log: self.next,
            durable: LogNumber(core.durable.load(Ordering::Acquire)),
            use_count: self.use_count,
            opening: self.opening,
            slice: piece.slice,
            version: piece.version,
            segment: self.head,
        };
        let record = self.position();
        let meta = record.plus(RECORD_HEADER_BYTES as u64);
        let placed = Placed {
            log: self.next,
            record,
            meta,
            data: meta.plus(piece.meta.len() as u64),
            bytes: header.total_bytes() as u32,
        };
        batch.own(&header.encode(&piece.meta));
        batch.own(&piece.meta);
        for run in &piece.data {
            batch.share(run);
        }
        batch.own(&[0; 8][..(piece.bytes() - header.total_bytes()) as usize]);
        self.offset += piece.bytes();
        self.appended_bytes += piece.bytes();
        self.next = self.next.next();
        placed
    }
}

/// The parts of one vectored write.
struct Batch {
    start: u64,
    parts: Vec<Bytes>,
    /// The part being gathered from small pieces.
    open: Vec<u8>,
    fresh: bool,
}

/// Runs up to this many bytes are copied together rather than passed as parts of their own.
const COPY_BYTES: usize = 8192;

impl Batch {
    fn new(log: &Log) -> Self {
        let start = log.offset - log.tail.len() as u64;
        let mut open = Vec::with_capacity(3 * PAGE as usize);
        open.extend_from_slice(&log.tail);
        Self { start, parts: Vec::new(), open, fresh: false }
    }

    fn own(&mut self, bytes: &[u8]) {
        self.fresh = true;
        self.open.extend_from_slice(bytes);
    }

    fn share(&mut self, bytes: &Bytes) {
        if bytes.len() <= COPY_BYTES {
            return self.own(bytes);
        }
        self.fresh = true;
        self.parts.push(std::mem::take(&mut self.open).into());
        self.parts.push(bytes.clone());
    }

    fn flush(&mut self, log: &mut Log, core: &Core) -> Result<()> {
        if !self.fresh {
            return Ok(());
        }
        self.fresh = false;
        let partial = (log.offset % PAGE) as usize;
        log.tail = self.last_bytes(partial);
        let padding = if partial == 0 { 0 } else { PAGE as usize - partial };
        let end = self.open.len();
        self.open.resize(end + padding, 0);
        if is_on(Mutation::UseUnchecked) {
            let _ = core.read(Area::Segment(log.head), log.offset, &mut self.open[end..]);
        }
        self.parts.push(std::mem::take(&mut self.open).into());
        let slices: Vec<IoSlice<'_>> = self.parts.iter().map(|part| IoSlice::new(part)).collect();
        core.write(Area::Segment(log.head), self.start, &slices)?;
        log.unsynced.insert(log.head);
        Ok(())
    }

    /// The last `count` bytes gathered.
    fn last_bytes(&self, count: usize) -> Vec<u8> {
        let mut missing = count;
        let mut pieces = Vec::new();
        let all = self.parts.iter().map(|part| &part[..]).chain([&self.open[..]]);
        for part in all.collect::<Vec<_>>().into_iter().rev() {
            let taken = part.len().min(missing);
            pieces.push(&part[part.len() - taken..]);
            missing -= taken;
            if missing == 0 {
                break;
            }
        }
        pieces.into_iter().rev().flatten().copied().collect()
    }
}
