//! The hunt for a deliberate bug, as in the block store's simulator: seeds are run with it until the
//! checker of the property that it breaks finds it; the same plan without it must break nothing.

use std::collections::BTreeMap;

use super::plan::{Bugs, Plan};
use super::runner::{Failure, run_plan};
use crate::sim::trace::Trace;

/// What is hunted, and where.
pub struct Hunt<'a> {
    /// The properties that the bug breaks: only their checkers count.
    pub properties: &'a [&'static str],
    /// How many seeds are tried at most.
    pub most: u64,
    /// Changes each seed's plan, with the bug and without.
    pub change: &'a dyn Fn(&mut Plan),
    /// The bug.
    pub bugs: Bugs,
}

/// A bug that was found.
#[derive(Clone, Debug)]
pub struct Caught {
    /// How it showed.
    pub failure: Failure,
    /// How many seeds were tried.
    pub tried: u64,
    /// What others saw of it before, by property.
    pub others: BTreeMap<&'static str, u64>,
    /// Seeds that fail without the bug too.
    pub not_it: Vec<u64>,
}

impl Hunt<'_> {
    /// Runs seeds until the bug is found.
    ///
    /// # Errors
    /// What other checkers have seen of it, by property, if the right one has not found it.
    pub fn run(&self) -> Result<Caught, BTreeMap<&'static str, u64>> {
        let mut others = BTreeMap::new();
        let mut not_it = Vec::new();
        for seed in 0..self.most {
            let Err(failure) = self.run_seed(seed, self.bugs) else { continue };
            let property = failure.violation.property;
            if !self.properties.contains(&property) {
                *others.entry(property).or_default() += 1;
            } else if self.run_seed(seed, Bugs::default()).is_err() {
                not_it.push(seed);
            } else {
                return Ok(Caught { failure, tried: seed + 1, others, not_it });
            }
        }
        Err(others)
    }

    fn run_seed(&self, seed: u64, bugs: Bugs) -> Result<(), Failure> {
        let change = |plan: &mut Plan| {
            (self.change)(plan);
            plan.bugs = bugs;
        };
        run_plan(seed, Trace::silent(), &change).map(|_| ())
    }
}
