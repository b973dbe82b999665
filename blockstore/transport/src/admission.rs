//! Who may talk to this node: asked at every handshake and at every `Endpoint::refresh`.

use std::net::SocketAddr;

use mooring_terms::NodeId;

use crate::fingerprint::Fingerprint;

/// The cluster's table of nodes, as the transport needs it. The caller answers from Raft's node
/// table; the answers change as nodes join and are removed. Called on transport threads while they
/// hold no lock.
pub trait Admission: Send + Sync {
    /// The node that the key with this fingerprint belongs to, or `None` if no such node is listed.
    fn node_of(&self, fingerprint: &Fingerprint) -> Option<NodeId>;

    /// The fingerprint of a listed node's key.
    fn fingerprint_of(&self, node: NodeId) -> Option<Fingerprint>;

    /// Where a listed node listens.
    fn address_of(&self, node: NodeId) -> Option<SocketAddr>;
}
