//! The suite, against every transport.

mod suite;
mod support;

use std::sync::Arc;

use mooring_terms::NodeId;
use mooring_transport::{Handler, MemoryEndpoint, MemoryNetwork, Transport, Unprotected};
use parking_lot::Mutex;

use crate::suite::Cluster;
use crate::support::{TlsNode, cluster};

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

/// Over sockets a cut is a pair of nodes that no longer admit each other.
struct Sockets {
    nodes: Vec<TlsNode>,
    cut: Mutex<()>,
}

impl Sockets {
    fn start(window: usize, handlers: Vec<Arc<dyn Handler>>, unprotected: Unprotected) -> Self {
        let nodes = cluster(handlers.len() as u64, window, unprotected);
        for (node, handler) in nodes.iter().zip(handlers) {
            node.start(handler);
        }
        Self { nodes, cut: Mutex::new(()) }
    }

    fn node(&self, node: NodeId) -> &TlsNode {
        &self.nodes[node.0 as usize - 1]
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
}

/// Makes a kind of cluster of [`Sockets`].
macro_rules! sockets {
    ($name:ident, $unprotected:expr, $slack:expr) => {
        struct $name(Sockets);

        impl Cluster for $name {
            fn start(window: usize, handlers: Vec<Arc<dyn Handler>>) -> Self {
                Self(Sockets::start(window, handlers, $unprotected))
            }

            fn transport(&self, node: NodeId) -> &dyn Transport {
                self.0.transport(node)
            }

            fn shared(&self, node: NodeId) -> Arc<dyn Transport> {
                self.0.shared(node)
            }

            fn cut(&self, one: NodeId, other: NodeId) {
                self.0.cut(one, other);
            }

            fn heal(&self, one: NodeId, other: NodeId) {
                self.0.heal(one, other);
            }

            fn slack() -> usize {
                $slack
            }
        }
    };
}

// Send and receive buffers of a loopback socket, as large as they grow.
sockets!(Tls, Unprotected::Refused, 16 << 20);
// What is on its way counts in the window, the buffers of the kernel included.
#[cfg(feature = "zeromq")]
sockets!(ZeroMq, Unprotected::Everything, 0);

mod memory {
    crate::conformance!(crate::Memory);
}

mod tls {
    crate::conformance!(crate::Tls);
}

#[cfg(feature = "zeromq")]
mod zeromq {
    crate::conformance!(crate::ZeroMq);
}
