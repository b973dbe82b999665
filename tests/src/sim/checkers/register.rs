//! Property: **reads are linearizable.** Every block of a volume is one register: each read gives
//! the value of the last write, discard or write-zeroes before it, where operations that overlap
//! in time may have come in any order, and one that was never answered may have come at any moment
//! after it was asked for, or never. A discarded block reads as zeros.
//!
//! The search is the just-in-time linearization of Lowe ("Testing for linearizability", 2017):
//! the events are walked in order; a configuration is the register's value and the open operations
//! that have already taken effect; when an operation returns, every configuration must let it have
//! taken effect by then. A history without any configuration left is not linearizable.
//!
//! Where a loss was declared (an epoch marked *tail lost*, an operator's accept-loss) and the
//! client that might have sent its writes again was gone too, the register may step back to what
//! the loss allows, and to nothing else.

use std::collections::BTreeSet;
use std::fmt;

use crate::sim::value::Value;

/// One thing that happened to one block, in the order of happening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Operation `op` began. A write holds what it writes; a read's value is known at its return.
    Invoked {
        /// Number of the operation, unique in the history.
        op: u64,
        /// What it writes; `None` for a read.
        writes: Option<Value>,
    },
    /// Operation `op` was answered: a read with what it read, a write with success.
    Returned {
        /// The operation.
        op: u64,
        /// What a read gave.
        read: Option<Value>,
    },
    /// Operation `op` can't take effect any more: refused before anything was logged, or its
    /// sender was fenced. If `never` is false it may have taken effect earlier.
    Ended {
        /// The operation.
        op: u64,
        /// It certainly had no effect.
        never: bool,
    },
    /// A declared loss: the register may now hold any of these instead of what it held.
    Loss(Vec<Value>),
}

/// A history that no order of its operations explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotLinearizable {
    /// Where in the history the last explanation ended.
    pub at: usize,
    /// The steps up to there, the latest last.
    pub history: Vec<Step>,
    /// What the register could hold before that step.
    pub possible: Vec<Value>,
}

/// Configurations beyond this are given up as too many: with the few operations in flight that
/// the workload allows, it is never near.
const MOST_CONFIGURATIONS: usize = 200_000;

#[derive(Clone, Debug)]
struct Open {
    op: u64,
    writes: Option<Value>,
    /// What a read will give; `None` if it is never answered.
    reads: Option<Value>,
}

/// Bit `i` of `done`: the open operation in slot `i` has taken effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Configuration {
    value: Value,
    done: u64,
}

/// Looks for an order that explains `history`, from a register of zeros.
///
/// # Errors
/// [`NotLinearizable`], with the step that nothing explains.
pub fn check(history: &[Step]) -> Result<(), NotLinearizable> {
    let mut search = Search::new(history);
    for (at, step) in history.iter().enumerate() {
        let before = search.values();
        search.take(step);
        if search.configurations.is_empty() {
            return Err(NotLinearizable { at, history: history[..=at].to_vec(), possible: before });
        }
    }
    Ok(())
}

struct Search<'a> {
    history: &'a [Step],
    slots: Vec<Option<Open>>,
    configurations: BTreeSet<Configuration>,
}

impl<'a> Search<'a> {
    fn new(history: &'a [Step]) -> Self {
        let start = Configuration { value: Value::Zero, done: 0 };
        Self { history, slots: Vec::new(), configurations: BTreeSet::from([start]) }
    }

