//! The simulator: thousands of seeds, each a cluster with faults, checked in every property.
//!
//! | variable | meaning |
//! |---|---|
//! | `MOORING_SIM_SEEDS` | how many seeds `seeds` runs (2,000) |
//! | `MOORING_SIM_FROM` | the first of them (0) |
//! | `MOORING_SIM_SEED` | run this one seed alone, and print its whole story |
//! | `MOORING_SOAK_MINUTES` | for how long `soak` runs (10) |

use std::collections::BTreeSet;

use mooring_tests::sim::{
    CoverageKind, DESIGNED, FaultKind, OPEN, Outcome, REGRESSIONS, REQUIRED, coverage_of, hash_of,
    run_seed, run_seeds, soak_for,
};

/// How many times each required thing must have happened in a run of this many seeds.
const COVERED: u64 = 100;
const SEEDS: u64 = 2_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// One line, and the table of what was reached.
fn report(outcomes: &[Outcome]) {
    let on = |engine| outcomes.iter().filter(|o| o.store.is_engine() == engine).count();
    let operations: u64 = outcomes.iter().map(|outcome| outcome.operations).sum();
    let faults: u64 = outcomes.iter().map(|outcome| outcome.faults).sum();
    let happenings: u64 = outcomes.iter().map(|outcome| outcome.happenings).sum();
    println!("{}", coverage_of(outcomes).table());
    println!(
        "{} seeds ({} on the engine, {} on its model), {operations} operations, {faults} faults, \
         {happenings} happenings",
        outcomes.len(),
        on(true),
        on(false),
    );
}

#[test]
fn one_seed_is_one_run() {
    for seed in [3, 4, 1_000_003] {
        let first = hash_of(seed);
        assert_eq!(first, hash_of(seed), "seed {seed} ran in two ways");
        assert_ne!(first, hash_of(seed + 1), "two seeds ran alike");
    }
}

#[test]
fn seeds_that_failed_once_pass() {
    for (seed, found) in REGRESSIONS {
        if let Err(failure) = run_seed(*seed, false) {
            panic!("{failure}\nthis seed once found: {found}");
        }
    }
    let seeds: BTreeSet<u64> = REGRESSIONS.iter().map(|(seed, _)| *seed).collect();
    assert_eq!(seeds.len(), REGRESSIONS.len(), "each seed is listed once");
}

#[test]
fn seeds() {
    if let Some(seed) = number("MOORING_SIM_SEED") {
        match run_seed(seed, true) {
            Ok(outcome) => report(&[outcome]),
            Err(failure) => panic!("{failure}"),
        }
        return;
    }
    // The seeds left out are made up for by as many behind the last one.
    let count = number("MOORING_SIM_SEEDS").unwrap_or(SEEDS + OPEN.len() as u64);
    for (seed, why) in OPEN {
        println!("seed {seed} is left out: {why}");
    }
    let outcomes = run(run_seeds(number("MOORING_SIM_FROM").unwrap_or(0), count));
    // A run ends early where rot took the last good copy of a block: nobody can go on then.
    let real = |outcome: &&Outcome| outcome.operations >= 300 && outcome.faults >= 10;
    let real_runs = outcomes.iter().filter(real).count();
    println!("{real_runs} of {} seeds had 300 operations and 10 faults", outcomes.len());
    assert!(real_runs * 100 >= outcomes.len() * 99, "a seed is a real run");
    let on_engine = outcomes.iter().filter(|o| o.store.is_engine()).count() as u64;
    assert!(
        on_engine >= outcomes.len() as u64 / 4 - OPEN.len() as u64,
        "a quarter of the seeds runs on the engine"
    );
    if count >= SEEDS {
        let coverage = coverage_of(&outcomes);
        for (wanted, kind, name) in DESIGNED {
            let count = coverage.of(*kind, name);
            println!("{wanted}: {count} times");
            assert!(count >= COVERED, "{wanted}: reached {count} times only");
        }
        let short = coverage.below(REQUIRED, COVERED);
        assert!(short.is_empty(), "reached less than {COVERED} times: {short:#?}");
        let kinds: BTreeSet<&str> = FaultKind::all().map(FaultKind::name).collect();
        let asked = |name: &&str| REQUIRED.contains(&(CoverageKind::Fault, *name));
        assert!(kinds.iter().all(asked), "every kind of fault is required");
    }
}

#[test]
#[ignore = "runs for as long as it is told to: see `make soak`"]
fn soak() {
    let minutes = number("MOORING_SOAK_MINUTES").unwrap_or(10);
    // Others than those of every test run, and others each day.
    let from = number("MOORING_SIM_FROM").unwrap_or_else(fresh_seed);
    println!("from seed {from} on, for {minutes} minutes");
    run(soak_for(from, minutes));
}

/// A first seed for a soak.
fn fresh_seed() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "a soak is to try what none has tried before")]
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |since| since.as_secs()) << 20
}

fn run(result: Result<Vec<Outcome>, Vec<mooring_tests::sim::Failure>>) -> Vec<Outcome> {
    match result {
        Ok(outcomes) => {
            report(&outcomes);
            outcomes
        }
        Err(failures) => {
            for failure in &failures {
                println!("{failure}\n");
            }
            let seeds: Vec<u64> = failures.iter().map(|failure| failure.seed).collect();
            panic!("seeds {seeds:?} fail; the first breaks: {}", failures[0].violation.property);
        }
    }
}
