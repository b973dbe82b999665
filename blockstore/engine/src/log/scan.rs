//! Reading records back from a segment: for roll-forward, reclaim and the offline decoder.

use crate::disk::{Area, Disk};
use crate::format::record::{Logged, RecordHeader};
use crate::format::{RECORD_ALIGN, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::mutation::{Mutation, is_on};
use crate::{LogNumber, SegmentId};

/// Bytes read at once.
const WINDOW: usize = 1 << 20;

/// What stands at a place in a segment.
pub(crate) struct Found {
    pub(crate) header: RecordHeader,
    pub(crate) logged: Logged,
    pub(crate) data_at: u64,
    /// Where the next record begins.
    pub(crate) next: u64,
}

/// Reads one segment through a window.
pub(crate) struct SegmentReader<'a> {
    disk: &'a dyn Disk,
    segment: SegmentId,
    segment_bytes: u64,
    window: Vec<u8>,
    start: u64,
    /// Bytes that could not be read were met.
    pub(crate) unreadable: bool,
}

impl<'a> SegmentReader<'a> {
    pub(crate) fn new(disk: &'a dyn Disk, segment: SegmentId, segment_bytes: u64) -> Self {
        Self { disk, segment, segment_bytes, window: Vec::new(), start: 0, unreadable: false }
    }

    /// `count` bytes from `offset` on; `None` beyond the segment or if they can't be read.
    pub(crate) fn bytes(&mut self, offset: u64, count: usize) -> Option<&[u8]> {
        if offset + count as u64 > self.segment_bytes {
            return None;
        }
        let held = self.start..self.start + self.window.len() as u64;
        if offset < held.start || offset + count as u64 > held.end {
            let start = offset - offset % 4096;
            let wanted = (offset + count as u64 - start).max(WINDOW as u64);
            let length = wanted.min(self.segment_bytes - start) as usize;
            self.window.resize(length, 0);
            self.start = start;
            let area = Area::Segment(self.segment);
            if self.disk.read(area, start, &mut self.window).is_err() {
                // Around a bad sector: what is asked for alone may be readable.
                self.window.resize(count, 0);
                self.start = offset;
                if self.disk.read(area, offset, &mut self.window).is_err() {
                    self.window.clear();
                    self.unreadable = true;
                    return None;
                }
            }
        }
        let at = (offset - self.start) as usize;
        self.window.get(at..at + count)
    }

    pub(crate) fn header(&mut self) -> Option<SegmentHeader> {
        let segment = self.segment;
        let header = SegmentHeader::decode(self.bytes(0, SEGMENT_HEADER_BYTES)?)?;
        (header.segment == segment).then_some(header)
    }

    /// The record at `offset` written under `(use, opening)`. With `verify`, its data must match
    /// its checksums too.
    pub(crate) fn record(
        &mut self,
        offset: u64,
        (use_count, opening): (u32, u32),
        verify: bool,
    ) -> Option<Found> {
        let segment = self.segment;
        let head = self.bytes(offset, RECORD_HEADER_BYTES)?.to_vec();
        let header = RecordHeader::decode(&head)?;
        let current = header.use_count == use_count && header.opening == opening;
        if header.segment != segment || !(current || is_on(Mutation::UseUnchecked)) {
            return None;
        }
        let meta_at = offset + RECORD_HEADER_BYTES as u64;
        let meta = self.bytes(meta_at, header.meta_bytes as usize)?;
        if !RecordHeader::verify(&head, meta) {
            return None;
        }
        let logged = Logged::decode(&header, meta)?;
        if logged.data_bytes() != header.data_bytes as usize {
            return None;
        }
        let data_at = meta_at + u64::from(header.meta_bytes);
        let end = offset + header.total_bytes();
        if end > self.segment_bytes {
            return None;
        }
        if verify && header.data_bytes > 0 {
            let data = self.bytes(data_at, header.data_bytes as usize)?;
            if !logged.matches(data) && !is_on(Mutation::TornAccepted) {
                return None;
            }
        }
        Some(Found { header, logged, data_at, next: end.next_multiple_of(RECORD_ALIGN) })
    }

    /// The first whole record at or behind `from` with a number of at least `least`.
    pub(crate) fn search(
        &mut self,
        from: u64,
        under: (u32, u32),
        least: LogNumber,
    ) -> Option<(u64, Found)> {
        let mut offset = from.next_multiple_of(RECORD_ALIGN);
        while offset + RECORD_HEADER_BYTES as u64 <= self.segment_bytes {
            let magic =
                self.bytes(offset, 4).is_some_and(|bytes| bytes == crate::format::RECORD_MAGIC);
            if magic
                && let Some(found) = self.record(offset, under, true)
                && found.header.log >= least
            {
                return Some((offset, found));
            }
            offset += RECORD_ALIGN;
        }
        None
    }
}
