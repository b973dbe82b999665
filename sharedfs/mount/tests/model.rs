//! Random system calls on several mounts, one at a time, each compared with a file system in memory: what
//! it gives, and what every host sees of it afterwards.
//!
//! | variable | meaning |
//! |---|---|
//! | `MOORING_MODEL_SEED` | run this seed |
//! | `MOORING_MODEL_CALLS` | so many calls, and not only what an ordinary run has time for |
//! | `MOORING_MODEL_STORY` | tell each call before it is made |
//! | `MOORING_MODEL_SHORTEN` | when it fails, look for a shorter sequence that fails too, for so many seconds |

#![allow(clippy::disallowed_methods, reason = "tests of processes run in real time")]

mod rig;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use mooring_file_model::{Failure, Options, Run, Times, shortened};

use rig::Rig;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// What an ordinary run has time for.
const CALLS: u64 = 4_000;
const LIMIT: Duration = Duration::from_secs(15);

fn options(seed: u64) -> Options {
    let calls = number("MOORING_MODEL_CALLS");
    Options {
        seed: number("MOORING_MODEL_SEED").unwrap_or(seed),
        calls: calls.unwrap_or(CALLS),
        limit: calls.map_or(LIMIT, |calls| Duration::from_secs(60 + calls / 50)),
        mappings: true,
        times: Times::Exact,
    }
}

fn roots(rig: &Rig) -> Vec<PathBuf> {
    (0..rig.mounts()).map(|mount| rig.root(mount)).collect()
}

/// Looks for fewer calls that fail as well, and tells them.
fn tell(rig: &Rig, failure: &Failure) {
    eprintln!("{failure}");
    let Some(seconds) = number("MOORING_MODEL_SHORTEN") else { return };
    let began = Instant::now();
    let mut tried = 0;
    let short = shortened(&failure.story, |story| {
        tried += 1;
        let more = began.elapsed() < Duration::from_secs(seconds);
        more && Run::new(&roots(rig), &format!("again{tried}")).repeats(story)
    });
    eprintln!("of {} calls these {} fail, too:", failure.story.len(), short.len());
    short.iter().for_each(|action| eprintln!("{action}"));
}

/// So many hosts make calls; `between` comes before each of them.
fn hosts_agree(hosts: usize, seed: u64, between: impl Fn(&Rig, u64)) {
    let options = options(seed);
    let shorten = Duration::from_secs(number("MOORING_MODEL_SHORTEN").unwrap_or(0));
    let limit = options.limit + shorten + Duration::from_secs(60);
    let Some(rig) = Rig::start_for(hosts, limit) else { return };
    let began = Instant::now();
    let mut run = Run::new(&roots(&rig), "run");
    match run.chosen(options, |number| between(&rig, number)) {
        Ok(report) => {
            println!("seed {}: {report:?} in {:.1?}", options.seed, began.elapsed());
            assert!(report.calls > 1_000, "the machine is too slow to prove anything: {report:?}");
        }
        Err(failure) => {
            tell(&rig, &failure);
            panic!("{hosts} hosts, seed {}: see above", failure.seed());
        }
    }
}

#[test]
fn one_host_does_what_a_local_file_system_does() {
    hosts_agree(1, 1, |_, _| {});
}

#[test]
fn two_hosts_do_what_one_would() {
    hosts_agree(2, 2, |_, _| {});
}

#[test]
fn three_hosts_do_what_one_would() {
    hosts_agree(3, 3, |_, _| {});
}

#[test]
fn two_hosts_do_what_one_would_while_coordinators_come_and_go() {
    hosts_agree(2, 4, |rig, number| match number % 400 {
        199 => rig.fail_over(),
        100 | 300 => {
            rig.tell(&format!("cut {}", number / 100 % 2));
        }
        _ => {}
    });
}
