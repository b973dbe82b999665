//! Seeds that have failed once, each with what it found. They are run before all others, for ever.

/// The seeds.
pub const REGRESSIONS: &[(u64, &str)] = &[];
