//! What happened on this node that a person may ask about later: a bounded ring, numbered.
//!
//! Events of the configuration (who joined, what was created) come out of Raft and are merged in as
//! they are applied; what slices, pools and devices report comes straight from them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mooring_replication::{LossCause, Note};
use mooring_terms::{NodeId, PoolId, SliceId, VolumeId};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock;

/// Events kept; older ones are forgotten.
const KEPT: usize = 10_000;

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Info,
    /// A promise is weaker than it should be.
    Warning,
    /// Something was lost or refused, or has stopped.
    Error,
}

/// One event.
#[derive(Clone, Debug)]
pub struct Happening {
    /// Its number on this node: rising, from 1.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// How much it matters.
    pub severity: Severity,
    /// What kind, for programs.
    pub kind: &'static str,
    /// What happened, in one sentence.
    pub message: String,
    /// What it is about.
    pub about: About,
}

/// What an event is about.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// A node.
    pub node: Option<NodeId>,
    /// A volume.
    pub volume: Option<VolumeId>,
    /// A pool.
    pub pool: Option<PoolId>,
    /// Facts for programs.
    pub details: BTreeMap<&'static str, String>,
}

/// The events of one node.
pub struct EventLog {
    ring: Mutex<Ring>,
    more: Notify,
}

struct Ring {
    events: VecDeque<Happening>,
    next: u64,
    counts: BTreeMap<&'static str, u64>,
}

impl Default for EventLog {
    fn default() -> Self {
        Self {
            ring: Mutex::new(Ring { events: VecDeque::new(), next: 1, counts: BTreeMap::new() }),
            more: Notify::new(),
        }
    }
}

impl EventLog {
    /// Adds an event, and logs it.
    pub fn push(&self, severity: Severity, kind: &'static str, message: String, about: About) {
        match severity {
            Severity::Info => tracing::info!(kind, "{message}"),
            Severity::Warning => tracing::warn!(kind, "{message}"),
            Severity::Error => tracing::error!(kind, "{message}"),
        }
        let mut ring = self.ring.lock();
        let number = ring.next;
        ring.next += 1;
        *ring.counts.entry(kind).or_default() += 1;
        if ring.events.len() == KEPT {
            ring.events.pop_front();
        }
        let at_ms = clock::unix_ms();
        ring.events.push_back(Happening { number, at_ms, severity, kind, message, about });
        drop(ring);
        self.more.notify_waiters();
    }

    /// Adds what a slice, which people know as `named`, reports.
    pub fn push_note(
        &self,
        slice: SliceId,
        named: &str,
        note: &Note,
        name: impl Fn(NodeId) -> String,
    ) {
        let (severity, kind, message, node) = describe(named, note, name);
        let details = BTreeMap::from([("slice", slice.index.to_string())]);
        let about = About { node, volume: Some(slice.volume), pool: None, details };
        self.push(severity, kind, message, about);
    }

    /// How many events there were of each kind.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.ring.lock().counts.clone()
    }

    /// Up to `limit` events with a number above `after`, oldest first, and whether some in between
    /// have been forgotten.
    #[must_use]
    pub fn after(&self, after: u64, limit: usize) -> (Vec<Happening>, bool) {
        let ring = self.ring.lock();
        let oldest = ring.next - ring.events.len() as u64;
        let skip =
            usize::try_from(after.saturating_add(1).saturating_sub(oldest)).unwrap_or(usize::MAX);
        let events = ring.events.iter().skip(skip).take(limit).cloned().collect();
        (events, after.saturating_add(1) < oldest)
    }

    /// As [`EventLog::after`]; if there are none, waits for one for up to `patience`.
    pub async fn wait_after(
        &self,
        after: u64,
        limit: usize,
        patience: Duration,
    ) -> (Vec<Happening>, bool) {
        let waited = tokio::time::timeout(patience, async {
            loop {
                let notified = self.more.notified();
                let found = self.after(after, limit);
                if !found.0.is_empty() {
                    return found;
                }
                notified.await;
            }
        });
        waited.await.unwrap_or_else(|_| self.after(after, limit))
    }
}

