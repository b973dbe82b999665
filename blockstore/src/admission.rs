//! Who may talk to this node: the configuration's table of nodes, and nobody else.
//!
//! A node that has just joined does not have the table yet; until Raft brings it, the one that came
//! with its certificate counts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mooring_config::ClusterState;
use mooring_terms::NodeId;
use mooring_transport::{Admission, Fingerprint};
use serde::{Deserialize, Serialize};

/// A node, as those need to know it who don't have the table yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its number.
    pub node: NodeId,
    /// Its key's fingerprint.
    pub fingerprint: [u8; 32],
    /// Where it listens.
    pub address: SocketAddr,
}

/// The table.
pub struct AdmissionTable {
    state: Arc<ArcSwap<ClusterState>>,
    first: BTreeMap<NodeId, Peer>,
}

impl AdmissionTable {
    /// The table of `state` as it changes, and `first` while there is none.
    #[must_use]
    pub fn new(state: Arc<ArcSwap<ClusterState>>, first: &[Peer]) -> Self {
        Self { state, first: first.iter().map(|peer| (peer.node, *peer)).collect() }
    }
}

impl Admission for AdmissionTable {
    fn node_of(&self, fingerprint: &Fingerprint) -> Option<NodeId> {
        let state = self.state.load();
        if state.identity().is_none() {
            return self
                .first
                .values()
                .find(|peer| peer.fingerprint == *fingerprint.as_bytes())
                .map(|peer| peer.node);
        }
        state
            .nodes()
            .values()
            .find(|node| node.fingerprint.0 == *fingerprint.as_bytes())
            .map(|node| node.id)
    }

    fn fingerprint_of(&self, node: NodeId) -> Option<Fingerprint> {
        let state = self.state.load();
        if state.identity().is_none() {
            return self.first.get(&node).map(|peer| Fingerprint::from_bytes(peer.fingerprint));
        }
        state.node(node).map(|node| Fingerprint::from_bytes(node.fingerprint.0))
    }

    fn address_of(&self, node: NodeId) -> Option<SocketAddr> {
        let state = self.state.load();
        if state.identity().is_none() {
            return self.first.get(&node).map(|peer| peer.address);
        }
        state.node(node).and_then(|node| node.addresses.first().copied())
    }
}
