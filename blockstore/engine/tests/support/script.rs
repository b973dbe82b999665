//! Random operation sequences on a pool, checked against the model at every moment at which the
//! machine could stop.

use std::sync::Arc;

use super::model::{Model, block_differs as blocks_differ, difference};
use super::{Rng, data, discard, format, range, slice, version, write};
use bytes::Bytes;
use mooring_engine::{Area, EngineError, MemoryDisk, OpenOptions, Pool, ReadContent, SegmentId};
use mooring_terms::{
    BLOCK_SIZE, BlockIndex, Body, Data, Entry, Record, Sequence, SliceId, SnapshotId, Version,
};
use parking_lot::Mutex;

const SEGMENT: u64 = 64 << 10;
const SLICES: u64 = 2;
/// Blocks beyond are read as one hole.
const EXTENT: u64 = 70_100;

/// All replicas after each operation, and how many operations were flushed.
#[derive(Default)]
struct History {
    states: Vec<Vec<Model>>,
    flushed: usize,
}

struct Script {
    rng: Rng,
    pool: Pool,
    disk: Arc<MemoryDisk>,
    history: Arc<Mutex<History>>,
    now: Vec<Model>,
    snapshots: u64,
    refused: u64,
}

fn tight(opening: u64) -> OpenOptions {
    OpenOptions {
        opening,
        memory_bytes: 64 << 10,
        checkpoint_bytes: 512 << 10,
        zero_ahead: false,
        // Pools of an older cluster have none, and count by walking.
        counts: !opening.is_multiple_of(3),
    }
}

impl Script {
    fn new(seed: u64, segments: u64) -> Self {
        let disk = Arc::new(MemoryDisk::new(segments * SEGMENT * 2));
        format(&disk, segments * SEGMENT, SEGMENT);
        let (pool, _) = Pool::open(disk.clone(), tight(seed)).unwrap();
        let now = vec![Model::default(); SLICES as usize];
        let history = History { states: vec![now.clone()], flushed: 0 };
        Self {
            rng: Rng(seed),
            pool,
            disk,
            history: Arc::new(Mutex::new(history)),
            now,
            snapshots: 0,
            refused: 0,
        }
    }

    /// A block out of three places: two leaves side by side, one far away.
    fn block(&mut self) -> u64 {
        let base = [0, 250, 70_000][self.rng.below(3) as usize];
        base + self.rng.below(24)
    }

