//! Runs seeds: one, or many at once.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::plan::Plan;
use super::{Sim, Violation};
use crate::sim::trace::Trace;
use crate::sim::{Coverage, CoverageKind as Kind};

/// Within this virtual time after healing everything must be answered.
const LIVENESS: Duration = Duration::from_secs(60);

/// What a run gave.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it reached.
    pub coverage: Coverage,
    /// How many system calls were made.
    pub calls: u64,
    /// The hash of its trace.
    pub hash: u64,
    /// How many happenings it took.
    pub happenings: u64,
}

/// A run that broke a property.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed that shows it, every time.
    pub seed: u64,
    /// What was broken.
    pub violation: Violation,
    /// The last lines of its story.
    pub story: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.story)?;
        writeln!(f, "seed {} breaks: {}", self.seed, self.violation.property)?;
        writeln!(f, "{}", self.violation.text)?;
        write!(f, "the whole story: MOORING_FS_SIM_SEED={}", self.seed)
    }
}

impl Sim {
    fn run(&mut self) {
        self.start();
        self.run_until(self.plan.healed);
        self.heal();
        self.settle("all is answered after healing");
        if self.violation.is_some() {
            return;
        }
        self.check_tree();
        self.reading_log = true;
        self.mount_if_over();
        for host in self.hosts.keys().copied().collect::<Vec<_>>() {
            let mount = self.hosts[&host].mount;
            for at in 0..self.plan.programs {
                self.work(host, mount, at);
            }
        }
        let end = self.queue.now() + LIVENESS;
        while self.violation.is_none() && self.log_records.is_none() {
            if self.queue.now() >= end {
                let waiting = self.waiting();
                return self
                    .fail("all is answered after healing", format!("last reads: {waiting}"));
            }
            self.run_until(self.queue.now() + Duration::from_millis(100));
        }
        if self.violation.is_none() {
            self.check_history();
        }
        let (held, given) = (self.fsynced.held, self.locks.given);
        self.coverage.add_to(Kind::Situation, "a read held against an fsync", held);
        self.coverage.add_to(Kind::Situation, "a lock is given", given);
        let records = self.log_records.unwrap_or(0) as u64;
        self.coverage.add_to(Kind::Situation, "a record in the log", records);
    }

    fn heal(&mut self) {
        if self.server.coordinator.is_none() {
            self.take_over();
        }
        let now = self.queue.now();
        for host in self.hosts.values_mut() {
            host.cut_until = host.cut_until.min(now);
        }
        for program in self.hosts.values_mut().flat_map(|host| &mut host.programs) {
            program.left = 0;
        }
    }

    /// Goes on until no call waits.
    fn settle(&mut self, property: &'static str) {
        let end = self.queue.now() + LIVENESS;
        while self.violation.is_none() {
            self.run_until(self.queue.now() + Duration::from_millis(100));
            let waiting = self.waiting();
            if waiting.is_empty() {
                return;
            }
            if self.queue.now() >= end {
                return self.fail(property, waiting);
            }
        }
    }

    /// Calls that have not returned. Locks that nobody frees are waited for by right.
    fn waiting(&self) -> String {
        let mut waiting = String::new();
        for (id, host) in &self.hosts {
            for (at, program) in host.programs.iter().enumerate() {
                let Some((call, ..)) = program.call else { continue };
                if !matches!(call, super::programs::Call::Lock(..)) {
                    waiting += &format!("host {id} program {at}: {call:?} {:?}; ", program.step);
                }
            }
            if host.client.dirty_bytes() > 0 {
                waiting += &format!("host {id} has something to write back; ");
            }
        }
        waiting
    }

    fn mount_if_over(&mut self) {
        for host in self.hosts.keys().copied().collect::<Vec<_>>() {
            if self.hosts[&host].client.ended().is_some() {
                self.kill(host);
                self.mount(host);
            }
        }
    }
}

/// Runs the plan of `seed`, changed.
pub(super) fn run_plan(
    seed: u64,
    trace: Trace,
    change: &dyn Fn(&mut Plan),
) -> Result<Outcome, Failure> {
    let mut plan = Plan::new(seed);
    change(&mut plan);
    let mut sim = Sim::new(plan, trace);
    let run = catch_unwind(AssertUnwindSafe(|| sim.run()));
    if let Err(panic) = run {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default();
        sim.violation = Some(Violation { property: "invariants of the cores", text });
    }
    match sim.violation.take() {
        Some(violation) => Err(Failure { seed, violation, story: sim.trace.tail() }),
        None => Ok(Outcome {
            coverage: sim.coverage,
            calls: sim.calls,
            hash: sim.trace.hash(),
            happenings: sim.happenings,
        }),
    }
}

/// Runs one seed with its whole story.
///
/// # Errors
/// The property that it breaks.
pub fn run_seed(seed: u64, loud: bool) -> Result<Outcome, Failure> {
    run_plan(seed, Trace::new(loud), &|_| {})
}

/// The hash of a seed's story.
#[must_use]
pub fn hash_of(seed: u64) -> u64 {
    run_seed(seed, false).map_or(0, |outcome| outcome.hash)
}

/// Runs `count` seeds from `from` on, on all processors.
///
/// # Errors
/// Those that break a property, run again with their story.
pub fn run_seeds(from: u64, count: u64) -> Result<Vec<Outcome>, Vec<Failure>> {
    let next = AtomicU64::new(from);
    let results = Mutex::new((Vec::new(), BTreeSet::new()));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        return;
                    }
                    let result = run_plan(seed, Trace::silent(), &|_| {});
                    let mut results = results.lock().expect("nobody panics with it");
                    match result {
                        Ok(outcome) => results.0.push(outcome),
                        Err(_) => {
                            results.1.insert(seed);
                        }
                    }
                }
            });
        }
    });
    let (outcomes, failed) = results.into_inner().expect("nobody panics with it");
    if failed.is_empty() {
        return Ok(outcomes);
    }
    let again = |seed: u64| run_seed(seed, false).err();
    Err(failed.into_iter().take(5).filter_map(again).collect())
}
