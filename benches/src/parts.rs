//! The parts of the benchmark.

use mooring_tests::hosts::Result;

use crate::report::Report;

pub mod amplification;
pub mod failover;
pub mod fio;
pub mod idle;
pub mod micro;
pub mod restart;
pub mod resync;
pub mod shared;

/// What a part is told.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Only rows whose name contains this; all if empty.
    pub row: String,
    /// How often each row of fio is measured.
    pub rounds: usize,
    /// How often each fault and each restart is repeated.
    pub runs: usize,
    /// How long one measurement of fio lasts, in seconds.
    pub seconds: u64,
}

/// A part: its name, what it measures, and how.
#[derive(Debug)]
pub struct Part {
    /// As the command line has it.
    pub name: &'static str,
    /// For people.
    pub about: &'static str,
    /// Measures.
    pub run: fn(&Plan, &mut Report) -> Result<()>,
}

/// All of them, in the order in which they are run.
pub const PARTS: &[Part] = &[
    Part { name: "fio", about: "fio on devices and on ext4, beside local files", run: fio::run },
    Part {
        name: "amplification",
        about: "bytes written to disk per byte written",
        run: amplification::run,
    },
    Part { name: "idle", about: "processor and memory of nodes that do nothing", run: idle::run },
    Part { name: "resync", about: "how fast a replica is brought level", run: resync::run },
    Part { name: "restart", about: "daemon restarted, primary handed over", run: restart::run },
    Part { name: "micro", about: "single functions, by criterion", run: micro::run },
    Part {
        name: "shared",
        about: "a shared volume beside local files and a passthrough, on two hosts, in failovers",
        run: shared::run,
    },
    Part { name: "failover", about: "stalls by everything that can die", run: failover::run },
];
