//! A disk whose writing side can be seen to move: what tells a pool that hangs from one that is busy.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mooring_engine::{Area, Disk};

/// How many writes, syncs and preparations of a disk have come back.
#[derive(Debug, Default)]
pub struct Movement(AtomicU64);

impl Movement {
    /// The count; while it grows, the disk doesn't hang.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// See the module.
pub struct WatchedDisk {
    disk: Arc<dyn Disk>,
    movement: Arc<Movement>,
}

impl WatchedDisk {
    /// Watches `disk`.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>) -> (Self, Arc<Movement>) {
        let movement = Arc::new(Movement::default());
        (Self { disk, movement: Arc::clone(&movement) }, movement)
    }

    fn moved<R>(&self, result: R) -> R {
        self.movement.0.fetch_add(1, Ordering::Relaxed);
        result
    }
}

impl Disk for WatchedDisk {
    fn read(&self, area: Area, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(area, offset, out)
    }

    fn write(&self, area: Area, offset: u64, parts: &[io::IoSlice<'_>]) -> io::Result<()> {
        self.moved(self.disk.write(area, offset, parts))
    }

    fn sync(&self, area: Area) -> io::Result<()> {
        self.moved(self.disk.sync(area))
    }

    fn prepare(&self, area: Area, bytes: u64, zero: bool) -> io::Result<()> {
        self.moved(self.disk.prepare(area, bytes, zero))
    }

    fn write_out(&self, area: Area, offset: u64, bytes: u64) {
        self.disk.write_out(area, offset, bytes);
        self.moved(());
    }

    fn forget(&self, area: Area, offset: u64, bytes: u64) {
        self.disk.forget(area, offset, bytes);
    }

    fn length(&self, area: Area) -> io::Result<Option<u64>> {
        self.disk.length(area)
    }

    fn capacity(&self) -> io::Result<u64> {
        self.disk.capacity()
    }
}
