//! The suite, against every transport.

mod suite;
mod support;

use std::sync::Arc;

use mooring_terms::NodeId;
use mooring_transport::{Handler, MemoryEndpoint, MemoryNetwork, Transport};
use parking_lot::Mutex;

use crate::suite::Cluster;
use crate::support::{TlsNode, tls_cluster};

struct Memory {
    network: MemoryNetwork,
    endpoints: Vec<Arc<MemoryEndpoint>>,
}

impl Cluster for Memory {
    fn start(window: usize, handlers: Vec<Arc<dyn Handler>>) -> Self {
        let network = MemoryNetwork::new();
        let mut endpoints = Vec::new();
        for (id, handler) in (1..).zip(handlers) {
            let endpoint = network.endpoint(NodeId(id), window);
            endpoint.start(handler);
            endpoints.push(endpoint);
        }
        Self { network, endpoints }
    }

    fn transport(&self, node: NodeId) -> &dyn Transport {
        &*self.endpoints[node.0 as usize - 1]
    }

    fn shared(&self, node: NodeId) -> Arc<dyn Transport> {
        Arc::clone(&self.endpoints[node.0 as usize - 1]) as _
    }

    fn cut(&self, one: NodeId, other: NodeId) {
        self.network.cut(one, other);
    }

    fn heal(&self, one: NodeId, other: NodeId) {
        self.network.heal(one, other);
    }

    fn slack() -> usize {
        0
    }
}

/// Over TLS a cut is a pair of nodes that no longer admit each other.
struct Tls {
    nodes: Vec<TlsNode>,
    cut: Mutex<()>,
}

impl Tls {
    fn node(&self, node: NodeId) -> &TlsNode {
        &self.nodes[node.0 as usize - 1]
    }
}

impl Cluster for Tls {
    fn start(window: usize, handlers: Vec<Arc<dyn Handler>>) -> Self {
        let nodes = tls_cluster(handlers.len() as u64, window);
        for (node, handler) in nodes.iter().zip(handlers) {
            node.start(handler);
        }
        Self { nodes, cut: Mutex::new(()) }
    }

    fn transport(&self, node: NodeId) -> &dyn Transport {
        &*self.node(node).endpoint
    }

    fn shared(&self, node: NodeId) -> Arc<dyn Transport> {
        Arc::clone(&self.node(node).endpoint) as _
    }

    fn cut(&self, one: NodeId, other: NodeId) {
        let _one_at_a_time = self.cut.lock();
        for (here, there) in [(one, other), (other, one)] {
            self.node(here).table.remove(there);
            self.node(here).endpoint.refresh();
        }
    }

    fn heal(&self, one: NodeId, other: NodeId) {
        for (here, there) in [(one, other), (other, one)] {
            let peer = self.node(there);
            let address = peer.endpoint.local_addr();
            self.node(here).table.insert(there, peer.fingerprint, address);
        }
    }

    fn slack() -> usize {
        // Send and receive buffers of a loopback socket, as large as they grow.
        16 << 20
    }
}

mod memory {
    crate::conformance!(crate::Memory);
}

mod tls {
    crate::conformance!(crate::Tls);
}
