//! Seeds that have failed once, each with what it found. They are run before all others.
//!
//! A seed means its plan: what changes the plans (a kind of fault, a weight) makes these seeds mean
//! something else. Before such a change each is turned into what still reaches its situation: a
//! deliberate bug that must be found (`sim_mutations.rs`), a scenario, or a kind of fault that brings
//! the situation about; and the list begins anew.

/// The seeds.
pub const REGRESSIONS: &[(u64, &str)] = &[
    (41, "a join waited for a listed replica to give a block that it was itself to be brought"),
    (1894, "an accepted loss counted on blocks that a join had not yet brought to the survivor"),
];

/// Seeds that fail today and whose cause is not settled, with what they break: test runs leave them
/// out and say so, a soak does not. Each must leave this list by being understood.
pub const OPEN: &[(u64, &str)] = &[];
