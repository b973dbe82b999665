//! What a run has reached: a counter for every fault, every transition of the core, every event,
//! command and message. A simulator that never takes a path proves nothing about it.

use std::collections::BTreeMap;
use std::fmt::Write;

/// What kind of thing is counted; the table has one part for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Something the simulator did to the cluster.
    Fault,
    /// A directed situation that the design names.
    Situation,
    /// A change of state inside a replica or a client.
    Transition,
    /// An event given to a core.
    Event,
    /// A command that a core gave.
    Command,
    /// A message between nodes.
    Message,
    /// An operation of a client, by outcome.
    Operation,
}

/// Counters by kind and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    counts: BTreeMap<(Kind, &'static str), u64>,
}

impl Coverage {
    /// Counts one `name`.
    pub fn count(&mut self, kind: Kind, name: &'static str) {
        *self.counts.entry((kind, name)).or_default() += 1;
    }

    /// Counts `name` so many times.
    pub fn add_to(&mut self, kind: Kind, name: &'static str, times: u64) {
        if times > 0 {
            *self.counts.entry((kind, name)).or_default() += times;
        }
    }

    /// How often `name` was counted.
    #[must_use]
    pub fn of(&self, kind: Kind, name: &'static str) -> u64 {
        self.counts.get(&(kind, name)).copied().unwrap_or(0)
    }

    /// Adds all of `other`.
    pub fn add(&mut self, other: &Self) {
        for (key, count) in &other.counts {
            *self.counts.entry(*key).or_default() += count;
        }
    }

    /// The names of `required` that were counted less than `least` times, with their counts.
    #[must_use]
    pub fn below(
        &self,
        required: &[(Kind, &'static str)],
        least: u64,
    ) -> Vec<(Kind, &'static str, u64)> {
        let counted = required.iter().map(|&(kind, name)| (kind, name, self.of(kind, name)));
        counted.filter(|(_, _, count)| *count < least).collect()
    }

    /// The table that is printed.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut last = None;
        for ((kind, name), count) in &self.counts {
            if last != Some(*kind) {
                writeln!(text, "{kind:?}").expect("a string takes all");
                last = Some(*kind);
            }
            writeln!(text, "  {name:<36} {count:>12}").expect("a string takes all");
        }
        text
    }
}
