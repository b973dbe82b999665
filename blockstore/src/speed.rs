//! How fast a pool's storage is: measured once, when the pool is added, and put in a class.
//!
//! ```text
//!   write 1 MiB pieces ─▶ overwrite 4 KiB at random, each durable ─▶ read 4 KiB at random ─▶ read all
//!        0.7 s                       0.7 s                                0.4 s               0.4 s
//! ```
//! Everything goes past the kernel's cache where the file system lets it, at queue depth 1, and lies in
//! at most [`MOST_BYTES`]. A step ends with its time, so that a slow disk is not written to for long; an
//! operation that hangs is not waited for any longer than the disk takes to answer it.
#![allow(clippy::disallowed_methods)] // A shell: it measures real time.

mod class;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

pub use class::class_of;

/// What is written and read at most.
pub const MOST_BYTES: u64 = 256 << 20;
/// What all steps take together, as far as the disk answers.
pub const MOST_TIME: Duration = Duration::from_millis(2_200);

const BLOCK: usize = 4 << 10;
const PIECE: usize = 1 << 20;
const WRITES: Duration = Duration::from_millis(700);
const READS: Duration = Duration::from_millis(400);
/// The name of the file in a directory; nobody sees it, but for who looks in the right microsecond.
const FILE: &str = ".mooring-speed";

/// What a measurement gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speed {
    /// Random 4 KiB writes per second, each followed by an fdatasync.
    pub random_writes: u64,
    /// Random 4 KiB reads per second.
    pub random_reads: u64,
    /// Bytes per second, written in pieces of 1 MiB and made durable once.
    pub write_bytes: u64,
    /// Bytes per second, read in pieces of 1 MiB.
    pub read_bytes: u64,
}

/// Measures the file system under a directory, with a file that is gone afterwards.
///
/// # Errors
/// What the operating system said: no space, no right, a broken disk.
pub fn of_directory(directory: &Path, progress: &dyn Fn(Duration)) -> io::Result<Speed> {
    let path = directory.join(FILE);
    // One that is there already is of a measurement that was killed.
    let open = |flags: OFlags| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(flags.bits().cast_signed())
            .open(&path)
    };
    // Some file systems know no direct I/O.
    let file = open(OFlags::DIRECT).or_else(|_| open(OFlags::empty()))?;
    std::fs::remove_file(&path)?;
    measure(&file, 0, MOST_BYTES, progress)
}

/// Measures a block device by overwriting what lies behind its first MiB: for a device on which a pool
/// is about to be made.
///
/// # Errors
/// What the operating system said.
pub fn of_device(path: &Path, capacity: u64, progress: &dyn Fn(Duration)) -> io::Result<Speed> {
    let flags = OFlags::DIRECT.bits().cast_signed();
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    let begin = PIECE as u64;
    measure(&file, begin, MOST_BYTES.min(capacity.saturating_sub(begin)), progress)
}

fn measure(file: &File, begin: u64, most: u64, progress: &dyn Fn(Duration)) -> io::Result<Speed> {
    let start = Instant::now();
    let mut random = Random(crate::random::u64() | 1);
    let mut piece = Piece::new();
    random.fill(piece.bytes());
    let tick = || progress(start.elapsed());
    let pieces = (most / PIECE as u64).max(1);
    let offset = |n: u64| begin + n % pieces * PIECE as u64;

    let (written, taken) = repeat(
        WRITES,
        pieces,
        tick,
        |n| file.write_all_at(piece.bytes(), offset(n)),
        || file.sync_data(),
    )?;
    let write_bytes = rate(written * PIECE as u64, taken);
    // From here on only where something was written: the rest would be read from nowhere.
    let blocks = written.min(pieces) * (PIECE / BLOCK) as u64;
    let mut place = || begin + random.next() % blocks * BLOCK as u64;
    let (done, taken) = repeat(
        WRITES,
        u64::MAX,
        tick,
        |_| {
            file.write_all_at(&piece.bytes()[..BLOCK], place())?;
            file.sync_data()
        },
        || Ok(()),
    )?;
    let random_writes = rate(done, taken);
    let (done, taken) = repeat(
        READS,
        u64::MAX,
        tick,
        |_| file.read_exact_at(&mut piece.bytes()[..BLOCK], place()),
        || Ok(()),
    )?;
    let random_reads = rate(done, taken);
    let (read, taken) = repeat(
        READS,
        u64::MAX,
        tick,
        |n| file.read_exact_at(piece.bytes(), offset(n % written)),
        || Ok(()),
    )?;
    let read_bytes = rate(read * PIECE as u64, taken);
    Ok(Speed { random_writes, random_reads, write_bytes, read_bytes })
}

/// Does `operation` until `limit` is over, `most` times at most and once at least, then `end`; gives how
/// often, and how long all of it took.
fn repeat(
    limit: Duration,
    most: u64,
    tick: impl Fn(),
    mut operation: impl FnMut(u64) -> io::Result<()>,
    end: impl FnOnce() -> io::Result<()>,
) -> io::Result<(u64, Duration)> {
    let start = Instant::now();
    let mut told = start;
    let mut done = 0;
    while done == 0 || (done < most && start.elapsed() < limit) {
        operation(done)?;
        done += 1;
        if told.elapsed() >= Duration::from_millis(100) {
            told = Instant::now();
            tick();
        }
    }
    end()?;
    Ok((done, start.elapsed()))
}

fn rate(count: u64, taken: Duration) -> u64 {
    (count as f64 / taken.as_secs_f64().max(1e-9)) as u64
}

/// One MiB that direct I/O takes.
struct Piece {
    buffer: Vec<u8>,
    at: usize,
}

impl Piece {
    fn new() -> Self {
        let buffer = vec![0; PIECE + BLOCK];
        let at = buffer.as_ptr().align_offset(BLOCK).min(BLOCK);
        Self { buffer, at }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.buffer[self.at..self.at + PIECE]
    }
}

/// Bytes that a disk can't compress, and places on it (xorshift64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.as_chunks_mut::<8>().0 {
            *word = self.next().to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_directory_is_measured_in_bounded_time_and_left_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let told = Cell::new(Duration::ZERO);
        let start = Instant::now();
        let speed = of_directory(directory.path(), &|done| told.set(done)).unwrap();
        // Four steps, each at most an operation over its time; the bound is for a loaded machine.
        assert!(start.elapsed() < MOST_TIME + Duration::from_secs(5), "{:?}", start.elapsed());
        assert!(told.get() >= Duration::from_secs(1), "{told:?}");
        assert!(speed.random_writes > 0 && speed.random_reads > 0, "{speed:?}");
        assert!(speed.write_bytes > 0 && speed.read_bytes > 0, "{speed:?}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn nothing_is_touched_outside_of_the_range() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (head, length) = (PIECE as u64, 4 * PIECE as u64);
        file.as_file().set_len(head + length).unwrap();
        let speed = of_device(file.path(), head + length, &|_| ()).unwrap();
        assert!(speed.write_bytes > 0);
        let bytes = std::fs::read(file.path()).unwrap();
        assert_eq!(bytes.len() as u64, head + length);
        assert!(bytes[..PIECE].iter().all(|byte| *byte == 0));
        assert!(bytes[PIECE..].iter().any(|byte| *byte != 0));
    }
}
