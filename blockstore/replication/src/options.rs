//! What can be set: times, windows and bounds. Every replica of a cluster has the same times.
//!
//! Invariant: `lease < grace`. A primary's lease counts from *sending* the beacon that was answered,
//! a secondary's grace from *receiving* it, so the lease is over before the grace is, whatever the
//! network did in between.

use std::time::Duration;

/// Times, windows and bounds of replication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How often a node sends a beacon to each node that it shares slices with.
    pub beacon: Duration,
    /// How long an answered beacon lets a primary serve, counted from its sending.
    pub lease: Duration,
    /// How long a secondary hears nothing before it asks to become primary; more than `lease`.
    pub grace: Duration,
    /// By how much a timer may fire late before its owner must have been stopped: a secondary then
    /// restarts its grace.
    pub late: Duration,
    /// How long restarted replicas wait for the others before the furthest of them goes on.
    pub restart_wait: Duration,
    /// After what time a proposal without effect, or a request to a silent replica, is repeated.
    pub retry: Duration,
    /// Bytes of records that a primary keeps in memory until every in-sync replica has them, and so
    /// the bytes of admitted and uncommitted writes. What comes beyond waits.
    pub window_bytes: u64,
    /// Blocks that a slice has at most; requests beyond are refused as invalid.
    pub max_blocks: u64,
    /// Blocks that one write carries at most: what fits into one record of the engine.
    pub max_write_blocks: u64,
    /// Bytes of requests that wait for admission; what comes beyond is answered `Busy`.
    pub queue_bytes: u64,
    /// Bytes of copied blocks on the way to one joining replica.
    pub copy_window_bytes: u64,
    /// Blocks in one step of a copy.
    pub copy_step_blocks: u64,
    /// Bytes of committed records that are not known durable everywhere before the primary asks all
    /// replicas to sync by itself. Bounds what a power cut can cost and what clients keep.
    pub unsynced_bytes: u64,
    /// Space credit that an idle slice holds in each pool, in bytes.
    pub credit_idle_bytes: u64,
    /// Space credit that a busy slice asks for at a time, in bytes.
    pub credit_step_bytes: u64,
    /// How long a slice must be without writes before it gives its credit back.
    pub credit_idle_after: Duration,
    /// Epochs kept in the durable table; a replica that is away for longer gets a full copy.
    pub epochs_kept: usize,
    /// The deliberate bug that this replica has.
    #[cfg(feature = "mutations")]
    pub mutation: Option<crate::Mutation>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            beacon: Duration::from_millis(200),
            lease: Duration::from_millis(1200),
            grace: Duration::from_millis(1800),
            late: Duration::from_millis(400),
            restart_wait: Duration::from_secs(30),
            retry: Duration::from_millis(500),
            window_bytes: 32 << 20,
            max_blocks: 1 << 48,
            max_write_blocks: 256,
            queue_bytes: 64 << 20,
            copy_window_bytes: 4 << 20,
            copy_step_blocks: 128,
            unsynced_bytes: 64 << 20,
            credit_idle_bytes: 64 << 10,
            credit_step_bytes: 8 << 20,
            credit_idle_after: Duration::from_secs(2),
            epochs_kept: 256,
            #[cfg(feature = "mutations")]
            mutation: None,
        }
    }
}
