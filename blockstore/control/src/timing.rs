//! The times of the control plane.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long everything takes.
///
/// openraft looks at its timers every one and a half heartbeats, and a follower waits for
/// `election_max_ms` plus a time between `election_min_ms` and `election_max_ms`, fixed at its
/// start, before it asks for votes: with the defaults 0.8 to 1.0 s after the last heartbeat.
/// An answer to an append later than a heartbeat is not waited for, so a heartbeat must leave time
/// for a commit on a busy disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    /// Between two signs of life of the leader, in milliseconds.
    pub heartbeat_ms: u64,
    /// See above, in milliseconds.
    pub election_min_ms: u64,
    /// See above, in milliseconds.
    pub election_max_ms: u64,
    /// A node that the leader has not heard from for this long is gone, in milliseconds.
    pub gone_after_ms: u64,
    /// A voter that was gone for this long is replaced, if another node can vote, in milliseconds.
    pub replace_voter_after_ms: u64,
    /// How long a proposal is tried, in milliseconds.
    pub propose_ms: u64,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            heartbeat_ms: 130,
            election_min_ms: 300,
            election_max_ms: 500,
            gone_after_ms: 1_800,
            replace_voter_after_ms: 60_000,
            propose_ms: 5_000,
        }
    }
}

impl Timings {
    /// How long a proposal is tried.
    #[must_use]
    pub fn propose(&self) -> Duration {
        Duration::from_millis(self.propose_ms)
    }

    /// How long one node may take to answer before another is asked: a leader that has just died
    /// breaks no connection, and by then another leads. What is asked again is done once.
    #[must_use]
    pub fn attempt(&self) -> Duration {
        Duration::from_millis(self.election_max_ms * 2)
    }

    /// When a node is gone.
    #[must_use]
    pub fn gone_after(&self) -> Duration {
        Duration::from_millis(self.gone_after_ms)
    }

    /// A leader that no majority has answered for this long has lost it.
    #[must_use]
    pub fn quorum_lost_after(&self) -> Duration {
        Duration::from_millis(self.election_max_ms * 2 + self.heartbeat_ms * 2)
    }
}
