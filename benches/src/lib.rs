//! Benchmarks of the whole, as `make bench` runs them: real daemons on hosts of this machine, beside
//! the floors that they are held against, in one run.
//!
//! ```text
//!   benches/run [PART[:ROW]]...  ─> mooring-bench ─> parts ─> figures ─> table, target/bench/*.json
//!                                └> criterion     (benches/: single functions)
//! ```
//!
//! Only ratios taken in one run count: what is compared is measured side by side, in short runs
//! that take turns, and the median of the rounds is given.

// Real processes run in real time.
#![allow(clippy::disallowed_methods)]

pub mod figure;
pub mod parts;
pub mod report;
pub mod used;
