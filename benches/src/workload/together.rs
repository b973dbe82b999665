//! What programs on two hosts do to one file or directory.

use std::fs::{self, File};
use std::io::{Error, Read, Result, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// Between two files that are made to be looked for.
const APART: Duration = Duration::from_millis(10);

/// How long one waits for the other.
const PATIENCE: Duration = Duration::from_secs(30);

/// Nanoseconds on a clock that all hosts of this machine share.
pub fn now_ns() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Empty files a second, made in a directory where others make theirs.
pub fn creates(dir: &Path, prefix: &str, lasts: Duration) -> Result<Value> {
    let (began, mut made) = (Instant::now(), 0_u64);
    while began.elapsed() < lasts {
        File::options().write(true).create_new(true).open(dir.join(format!("{prefix}{made}")))?;
        made += 1;
    }
    Ok(json!({ "rate": made as f64 / began.elapsed().as_secs_f64() }))
}

/// A record is appended when the other's was read; how many of this side a second: each is a round trip.
pub fn append(file: &Path, side: u64, lasts: Duration, reopened: bool) -> Result<Value> {
    let open = || File::options().read(true).append(true).create(true).open(file);
    let mut kept = open()?;
    let record = |n: u64| format!("{n:015}\n");
    let (began, mut turn) = (Instant::now(), 0_u64);
    let mut rounds = 0_u64;
    let mut waits = Instant::now();
    // An odd number of records is the second's turn.
    while began.elapsed() < lasts {
        if reopened {
            kept = open()?;
        }
        let there = kept.metadata()?.size() / 16;
        if there < turn || (there % 2) != side {
            if waits.elapsed() > PATIENCE {
                break;
            }
            continue;
        }
        if there > 0 {
            let mut last = [0; 16];
            kept.read_exact_at(&mut last, (there - 1) * 16)?;
            if last[..] != *record(there - 1).as_bytes() {
                return Err(Error::other(format!("record {} is torn or lost", there - 1)));
            }
        }
        kept.write_all(record(there).as_bytes())?;
        (turn, rounds, waits) = (there + 1, rounds + 1, Instant::now());
    }
    Ok(json!({ "rate": rounds as f64 / began.elapsed().as_secs_f64() }))
}

/// Makes files, and tells when each was there for its maker: nanoseconds after `close`.
pub fn appear(dir: &Path, count: u64) -> Result<Value> {
    let mut made = Vec::new();
    for i in 0..count {
        std::thread::sleep(APART);
        let mut file = File::create_new(dir.join(format!("new{i}")))?;
        file.write_all(b"contents")?;
        drop(file);
        made.push(now_ns());
    }
    Ok(json!({ "at": made }))
}

/// Looks for those files without a pause, and tells when each was seen with its contents.
pub fn look(dir: &Path, count: u64) -> Result<Value> {
    let mut seen = Vec::new();
    for i in 0..count {
        let (path, began) = (dir.join(format!("new{i}")), Instant::now());
        let mut contents = String::new();
        while contents != "contents" {
            contents.clear();
            match File::open(&path) {
                Ok(mut file) => drop(file.read_to_string(&mut contents)?),
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                Err(error) if began.elapsed() > PATIENCE => return Err(error),
                Err(_) => {}
            }
        }
        seen.push(now_ns());
    }
    Ok(json!({ "at": seen }))
}

/// Makes, renames and removes a file every few milliseconds until there is a file `stop`; the longest of it all,
/// in seconds.
pub fn names(dir: &Path, stop: &Path) -> Result<Value> {
    let (a, b) = (dir.join("stall-a"), dir.join("stall-b"));
    let (mut longest, mut rounds) = (Duration::ZERO, 0_u64);
    while !stop.exists() {
        let began = Instant::now();
        fs::write(&a, b"x")?;
        fs::rename(&a, &b)?;
        fs::remove_file(&b)?;
        longest = longest.max(began.elapsed());
        rounds += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(json!({ "longest": longest.as_secs_f64(), "rounds": rounds }))
}
