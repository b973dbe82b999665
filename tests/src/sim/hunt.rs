//! The hunt for a deliberate bug: seeds are run with it until the checker of the property that it
//! breaks finds it. The same plan without the bug must break nothing: else something else was found.

use std::collections::BTreeMap;

use super::plan::Plan;
use super::runner::{Failure, run_plan};
use super::trace::Trace;

/// What is hunted, and where.
pub struct Hunt<'a> {
    /// The properties that the bug breaks: only their checkers count.
    pub properties: &'a [&'static str],
    /// How many seeds are tried at most.
    pub most: u64,
    /// Changes each seed's plan, with the bug and without.
    pub change: &'a dyn Fn(&mut Plan),
    /// Turns the bug on, or off.
    pub bug: &'a dyn Fn(&mut Plan, bool),
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
            let Err(failure) = self.run_seed(seed, true) else { continue };
            let property = failure.violation.property;
            if !self.properties.contains(&property) {
                *others.entry(property).or_default() += 1;
            } else if self.run_seed(seed, false).is_err() {
                not_it.push(seed);
            } else {
                return Ok(Caught { failure, tried: seed + 1, others, not_it });
            }
        }
        Err(others)
    }

    fn run_seed(&self, seed: u64, bug: bool) -> Result<(), Failure> {
        let change = |plan: &mut Plan| {
            (self.change)(plan);
            (self.bug)(plan, bug);
        };
        run_plan(seed, Trace::silent(), &change).map(|_| ())
    }
}
