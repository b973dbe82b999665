//! Making, opening and reading back a pool.
//!
//! ```text
//!   superblock ─> newest slot whose body can be read ─> replicas, segments
//!        ─> records from the noted position on, each the next number, under its segment's use,
//!           over the chain of successors ─> the first one that is torn, missing or old ends it
//!        ─> look behind it: does anything say that a missing number was durable? then: damaged
//!        ─> a new segment, a checkpoint (order O7), and the pool is open
//! ```
//! Time goes with the log since the last checkpoint, not with the size of the pool.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mooring_terms::crc32c;
use parking_lot::{Mutex, RwLock};

use crate::address::{Address, MAX_SEGMENTS};
use crate::disk::{Area, Disk};
use crate::format::body::{Body, ReplicaBody};
use crate::format::{
    SEGMENT_HEADER_BYTES, SLOT_BYTES, SUPERBLOCK_BYTES, SegmentHeader, Slot, Superblock,
};
use crate::log::{Found, Log, NO_SEGMENT, Placed, SegmentReader};
use crate::maintenance::Maintenance;
use crate::map::Moved;
use crate::mutation::{Mutation, is_on};
use crate::pool::{Core, FormatOptions, OpenOptions, Pool};
use crate::replica::{Replica, ReplicaState, Snapshot};
use crate::space::{Segment, SegmentState, Space};
use crate::sync::Commit;
use crate::{EngineError, LogNumber, Result, SegmentId};

/// The fewest segments of a pool: head, successor, reserve, and something to fill.
const MIN_SEGMENTS: u64 = 16;
const MIN_SEGMENT_BYTES: u64 = 64 << 10;

/// What opening a pool found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Records rolled forward, and their bytes.
    pub replayed_records: u64,
    /// Bytes rolled forward.
    pub replayed_bytes: u64,
    /// The log ended in a record that was not written whole: what a crash leaves.
    pub torn_tail: bool,
    /// Records that were durable are gone. The replicas are marked; they can't be elected, and
    /// rejoin.
    pub damaged: bool,
    /// Why it is damaged.
    pub reason: Option<DamageReason>,
    /// The log number of the last record found.
    pub last: LogNumber,
}

/// What shows that durable records are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageReason {
    /// The checkpoint says that the log was durable beyond where it ends.
    Checkpoint,
    /// A record that was found says so.
    Record,
    /// A record behind the gap says so.
    RecordBehindGap,
    /// The header of the last segment, which names where the log goes on, can't be read.
    SegmentHeader,
    /// The newer checkpoint can't be read, and from the older one the log's end is not reached.
    CheckpointLost,
}

impl Pool {
    /// Makes an empty pool on `disk`.
    ///
    /// # Errors
    /// [`EngineError::NotEmpty`] if there is a pool already, [`EngineError::BadGeometry`],
    /// [`EngineError::Io`].
    pub fn format(disk: &dyn Disk, options: &FormatOptions) -> Result<()> {
        let bad = EngineError::BadGeometry {
            size_bytes: options.size_bytes,
            segment_bytes: options.segment_bytes,
        };
        let segments = options.size_bytes / options.segment_bytes.max(1);
        let fits = options.segment_bytes.is_multiple_of(4096)
            && options.segment_bytes >= MIN_SEGMENT_BYTES
            && options.segment_bytes <= 1 << 31
            && segments >= MIN_SEGMENTS
            && segments < u64::from(MAX_SEGMENTS);
        let io = |operation, area| move |source| EngineError::Io { operation, area, source };
        if disk.length(Area::Superblock).map_err(io("read", Area::Superblock))?.is_some() {
            return Err(EngineError::NotEmpty("the place".into(), "a pool"));
        }
        let capacity = disk.capacity().map_err(io("statfs", Area::Superblock))?;
        if !fits || options.size_bytes > capacity {
            return Err(bad);
        }
        let superblock = Superblock {
            segments: segments as u32,
            segment_bytes: options.segment_bytes,
            tag: options.tag,
        };
        let write = |area: Area, bytes: &[u8]| {
            disk.prepare(area, bytes.len() as u64, false).map_err(io("allocation", area))?;
            disk.write(area, 0, &[IoSlice::new(bytes)]).map_err(io("write", area))?;
            disk.sync(area).map_err(io("sync", area))
        };
        // The superblock last: without it there is no pool.
        write(Area::Checkpoint(0), &vec![0; SLOT_BYTES])?;
        write(Area::Checkpoint(1), &vec![0; SLOT_BYTES])?;
        write(Area::Superblock, &superblock.encode())
    }

