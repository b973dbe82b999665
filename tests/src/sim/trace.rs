//! What happened, for the person who must find out why.
//!
//! The last lines are kept always; all of them where a seed is run to be read. Every line goes
//! into a hash, by which two runs are shown to be the same run.

use std::collections::VecDeque;
use std::fmt::{self, Write};

use mooring_terms::Time;

/// How many lines a failure prints.
const KEPT: usize = 400;

/// The story of one run.
#[derive(Debug)]
pub struct Trace {
    lines: VecDeque<String>,
    /// Print every line at once.
    loud: bool,
    hash: u64,
    buffer: String,
    enabled: bool,
}

impl Trace {
    /// An empty story; `loud` prints it as it unfolds.
    #[must_use]
    pub fn new(loud: bool) -> Self {
        Self {
            lines: VecDeque::new(),
            loud,
            hash: 0xcbf2_9ce4_8422_2325,
            buffer: String::new(),
            enabled: true,
        }
    }

    /// A story that is neither kept nor printed nor hashed: for the bulk of the seeds, which are
    /// run again, with all their lines, when they fail.
    #[must_use]
    pub fn silent() -> Self {
        Self { enabled: false, ..Self::new(false) }
    }

    /// Whether lines are wanted at all.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// Adds a line.
    pub fn line(&mut self, now: Time, text: fmt::Arguments<'_>) {
        if !self.enabled {
            return;
        }
        self.buffer.clear();
        write!(self.buffer, "{:>11.6} {text}", now.0.as_secs_f64()).expect("a string takes all");
        for byte in self.buffer.as_bytes() {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.loud {
            eprintln!("{}", self.buffer);
            return;
        }
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(self.buffer.clone());
    }

    /// The hash of all lines so far (FNV-1a).
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The last lines, oldest first.
    #[must_use]
    pub fn tail(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}
