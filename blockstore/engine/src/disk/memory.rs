//! A disk in memory that fails as disks fail: the twin for crash tests and the simulator.
//!
//! ```text
//!   write ──> volatile pages (what reads see, with their history since the last sync)
//!                 │ sync                      │ crash(seed)
//!                 v                           v
//!             stable pages   <── for each page any state since the sync, torn at 512 bytes
//! ```
//! Sectors of 512 bytes are written whole or not at all; everything larger may tear. All
//! randomness comes from the seeds that its user gives: same calls, same bytes.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{Area, Disk};

const PAGE: usize = 4096;
const SECTOR: usize = 512;
/// States kept of a page between two syncs: enough for every interesting mixture.
const HISTORY: usize = 4;

type Page = Arc<[u8; PAGE]>;

/// What can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DiskOperation {
    /// Reading any area.
    Read,
    /// Writing any area.
    Write,
    /// Syncing any area.
    Sync,
    /// Allocating space for an area.
    Prepare,
}

#[derive(Clone, Default)]
struct Stored {
    stable: Option<Page>,
    /// States since the last sync, the newest last.
    history: VecDeque<Page>,
}

#[derive(Clone, Default)]
struct AreaState {
    length: u64,
    pages: BTreeMap<u64, Stored>,
}

#[derive(Clone, Default)]
struct State {
    areas: BTreeMap<Area, AreaState>,
    failing: BTreeMap<DiskOperation, u32>,
    /// Operations left until the disk stops.
    stop_in: Option<u64>,
    stopped: bool,
    hung: bool,
    waiting: usize,
    operations: u64,
    bytes_written: u64,
    bytes_read: u64,
}

/// A [`Disk`] in memory with seeded faults.
pub struct MemoryDisk {
    state: Mutex<State>,
    released: Condvar,
    capacity: AtomicU64,
    observer: Mutex<Option<Observer>>,
}

/// Called with a copy of the disk after each write, sync and preparation.
type Observer = Arc<dyn Fn(MemoryDisk) + Send + Sync>;

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to choose faults.
struct Choice(u64);

impl Choice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

impl MemoryDisk {
    /// An empty disk of `capacity` bytes.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self::with(State::default(), capacity)
    }

    /// A copy of the disk as it is, faults and unsynced writes included.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::with(self.state.lock().clone(), self.capacity.load(Ordering::SeqCst))
    }

    fn with(state: State, capacity: u64) -> Self {
        let observer = Mutex::new(None);
        let capacity = AtomicU64::new(capacity);
        Self { state: Mutex::new(state), released: Condvar::new(), capacity, observer }
    }

    /// Changes how many bytes fit: other things on the disk come and go.
    pub fn set_capacity(&self, capacity: u64) {
        self.capacity.store(capacity, Ordering::SeqCst);
    }

    /// Calls `observer` with a copy of the disk after each write, sync and preparation: every
    /// moment at which the machine could stop.
    pub fn observe(&self, observer: Option<Arc<dyn Fn(MemoryDisk) + Send + Sync>>) {
        *self.observer.lock() = observer;
    }

    fn observed(&self) {
        let observer = self.observer.lock().clone();
        if let Some(observer) = observer {
            observer(self.fork());
        }
    }

    /// Power cut: of what was not synced, each page is left in any of its states, some torn, as
    /// `seed` chooses. Clears every fault, so that a pool can be opened on what is left.
    pub fn crash(&self, seed: u64) {
        let mut choice = Choice(seed);
        let mut state = self.state.lock();
        // Now and then nothing or everything is lost: the extremes are likely in practice.
        let mood = choice.below(8);
        for area in state.areas.values_mut() {
            for page in area.pages.values_mut() {
                let kept = match mood {
                    0 => page.stable.clone(),
                    1 => page.history.back().cloned().or_else(|| page.stable.clone()),
                    _ => page.choose(&mut choice),
                };
                page.stable = kept;
                page.history.clear();
            }
        }
        state.clear_faults();
        drop(state);
        self.released.notify_all();
    }

    /// The process died, the machine did not: all writes are kept. Clears every fault.
    pub fn kill(&self) {
        self.state.lock().clear_faults();
        self.released.notify_all();
    }

    /// Makes the next `count` operations of one kind fail (after those that fail already).
    pub fn fail_next(&self, operation: DiskOperation, count: u32) {
        *self.state.lock().failing.entry(operation).or_default() += count;
    }

    /// Lets `operations` more writes, syncs and preparations happen; then nothing works any more
    /// until [`MemoryDisk::crash`] or [`MemoryDisk::kill`]. A write at which it stops may or may
    /// not have reached the disk.
    pub fn stop_after(&self, operations: u64) {
        self.state.lock().stop_in = Some(operations);
    }

    /// Whether the disk has stopped.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// Makes every operation wait (`true`) or go on (`false`).
    pub fn hang(&self, hung: bool) {
        self.state.lock().hung = hung;
        self.released.notify_all();
    }

    /// How many calls wait on a hung disk.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting
    }

    /// Flips one bit of an area, as rot does: durably and silently. Says whether there was
    /// anything at that place.
    pub fn rot(&self, area: Area, offset: u64, bit: u8) -> bool {
        let mut state = self.state.lock();
        let Some(page) =
            state.areas.get_mut(&area).and_then(|a| a.pages.get_mut(&(offset / PAGE as u64)))
        else {
            return false;
        };
        for bytes in page.history.iter_mut().chain(page.stable.iter_mut()) {
            Arc::make_mut(bytes)[(offset % PAGE as u64) as usize] ^= 1 << (bit % 8);
        }
        true
    }

    /// Writes, syncs and preparations since the disk was made.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Bytes written since the disk was made.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.state.lock().bytes_written
    }

    /// Bytes read since the disk was made.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.state.lock().bytes_read
    }

    fn begin(&self, operation: DiskOperation) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        while state.hung {
            state.waiting += 1;
            self.released.wait(&mut state);
            state.waiting -= 1;
        }
        if state.stopped {
            return Err(io::Error::other("the disk has stopped"));
        }
        if let Some(left) = state.failing.get_mut(&operation)
            && *left > 0
        {
            *left -= 1;
            return Err(io::Error::other("injected fault"));
        }
        if operation != DiskOperation::Read {
            state.operations += 1;
            match &mut state.stop_in {
                Some(0) => state.stopped = true,
                Some(left) => *left -= 1,
                None => {}
            }
        }
        Ok(state)
    }
}

