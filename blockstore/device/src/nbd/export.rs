//! One volume as NBD clients see it: any range of bytes, while the volume knows whole blocks only.
//!
//! ```text
//!   READ                   whole blocks around it are read, the rest cut off
//!   WRITE, WRITE_ZEROES    whole blocks as they are; of a block at an edge the rest is read, and the
//!                          block written as a whole
//!   TRIM                   the whole blocks inside; a hint needs no more
//! ```
//! Changes, and questions for holes, take turns where they overlap (see `range_queue`).

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::connection::Connection;
use super::gather::{Part, gather};
use super::handshake::ExportInfo;
use super::range_queue::{RangeQueue, Turn};
use super::request::Work;
use crate::DeviceStats;
use crate::io::{BlockIo, Extent, IoError};

const BLOCK: u64 = 4096;

/// The most that a `BlockIo` reads or writes at once.
const PIECE: usize = 1 << 20;

/// A success.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Done.
    Done,
    /// The bytes asked for.
    Data(Vec<Bytes>),
    /// What the blocks hold.
    Status(Vec<Extent>),
}

pub(super) type Answer = Box<dyn FnOnce(Result<Outcome, IoError>) + Send>;

type Done = Box<dyn FnOnce(Result<(), IoError>) + Send>;

/// A change that waits for its turn.
type Job = Box<dyn FnOnce(Turn) + Send>;

/// A volume, served to NBD clients.
pub(super) struct Export {
    name: String,
    io: Arc<dyn BlockIo>,
    read_only: bool,
    changes: Mutex<RangeQueue<Job>>,
    begun: Mutex<Begun>,
    pub(super) clients: Mutex<Clients>,
    failed: AtomicBool,
    counters: Counters,
}

/// Changes whose turn has come, and whether somebody begins them already: a change that ends begins
/// others, and the stack must not grow with each.
#[derive(Default)]
struct Begun {
    jobs: VecDeque<(Turn, Job)>,
    busy: bool,
}

/// Connections in transmission.
#[derive(Default)]
pub(super) struct Clients {
    pub(super) connections: BTreeMap<u64, Arc<Connection>>,
    next: u64,
    /// No more are taken: the device is detached.
    closed: bool,
}

#[derive(Default)]
struct Counters {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    write_bytes: AtomicU64,
    flushes: AtomicU64,
    discards: AtomicU64,
    zeroes: AtomicU64,
    errors: AtomicU64,
}