    fn values(&self) -> Vec<Value> {
        let values: BTreeSet<Value> = self.configurations.iter().map(|c| c.value).collect();
        values.into_iter().collect()
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Invoked { op, writes } => self.invoke(*op, *writes),
            Step::Returned { op, .. } => self.finish(*op, true),
            Step::Ended { op, never: true } => self.never(*op),
            // Its answer may still be on the way to a client that doesn't know yet: then it has
            // taken effect by now.
            Step::Ended { op, never: false } => self.finish(*op, self.answered(*op)),
            Step::Loss(allowed) => {
                // What was in flight may be sent again after the loss, so it counts as not done.
                let back = allowed.iter().map(|&value| Configuration { value, done: 0 });
                self.configurations.extend(back);
            }
        }
    }

    /// Whether a read in `self.history` gives `value`: a write that is never answered and never
    /// read may be left out, which keeps the search small.
    fn observed(&self, value: Value) -> bool {
        self.history
            .iter()
            .any(|step| matches!(step, Step::Returned { read: Some(v), .. } if *v == value))
    }

    fn answered(&self, op: u64) -> bool {
        self.history.iter().any(|step| matches!(step, Step::Returned { op: o, .. } if *o == op))
    }

    fn invoke(&mut self, op: u64, writes: Option<Value>) {
        let reads = self.history.iter().find_map(|step| match step {
            Step::Returned { op: o, read } if *o == op => *read,
            _ => None,
        });
        match writes {
            None if reads.is_none() => return,
            Some(value) if !self.answered(op) && !self.observed(value) => return,
            _ => {}
        }
        let open = Open { op, writes, reads };
        match self.slots.iter().position(Option::is_none) {
            Some(free) => self.slots[free] = Some(open),
            None => self.slots.push(Some(open)),
        }
        assert!(self.slots.len() <= 64, "too many operations in flight on one block");
    }

    fn slot(&self, op: u64) -> Option<usize> {
        self.slots.iter().position(|slot| slot.as_ref().is_some_and(|open| open.op == op))
    }

    /// The same configuration with every open read that its value explains done: to let a read take
    /// effect as soon as it can rules nothing out.
    fn with_reads(&self, mut configuration: Configuration) -> Configuration {
        for (i, slot) in self.slots.iter().enumerate() {
            if let Some(Open { writes: None, reads: Some(value), .. }) = slot
                && *value == configuration.value
            {
                configuration.done |= 1 << i;
            }
        }
        configuration
    }

    /// All configurations that can be reached by letting open writes take effect.
    fn close(&mut self) {
        let start = std::mem::take(&mut self.configurations);
        let mut work: Vec<Configuration> =
            start.into_iter().map(|configuration| self.with_reads(configuration)).collect();
        self.configurations = work.iter().copied().collect();
        while let Some(from) = work.pop() {
            for (i, slot) in self.slots.iter().enumerate() {
                let Some(Open { writes: Some(value), .. }) = slot else { continue };
                if from.done & (1 << i) != 0 {
                    continue;
                }
                let next = Configuration { value: *value, done: from.done | (1 << i) };
                let next = self.with_reads(next);
                if self.configurations.insert(next) {
                    work.push(next);
                }
            }
            assert!(self.configurations.len() < MOST_CONFIGURATIONS, "the search exploded");
        }
    }

    /// Operation `op` has ended; if `must`, it has taken effect.
    fn finish(&mut self, op: u64, must: bool) {
        let Some(slot) = self.slot(op) else { return };
        self.close();
        let bit = 1 << slot;
        let kept = std::mem::take(&mut self.configurations);
        let kept = kept.into_iter().filter(|c| !must || c.done & bit != 0);
        self.configurations = kept.map(|c| Configuration { done: c.done & !bit, ..c }).collect();
        self.slots[slot] = None;
    }

    fn never(&mut self, op: u64) {
        let Some(slot) = self.slot(op) else { return };
        let bit = 1 << slot;
        self.configurations.retain(|c| c.done & bit == 0);
        self.slots[slot] = None;
    }
}

impl fmt::Display for NotLinearizable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "no order of the operations explains the last of these steps;")?;
        writeln!(f, "before it the block could hold {:?}", self.possible)?;
        let from = self.history.len().saturating_sub(24);
        for step in &self.history[from..] {
            writeln!(f, "    {step:?}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
