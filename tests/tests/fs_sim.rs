//! The simulator of shared volumes: many seeds, each a coordinator and hosts with faults, checked in
//! every property.
//!
//! | variable | meaning |
//! |---|---|
//! | `MOORING_FS_SIM_SEEDS` | how many seeds `seeds` runs (1,000) |
//! | `MOORING_FS_SIM_FROM` | the first of them (0) |
//! | `MOORING_FS_SIM_SEED` | run this one seed alone, and print its whole story |

use mooring_tests::fs_sim::{REQUIRED, hash_of, run_seed, run_seeds};
use mooring_tests::sim::Coverage;

/// How many times each required thing must have happened.
const COVERED: u64 = 10;
const SEEDS: u64 = 1_000;
/// Each has shown a fault of the cores, beyond those that every run goes through.
const REGRESSIONS: [u64; 7] = [4_247, 5_529, 8_311, 9_019, 13_785, 19_973, 20_091];

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

#[test]
fn one_seed_is_one_run() {
    for seed in [3, 4, 1_000_003] {
        let first = hash_of(seed);
        assert_ne!(first, 0, "seed {seed} fails");
        assert_eq!(first, hash_of(seed), "seed {seed} ran in two ways");
    }
}

#[test]
fn seeds_that_failed_once_pass() {
    for seed in REGRESSIONS {
        if let Err(failure) = run_seed(seed, false) {
            panic!("{failure}");
        }
    }
}

#[test]
fn seeds() {
    if let Some(seed) = number("MOORING_FS_SIM_SEED") {
        if let Err(failure) = run_seed(seed, true) {
            panic!("{failure}");
        }
        return;
    }
    let count = number("MOORING_FS_SIM_SEEDS").unwrap_or(SEEDS);
    let outcomes = match run_seeds(number("MOORING_FS_SIM_FROM").unwrap_or(0), count) {
        Ok(outcomes) => outcomes,
        Err(failures) => {
            for failure in &failures {
                println!("{failure}\n");
            }
            let seeds: Vec<u64> = failures.iter().map(|failure| failure.seed).collect();
            panic!("seeds {seeds:?} fail; the first breaks: {}", failures[0].violation.property);
        }
    };
    let mut coverage = Coverage::default();
    outcomes.iter().for_each(|outcome| coverage.add(&outcome.coverage));
    println!("{}", coverage.table());
    let calls: u64 = outcomes.iter().map(|outcome| outcome.calls).sum();
    let happenings: u64 = outcomes.iter().map(|outcome| outcome.happenings).sum();
    println!("{} seeds, {calls} system calls, {happenings} happenings", outcomes.len());
    if count >= SEEDS {
        let short = coverage.below(REQUIRED, COVERED);
        assert!(short.is_empty(), "reached less than {COVERED} times: {short:#?}");
    }
}
