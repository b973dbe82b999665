//! Property: **coherence.** Every cell of a file, every mode and the names of the shared directory are
//! one register each over all hosts: a call that has returned on one host is seen by every later call on every other.
//!
//! The search is that of the block store's register (just-in-time linearization, Lowe 2017), with two
//! steps back that the contract allows: a mount that was fenced loses what it had buffered, which
//! nobody else has seen; a power cut loses what was not fsynced (which `fsynced` looks after).

use std::collections::{BTreeMap, BTreeSet};

use super::{Act, Register, Result, Step, Violation, names};

/// The checker's name.
pub const PROPERTY: &str = "coherence";

/// More possibilities than this are given up.
const MOST: usize = 20_000;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Possible {
    value: u64,
    /// What it may step back to if that mount is fenced.
    volatile: Option<(u64, Vec<u64>)>,
    done: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    call: u64,
    mount: u64,
    act: Act,
    /// What it will return, if it ever does.
    result: Option<Result>,
}

impl Possible {
    /// A mount has changed it, and until another has seen it, it may be lost with that mount.
    fn change(&mut self, by: u64, value: u64) {
        let before = match self.volatile.take() {
            Some((mount, mut before)) if mount == by => {
                before.push(self.value);
                before.sort_unstable();
                before.dedup();
                before
            }
            _ => vec![self.value],
        };
        self.volatile = Some((by, before));
        self.value = value;
    }

    /// A mount has seen it.
    fn show(&mut self, to: u64) {
        if self.volatile.as_ref().is_some_and(|(mount, _)| *mount != to) {
            self.volatile = None;
        }
    }
}

/// Looks for an order that explains what happened to each register.
///
/// # Errors
/// The register and the step that nothing explains.
pub fn check(
    history: &[Step],
    initial: &BTreeMap<Register, u64>,
) -> std::result::Result<(), Violation> {
    let mut registers: BTreeMap<Register, Vec<Step>> = BTreeMap::new();
    let mut of: BTreeMap<u64, Register> = BTreeMap::new();
    for step in history {
        if let Step::Invoked { call, register, .. } = step {
            of.insert(*call, *register);
            registers.entry(*register).or_default();
        }
    }
    for step in history {
        match step {
            Step::Invoked { register, .. } => registers.entry(*register).or_default().push(*step),
            Step::Returned { call, .. } | Step::Unknown { call } | Step::Never { call } => {
                if let Some(steps) = of.get(call).and_then(|register| registers.get_mut(register)) {
                    steps.push(*step);
                }
            }
            Step::Fenced { .. } | Step::PowerCut => {
                registers.values_mut().for_each(|steps| steps.push(*step));
            }
        }
    }
    for (register, steps) in &registers {
        let first = initial.get(register).copied().unwrap_or(0);
        check_one(steps, first).map_err(|at| {
            let from = at.saturating_sub(14);
            let text =
                format!("{register:?}: nothing explains the last of {:#?}", &steps[from..=at]);
            Violation { property: PROPERTY, text }
        })?;
    }
    Ok(())
}

fn check_one(steps: &[Step], initial: u64) -> std::result::Result<(), usize> {
    let mut results: BTreeMap<u64, Result> = BTreeMap::new();
    for step in steps {
        if let Step::Returned { call, result, .. } = step {
            results.insert(*call, *result);
        }
    }
    let mut open: BTreeMap<u64, Open> = BTreeMap::new();
    let mut ever = BTreeSet::from([initial]);
    let first = Possible { value: initial, volatile: None, done: BTreeSet::new() };
    let mut possible = BTreeSet::from([first]);
    for (at, step) in steps.iter().enumerate() {
        match *step {
            Step::Invoked { call, mount, act, .. } => {
                let result = results.get(&call).copied();
                if let Act::Write(value) = act {
                    ever.insert(value);
                }
                open.insert(call, Open { call, mount, act, result });
            }
            Step::Returned { call, .. } => {
                possible = linearize(&possible, &open, Some(call), &mut ever);
                open.remove(&call);
            }
            Step::Unknown { .. } => {}
            Step::Never { call } => {
                possible.retain(|one| !one.done.contains(&call));
                open.remove(&call);
            }
            Step::Fenced { mount } => {
                possible = fenced(&possible, mount);
                forget_names_asked_by(mount, &mut possible, &mut open);
            }
            Step::PowerCut => {
                ever.insert(0);
                linearize(&possible, &open, None, &mut ever);
                open.clear();
                let of = |&value: &u64| Possible { value, volatile: None, done: BTreeSet::new() };
                possible = ever.iter().map(of).collect();
            }
        }
        if possible.is_empty() {
            return Err(at);
        }
        if possible.len() > MOST {
            return Ok(());
        }
    }
    Ok(())
}