    /// Opens the pool on `disk`.
    ///
    /// # Errors
    /// [`EngineError::NoPool`], [`EngineError::Format`], [`EngineError::Broken`],
    /// [`EngineError::Io`].
    pub fn open(disk: Arc<dyn Disk>, options: OpenOptions) -> Result<(Self, OpenReport)> {
        let superblock = read_superblock(&*disk)?;
        let Checkpoint { slot, body, slots, lost_newer } = read_checkpoint(&*disk, &superblock)?;
        let mut segments = body.segments;
        segments.resize(superblock.segments as usize, Segment::NEW);
        let space = Space::new(superblock.segment_bytes, segments);
        let openings = slot.as_ref().map_or(0, |slot| slot.openings) + 1;
        let core = Core::new(disk, superblock, options, openings, space);
        let replicas = body.replicas.into_iter().map(revive).map(|r| (r.slice, r)).collect();
        let pool = Self {
            core,
            log: Mutex::new(Log::idle()),
            replicas: RwLock::new(replicas),
            moved: RwLock::new(Moved::default()),
            commit: Commit::default(),
            maintenance: Mutex::new(Maintenance::default()),
            graves: Mutex::new(Vec::new()),
            space_wanted: AtomicBool::new(false),
            layer_bytes: AtomicUsize::new(0),
            snapshot_removed: AtomicBool::new(false),
        };
        let mut opening = Opening { next: LogNumber(1), ..Opening::default() };
        if let Some(slot) = &slot {
            pool.core.durable.store(slot.durable.0, Ordering::Release);
            opening.roll_forward(&pool, slot);
            opening.judge(&pool, slot, lost_newer);
        }
        opening.report.last = LogNumber(opening.next.0 - 1);
        if opening.report.damaged {
            tracing::error!(reason = ?opening.report.reason, "durable records are gone");
            for replica in pool.replicas.read().values() {
                replica.inner.write().damaged = true;
            }
        }
        {
            let mut maintenance = pool.maintenance.lock();
            maintenance.slots = slots;
            maintenance.trash = body.dropped.into();
        }
        *pool.log.lock() = opening.start_log(&pool.core)?;
        // O7
        pool.checkpoint()?;
        if slot.is_none() {
            // From here on a slot of zeros means rot, not youth.
            let mut maintenance = pool.maintenance.lock();
            pool.write_second_slot(&mut maintenance)?;
        }
        Ok((pool, opening.report))
    }
}

fn read_superblock(disk: &dyn Disk) -> Result<Superblock> {
    let area = Area::Superblock;
    let io = |source| EngineError::Io { operation: "read", area, source };
    if disk.length(area).map_err(io)?.is_none() {
        return Err(EngineError::NoPool);
    }
    let mut bytes = vec![0; SUPERBLOCK_BYTES];
    disk.read(area, 0, &mut bytes).map_err(io)?;
    Superblock::decode(&bytes)
}

/// Where an opening starts from.
struct Checkpoint {
    slot: Option<Slot>,
    body: Body,
    slots: [u64; 2],
    /// The newer slot was valid, but its body is not: its durable position is still true.
    lost_newer: Option<LogNumber>,
}

fn read_checkpoint(disk: &dyn Disk, superblock: &Superblock) -> Result<Checkpoint> {
    let mut found: Vec<Slot> = Vec::new();
    let mut slots = [0; 2];
    let mut blank = true;
    for place in 0..2_u8 {
        let area = Area::Checkpoint(place);
        let mut bytes = vec![0; SLOT_BYTES];
        if disk.read(area, 0, &mut bytes).is_err() {
            blank = false;
            continue;
        }
        if let Some(slot) = Slot::decode(&bytes).filter(|slot| slot.tag == superblock.tag) {
            slots[usize::from(place)] = slot.number;
            found.push(slot);
        }
        blank &= bytes.iter().all(|byte| *byte == 0);
    }
    found.sort_by_key(|slot| std::cmp::Reverse(slot.number));
    let newest = found.first().map(|slot| (slot.number, slot.durable));
    for slot in found {
        if let Some(body) = read_body(disk, superblock, &slot) {
            let lost = newest.filter(|(number, _)| *number != slot.number);
            let lost_newer = lost.map(|(_, durable)| durable);
            return Ok(Checkpoint { slot: Some(slot), body, slots, lost_newer });
        }
    }
    // A pool whose first opening was cut off has one torn slot and one of zeros, and no log that
    // anybody was told of.
    if blank || (newest.is_none() && slots == [0; 2] && one_slot_is_zero(disk)) {
        return Ok(Checkpoint { slot: None, body: Body::default(), slots, lost_newer: None });
    }
    Err(EngineError::Broken("checkpoints"))
}

