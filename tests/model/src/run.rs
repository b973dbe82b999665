//! Runs calls on the hosts and in the reference, one after the other, and compares.
#![allow(clippy::disallowed_methods, reason = "real calls set real times, which are compared")]

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::action::{Action, Call};
use crate::choose::{Chooser, all_paths};
use crate::hosts::Hosts;
use crate::reference::{Kind, ROOT, Reference, Refusal};

/// After so many calls every host looks at everything.
const SWEEP: u64 = 300;
/// Calls that a failure tells of.
const TOLD: usize = 40;

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Where all chance comes from.
    pub seed: u64,
    /// How many calls, looks of all hosts at everything aside.
    pub calls: u64,
    /// It ends earlier after this time.
    pub limit: Duration,
    /// Whether mappings are written to.
    pub mappings: bool,
    /// How exact times are.
    pub times: Times,
}

/// How exact times are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// Those of a local file system of Linux: its clock stands still for some milliseconds, and reading may set
    /// access times.
    Coarse,
    /// Within the call that sets them; reading sets none.
    Exact,
}

/// What was run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many calls were made, all looks included.
    pub calls: u64,
    /// Those that failed, as they had to.
    pub refused: u64,
}

/// A call that did not do what it must.
#[derive(Debug)]
pub struct Failure {
    seed: u64,
    wrong: String,
    /// All calls up to it, which is the last.
    pub story: Vec<Action>,
}

impl Failure {
    /// What shows it again.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.story.len().saturating_sub(TOLD);
        writeln!(f, "... {from} calls")?;
        for action in &self.story[from..] {
            writeln!(f, "{action}")?;
        }
        write!(f, "{}\nseed {}, call {}", self.wrong, self.seed, self.story.len())
    }
}

/// Hosts under comparison. `MOORING_MODEL_STORY` has each call told before it is made: one may never return.
pub struct Run {
    hosts: Hosts,
    count: usize,
    reference: Reference,
    story: Vec<Action>,
    report: Report,
    loud: bool,
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

impl Run {
    /// Compares in a directory of this name, which is made below these roots: the same on all hosts.
    ///
    /// # Panics
    /// If that can't be made.
    #[must_use]
    pub fn new(roots: &[PathBuf], name: &str) -> Self {
        let began = now();
        std::fs::create_dir(roots[0].join(name)).expect("a directory to work in");
        let mut reference = Reference::new(0o755, began);
        reference.ended(now());
        let below = roots.iter().map(|root| root.join(name)).collect();
        Self {
            hosts: Hosts::new(below),
            count: roots.len(),
            reference,
            story: Vec::new(),
            report: Report::default(),
            loud: std::env::var_os("MOORING_MODEL_STORY").is_some(),
        }
    }

    /// Makes one call. A failed comparison ends everything.
    fn step(&mut self, action: Action) -> Result<(), String> {
        let began = now();
        let expected = self.reference.apply(&action, began);
        if expected == Err(Refusal::Skip) {
            return Ok(());
        }
        if self.loud {
            eprintln!("{action}");
        }
        let got = self.hosts.call(&action);
        self.reference.ended(now());
        self.report.calls += 1;
        self.report.refused += u64::from(got.is_err());
        self.story.push(action);
        self.reference.compare(&expected, &got)
    }

    /// Every host looks at everything.
    fn sweep(&mut self) -> Result<(), String> {
        let mut all = vec![(".".to_owned(), ROOT)];
        all_paths(&self.reference, ROOT, "", &mut all);
        for host in 0..self.count {
            for (path, node) in &all {
                let path = || path.clone();
                let mut calls = vec![Call::Stat { path: path(), follow: false }];
                match self.reference.nodes[node].kind {
                    Kind::Regular => calls.push(Call::ReadFile { path: path() }),
                    Kind::Directory => calls.push(Call::List { path: path() }),
                    Kind::Symlink => calls.push(Call::Readlink { path: path() }),
                    Kind::Fifo => {}
                }
                if self.reference.nodes[node].kind != Kind::Symlink {
                    calls.push(Call::ListXattr { path: path() });
                }
                for call in calls {
                    self.step(Action { host, call })?;
                }
            }
        }
        Ok(())
    }

    fn failed(&mut self, seed: u64, wrong: String) -> Box<Failure> {
        Box::new(Failure { seed, wrong, story: std::mem::take(&mut self.story) })
    }

    /// Makes calls out of a seed; `between` comes before each, with its number.
    ///
    /// # Errors
    /// A call that did not do what it must.
    pub fn chosen(
        &mut self,
        options: Options,
        mut between: impl FnMut(u64),
    ) -> Result<Report, Box<Failure>> {
        let began = Instant::now();
        self.reference.times = options.times;
        let mut chooser = Chooser::new(options.seed, self.count, options.mappings);
        for number in 0..options.calls {
            if began.elapsed() > options.limit {
                break;
            }
            between(number);
            let action = chooser.next(&self.reference);
            self.step(action).map_err(|wrong| self.failed(options.seed, wrong))?;
            if number % SWEEP == SWEEP - 1 {
                self.sweep().map_err(|wrong| self.failed(options.seed, wrong))?;
            }
        }
        self.sweep().map_err(|wrong| self.failed(options.seed, wrong))?;
        Ok(self.report)
    }

    /// Makes just these calls; whether one of them fails to do what it must.
    #[must_use]
    pub fn repeats(mut self, story: &[Action]) -> bool {
        let fails = story.iter().any(|action| self.step(action.clone()).is_err());
        fails || self.sweep().is_err()
    }
}

/// The shortest story, as far as leaving things out by halves finds it, that still fails.
pub fn shortened(story: &[Action], mut fails: impl FnMut(&[Action]) -> bool) -> Vec<Action> {
    let mut kept = story.to_vec();
    let mut size = kept.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < kept.len() {
            let mut without = kept.clone();
            without.drain(at..(at + size).min(kept.len()));
            if fails(&without) {
                kept = without;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    kept
}
