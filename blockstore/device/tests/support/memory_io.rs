//! A volume in memory that counts, and that can stop answering.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use mooring_device::{BlockIo, Done, IoError, ReadDone};
use parking_lot::{Mutex, RwLock};

#[derive(Default)]
pub struct MemoryIo {
    bytes: RwLock<Vec<u8>>,
    pub flushes: AtomicU64,
    pub writes: AtomicU64,
    pub discarded: AtomicU64,
    pub zeroed: AtomicU64,
    /// Nothing is answered any more; what waits is in `waiting`.
    pub stuck: AtomicBool,
    pub waiting: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
    /// Every write fails with this.
    pub refuse: Mutex<Option<IoError>>,
}

impl MemoryIo {
    pub fn new(bytes: usize) -> Self {
        Self { bytes: RwLock::new(vec![0; bytes]), ..Self::default() }
    }

    pub fn grow(&self, bytes: usize) {
        self.bytes.write().resize(bytes, 0);
    }

    /// What is stored.
    pub fn at(&self, offset: usize, length: usize) -> Vec<u8> {
        self.bytes.read()[offset..offset + length].to_vec()
    }

    /// Answers what waits, and everything from now on.
    pub fn go_on(&self) {
        self.stuck.store(false, Ordering::SeqCst);
        let waiting = std::mem::take(&mut *self.waiting.lock());
        for answer in waiting {
            answer();
        }
    }

    fn answer(&self, answer: impl FnOnce() + Send + 'static) {
        if self.stuck.load(Ordering::SeqCst) {
            self.waiting.lock().push(Box::new(answer));
        } else {
            answer();
        }
    }

    fn zero(&self, offset: u64, length: u64) {
        self.bytes.write()[offset as usize..(offset + length) as usize].fill(0);
    }
}

impl BlockIo for MemoryIo {
    fn size_bytes(&self) -> u64 {
        self.bytes.read().len() as u64
    }

    fn read(&self, offset: u64, length: u32, done: ReadDone) {
        let start = offset as usize;
        let bytes = Bytes::copy_from_slice(&self.bytes.read()[start..start + length as usize]);
        // In pieces of a block, as a volume would have them.
        let pieces = (0..bytes.len()).step_by(4096).map(|at| bytes.slice(at..at + 4096)).collect();
        self.answer(move || done(Ok(pieces)));
    }

    fn write(&self, offset: u64, data: Bytes, _fua: bool, done: Done) {
        self.writes.fetch_add(1, Ordering::SeqCst);
        if let Some(error) = *self.refuse.lock() {
            return done(Err(error));
        }
        let start = offset as usize;
        self.bytes.write()[start..start + data.len()].copy_from_slice(&data);
        self.answer(move || done(Ok(())));
    }

    fn flush(&self, done: Done) {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        self.answer(move || done(Ok(())));
    }

    fn discard(&self, offset: u64, length: u64, done: Done) {
        self.discarded.fetch_add(length, Ordering::SeqCst);
        self.zero(offset, length);
        self.answer(move || done(Ok(())));
    }

    fn write_zeroes(&self, offset: u64, length: u64, done: Done) {
        self.zeroed.fetch_add(length, Ordering::SeqCst);
        self.zero(offset, length);
        self.answer(move || done(Ok(())));
    }
}