fn one_slot_is_zero(disk: &dyn Disk) -> bool {
    (0..2_u8).any(|place| {
        let mut bytes = vec![0; SLOT_BYTES];
        disk.read(Area::Checkpoint(place), 0, &mut bytes).is_ok()
            && bytes.iter().all(|byte| *byte == 0)
    })
}

fn read_body(disk: &dyn Disk, superblock: &Superblock, slot: &Slot) -> Option<Body> {
    let mut bytes = Vec::new();
    for chunk in &slot.chunks {
        let segment = chunk.address.segment();
        if segment.0 >= superblock.segments || u64::from(chunk.length) > superblock.segment_bytes {
            return None;
        }
        let mut part = vec![0; chunk.length as usize];
        disk.read(Area::Segment(segment), chunk.address.offset(), &mut part).ok()?;
        if crc32c(&part) != chunk.crc {
            return None;
        }
        bytes.extend_from_slice(&part);
    }
    (bytes.len() as u64 == slot.body_bytes).then_some(())?;
    Body::decode(&bytes, slot.number)
}

fn revive(body: ReplicaBody) -> Arc<Replica> {
    let mut state = ReplicaState::new(body.state);
    state.last = body.last;
    state.committed = body.committed;
    state.gathering = body.gathering;
    state.damaged = body.damaged;
    state.root = body.root;
    state.pinned = body.pinned.into_iter().collect();
    state.snapshots = body
        .snapshots
        .into_iter()
        .map(|found| {
            let snapshot = Snapshot {
                version: found.version,
                order: found.order,
                root: found.root,
                layers: Vec::new(),
                dying: false,
            };
            (found.order, (found.id, snapshot))
        })
        .collect();
    Arc::new(Replica::new(body.slice, state))
}

/// An opening under way.
#[derive(Default)]
struct Opening {
    report: OpenReport,
    next: LogNumber,
    /// The highest number that any record said was durable.
    said_durable: LogNumber,
    /// The segments that the log went through, with where it ended in each.
    chain: Vec<(SegmentId, u64)>,
    /// The header of the last of them.
    end: Option<SegmentHeader>,
    /// Records were found there, so its header must be good.
    entered: bool,
}

impl Opening {
    /// Takes in every record behind the checkpoint, up to the first that is not there.
    fn roll_forward(&mut self, pool: &Pool, slot: &Slot) {
        self.next = slot.roll_from;
        let mut segment = slot.roll_at.segment();
        let mut offset = slot.roll_at.offset();
        let mut under = (slot.roll_use, slot.roll_opening);
        self.entered = offset > SEGMENT_HEADER_BYTES as u64;
        loop {
            let core = &pool.core;
            let segment_bytes = core.superblock.segment_bytes;
            let mut reader = SegmentReader::new(&*core.disk, segment, segment_bytes);
            core.space.lock().found_open(segment, under.0);
            while let Some(found) = reader.record(offset, under, true) {
                if found.header.log != self.next && !is_on(Mutation::UseUnchecked) {
                    break;
                }
                self.take(pool, segment, offset, &found);
                offset = found.next;
            }
            self.chain.push((segment, offset));
            self.end = reader.header().filter(|header| {
                header.tag == core.superblock.tag && (header.use_count, header.opening) == under
            });
            let Some(successor) = self.successor(core) else { break };
            if successor.first != self.next {
                break;
            }
            core.space.lock().close(segment, offset);
            segment = successor.segment;
            offset = SEGMENT_HEADER_BYTES as u64;
            under = (successor.use_count, successor.opening);
            self.entered = false;
        }
    }

