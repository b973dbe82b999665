//! When each node was last heard from, as this node knows it: the base on which the leader finds a
//! node gone. Being wrong costs the holder of an attachment its attachment, never data.
#![allow(clippy::disallowed_methods)] // A shell: it reads the clock for the rest of the crate.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use mooring_terms::NodeId;
use parking_lot::Mutex;

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Contacts {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    heard: BTreeMap<NodeId, Instant>,
    /// Since when this node has been leading; before that nobody had a reason to talk to it.
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
    pub(crate) fn silence(&self, node: NodeId) -> Option<Duration> {
        let inner = self.inner.lock();
        let since = inner.leading_since?;
        let heard = inner.heard.get(&node).copied().unwrap_or(since).max(since);
        Some(heard.elapsed())
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

    #[test]
    fn only_a_leader_finds_nodes_gone_and_not_before_it_has_led_for_as_long() {
        let contacts = Contacts::default();
        contacts.heard(NodeId(2));
        assert_eq!(contacts.silence(NodeId(2)), None);
        contacts.set_leading(true);
        let soon = Duration::from_secs(60);
        assert!(contacts.silent_for(soon, NodeId(1), [NodeId(1), NodeId(2)]).is_empty());
        let at_once = contacts.silent_for(Duration::ZERO, NodeId(1), [NodeId(1), NodeId(2)]);
        assert_eq!(at_once, BTreeSet::from([NodeId(2)]), "never itself");
        contacts.set_leading(false);
        assert!(contacts.silent_for(Duration::ZERO, NodeId(1), [NodeId(2)]).is_empty());
    }
}
