//! When what was written goes to the media without a sync asking for it, and when memory need not
//! keep it any longer.
//!
//! ```text
//!   written ────> page cache ──every 4 MiB──────────────────> media ──16 MiB later──> forgotten,
//!             each write is followed by a sync ──at once──>               if nobody reads it here
//! ```
//! The first is so that a sync finds little to do. The second, so that the disk is at work while the
//! write is being answered and its flush asked for; where writes come in numbers it would write the
//! log's last page again and again. The third, because a secondary's log is read by nobody but
//! reclaim: its pages serve better for what is written next.
//!
//! All of it is hints: nothing is durable before a sync, and what is forgotten can be read.

use std::collections::VecDeque;

use super::PAGE;
use crate::SegmentId;
use crate::disk::Area;
use crate::pool::Core;

/// Write-out is started whenever this many bytes have gathered.
const WRITE_OUT_BYTES: u64 = 4 << 20;
/// Ranges that may still be on their way: the kernel keeps what has not arrived, whatever it is told.
const GOING_OUT: usize = 4;
/// After so many syncs in a row that had little to sync, the next write is expected to have one too.
const LONE_SYNCS: u32 = 4;
/// Little: a write, and perhaps what it leads to.
const LONE_WRITES: u32 = 2;

/// Bytes of a segment: the first, and how many.
type Range = (SegmentId, u64, u64);

/// What is to be said to the disk, once no lock is held.
#[derive(Default)]
pub(crate) struct Hints {
    write_out: Option<Range>,
    forget: Option<Range>,
}

impl Hints {
    pub(crate) fn tell(self, core: &Core) {
        if let Some((segment, offset, bytes)) = self.write_out {
            core.disk.write_out(Area::Segment(segment), offset, bytes);
        }
        if let Some((segment, offset, bytes)) = self.forget {
            core.disk.forget(Area::Segment(segment), offset, bytes);
        }
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct WriteOut {
    /// Up to where of the head write-out was started.
    begun: u64,
    /// Whether something written since then may be read soon.
    read_soon: bool,
    /// Ranges of which it was started, and which nobody is about to read; oldest first.
    going_out: VecDeque<Range>,
    /// Where the last write began.
    last: u64,
    /// Writes since the last sync.
    writes: u32,
    /// Syncs in a row with few writes each.
    lone_syncs: u32,
}

impl WriteOut {
    /// The head is another segment.
    pub(super) fn enter(&mut self) {
        self.begun = 0;
    }

    /// Something is being written that may be read soon.
    pub(super) fn keep(&mut self) {
        self.read_soon = true;
    }

    /// Something was written from `start` on.
    pub(super) fn wrote(&mut self, start: u64) {
        self.last = start;
        self.writes = self.writes.saturating_add(1);
    }

    pub(super) fn synced(&mut self) {
        match self.writes {
            0 => {}
            1..=LONE_WRITES => self.lone_syncs = self.lone_syncs.saturating_add(1),
            _ => self.lone_syncs = 0,
        }
        self.writes = 0;
    }

    /// Begins, if enough has gathered before `end`.
    pub(super) fn if_much(&mut self, head: SegmentId, end: u64) -> Hints {
        if end - self.begun < WRITE_OUT_BYTES {
            return Hints::default();
        }
        // Up to the last whole page: the tail will be written again.
        self.all(head, end - end % PAGE)
    }

    /// Begins with everything before `end`.
    pub(super) fn all(&mut self, head: SegmentId, end: u64) -> Hints {
        let from = std::mem::replace(&mut self.begun, end);
        let range = (head, from, end - from);
        if !std::mem::take(&mut self.read_soon) {
            self.going_out.push_back(range);
        }
        let forget =
            if self.going_out.len() > GOING_OUT { self.going_out.pop_front() } else { None };
        Hints { write_out: Some(range), forget }
    }

    /// The last write, which ends before `end`, if its sync is about to come.
    pub(super) fn early(&self, head: SegmentId, end: u64) -> Hints {
        let lone = self.lone_syncs >= LONE_SYNCS && (1..=LONE_WRITES).contains(&self.writes);
        let range = (head, self.last, end.next_multiple_of(PAGE).saturating_sub(self.last));
        Hints { write_out: lone.then_some(range), forget: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: SegmentId = SegmentId(3);
    const MIB: u64 = 1 << 20;

    fn early(out: &WriteOut, end: u64) -> Option<Range> {
        out.early(HEAD, end).write_out
    }

    #[test]
    fn a_write_is_written_out_at_once_where_each_has_had_its_sync() {
        let mut out = WriteOut::default();
        for i in 0..u64::from(LONE_SYNCS) {
            out.wrote(i * PAGE);
            assert_eq!(early(&out, i * PAGE + 100), None, "nobody knows yet");
            out.synced();
        }
        assert_eq!(early(&out, 5 * PAGE), None, "there is nothing new");
        out.wrote(5 * PAGE);
        assert_eq!(early(&out, 6 * PAGE + 100), Some((HEAD, 5 * PAGE, 2 * PAGE)));
        out.wrote(6 * PAGE);
        out.wrote(7 * PAGE);
        assert_eq!(early(&out, 8 * PAGE), None, "writes come in numbers");
        out.synced();
        out.wrote(8 * PAGE);
        assert_eq!(early(&out, 9 * PAGE), None, "it begins anew");
    }

    #[test]
    fn what_nobody_reads_is_forgotten_once_it_should_have_arrived() {
        let mut out = WriteOut::default();
        let mut forgotten = Vec::new();
        for i in 1..=10 {
            out.wrote((i - 1) * 4 * MIB);
            if i == 2 {
                out.keep();
            }
            let hints = out.if_much(HEAD, i * 4 * MIB);
            assert_eq!(hints.write_out, Some((HEAD, (i - 1) * 4 * MIB, 4 * MIB)));
            forgotten.extend(hints.forget.map(|(_, offset, _)| offset / MIB));
        }
        assert_eq!(forgotten, [0, 8, 12, 16, 20], "what may be read stays");
    }

    #[test]
    fn little_waits_until_it_is_more() {
        let mut out = WriteOut::default();
        out.wrote(0);
        assert_eq!(out.if_much(HEAD, 4 * MIB - 1).write_out, None);
        assert_eq!(out.if_much(HEAD, 4 * MIB + 1).write_out, Some((HEAD, 0, 4 * MIB)));
        out.enter();
        assert_eq!(out.all(HEAD, 100).write_out, Some((HEAD, 0, 100)));
    }
}