impl State {
    fn clear_faults(&mut self) {
        self.failing.clear();
        self.stop_in = None;
        self.stopped = false;
        self.hung = false;
    }

    fn end(&self) -> io::Result<()> {
        if self.stopped { Err(io::Error::other("the disk has stopped")) } else { Ok(()) }
    }
}

impl Stored {
    fn current(&self) -> Option<&Page> {
        self.history.back().or(self.stable.as_ref())
    }

    fn update(&mut self, offset: usize, bytes: &[u8]) {
        let mut page = self.current().map_or([0; PAGE], |page| **page);
        page[offset..offset + bytes.len()].copy_from_slice(bytes);
        if self.history.len() == HISTORY {
            self.history.remove(HISTORY / 2);
        }
        self.history.push_back(Arc::new(page));
    }

    /// One of the states since the sync; one time in four, torn between two of them.
    fn choose(&self, choice: &mut Choice) -> Option<Page> {
        if self.history.is_empty() {
            return self.stable.clone();
        }
        let states = self.history.len() as u64 + 1;
        let state = |i: u64| match i {
            0 => self.stable.clone(),
            i => Some(self.history[i as usize - 1].clone()),
        };
        let first = state(choice.below(states));
        if choice.below(4) != 0 {
            return first;
        }
        let second = state(choice.below(states));
        let mut page = first.map_or([0; PAGE], |page| *page);
        let other = second.map_or([0; PAGE], |page| *page);
        for sector in 0..PAGE / SECTOR {
            if choice.below(2) == 0 {
                let range = sector * SECTOR..(sector + 1) * SECTOR;
                page[range.clone()].copy_from_slice(&other[range]);
            }
        }
        Some(Arc::new(page))
    }
}

impl AreaState {
    fn write(&mut self, mut offset: u64, mut bytes: &[u8]) {
        self.length = self.length.max(offset + bytes.len() as u64);
        while !bytes.is_empty() {
            let start = (offset % PAGE as u64) as usize;
            let length = bytes.len().min(PAGE - start);
            let page = self.pages.entry(offset / PAGE as u64).or_default();
            page.update(start, &bytes[..length]);
            bytes = &bytes[length..];
            offset += length as u64;
        }
    }
}

impl Disk for MemoryDisk {
    fn read(&self, area: Area, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.begin(DiskOperation::Read)?;
        state.bytes_read += out.len() as u64;
        let Some(area) = state.areas.get(&area) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if offset + out.len() as u64 > area.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let start = (at % PAGE as u64) as usize;
            let length = (out.len() - done).min(PAGE - start);
            match area.pages.get(&(at / PAGE as u64)).and_then(Stored::current) {
                Some(page) => {
                    out[done..done + length].copy_from_slice(&page[start..start + length]);
                }
                None => out[done..done + length].fill(0),
            }
            done += length;
        }
        Ok(())
    }

    fn write(&self, area: Area, offset: u64, parts: &[io::IoSlice<'_>]) -> io::Result<()> {
        let mut state = self.begin(DiskOperation::Write)?;
        let bytes: Vec<u8> = parts.iter().map(|part| &**part).collect::<Vec<_>>().concat();
        state.bytes_written += bytes.len() as u64;
        state.areas.entry(area).or_default().write(offset, &bytes);
        let result = state.end();
        drop(state);
        self.observed();
        result
    }

    fn sync(&self, area: Area) -> io::Result<()> {
        let mut state = self.begin(DiskOperation::Sync)?;
        state.end()?;
        if let Some(area) = state.areas.get_mut(&area) {
            for page in area.pages.values_mut() {
                if let Some(newest) = page.history.pop_back() {
                    page.stable = Some(newest);
                    page.history.clear();
                }
            }
        }
        drop(state);
        self.observed();
        Ok(())
    }

    fn prepare(&self, area: Area, bytes: u64, _: bool) -> io::Result<()> {
        let mut state = self.begin(DiskOperation::Prepare)?;
        state.end()?;
        let used: u64 = state.areas.values().map(|area| area.length).sum();
        let length = state.areas.get(&area).map_or(0, |area| area.length);
        if length < bytes && used - length + bytes > self.capacity.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let area = state.areas.entry(area).or_default();
        area.length = area.length.max(bytes);
        drop(state);
        self.observed();
        Ok(())
    }

    fn write_out(&self, _: Area, _: u64, _: u64) {}
    fn forget(&self, _: Area, _: u64, _: u64) {}

    fn length(&self, area: Area) -> io::Result<Option<u64>> {
        let state = self.begin(DiskOperation::Read)?;
        Ok(state.areas.get(&area).map(|area| area.length))
    }

    fn capacity(&self) -> io::Result<u64> {
        Ok(self.capacity.load(Ordering::SeqCst))
    }
}