impl Export {
    pub(super) fn new(name: &str, io: Arc<dyn BlockIo>, read_only: bool) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            io,
            read_only,
            changes: Mutex::default(),
            begun: Mutex::default(),
            clients: Mutex::default(),
            failed: AtomicBool::new(false),
            counters: Counters::default(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn size(&self) -> u64 {
        self.io.size_bytes()
    }

    pub(super) fn io_timeout(&self) -> Option<Duration> {
        self.io.io_timeout()
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn info(&self) -> ExportInfo {
        ExportInfo { name: self.name.clone(), size: self.size(), read_only: self.read_only }
    }

    /// Takes a connection in; its number, or `None` if none are taken any more.
    pub(super) fn admit(&self, connection: &Arc<Connection>) -> Option<u64> {
        let mut clients = self.clients.lock();
        if clients.closed {
            return None;
        }
        let number = clients.next;
        clients.next += 1;
        clients.connections.insert(number, Arc::clone(connection));
        Some(number)
    }

    pub(super) fn dismiss(&self, number: u64) {
        self.clients.lock().connections.remove(&number);
    }

    /// Takes no more connections. Without `force` only if there are none; else says whose there are.
    pub(super) fn close(&self, force: bool) -> Result<(), Vec<String>> {
        let mut clients = self.clients.lock();
        if !force && !clients.connections.is_empty() {
            return Err(clients.connections.values().map(|one| one.peer().to_owned()).collect());
        }
        clients.closed = true;
        for connection in clients.connections.values() {
            connection.end_soon();
        }
        Ok(())
    }

    /// Answers everything that waits with an error, and everything that comes later.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
        let connections: Vec<_> = self.clients.lock().connections.values().cloned().collect();
        for connection in connections {
            connection.fail();
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    pub(super) fn count_error(&self) {
        self.counters.errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> DeviceStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let clients = self.clients.lock();
        DeviceStats {
            reads: of(&self.counters.reads),
            read_bytes: of(&self.counters.read_bytes),
            writes: of(&self.counters.writes),
            write_bytes: of(&self.counters.write_bytes),
            flushes: of(&self.counters.flushes),
            discards: of(&self.counters.discards),
            zeroes: of(&self.counters.zeroes),
            errors: of(&self.counters.errors),
            resent: 0,
            in_flight: clients.connections.values().map(|one| one.in_flight()).sum(),
        }
    }

    /// Does what a request asks for; the answer comes from any thread, perhaps before this returns.
    pub(super) fn perform(self: &Arc<Self>, work: Work, answer: Answer) {
        if self.has_failed() {
            return answer(Err(IoError::Fenced));
        }
        self.count(&work);
        let done: Done = match work {
            Work::Read { offset, length } => return self.read(offset, length, answer),
            Work::BlockStatus { offset, length, one } => {
                return self.status(offset, length, one, answer);
            }
            _ => Box::new(move |result| answer(result.map(|()| Outcome::Done))),
        };
        match work {
            Work::Write { offset, data, fua } => {
                let range = around(offset, data.len() as u64);
                self.change(range, done, move |this, done| this.write(offset, data, fua, done));
            }
            Work::Flush => self.io.flush(done),
            Work::Trim { offset, length, fua } => match inside(offset, length.into()) {
                Some(range) => self.change(range.clone(), done, move |this, done| {
                    let done = this.and_flush(fua, done);
                    this.io.discard(range.start, range.end - range.start, done);
                }),
                None => done(Ok(())),
            },
            Work::WriteZeroes { offset, length, fua } => {
                let range = around(offset, length.into());
                self.change(range, done, move |this, done| {
                    let done = this.and_flush(fua, done);
                    this.write_zeroes(offset, length.into(), done);
                });
            }
            // Those two were answered above; the last is the connection's own business.
            Work::Nothing | Work::Disconnect | Work::Read { .. } | Work::BlockStatus { .. } => {
                done(Ok(()));
            }
        }
    }

    fn count(&self, work: &Work) {
        let add = |counter: &AtomicU64, n: u64| counter.fetch_add(n, Ordering::Relaxed);
        let counters = &self.counters;
        match work {
            Work::Read { length, .. } => {
                add(&counters.reads, 1);
                add(&counters.read_bytes, u64::from(*length))
            }
            Work::Write { data, .. } => {
                add(&counters.writes, 1);
                add(&counters.write_bytes, data.len() as u64)
            }
            Work::Flush => add(&counters.flushes, 1),
            Work::Trim { .. } => add(&counters.discards, 1),
            Work::WriteZeroes { .. } => add(&counters.zeroes, 1),
            Work::BlockStatus { .. } | Work::Nothing | Work::Disconnect => 0,
        };
    }

    // -- reading ---------------------------------------------------------------------------------

    fn read(&self, offset: u64, length: u32, answer: Answer) {
        let range = around(offset, length.into());
        let skipped = (offset - range.start) as usize;
        self.read_blocks(range, move |result| {
            answer(result.map(|pieces| Outcome::Data(cut(pieces, skipped, length as usize))));
        });
    }

    fn read_blocks(
        &self,
        range: Range<u64>,
        finish: impl FnOnce(Result<Vec<Bytes>, IoError>) + Send + 'static,
    ) {
        let pieces = (range.end - range.start).div_ceil(PIECE as u64) as usize;
        let parts = gather(pieces, |result: Result<Vec<Vec<Bytes>>, _>| {
            finish(result.map(|parts| parts.into_iter().flatten().collect()));
        });
        for (i, part) in parts.enumerate() {
            let offset = range.start + (i * PIECE) as u64;
            let length = (range.end - offset).min(PIECE as u64) as u32;
            self.io.read(offset, length, Box::new(move |result| part.answer(result)));
        }
    }

    fn status(self: &Arc<Self>, offset: u64, length: u32, one: bool, answer: Answer) {
        let range = around(offset, length.into());
        let skipped = offset - range.start;
        let asked = range.clone();
        self.in_turn(range, move |this, turn| {
            let ended = Arc::clone(this);
            let done = move |result: Result<Vec<Extent>, IoError>| {
                answer(result.map(|found| {
                    Outcome::Status(trim_extents(found, skipped, length.into(), one))
                }));
                ended.end(turn);
            };
            if this.has_failed() {
                return done(Err(IoError::Fenced));
            }
            this.io.status(asked.start, asked.end - asked.start, Box::new(done));
        });
    }

    // -- changing --------------------------------------------------------------------------------

    /// Begins a change of `range` when its turn has come, and ends the turn with its answer.
    fn change(
        self: &Arc<Self>,
        range: Range<u64>,
        done: Done,
        begin: impl FnOnce(&Arc<Self>, Done) + Send + 'static,
    ) {
        self.in_turn(range, move |this, turn| {
            let ended = Arc::clone(this);
            let done: Done = Box::new(move |result| {
                // The answer first: what else waits for the turn may take its time.
                done(result);
                ended.end(turn);
            });
            if this.has_failed() {
                return done(Err(IoError::Fenced));
            }
            begin(this, done);
        });
    }

    fn in_turn(
        self: &Arc<Self>,
        range: Range<u64>,
        begin: impl FnOnce(&Arc<Self>, Turn) + Send + 'static,
    ) {
        let this = Arc::clone(self);
        let job: Job = Box::new(move |turn| begin(&this, turn));
        let now = self.changes.lock().enter(range, job);
        if let Some((turn, job)) = now {
            job(turn);
        }
    }

    fn end(&self, turn: Turn) {
        let mut next = Vec::new();
        self.changes.lock().end(turn, &mut next);
        if next.is_empty() {
            return;
        }
        let mut begun = self.begun.lock();
        begun.jobs.extend(next);
        if std::mem::replace(&mut begun.busy, true) {
            return;
        }
        while let Some((turn, job)) = begun.jobs.pop_front() {
            drop(begun);
            job(turn);
            begun = self.begun.lock();
        }
        begun.busy = false;
    }

    fn write(self: &Arc<Self>, offset: u64, data: Bytes, fua: bool, done: Done) {
        let range = around(offset, data.len() as u64);
        let (head, tail) =
            ((offset - range.start) as usize, range.end - offset - data.len() as u64);
        if head == 0 && tail == 0 {
            return self.write_blocks(offset, data, fua, done);
        }
        let last = range.end - BLOCK;
        let mut edges = Vec::new();
        if head > 0 {
            edges.push(range.start);
        }
        if tail > 0 && (head == 0 || last > range.start) {
            edges.push(last);
        }
        let this = Arc::clone(self);
        self.read_each(edges, move |result| {
            let edges = match result {
                Ok(edges) => edges,
                Err(error) => return done(Err(error)),
            };
            let mut whole = BytesMut::with_capacity((range.end - range.start) as usize);
            if head > 0 {
                whole.extend_from_slice(&edges[0][..head]);
            }
            whole.extend_from_slice(&data);
            if let Some(edge) = edges.last().filter(|_| tail > 0) {
                whole.extend_from_slice(&edge[(BLOCK - tail) as usize..]);
            }
            this.write_blocks(range.start, whole.freeze(), fua, done);
        });
    }

    fn write_blocks(&self, offset: u64, data: Bytes, fua: bool, done: Done) {
        if data.len() <= PIECE {
            return self.io.write(offset, data, fua, done);
        }
        let parts = gather(data.len().div_ceil(PIECE), |result| done(result.map(drop)));
        for (i, part) in parts.enumerate() {
            let piece = data.slice(i * PIECE..data.len().min((i + 1) * PIECE));
            let done = Box::new(move |result| part.answer(result));
            self.io.write(offset + (i * PIECE) as u64, piece, fua, done);
        }
    }

    fn write_zeroes(self: &Arc<Self>, offset: u64, length: u64, done: Done) {
        let range = around(offset, length);
        let whole = inside(offset, length);
        // What lies in blocks that are not zeroed as a whole: before, and behind those that are.
        let end = offset + length;
        let (head, tail) = match &whole {
            Some(whole) => (offset..whole.start, whole.end..end),
            // In one block, or over the border of two.
            None if range.end - range.start == BLOCK => (offset..end, end..end),
            None => (offset..range.start + BLOCK, range.start + BLOCK..end),
        };
        let edges: Vec<_> = [head, tail].into_iter().filter(|edge| !edge.is_empty()).collect();
        let count = edges.len() + usize::from(whole.is_some());
        let mut parts = gather(count, |result| done(result.map(drop)));
        let answer = |part: Option<Part<()>>| -> Done {
            Box::new(move |result| part.into_iter().for_each(|part| part.answer(result)))
        };
        if let Some(whole) = whole {
            self.io.write_zeroes(whole.start, whole.end - whole.start, answer(parts.next()));
        }
        for edge in edges {
            let zeros = Bytes::from(vec![0; (edge.end - edge.start) as usize]);
            self.write(edge.start, zeros, false, answer(parts.next()));
        }
    }

    fn read_each(
        &self,
        blocks: Vec<u64>,
        finish: impl FnOnce(Result<Vec<Bytes>, IoError>) + Send + 'static,
    ) {
        for (block, part) in blocks.iter().zip(gather(blocks.len(), finish)) {
            let done = move |result: Result<Vec<Bytes>, IoError>| {
                part.answer(result.map(|pieces| Bytes::from(pieces.concat())));
            };
            self.io.read(*block, BLOCK as u32, Box::new(done));
        }
    }

    /// Answers once what was done is durable, too, if `fua` says so.
    fn and_flush(self: &Arc<Self>, fua: bool, done: Done) -> Done {
        if !fua {
            return done;
        }
        let this = Arc::clone(self);
        Box::new(move |result| match result {
            Ok(()) => this.io.flush(done),
            Err(error) => done(Err(error)),
        })
    }
}

/// The whole blocks around a range.
fn around(offset: u64, length: u64) -> Range<u64> {
    offset / BLOCK * BLOCK..(offset + length).next_multiple_of(BLOCK)
}

/// The whole blocks inside a range.
fn inside(offset: u64, length: u64) -> Option<Range<u64>> {
    let range = offset.next_multiple_of(BLOCK)..(offset + length) / BLOCK * BLOCK;
    (range.start < range.end).then_some(range)
}

/// `length` bytes of `pieces`, without the first `skipped`.
fn cut(pieces: Vec<Bytes>, mut skipped: usize, mut length: usize) -> Vec<Bytes> {
    let mut out = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let from = skipped.min(piece.len());
        let to = piece.len().min(from + length);
        skipped -= from;
        length -= to - from;
        if from < to {
            out.push(piece.slice(from..to));
        }
    }
    out
}

/// Runs that begin at `skipped` and cover at most `length`; neighbours of one kind are joined.
fn trim_extents(found: Vec<Extent>, mut skipped: u64, mut length: u64, one: bool) -> Vec<Extent> {
    let mut out: Vec<Extent> = Vec::new();
    for extent in found {
        let from = skipped.min(extent.length);
        skipped -= from;
        let taken = (extent.length - from).min(length);
        length -= taken;
        match out.last_mut() {
            _ if taken == 0 => {}
            Some(last) if last.hole == extent.hole => last.length += taken,
            _ => out.push(Extent { length: taken, hole: extent.hole }),
        }
    }
    if one {
        out.truncate(1);
    }
    out
}

#[cfg(test)]
mod tests;