/// What a note says, for people.
fn describe(
    slice: &str,
    note: &Note,
    name: impl Fn(NodeId) -> String,
) -> (Severity, &'static str, String, Option<NodeId>) {
    use Severity::{Error, Info, Warning};

    match note {
        Note::Serving { epoch } => (
            Info,
            "epoch-started",
            format!("{slice}: this node serves epoch {epoch} as primary"),
            None,
        ),
        Note::SteppedDown { epoch } => (
            Info,
            "primary-moved",
            format!("{slice}: epoch {epoch} ended this node's time as primary"),
            None,
        ),
        Note::ReplicaLost { node, cause } => {
            let why = match cause {
                LossCause::Silent => "has not answered for a lease",
                LossCause::Stuck => "acknowledges nothing",
                LossCause::Restarted => "was restarted and must be brought level",
                LossCause::PoolFailed => "reports that its pool has failed",
                LossCause::Diverged => "has a log that contradicts the primary's",
            };
            let message = format!("{slice}: the replica on {} {why}", name(*node));
            (Warning, "replica-lost", message, Some(*node))
        }
        Note::TakingOver { from } => (
            Warning,
            "taking-over",
            format!("{slice}: the primary on {} is silent; taking over", name(*from)),
            Some(*from),
        ),
        Note::FalseTakeOver { from } => (
            Warning,
            "false-failover",
            format!(
                "{slice}: the primary on {} had not died when it was taken over from: the network or the machine stalled",
                name(*from)
            ),
            Some(*from),
        ),
        Note::TailLost { last } => (
            Error,
            "tail-lost",
            format!(
                "{slice}: all replicas were restarted; writes behind {last} that were acknowledged but never flushed may be gone"
            ),
            None,
        ),
        Note::JoinStarted { node, after } => (
            Info,
            "join-started",
            format!("{slice}: the replica on {} gets what is newer than {after}", name(*node)),
            Some(*node),
        ),
        Note::JoinFinished { node, copied_bytes } => (
            Info,
            "replica-joined",
            format!(
                "{slice}: the replica on {} is in sync; {copied_bytes} bytes were copied",
                name(*node)
            ),
            Some(*node),
        ),
        Note::BlockRepaired { block, from } => (
            Warning,
            "block-repaired",
            format!("{slice}: block {block} was rotten and is repaired from {}", name(*from)),
            Some(*from),
        ),
        Note::BlockLost { block } => (
            Error,
            "block-lost",
            format!(
                "{slice}: block {block} is rotten here, and no in-sync replica has a good copy"
            ),
            None,
        ),
        Note::TooFew { in_sync, min } => (
            Error,
            "too-few",
            format!("{slice}: {in_sync} replicas are in sync, the volume demands {min}: I/O waits"),
            None,
        ),
        Note::PoolFull { node } => (
            Error,
            "pool-full",
            format!("{slice}: the pool on {} is full: writes are refused", name(*node)),
            Some(*node),
        ),
        Note::Diverged { node, last } => (
            Error,
            "replica-diverged",
            format!(
                "{slice}: the replica on {} has a log up to {last} that contradicts the primary's; it is brought level",
                name(*node)
            ),
            Some(*node),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(log: &EventLog, message: &str) {
        log.push(Severity::Info, "test", message.to_owned(), About::default());
    }

    #[tokio::test]
    async fn events_come_in_order_once_and_say_when_some_were_forgotten() {
        let log = EventLog::default();
        push(&log, "one");
        push(&log, "two");
        let (events, gap) = log.after(0, 10);
        assert_eq!(events.iter().map(|e| e.number).collect::<Vec<_>>(), [1, 2]);
        assert!(!gap);
        assert!(log.after(2, 10).0.is_empty());
        for _ in 0..KEPT {
            push(&log, "more");
        }
        let (events, gap) = log.after(1, 1);
        assert_eq!((events[0].number, gap), (3, true));
    }

    #[tokio::test]
    async fn a_follower_is_woken() {
        let log = std::sync::Arc::new(EventLog::default());
        let following = std::sync::Arc::clone(&log);
        let waiting = tokio::spawn(async move {
            following.wait_after(0, 10, Duration::from_secs(10)).await.0.len()
        });
        tokio::task::yield_now().await;
        push(&log, "now");
        assert_eq!(waiting.await.expect("it ends"), 1);
        assert!(log.wait_after(1, 10, Duration::from_millis(5)).await.0.is_empty());
    }
}
