//! When each node was last heard from, as this node knows it: the base on which the leader finds a
//! node gone. Being wrong costs the holder of an attachment its attachment, never data.
#![allow(clippy::disallowed_methods)] // A shell: it reads the clock for the rest of the crate.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use mooring_terms::NodeId;
use parking_lot::Mutex;

/// How long a node that is alive takes to answer a new leader, at the most: it is asked every
/// heartbeat.
const ANSWER_WAIT: Duration = Duration::from_millis(900);

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Contacts {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    heard: BTreeMap<NodeId, Instant>,
    /// Since when this node has been leading.
    leading_since: Option<Instant>,
}

impl Contacts {
    /// `node` was heard from.
    pub(crate) fn heard(&self, node: NodeId) {
        self.inner.lock().heard.insert(node, Instant::now());
    }

    /// This node leads, or doesn't.
    pub(crate) fn set_leading(&self, leading: bool) {
        let mut inner = self.inner.lock();
        match (leading, inner.leading_since) {
            (true, None) => inner.leading_since = Some(Instant::now()),
            (false, Some(_)) => inner.leading_since = None,
            _ => {}
        }
    }

    /// How long `node` has been silent; `None` while this node doesn't lead.
    ///
    /// Before this node led, others may have had no reason to talk to it. So what it heard before counts
    /// only once a node has not answered a new leader for [`ANSWER_WAIT`]: whoever is alive does.
    pub(crate) fn silence(&self, node: NodeId) -> Option<Duration> {
        let inner = self.inner.lock();
        let since = inner.leading_since?;
        let heard = inner.heard.get(&node).copied().unwrap_or(since);
        let answers = heard >= since || since.elapsed() < ANSWER_WAIT;
        Some(if answers { heard.max(since) } else { heard }.elapsed())
    }

    /// Those of `nodes`, other than `me`, that have been silent for `limit`; nobody while this node
    /// doesn't lead.
    pub(crate) fn silent_for(
        &self,
        limit: Duration,
        me: NodeId,
        nodes: impl IntoIterator<Item = NodeId>,
    ) -> BTreeSet<NodeId> {
        nodes
            .into_iter()
            .filter(|node| *node != me)
            .filter(|node| self.silence(*node).is_some_and(|silence| silence >= limit))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(2);

    /// A table in which `NODE` was heard, and this node began to lead, so long ago.
    fn table(heard_ms: u64, leading_ms: u64) -> Contacts {
        let ago = |ms| Instant::now().checked_sub(Duration::from_millis(ms)).expect("up for long");
        let contacts = Contacts::default();
        *contacts.inner.lock() = Inner {
            heard: BTreeMap::from([(NODE, ago(heard_ms))]),
            leading_since: Some(ago(leading_ms)),
        };
        contacts
    }

    #[test]
    fn only_a_leader_finds_nodes_gone_and_never_itself() {
        let contacts = Contacts::default();
        contacts.heard(NODE);
        assert_eq!(contacts.silence(NODE), None);
        contacts.set_leading(true);
        let soon = Duration::from_secs(60);
        assert!(contacts.silent_for(soon, NodeId(1), [NodeId(1), NODE]).is_empty());
        let at_once = contacts.silent_for(Duration::ZERO, NodeId(1), [NodeId(1), NODE]);
        assert_eq!(at_once, BTreeSet::from([NODE]), "never itself");
        contacts.set_leading(false);
        assert!(contacts.silent_for(Duration::ZERO, NodeId(1), [NODE]).is_empty());
    }

    #[test]
    fn what_a_leader_heard_before_counts_once_it_had_the_time_to_be_answered() {
        let limit = Duration::from_millis(1_800);
        let gone = |contacts: Contacts| !contacts.silent_for(limit, NodeId(1), [NODE]).is_empty();
        assert!(!gone(table(10_000, 100)), "it may answer yet");
        assert!(gone(table(2_000, 1_000)), "it fell silent before the election");
        assert!(!gone(table(1_500, 1_000)), "not for long enough");
        assert!(!gone(table(10, 1_000)), "it answers");
    }

    #[test]
    fn a_node_that_was_never_heard_of_has_the_whole_time_to_speak() {
        let contacts = table(0, 1_000);
        contacts.inner.lock().heard.clear();
        assert!(
            contacts.silence(NODE).is_some_and(|silence| silence < Duration::from_millis(1_700))
        );
    }
}