    /// The header of the segment in which the log goes on, if it was written.
    fn successor(&self, core: &Core) -> Option<SegmentHeader> {
        let end = self.end?;
        if end.successor == NO_SEGMENT || end.successor.0 >= core.superblock.segments {
            return None;
        }
        let segment_bytes = core.superblock.segment_bytes;
        let mut reader = SegmentReader::new(&*core.disk, end.successor, segment_bytes);
        reader.header().filter(|header| end.leads_to(header))
    }

    fn take(&mut self, pool: &Pool, segment: SegmentId, offset: u64, found: &Found) {
        let record = Address::new(segment, offset);
        let placed = Placed {
            log: found.header.log,
            record,
            meta: record.plus(crate::format::RECORD_HEADER_BYTES as u64),
            data: Address::new(segment, found.data_at),
            bytes: found.header.total_bytes() as u32,
        };
        pool.apply(&found.logged, &placed);
        self.said_durable = self.said_durable.max(found.header.durable);
        self.report.replayed_records += 1;
        self.report.replayed_bytes += found.next - offset;
        self.next = self.next.next();
        self.entered = true;
    }

    /// Says whether the log ends where a crash may have ended it, or durable records are gone.
    fn judge(&mut self, pool: &Pool, slot: &Slot, lost_newer: Option<LogNumber>) {
        let reason = if slot.durable >= self.next {
            Some(DamageReason::Checkpoint)
        } else if lost_newer.is_some_and(|durable| durable >= self.next) {
            Some(DamageReason::CheckpointLost)
        } else if self.said_durable >= self.next {
            Some(DamageReason::Record)
        } else if self.entered && self.end.is_none() {
            Some(DamageReason::SegmentHeader)
        } else {
            self.look_behind(&pool.core)
        };
        self.report.damaged = reason.is_some();
        self.report.reason = reason;
    }

    /// Records behind the end of the log: a torn tail leaves some, but none that calls a missing
    /// number durable.
    fn look_behind(&mut self, core: &Core) -> Option<DamageReason> {
        let (mut segment, mut offset) = *self.chain.last()?;
        let mut header = self.end?;
        let mut seen = std::collections::BTreeSet::new();
        loop {
            let under = (header.use_count, header.opening);
            let segment_bytes = core.superblock.segment_bytes;
            let mut reader = SegmentReader::new(&*core.disk, segment, segment_bytes);
            while let Some((at, found)) = reader.search(offset, under, self.next) {
                self.report.torn_tail = true;
                if found.header.durable >= self.next {
                    return Some(DamageReason::RecordBehindGap);
                }
                offset = found.next.max(at + 8);
            }
            self.report.torn_tail |= reader.unreadable;
            let successor = header.successor;
            if !seen.insert(segment) || successor.0 >= core.superblock.segments {
                return None;
            }
            let mut reader = SegmentReader::new(&*core.disk, successor, segment_bytes);
            header = reader.header().filter(|found| header.leads_to(found))?;
            self.report.torn_tail = true;
            (segment, offset) = (successor, SEGMENT_HEADER_BYTES as u64);
        }
    }

    /// The log goes on in a new segment: what was found torn is never written behind.
    fn start_log(&self, core: &Core) -> Result<Log> {
        let mut space = core.space.lock();
        for (segment, end) in &self.chain {
            space.close(*segment, *end);
        }
        let named = self.end.filter(|end| {
            end.successor.0 < core.superblock.segments
                && !self.chain.iter().any(|(segment, _)| *segment == end.successor)
                && matches!(space.get(end.successor).state, SegmentState::Free | SegmentState::Open)
        });
        let head = match named {
            Some(end) => {
                space.found_open(end.successor, end.successor_use);
                Some((end.successor, end.successor_use))
            }
            None => space.take(),
        };
        let head =
            head.ok_or(EngineError::NoSpace { wanted: core.superblock.segment_bytes, free: 0 })?;
        // Nothing else is being written; what looks so was lost with the records that said more.
        for i in 0..core.superblock.segments {
            let segment = SegmentId(i);
            if segment != head.0 && space.get(segment).state == SegmentState::Open {
                space.close(segment, core.superblock.segment_bytes);
            }
        }
        drop(space);
        let mut log = Log::start(core, head, self.next)?;
        // After kill -9 what was rolled forward may be in the page cache only.
        log.unsynced.extend(self.chain.iter().map(|(segment, _)| *segment));
        Ok(log)
    }
}
