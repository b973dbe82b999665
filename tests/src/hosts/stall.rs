//! The stall meter: an application that writes a block every few milliseconds and notes how long it
//! was without an answer.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::failure::{Failure, Result};
use super::host::Host;

/// Writes 4 KiB with O_DIRECT, round and round in one file, until stopped. It holds the file open, so
/// its file system can't be unmounted meanwhile. It runs in the test's process, outside the host:
/// [`Host::stop_processes`] doesn't stop it.
#[derive(Debug)]
pub struct StallMeter {
    stop: Sender<()>,
    ended: Receiver<()>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ended: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Clone)]
struct State {
    answered: Instant,
    report: StallReport,
}

/// What a stall meter saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StallReport {
    /// Writes that succeeded.
    pub writes: u64,
    /// Writes that failed; the meter goes on after one.
    pub errors: u64,
    /// The first such error.
    pub first_error: Option<String>,
    /// The longest time from one success to the next, or to the end.
    pub longest: Duration,
    /// The number of the last write that succeeded, which is in its block; each block's is a round of
    /// the file higher than the one before.
    pub last: Option<u64>,
}

/// How many blocks the file has.
const BLOCKS: u64 = 64;

/// Aligned as O_DIRECT wants it.
#[repr(align(4096))]
struct Block([u8; 4096]);

impl StallMeter {
    /// Starts writing to `file`, a path in the host, once every `interval`.
    ///
    /// # Errors
    /// The file can't be made, or its file system has no O_DIRECT.
    pub fn start(host: &Host, file: impl AsRef<Path>, interval: Duration) -> Result<Self> {
        let name = format!("host{}: {}", host.number(), file.as_ref().display());
        let opened = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(libc::O_DIRECT)
            .open(host.path(&file)?)
            .map_err(Failure::io(name))?;
        let none = StallReport {
            writes: 0,
            errors: 0,
            first_error: None,
            longest: Duration::ZERO,
            last: None,
        };
        let state = Mutex::new(State { answered: Instant::now(), report: none });
        let shared = Arc::new(Shared { ended: AtomicBool::new(false), state });
        let (stop, told) = mpsc::channel();
        let (done, ended) = mpsc::channel();
        let theirs = Arc::clone(&shared);
        let spawned = thread::Builder::new().name("stall-meter".into()).spawn(move || {
            write_until_told(&opened, interval, &told, &theirs);
            drop(opened);
            let _ = done.send(());
        });
        spawned.map_err(Failure::io("starting a thread"))?;
        Ok(Self { stop, ended, shared })
    }

    /// What it has seen up to now, the wait that is going on included.
    pub fn so_far(&self) -> StallReport {
        let state = self.shared.lock().clone();
        let mut report = state.report;
        if !self.shared.ended.load(Ordering::Acquire) {
            report.longest = report.longest.max(state.answered.elapsed());
        }
        report
    }

    /// Stops it after the write that is under way.
    ///
    /// # Errors
    /// [`Failure::Timeout`] if that write isn't answered within `limit`: it hangs.
    pub fn stop(self, limit: Duration) -> Result<StallReport> {
        let _ = self.stop.send(());
        match self.ended.recv_timeout(limit) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Ok(self.so_far()),
            Err(RecvTimeoutError::Timeout) => Err(Failure::Timeout {
                what: "the stall meter's last write is answered".into(),
                after: limit,
                last: format!("{:?}", self.so_far()),
            }),
        }
    }
}

impl StallReport {
    /// Reads the meter's file, on whatever host it is mounted now: every write that succeeded must be
    /// there, and none that was never made.
    ///
    /// # Errors
    /// The file can't be read, or a block is older than its last write that succeeded.
    pub fn is_kept_in(&self, host: &Host, file: impl AsRef<Path>) -> Result<()> {
        let name = format!("host{}: {}", host.number(), file.as_ref().display());
        let bytes = std::fs::read(host.path(&file)?).map_err(Failure::io(&name))?;
        let last = self.last.ok_or_else(|| Failure::Wrong("no write succeeded".into()))?;
        for block in 0..BLOCKS.min(last + 1) {
            // The newest of this block's that is not above `last`.
            let written = last - (last - block) % BLOCKS;
            let at = usize::try_from(block * 4096).unwrap_or(usize::MAX);
            let number = bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            let found = number.map(u64::from_le_bytes);
            // A write that was answered by an error, or not at all, may have been made too.
            if found.is_none_or(|found| found < written || found % BLOCKS != block) {
                let what =
                    format!("{name}: block {block} has {found:?}, and {written} was written");
                return Err(Failure::Wrong(what));
            }
        }
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, number: u64, outcome: std::io::Result<()>) {
        let now = Instant::now();
        let mut state = self.lock();
        match outcome {
            Ok(()) => {
                state.report.longest = state.report.longest.max(now - state.answered);
                state.report.writes += 1;
                state.report.last = Some(number);
                state.answered = now;
            }
            Err(error) => {
                state.report.errors += 1;
                state.report.first_error.get_or_insert(error.to_string());
            }
        }
    }
}

fn write_until_told(file: &File, interval: Duration, told: &Receiver<()>, shared: &Shared) {
    let mut block = Box::new(Block([0; 4096]));
    for number in 0u64.. {
        block.0[..8].copy_from_slice(&number.to_le_bytes());
        shared.note(number, file.write_all_at(&block.0, number % BLOCKS * 4096));
        if !matches!(told.recv_timeout(interval), Err(RecvTimeoutError::Timeout)) {
            break;
        }
    }
    let mut state = shared.lock();
    state.report.longest = state.report.longest.max(state.answered.elapsed());
    shared.ended.store(true, Ordering::Release);
}
