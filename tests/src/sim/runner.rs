//! Runs seeds: one, many, or as many as fit into some minutes.

// Minutes of a soak are minutes of the person who asked for it; nothing in a run sees them.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mooring_config::{ChangeReason, Command as ConfigCommand, Done, Response, SliceChange};
use mooring_terms::{BlockIndex, NodeId, SliceId};

use super::checkers::agreement;
use super::client::Standing;
use super::coverage::{Coverage, Kind};
use super::node::{Node, Power};
use super::plan::{Plan, StoreKind};
use super::regressions::OPEN;
use super::trace::Trace;
use super::workload::hot_blocks;
use super::{Phase, Sim, Violation};

/// Within this virtual time after healing, everything must have come right.
const LIVENESS: Duration = Duration::from_secs(120);

/// What a run gave.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it reached.
    pub coverage: Coverage,
    /// How many operations clients asked for, beside probes and the last reads.
    pub operations: u64,
    /// How many faults hit somebody.
    pub faults: u64,
    /// What the replicas lay in.
    pub store: StoreKind,
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
        write!(f, "the whole story: MOORING_SIM_SEED={} cargo test -p mooring-tests sim", self.seed)
    }
}

impl Sim {
    /// Runs the whole plan: faults, healing, settling, reading, comparing.
    fn run(&mut self) {
        self.run_until(self.plan.healed);
        self.heal_all();
        self.settle(LIVENESS);
        if self.phase == Phase::Over {
            return self.check_history();
        }
        self.phase = Phase::Reading;
        let plan = self.plan.clone();
        self.workload.read_everything(&plan);
        self.work_all();
        self.settle(LIVENESS);
        if self.phase == Phase::Over {
            return self.check_history();
        }
        self.finish();
    }

    pub(super) fn heal_all(&mut self) {
        self.phase = Phase::Settling;
        self.heal();
        for id in self.plan.node_ids() {
            self.blame(id, Duration::ZERO);
        }
        self.work_all();
    }

    /// Goes on until everything has come right; if that takes longer than `most`, it never will.
    pub(super) fn settle(&mut self, most: Duration) {
        let end = self.queue.now() + most;
        while self.violation.is_none() {
            self.run_for(Duration::from_millis(200));
            self.replace_what_is_missing();
            match self.unsettled() {
                None => return,
                Some(_) if self.queue.now() >= end && self.a_log_is_lost() => {
                    self.count(Kind::Situation, "rot took the last whole log in sync");
                    self.phase = Phase::Over;
                    return;
                }
                Some(why) if self.queue.now() >= end => {
                    self.fail("liveness after healing", why);
                }
                Some(_) => self.work_all(),
            }
        }
    }

    /// Whether of some slice no replica in sync has its whole log any more.
    fn a_log_is_lost(&self) -> bool {
        let mut slices = self.raft.state().slices();
        slices.any(|(slice, config)| self.checkers.all_are_damaged(slice, config))
    }

    /// What has not come right yet.
    pub(super) fn unsettled(&self) -> Option<String> {
        for node in self.nodes.values() {
            if node.power != Power::Running || !node.registered() {
                return Some(format!("{:?} is {:?}", node.id, node.power));
            }
            if node.has_work() {
                return Some(format!("the pool of {:?} has work", node.id));
            }
        }
        for (slice, config) in self.raft.state().slices() {
            let replicas = self.raft.state().volume(slice.volume)?.spec.replicas;
            // More than asked for, where an operator placed one and could not take another away.
            if config.in_sync.len() < replicas as usize || !config.joining.is_empty() {
                let pools: Vec<String> =
                    self.nodes.values().map(|node| node.pool.describe()).collect();
                return Some(format!(
                    "not all replicas of {slice} are in sync: {config:?}; pools: {pools:?}"
                ));
            }
        }
        for client in self.clients.values().filter(|c| c.standing != Standing::Over) {
            if let Some((io, op)) = client.in_flight.first_key_value() {
                let op = self.history.op(*op);
                return Some(format!("client {} waits for {io:?}: {op:?}", client.number));
            }
        }
        if !self.workload.is_done() {
            return Some(format!("not all operations were asked for: {:?}", self.workload));
        }
        None
    }

