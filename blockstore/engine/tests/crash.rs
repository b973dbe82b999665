//! Crash consistency: stop at every write and sync of random operation sequences, reopen, compare.
//!
//! ```text
//!   operations ──> pool ──> memory disk ──after each write and sync──> copy of the disk
//!       │                                                                  │ crash(seed), open
//!       v                                                                  v
//!   model, one state an operation   <── must equal one of ── replicas of the reopened pool
//! ```
//! The state must be that after *some* number of operations, the same number for all slices, at
//! least as many as were flushed when the machine stopped, at most as many as were begun.
//! `MOORING_SOAK=n` runs n seeds instead of a few.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::script::run;

fn soak(default: u64) -> u64 {
    std::env::var("MOORING_SOAK").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

#[test]
fn every_crash_leaves_a_prefix_that_holds_what_was_flushed() {
    let mut points = 0;
    for seed in 0..soak(6) {
        match run(seed, 32, 400, 1) {
            Ok((checked, _)) => points += checked,
            Err(why) => panic!("{why}"),
        }
    }
    println!("{points} crash points");
}

#[test]
fn a_pool_that_is_nearly_full_keeps_the_promise_too() {
    let mut refused = 0;
    for seed in 100..100 + soak(4) {
        match run(seed, 20, 600, 3) {
            Ok((_, count)) => refused += count,
            Err(why) => panic!("{why}"),
        }
    }
    println!("{refused} operations refused for space");
}
