//! What programs do to a file system, one kind after the other, timed where they run: inside a host.
//!
//! ```text
//!   mooring-workload KIND ARGUMENT...  ─>  one line of JSON
//! ```
//! Kinds: `metadata DIR FILES`, `creates DIR PREFIX SECONDS`, `hand-over flock|fcntl DIR SECONDS`,
//! `append FILE SIDE SECONDS kept|reopened`, `appear DIR COUNT`, `look DIR COUNT`, `names DIR STOP`. Before any of
//! them: `at NS`, nanoseconds of the monotonic clock before which it does not begin.

// It measures.
#![allow(clippy::disallowed_methods)]

mod hand_over;
mod metadata;
mod together;

use std::io::{Error, Result};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", arguments.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<Value> {
    match arguments {
        ["at", begin, rest @ ..] => {
            let begin = i64::try_from(number(begin)?).unwrap_or(i64::MAX);
            let left = u64::try_from(begin - together::now_ns()).unwrap_or(0);
            std::thread::sleep(Duration::from_nanos(left));
            run(rest)
        }
        ["metadata", dir, files] => metadata::run(Path::new(dir), number(files)?),
        ["creates", dir, prefix, seconds] => {
            together::creates(Path::new(dir), prefix, for_seconds(seconds)?)
        }
        ["hand-over", kind, dir, seconds] => {
            hand_over::run(kind, Path::new(dir), for_seconds(seconds)?)
        }
        ["append", file, side, seconds, how] => together::append(
            Path::new(file),
            number(side)?,
            for_seconds(seconds)?,
            *how == "reopened",
        ),
        ["appear", dir, count] => together::appear(Path::new(dir), number(count)?),
        ["look", dir, count] => together::look(Path::new(dir), number(count)?),
        ["names", dir, stop] => together::names(Path::new(dir), Path::new(stop)),
        _ => Err(Error::other("no such workload")),
    }
}

fn number(text: &str) -> Result<u64> {
    text.parse().map_err(|_| Error::other(format!("{text} is no number")))
}

fn for_seconds(text: &str) -> Result<Duration> {
    number(text).map(Duration::from_secs)
}