    /// Compares the replicas, and looks for an order that explains all reads.
    pub(super) fn finish(&mut self) {
        if self.violation.is_some() {
            return;
        }
        // What the last operations left behind: a sync here, a committed position there.
        self.run_for(Duration::from_secs(3));
        self.compare_replicas();
        self.check_history();
        self.phase = Phase::Over;
    }

    /// Looks for an order that explains all reads.
    fn check_history(&mut self) {
        if let Err((volume, block, why)) = self.history.check() {
            self.fail("reads are linearizable", format!("block {block} of {volume:?}: {why}"));
        }
    }

    /// Replicas that were just listed, because they are level, must be.
    pub(super) fn check_listed(&mut self, command: &ConfigCommand, answer: &Response) {
        let (ConfigCommand::ChangeSlices { changes, .. }, Ok(Done::Slices(results))) =
            (command, answer)
        else {
            return;
        };
        let blocks: Vec<BlockIndex> = hot_blocks(0).map(BlockIndex).collect();
        for (change, _) in changes.iter().zip(results).filter(|(_, result)| result.is_ok()) {
            self.note_prefixes(change);
            for member in change.in_sync.iter().filter(|_| change.reason == ChangeReason::Joined) {
                let lives = |node: &&mut Node| {
                    node.exists() && !node.failed && node.incarnation == member.incarnation
                };
                if let Some(node) = self.nodes.get_mut(&member.node).filter(lives) {
                    let of = (member.node, change.slice);
                    let checkers = &self.checkers;
                    let may_rot = |block| checkers.may_be_rotten(change.slice, block);
                    let seen = agreement::listed(of, &mut *node.pool, &blocks, &may_rot);
                    self.hear_pool(member.node);
                    self.check(seen);
                }
            }
        }
    }

    /// Counts the restarts of all replicas that found different things on their media.
    fn note_prefixes(&mut self, change: &SliceChange) {
        let config = self.raft.state().slice(change.slice);
        let last = |node: &Node| node.exists().then(|| node.pool.recovered(change.slice).last);
        let members = config.iter().flat_map(|config| config.members());
        let logs: BTreeSet<_> =
            members.filter_map(|member| self.nodes.get(&member.node).and_then(last)).collect();
        if change.reason == ChangeReason::AllRestarted && logs.len() > 1 {
            self.count(Kind::Situation, "all restarted with different prefixes");
        }
    }

    fn compare_replicas(&mut self) {
        let state = self.raft.state().clone();
        let blocks: Vec<BlockIndex> = hot_blocks(0).map(BlockIndex).collect();
        for (slice, config) in state.slices() {
            let others = config.in_sync.iter().map(|m| m.node).filter(|n| *n != config.primary);
            for other in others.collect::<Vec<NodeId>>() {
                let seen = self.compare_pair(slice, config, other, &blocks);
                self.hear_pool(config.primary);
                self.hear_pool(other);
                self.check(seen);
            }
        }
    }

    fn compare_pair(
        &mut self,
        slice: SliceId,
        config: &mooring_config::SliceConfig,
        other: NodeId,
        blocks: &[BlockIndex],
    ) -> Result<(), Violation> {
        let checkers = &self.checkers;
        let may_rot = |block| checkers.may_be_rotten(slice, block);
        let mut first = None;
        let mut second = None;
        for (id, node) in &mut self.nodes {
            if *id == config.primary {
                first = Some(node);
            } else if *id == other {
                second = Some(node);
            }
        }
        let (Some(first), Some(second)) = (first, second) else { return Ok(()) };
        let (here, there) = (&mut *first.pool, &mut *second.pool);
        agreement::compare((slice, config), here, other, there, blocks, &may_rot)
    }

    fn outcome_of_run(&self) -> Outcome {
        Outcome {
            coverage: self.coverage.clone(),
            operations: self.workload.asked(),
            faults: self.faults.begun,
            store: self.plan.store,
            hash: self.trace.hash(),
            happenings: self.happenings,
        }
    }
}

