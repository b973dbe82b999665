//! What may be stale, and goes by gossip: how full pools are, which software runs where. Nothing that
//! must be right is decided by it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mooring_config::placement::Hints;
use mooring_config::{ClusterId, NEWEST_VERSION};
use mooring_control::gossip::{Gossip, GossipOptions, NodeHints, PoolHint};
use mooring_terms::{NodeId, PoolId};

use super::Node;

/// Between two rounds of gossip.
const INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks at what there is to say.
const PUBLISH: Duration = Duration::from_secs(5);

impl Node {
    /// Gossips until the node stops: begins as soon as the configuration has a key for it.
    pub(super) async fn gossip(self: Arc<Self>) {
        let mut states = self.control.watch();
        loop {
            let state = Arc::clone(&states.borrow_and_update().state);
            if !state.gossip_keys().is_empty() {
                let others = state.nodes().values().filter(|node| node.id != self.id);
                let peers: Vec<_> =
                    others.filter_map(|node| node.addresses.first().copied()).collect();
                let options = GossipOptions {
                    node: self.id,
                    boot: self.boot,
                    cluster: ClusterId(self.cluster),
                    listen: self.options.listen,
                    advertise: None,
                    peers: peers.clone(),
                    interval: INTERVAL,
                };
                let keys = state.gossip_keys();
                match self.gossip.get_or_try_init(|| Gossip::start(options, keys)).await {
                    Ok(gossip) => {
                        gossip.set_keys(keys);
                        gossip.set_peers(peers);
                        gossip.publish(&self.own_hints()).await;
                    }
                    Err(error) => tracing::warn!(%error, "no gossip: placement knows less"),
                }
            }
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(PUBLISH) => {}
            }
        }
    }

    fn own_hints(&self) -> NodeHints {
        let hint = |open: &super::pools::OpenPool| {
            let usage = open.pool.engine().usage();
            // In steps of 1 %, so that an idle cluster has nothing to say.
            let step = (usage.size / 100).max(1);
            let used = usage.size.saturating_sub(usage.free) / step * step;
            (open.pool.id(), PoolHint { size: usage.size, used })
        };
        NodeHints {
            version: Some((NEWEST_VERSION, env!("CARGO_PKG_VERSION").to_owned())),
            pools: self.pools.all().iter().map(hint).collect(),
            ..NodeHints::default()
        }
    }

    /// What placement may go by: how full pools are as gossip has it, and who doesn't answer now.
    pub async fn hints(self: &Arc<Self>) -> Hints {
        let mut free: BTreeMap<PoolId, u64> = BTreeMap::new();
        if let Some(gossip) = self.gossip.get() {
            for peer in gossip.peers().await.into_values() {
                let pools = peer.hints.pools.into_iter();
                free.extend(pools.map(|(id, pool)| (id, pool.size.saturating_sub(pool.used))));
            }
        }
        Hints { gone: self.silent_nodes().await, free }
    }

    /// The nodes that don't answer within a moment.
    async fn silent_nodes(self: &Arc<Self>) -> BTreeSet<NodeId> {
        let mut asked = tokio::task::JoinSet::new();
        for id in self.state().nodes().keys().copied().filter(|id| *id != self.id) {
            let node = Arc::clone(self);
            asked.spawn(async move { (!node.is_alive(id).await).then_some(id) });
        }
        asked.join_all().await.into_iter().flatten().collect()
    }
}
