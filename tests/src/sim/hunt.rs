//! The hunt for a deliberate bug: seeds are run with it until a checker finds it.

use super::plan::Plan;
use super::runner::{Failure, run_plan};
use super::trace::Trace;

/// A bug that was found.
#[derive(Clone, Debug)]
pub struct Caught {
    /// How many seeds it took.
    pub seeds: u64,
    /// How it showed.
    pub failure: Failure,
}

/// Runs at most `most` seeds, each plan changed by `change`, until one fails.
#[must_use]
pub fn hunt(most: u64, change: &dyn Fn(&mut Plan)) -> Option<Caught> {
    (0..most).find_map(|seed| {
        let failed = run_plan(seed, Trace::silent(), change).err()?;
        Some(Caught { seeds: seed + 1, failure: failed })
    })
}