/// Runs the plan of one seed, changed by `change`.
///
/// # Errors
/// The property that it breaks.
pub fn run_plan(seed: u64, trace: Trace, change: &dyn Fn(&mut Plan)) -> Result<Outcome, Failure> {
    let mut plan = Plan::of_seed(seed);
    change(&mut plan);
    let mut sim = Sim::new(plan, trace);
    let ran = catch_unwind(AssertUnwindSafe(|| sim.run()));
    let violation = match (ran, sim.violation.take()) {
        // What was broken first is the reason, whatever came of it.
        (_, Some(violation)) => Some(violation),
        (Err(panic), None) => Some(Violation { property: "invariants", text: panic_text(&*panic) }),
        (Ok(()), None) => None,
    };
    match violation {
        None => Ok(sim.outcome_of_run()),
        Some(violation) => Err(Failure { seed, violation, story: sim.trace.tail() }),
    }
}

fn panic_text(panic: &dyn std::any::Any) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}

/// Runs one seed; if it fails, once more with its story.
///
/// # Errors
/// The failure.
pub fn run_seed(seed: u64, loud: bool) -> Result<Outcome, Failure> {
    if loud {
        return run_plan(seed, Trace::new(true), &|_| {});
    }
    match run_plan(seed, Trace::silent(), &|_| {}) {
        Ok(outcome) => Ok(outcome),
        Err(quiet) => match run_plan(seed, Trace::new(false), &|_| {}) {
            Err(told) => Err(told),
            // It must not be: one seed is one run.
            Ok(_) => Err(quiet),
        },
    }
}

/// The hash of the whole story of a seed.
///
/// # Panics
/// If the seed fails.
#[must_use]
pub fn hash_of(seed: u64) -> u64 {
    match run_plan(seed, Trace::new(false), &|_| {}) {
        Ok(outcome) => outcome.hash,
        Err(failure) => panic!("{failure}"),
    }
}

/// What all of `outcomes` have reached together.
#[must_use]
pub fn coverage_of(outcomes: &[Outcome]) -> Coverage {
    let mut all = Coverage::default();
    for outcome in outcomes {
        all.add(&outcome.coverage);
    }
    all
}

/// Runs `count` seeds from `from` on, on all processors.
///
/// # Errors
/// The failures, at most a few.
pub fn run_seeds(from: u64, count: u64) -> Result<Vec<Outcome>, Vec<Failure>> {
    run_while(from, &|ran| ran < count, &|seed| OPEN.iter().all(|(open, _)| *open != seed))
}

/// Runs seeds from `from` on for `minutes`.
///
/// # Errors
/// As [`run_seeds`].
pub fn soak_for(from: u64, minutes: u64) -> Result<Vec<Outcome>, Vec<Failure>> {
    let end = Instant::now() + Duration::from_secs(minutes * 60);
    run_while(from, &|_| Instant::now() < end, &|_| true)
}

/// More failures than these tell nothing new.
const MOST_FAILURES: usize = 5;

fn run_while(
    from: u64,
    go_on: &(dyn Fn(u64) -> bool + Sync),
    wanted: &(dyn Fn(u64) -> bool + Sync),
) -> Result<Vec<Outcome>, Vec<Failure>> {
    let next = AtomicU64::new(0);
    let outcomes = Mutex::new(Vec::new());
    let failures = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let ran = next.fetch_add(1, Ordering::Relaxed);
                    let enough = failures.lock().expect("no worker panics").len() >= MOST_FAILURES;
                    if !go_on(ran) || enough {
                        return;
                    }
                    if !wanted(from + ran) {
                        continue;
                    }
                    match run_seed(from + ran, false) {
                        Ok(outcome) => outcomes.lock().expect("no worker panics").push(outcome),
                        Err(failure) => failures.lock().expect("no worker panics").push(failure),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no worker panics");
    if failures.is_empty() {
        Ok(outcomes.into_inner().expect("no worker panics"))
    } else {
        Err(failures)
    }
}
