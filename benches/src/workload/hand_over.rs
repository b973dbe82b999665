//! A lock that goes from one host to another and back, as often as it can.
//!
//! ```text
//!   lock 0, then round and round: lock the next of three, free the one before
//! ```
//! Two that do so wait for each other at every step: whoever holds one lock wants the one that the other holds,
//! or is about to. So each step is a hand-over, and nothing else is done. (The program `ping_pong` of CTDB works
//! so.)

use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

/// With two who take part, one more than they hold.
const LOCKS: usize = 3;

/// Steps a second of this side.
pub fn run(kind: &str, dir: &Path, lasts: Duration) -> Result<Value> {
    let open = |i: usize| {
        let path = dir.join(format!("lock{i}"));
        File::options().read(true).write(true).create(true).truncate(false).open(path)
    };
    let files: Vec<File> = (0..LOCKS).map(open).collect::<Result<_>>()?;
    let set = |i: usize, free: bool| match kind {
        "flock" => {
            let how = if free { FlockOperation::Unlock } else { FlockOperation::LockExclusive };
            flock(&files[i], how).map_err(Error::from)
        }
        _ => range(&files[0], i, free),
    };
    set(0, false)?;
    let (began, mut held, mut steps) = (Instant::now(), 0, 0_u64);
    while began.elapsed() < lasts {
        let next = (held + 1) % LOCKS;
        set(next, false)?;
        set(held, true)?;
        (held, steps) = (next, steps + 1);
    }
    let took = began.elapsed();
    set(held, true)?;
    Ok(json!({ "rate": steps as f64 / took.as_secs_f64() }))
}

/// A byte of a file, as fcntl locks it.
fn range(file: &File, byte: usize, free: bool) -> Result<()> {
    let kind = if free { libc::F_UNLCK } else { libc::F_WRLCK };
    // SAFETY: all zeros are a valid flock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = byte as libc::off_t;
    lock.l_len = 1;
    // SAFETY: the descriptor is open, and the lock outlives the call.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLKW, &raw const lock) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}
