//! What a pool stands on: one superblock, two checkpoint slots and numbered segments.
//!
//! ```text
//!                    Disk
//!        _____________|______________
//!       |             |              |
//!   DirectoryDisk  DeviceDisk    MemoryDisk
//!   one file an    one range an  seeded faults: loses what was not synced,
//!   area           area          tears, rots, fails, stops at any operation
//! ```
//! An implementation moves bytes and makes them durable; it knows nothing of their meaning.
//!
//! Invariants:
//! - when `sync(area)` has returned, whatever was written to the area before the call is durable;
//! - without it, any subset of the written sectors may be lost, and none other may change.

mod device;
mod directory;
mod memory;

use std::fmt;
use std::io;

pub use device::DeviceDisk;
pub use directory::DirectoryDisk;
pub use memory::{DiskOperation, MemoryDisk};

use crate::SegmentId;

/// One part of a pool's disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Area {
    /// Written once, by format.
    Superblock,
    /// One of the two checkpoint slots.
    Checkpoint(u8),
    /// A segment of the log.
    Segment(SegmentId),
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superblock => f.write_str("superblock"),
            Self::Checkpoint(slot) => write!(f, "checkpoint slot {slot}"),
            Self::Segment(segment) => write!(f, "segment {}", segment.0),
        }
    }
}

/// The bytes under a pool. All calls may come from many threads at once; the engine never writes
/// to one area from two threads at once.
pub trait Disk: Send + Sync {
    /// Reads `out.len()` bytes from `offset` on. Bytes never written read as zeros or end in an
    /// error of kind `UnexpectedEof`.
    ///
    /// # Errors
    /// What the operating system said.
    fn read(&self, area: Area, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes all of `parts`, one after the other, from `offset` on.
    ///
    /// # Errors
    /// What the operating system said; then any part of it may have been written.
    fn write(&self, area: Area, offset: u64, parts: &[io::IoSlice<'_>]) -> io::Result<()>;

    /// Makes all that was written to the area durable.
    ///
    /// # Errors
    /// What the operating system said; then nothing can be said about what is durable.
    fn sync(&self, area: Area) -> io::Result<()>;

    /// Gives the area `bytes` bytes of allocated space. With `zero`, a new area is also written
    /// with zeros, durably, so that later syncs change no metadata of a file system beneath.
    ///
    /// # Errors
    /// What the operating system said; `StorageFull` if there is no space.
    fn prepare(&self, area: Area, bytes: u64, zero: bool) -> io::Result<()>;

    /// Starts to write `bytes` bytes from `offset` on to the media, without waiting: a hint.
    fn write_out(&self, area: Area, offset: u64, bytes: u64);

    /// Gives up memory that holds what is written from `offset` on, as far as the media have it: a
    /// hint.
    fn forget(&self, area: Area, offset: u64, bytes: u64);

    /// The length of the area in bytes; `None` where it doesn't exist yet.
    ///
    /// # Errors
    /// What the operating system said.
    fn length(&self, area: Area) -> io::Result<Option<u64>>;

    /// The most bytes that a pool could have here.
    ///
    /// # Errors
    /// What the operating system said.
    fn capacity(&self) -> io::Result<u64>;
}

impl<D: Disk + ?Sized> Disk for std::sync::Arc<D> {
    fn read(&self, area: Area, offset: u64, out: &mut [u8]) -> io::Result<()> {
        (**self).read(area, offset, out)
    }
    fn write(&self, area: Area, offset: u64, parts: &[io::IoSlice<'_>]) -> io::Result<()> {
        (**self).write(area, offset, parts)
    }
    fn sync(&self, area: Area) -> io::Result<()> {
        (**self).sync(area)
    }
    fn prepare(&self, area: Area, bytes: u64, zero: bool) -> io::Result<()> {
        (**self).prepare(area, bytes, zero)
    }
    fn write_out(&self, area: Area, offset: u64, bytes: u64) {
        (**self).write_out(area, offset, bytes);
    }
    fn forget(&self, area: Area, offset: u64, bytes: u64) {
        (**self).forget(area, offset, bytes);
    }
    fn length(&self, area: Area) -> io::Result<Option<u64>> {
        (**self).length(area)
    }
    fn capacity(&self) -> io::Result<u64> {
        (**self).capacity()
    }
}

/// Writes all of `parts` to `file`, going on after partial writes.
fn write_all_at(
    file: &std::fs::File,
    mut offset: u64,
    parts: &[io::IoSlice<'_>],
) -> io::Result<()> {
    // The kernel takes at most 1,024 parts at once (IOV_MAX).
    for chunk in parts.chunks(1024) {
        let total: usize = chunk.iter().map(|part| part.len()).sum();
        let mut written = match rustix::io::pwritev(file, chunk, offset) {
            Ok(bytes) => bytes,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        if written < total {
            // Rare: go on part by part.
            let mut start = 0;
            for part in chunk {
                let end = start + part.len();
                if written < end {
                    let from = written.saturating_sub(start);
                    std::os::unix::fs::FileExt::write_all_at(
                        file,
                        &part[from..],
                        offset + (start + from) as u64,
                    )?;
                    written = end;
                }
                start = end;
            }
        }
        offset += total as u64;
    }
    Ok(())
}

/// Starts write-out of a range without waiting for it.
#[expect(unsafe_code, reason = "rustix has no sync_file_range")]
fn start_write_out(file: &std::fs::File, offset: u64, bytes: u64) {
    use std::os::fd::AsRawFd;
    let (Ok(offset), Ok(bytes)) = (i64::try_from(offset), i64::try_from(bytes)) else { return };
    // SAFETY: plain numbers and a descriptor that outlives the call. It is a hint: its result
    // says nothing that a later fdatasync wouldn't.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, bytes, libc::SYNC_FILE_RANGE_WRITE);
    }
}

/// Gives up the page cache of a range, as far as it is clean.
fn drop_cached(file: &std::fs::File, offset: u64, bytes: u64) {
    let length = std::num::NonZeroU64::new(bytes);
    // A hint: what stays in memory is right too.
    let _ = rustix::fs::fadvise(file, offset, length, rustix::fs::Advice::DontNeed);
}

/// Writes zeros over `bytes` bytes from `offset` on.
fn write_zeros(file: &std::fs::File, offset: u64, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut done = 0;
    while done < bytes {
        let length = (bytes - done).min(zeros.len() as u64) as usize;
        std::os::unix::fs::FileExt::write_all_at(file, &zeros[..length], offset + done)?;
        done += length as u64;
    }
    Ok(())
}