    /// Runs an operation that leads to `next`; takes it back if it was refused.
    fn run(&mut self, next: Vec<Model>, operation: impl FnOnce(&Pool) -> Result<(), EngineError>) {
        let before = self.now.clone();
        self.history.lock().states.push(next.clone());
        match operation(&self.pool) {
            Ok(()) => self.now = next,
            Err(EngineError::NoSpace { .. }) => {
                self.refused += 1;
                *self.history.lock().states.last_mut().unwrap() = before;
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn append(&mut self, index: usize, model: Model, entries: &[Entry]) {
        let mut next = self.now.clone();
        next[index] = model;
        self.run(next, |pool| pool.append(slice(index as u64), entries).map(|_| ()));
    }

    fn step(&mut self) {
        let index = self.rng.below(SLICES) as usize;
        let id = slice(index as u64);
        let mut model = self.now[index].clone();
        if !model.exists {
            let state = Bytes::from(self.rng.next().to_le_bytes().to_vec());
            model = Model { exists: true, state: state.clone(), ..Model::default() };
            let mut next = self.now.clone();
            next[index] = model;
            return self.run(next, |pool| pool.create(id, state));
        }
        let following =
            Version::new(model.last.epoch.max(version(1, 0).epoch), model.last.sequence.next());
        match self.rng.below(100) {
            0..45 => self.write(index, model, following),
            45..53 => {
                let (first, count) = (self.block(), 1 + self.rng.below(40));
                model.hole(following, first, count, false);
                model.last = following;
                self.append(index, model, &[discard(following, first, count)]);
            }
            53..57 => {
                let state = Bytes::from(self.rng.next().to_le_bytes().to_vec());
                model.state = state.clone();
                self.append(index, model, &[Entry::State(state)]);
            }
            57..61 => {
                let state = Bytes::from(self.rng.next().to_le_bytes().to_vec());
                let following = Version::new(following.epoch.next(), following.sequence);
                model.state = state.clone();
                model.last = following;
                let body = Body::Control(Bytes::from_static(b"epoch"));
                let record = Record { version: following, body };
                self.append(index, model, &[Entry::Record { record, state: Some(state) }]);
            }
            61..64 => self.snapshot(index, model),
            64..67 => self.remove_snapshot(index, model),
            67..69 => self.join(index, model),
            69 => {
                let mut next = self.now.clone();
                next[index] = Model::default();
                self.run(next, |pool| pool.remove(id));
            }
            70..73 => {
                let upto = model.last.sequence.0;
                self.pool.committed(id, Sequence(upto - self.rng.below(upto + 1)));
            }
            73..76 => self.pool.checkpoint().or_else(full_is_fine).unwrap(),
            76..90 => {
                for _ in 0..self.rng.below(12) {
                    self.pool.maintain().map(|_| ()).or_else(full_is_fine).unwrap();
                }
            }
            _ => {
                self.pool.sync().unwrap();
                let mut history = self.history.lock();
                history.flushed = history.states.len() - 1;
            }
        }
    }

    fn write(&mut self, index: usize, mut model: Model, mut following: Version) {
        let mut entries = Vec::new();
        for _ in 0..1 + self.rng.below(3) {
            let (first, blocks) = (self.block(), 1 + self.rng.below(3) as usize);
            let mut data = data(self.rng.next(), blocks);
            if self.rng.below(5) == 0 {
                let mut bytes = data.bytes().to_vec();
                let zero = self.rng.below(blocks as u64) as usize;
                bytes[zero * BLOCK_SIZE..(zero + 1) * BLOCK_SIZE].fill(0);
                data = Data::checksummed(bytes.into());
            }
            model.write(following, first, &data, false);
            model.last = following;
            entries.push(write(following, first, data));
            following = Version::new(following.epoch, following.sequence.next());
            // Several entries of one call may be cut by a crash: each is a state of its own.
            if self.rng.below(3) > 0 {
                break;
            }
        }
        if entries.len() > 1 {
            let all = std::mem::take(&mut entries);
            for entry in all {
                let mut model = self.now[index].clone();
                let Entry::Record { record, .. } = &entry else { unreachable!() };
                let Body::Write { first, data } = &record.body else { unreachable!() };
                model.write(record.version, first.0, data, false);
                model.last = record.version;
                let refused = self.refused;
                self.append(index, model, std::slice::from_ref(&entry));
                if self.refused > refused {
                    return;
                }
            }
            return;
        }
        self.append(index, model, &entries);
    }

    fn snapshot(&mut self, index: usize, mut model: Model) {
        if model.snapshots.len() >= 3 {
            return;
        }
        self.snapshots += 1;
        let id = SnapshotId(self.snapshots);
        model.snapshots.insert(id, model.blocks.clone());
        let mut next = self.now.clone();
        next[index] = model;
        self.run(next, |pool| pool.snapshot(slice(index as u64), id));
    }

    fn remove_snapshot(&mut self, index: usize, mut model: Model) {
        let count = model.snapshots.len() as u64;
        let Some(id) = model.snapshots.keys().nth(self.rng.below(count) as usize).copied() else {
            return;
        };
        model.snapshots.remove(&id);
        let mut next = self.now.clone();
        next[index] = model;
        self.run(next, |pool| pool.remove_snapshot(slice(index as u64), id));
    }

    /// A supersede, a position further on, and some copies, each a state of its own.
    fn join(&mut self, index: usize, mut model: Model) {
        let back = self.rng.below(12).min(model.last.sequence.0);
        let after = Version::new(model.last.epoch, Sequence(model.last.sequence.0 - back));
        let state = Bytes::from_static(b"joining");
        model.supersede(after);
        model.state = state.clone();
        let refused = self.refused;
        self.append(index, model.clone(), &[Entry::Supersede { after, state: state.clone() }]);
        if self.refused > refused {
            return;
        }
        let epoch = after.epoch.next();
        let last = Version::new(epoch, Sequence(after.sequence.0 + 10));
        model.last = last;
        self.append(index, model, &[Entry::Position { last, state }]);
        for _ in 0..self.rng.below(10) {
            let mut model = self.now[index].clone();
            if model.last != last {
                return;
            }
            let first = self.block();
            let version = Version::new(epoch, Sequence(after.sequence.0 + self.rng.below(20)));
            let what = self.rng.below(8);
            if what == 0 {
                model.lost(version, first, 5);
                let range = range(first, 5);
                self.append(index, model, &[Entry::CopyLost { version, range }]);
            } else if what < 3 {
                model.hole(version, first, 3, true);
                let range = range(first, 3);
                self.append(index, model, &[Entry::CopyHole { version, range }]);
            } else {
                let data = data(self.rng.next(), 2);
                model.write(version, first, &data, true);
                self.append(
                    index,
                    model,
                    &[Entry::Copy { version, first: BlockIndex(first), data }],
                );
            }
        }
        let mut model = self.now[index].clone();
        model.gathering = false;
        self.append(index, model, &[Entry::Joined]);
    }
}

fn full_is_fine(error: EngineError) -> Result<(), EngineError> {
    if matches!(error, EngineError::NoSpace { .. }) { Ok(()) } else { Err(error) }
}

/// Opens what a crash has left and compares it; says what is wrong.
fn check(disk: MemoryDisk, crash: u64, states: &[Vec<Model>]) -> Result<(), String> {
    disk.crash(crash);
    let disk = Arc::new(disk);
    let (pool, report) =
        Pool::open(disk.clone(), tight(crash)).map_err(|error| format!("open: {error}"))?;
    if report.damaged {
        return Err(format!("damaged: {report:?}"));
    }
    let verified = pool.verify().map_err(|error| error.to_string())?;
    if verified.lost_nodes + verified.in_free_segments > 0 {
        return Err(format!("{verified:?}"));
    }
    let found = fitting(&pool, states)?;
    if crash.is_multiple_of(8) {
        drop(pool);
        let again = after_life(&disk, crash, found)?;
        return crash_while_opening(&again, crash);
    }
    Ok(())
}

/// The pool goes on after the crash, and crashes again.
fn after_life(
    disk: &Arc<MemoryDisk>,
    crash: u64,
    mut now: Vec<Model>,
) -> Result<MemoryDisk, String> {
    let open = |opening| {
        Pool::open(disk.clone(), tight(opening)).map_err(|error| format!("open again: {error}"))
    };
    let (pool, _) = open(crash ^ 0x5555)?;
    let mut rng = Rng(crash);
    let mut states = vec![now.clone()];
    for i in 0..6 {
        let Some(index) = now.iter().position(|model| model.exists) else { break };
        let model = &mut now[index];
        let next =
            Version::new(model.last.epoch.max(version(1, 0).epoch), model.last.sequence.next());
        let data = data(rng.next(), 1);
        let first = rng.below(24);
        match pool.append(slice(index as u64), &[write(next, first, data.clone())]) {
            Ok(_) => {}
            Err(EngineError::NoSpace { .. }) => break,
            Err(error) => return Err(format!("after the crash: {error}")),
        }
        model.write(next, first, &data, false);
        model.last = next;
        states.push(now.clone());
        if i == 3 {
            pool.sync().map_err(|error| error.to_string())?;
            states = vec![now.clone()];
        }
    }
    drop(pool);
    disk.crash(crash.rotate_left(7));
    let image = disk.fork();
    let (pool, report) = open(crash ^ 0x9999)?;
    if report.damaged {
        return Err(format!("damaged after the second crash: {report:?}"));
    }
    fitting(&pool, &states).map_err(|why| format!("after the second crash: {why}"))?;
    Ok(image)
}

/// Opening is cut off at each of its writes and syncs; the next one finds the same.
fn crash_while_opening(image: &MemoryDisk, crash: u64) -> Result<(), String> {
    let seen = |disk: Arc<MemoryDisk>, opening| -> Result<Vec<(SliceId, Version)>, String> {
        let (pool, report) =
            Pool::open(disk, tight(opening)).map_err(|error| format!("open: {error}"))?;
        if report.damaged {
            return Err(format!("damaged by a crash while opening: {report:?}"));
        }
        let slices = pool.replicas();
        slices.iter().map(|s| Ok((*s, pool.replica(*s).map_err(|e| e.to_string())?.last))).collect()
    };
    let expected = seen(Arc::new(image.fork()), crash)?;
    for operations in 0..20 {
        let disk = Arc::new(image.fork());
        disk.stop_after(operations);
        if Pool::open(disk.clone(), tight(crash + 1)).is_ok() {
            break;
        }
        disk.crash(crash + operations);
        let found = seen(disk, crash + 2)?;
        if found != expected {
            return Err(format!("{found:?} after a crash while opening, not {expected:?}"));
        }
    }
    Ok(())
}

/// The newest of `states` that the pool agrees with.
fn fitting(pool: &Pool, states: &[Vec<Model>]) -> Result<Vec<Model>, String> {
    let mut why = String::new();
    for (back, state) in states.iter().rev().enumerate() {
        let found = state.iter().enumerate().find_map(|(i, model)| {
            difference(pool, slice(i as u64), model, EXTENT).map(|why| format!("slice {i}: {why}"))
        });
        match found {
            None => return Ok(state.clone()),
            Some(found) => why = format!("{why}\n  {back} operations back: {found}"),
        }
    }
    Err(format!("no state fits:{why}"))
}

/// Runs one seed, checking at every write and sync, or at each `every`th.
pub fn run(seed: u64, segments: u64, steps: u64, every: u64) -> Result<(u64, u64), String> {
    let mut script = Script::new(seed, segments);
    let points = Arc::new(Mutex::new((0, None)));
    let (history, shared) = (script.history.clone(), points.clone());
    script.disk.observe(Some(Arc::new(move |disk| {
        let mut points = shared.lock();
        points.0 += 1;
        if points.1.is_some() || points.0 % every != 0 {
            return;
        }
        let history = history.lock();
        let point: u64 = points.0;
        if let Err(why) = check(disk, seed << 32 | point, &history.states[history.flushed..]) {
            points.1 = Some(format!("seed {seed}, point {point}: {why}"));
        }
    })));
    for _ in 0..steps {
        script.step();
        if let Some(why) = points.lock().1.take() {
            return Err(why);
        }
        for (i, model) in script.now.iter().enumerate() {
            if let Some(why) = difference(&script.pool, slice(i as u64), model, EXTENT) {
                return Err(format!("seed {seed}, running, slice {i}: {why}"));
            }
        }
    }
    script.disk.observe(None);
    let points = points.lock().0;
    Ok((points, script.refused))
}

/// Flips bits in the data of a pool; every read must give what was written or refuse.
pub fn rot(seed: u64) -> Result<(), String> {
    let mut script = Script::new(seed, 32);
    for _ in 0..200 {
        script.step();
    }
    script.pool.checkpoint().map_err(|error| error.to_string())?;
    let (mut rng, mut refused) = (Rng(seed), 0);
    for _ in 0..400 {
        let area = Area::Segment(SegmentId(rng.below(32) as u32));
        script.disk.rot(area, rng.below(SEGMENT), rng.below(8) as u8);
    }
    for (i, model) in script.now.iter().enumerate() {
        for block in model.blocks.keys() {
            let mut out = Vec::new();
            match script.pool.read(slice(i as u64), range(*block, 1), &mut out) {
                Ok(()) => {}
                Err(EngineError::Corrupt { block: named, .. }) if named.0 == *block => {
                    refused += 1;
                    continue;
                }
                Err(error) => return Err(error.to_string()),
            }
            let one = [(*block, model.get(*block))].into_iter().collect();
            if !matches!(out[0].content, ReadContent::Missing)
                && let Some(why) = blocks_differ(&script.pool, slice(i as u64), &one, *block)
            {
                return Err(why);
            }
        }
    }
    if refused == 0 { Err("no block was corrupt".into()) } else { Ok(()) }
}
