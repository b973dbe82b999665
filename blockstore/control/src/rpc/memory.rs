//! The in-memory twin of the wire: nodes of one process, with cables that can be pulled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use mooring_terms::NodeId;
use parking_lot::Mutex;

use super::{Rpc, Wire, WireDown};

/// A network of nodes in one process.
#[derive(Default)]
pub struct MemoryNetwork {
    nodes: Mutex<BTreeMap<NodeId, Weak<Rpc>>>,
    cut: Mutex<BTreeSet<(NodeId, NodeId)>>,
}

/// One node's way into the network.
struct MemoryWire {
    node: NodeId,
    network: Arc<MemoryNetwork>,
}

impl MemoryNetwork {
    /// A network without nodes.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// The wire of `node`.
    #[must_use]
    pub fn wire(self: &Arc<Self>, node: NodeId) -> Arc<dyn Wire> {
        Arc::new(MemoryWire { node, network: Arc::clone(self) })
    }

    /// Delivers to `rpc` what is sent to its node, until it is dropped.
    pub fn attach(&self, rpc: &Arc<Rpc>) {
        self.nodes.lock().insert(rpc.node(), Arc::downgrade(rpc));
    }

    /// Cuts the connection of two nodes: calls under way between them break.
    pub fn cut(&self, a: NodeId, b: NodeId) {
        self.cut.lock().extend([(a, b), (b, a)]);
        for (here, there) in [(a, b), (b, a)] {
            if let Some(rpc) = self.rpc(here) {
                rpc.disconnected(there);
            }
        }
    }

    /// Lets nothing through from one node to another; the other way stays as it is.
    pub fn cut_one_way(&self, from: NodeId, to: NodeId) {
        self.cut.lock().insert((from, to));
    }

    /// Cuts `node` off from all others.
    pub fn isolate(&self, node: NodeId) {
        let others: Vec<NodeId> = self.nodes.lock().keys().copied().collect();
        for other in others.into_iter().filter(|other| *other != node) {
            self.cut(node, other);
        }
    }

    /// Mends every connection.
    pub fn heal(&self) {
        self.cut.lock().clear();
    }

    fn rpc(&self, node: NodeId) -> Option<Arc<Rpc>> {
        self.nodes.lock().get(&node).and_then(Weak::upgrade)
    }
}

impl Wire for MemoryWire {
    fn send(&self, to: NodeId, frame: Bytes) -> Result<(), WireDown> {
        if self.network.cut.lock().contains(&(self.node, to)) {
            return Err(WireDown);
        }
        let peer = self.network.rpc(to).ok_or(WireDown)?;
        peer.incoming(self.node, frame);
        Ok(())
    }
}