/// Everything that is possible once `call` has returned: it, and any that are open, have come; without a
/// call, everything that is possible now. Values on the way there are noted.
fn linearize(
    possible: &BTreeSet<Possible>,
    open: &BTreeMap<u64, Open>,
    call: Option<u64>,
    ever: &mut BTreeSet<u64>,
) -> BTreeSet<Possible> {
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut rest: Vec<Possible> = possible.iter().cloned().collect();
    while let Some(one) = rest.pop() {
        if !seen.insert(one.clone()) || seen.len() > MOST * 2 {
            continue;
        }
        ever.insert(one.value);
        if let Some(call) = call
            && one.done.contains(&call)
        {
            let mut without = one;
            without.done.remove(&call);
            found.insert(without);
            continue;
        }
        if call.is_none() {
            found.insert(one.clone());
        }
        for (&other, of) in open {
            if !one.done.contains(&other)
                && let Some(mut next) = take(&one, of)
            {
                next.done.insert(other);
                rest.push(next);
            }
        }
    }
    found
}

/// The register after a call has come; nothing if it can't come here.
fn take(one: &Possible, of: &Open) -> Option<Possible> {
    let mut next = one.clone();
    match (of.act, of.result) {
        (Act::Write(value), _) => next.change(of.mount, value),
        (Act::Read, Some(Result::Done(value))) => {
            if value != one.value {
                return None;
            }
            next.show(of.mount);
        }
        (Act::Read, _) => return None,
        (act, result) => {
            let value = names::take(one.value, of.call, act, result)?;
            // Whoever looks at a directory has all that was done in it told.
            match value == one.value {
                true => next.show(of.mount),
                false => next.change(of.mount, value),
            }
        }
    }
    Some(next)
}

/// What a mount asked of names and was never told of has come by the time it is fenced, or never will.
fn forget_names_asked_by(
    mount: u64,
    possible: &mut BTreeSet<Possible>,
    open: &mut BTreeMap<u64, Open>,
) {
    let asked = |of: &Open| {
        of.mount == mount && of.result.is_none() && !matches!(of.act, Act::Read | Act::Write(_))
    };
    let over: BTreeMap<u64, Open> =
        open.iter().filter(|(_, of)| asked(of)).map(|(&call, &of)| (call, of)).collect();
    if over.is_empty() {
        return;
    }
    *possible = linearize(possible, &over, None, &mut BTreeSet::new())
        .into_iter()
        .map(|mut one| {
            one.done.retain(|call| !over.contains_key(call));
            one
        })
        .collect();
    open.retain(|call, _| !over.contains_key(call));
}

fn fenced(possible: &BTreeSet<Possible>, mount: u64) -> BTreeSet<Possible> {
    let mut after = BTreeSet::new();
    for one in possible {
        match &one.volatile {
            Some((of, before)) if *of == mount => {
                for &value in before.iter().chain([&one.value]) {
                    after.insert(Possible { value, volatile: None, done: one.done.clone() });
                }
            }
            _ => {
                after.insert(one.clone());
            }
        }
    }
    after
}

#[cfg(test)]
mod tests {
    use mooring_terms::Time;

    use super::*;

    const CELL: Register = Register::Cell(0, 0);

    fn invoked(call: u64, mount: u64, act: Act) -> Step {
        Step::Invoked { call, mount, register: CELL, act, at: Time::ZERO }
    }

    fn returned(call: u64, value: u64) -> Step {
        Step::Returned { call, result: Result::Done(value), at: Time::ZERO }
    }

    fn verdict(steps: &[Step]) -> bool {
        check(steps, &BTreeMap::new()).is_ok()
    }

    #[test]
    fn a_stale_read_is_found_and_an_overlapping_one_is_not() {
        let write = [invoked(1, 1, Act::Write(7)), returned(1, 7)];
        let stale = [invoked(2, 2, Act::Read), returned(2, 0)];
        assert!(!verdict(&[write, stale].concat()));
        assert!(verdict(&[invoked(1, 1, Act::Write(7)), stale[0], stale[1], returned(1, 7)]));
    }

    #[test]
    fn only_what_nobody_has_seen_goes_with_its_mount() {
        let write = [invoked(1, 1, Act::Write(7)), returned(1, 7)];
        let seen = [invoked(2, 2, Act::Read), returned(2, 7)];
        let gone = [Step::Fenced { mount: 1 }, invoked(3, 2, Act::Read), returned(3, 0)];
        assert!(verdict(&[&write[..], &gone[..]].concat()));
        assert!(!verdict(&[&write[..], &seen[..], &gone[..]].concat()));
    }
}
