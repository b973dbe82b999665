//! The client's links: one to each node that is needed, made again whenever it breaks.
//!
//! To the own node over its unix socket, to others over TLS; each link has a thread, which dials,
//! reads, and pauses between tries.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use mooring_terms::NodeId;
use mooring_transport::{
    Admission, Dialler, Fingerprint, Identity, Link, LinkHandler, Message, SendError,
};
use parking_lot::Mutex;

use super::door::LINK_WINDOW;
use crate::admission::Peer;

/// Between two tries to reach a node: the first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(320));
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(2);

/// The cluster's nodes. The own daemon is believed in everything. Of others only addresses are learned, and nodes
/// never heard of: which key a node has, and that it is gone, no other node can tell.
#[derive(Default)]
pub struct KnownNodes(ArcSwap<BTreeMap<NodeId, Known>>);

#[derive(Clone, Copy)]
struct Known {
    peer: Peer,
    /// Not removed, as far as the own daemon says. Those that are keep their key: told of again by others,
    /// they stay what they were.
    listed: bool,
    /// The own daemon has listed it once. One that it has not may be new, and the daemon behind.
    is_owns: bool,
}

impl KnownNodes {
    /// Takes in what a daemon says, the own one or another.
    pub fn learn(&self, nodes: &[Peer], is_own: bool) {
        // Links learn beside each other.
        self.0.rcu(|known| {
            let mut known = BTreeMap::clone(known);
            if is_own {
                known.values_mut().for_each(|known| known.listed &= !known.is_owns);
                let listed = |peer: &Peer| Known { peer: *peer, listed: true, is_owns: true };
                known.extend(nodes.iter().map(|peer| (peer.node, listed(peer))));
                return known;
            }
            for peer in nodes {
                let mut all = known.values();
                let is_anothers = all.any(|known| known.peer.fingerprint == peer.fingerprint);
                match known.get_mut(&peer.node) {
                    Some(known) => known.peer.address = peer.address,
                    None if is_anothers => {
                        tracing::warn!(node = %peer.node, "said to have another node's key");
                    }
                    None => {
                        let new = Known { peer: *peer, listed: true, is_owns: false };
                        known.insert(peer.node, new);
                    }
                }
            }
            known
        });
    }

    pub fn all(&self) -> Vec<NodeId> {
        let known = self.0.load();
        known.values().filter(|known| known.listed).map(|known| known.peer.node).collect()
    }

    fn get(&self, node: NodeId) -> Option<Peer> {
        self.0.load().get(&node).filter(|known| known.listed).map(|known| known.peer)
    }
}

impl Admission for KnownNodes {
    fn node_of(&self, fingerprint: &Fingerprint) -> Option<NodeId> {
        let known = self.0.load();
        let mut listed = known.values().filter(|known| known.listed).map(|known| known.peer);
        listed.find(|peer| peer.fingerprint == *fingerprint.as_bytes()).map(|peer| peer.node)
    }

    fn fingerprint_of(&self, node: NodeId) -> Option<Fingerprint> {
        self.get(node).map(|peer| Fingerprint::from_bytes(peer.fingerprint))
    }

    fn address_of(&self, node: NodeId) -> Option<std::net::SocketAddr> {
        self.get(node).map(|peer| peer.address)
    }
}

/// All links of one client.
pub struct Links {
    me: NodeId,
    /// The own daemon's socket.
    door: PathBuf,
    dialler: Dialler,
    nodes: Arc<KnownNodes>,
    /// Of each node that is wanted: its link while it is up.
    table: Mutex<BTreeMap<NodeId, Option<Arc<Link>>>>,
    handler: Arc<dyn LinkHandler>,
    over: AtomicBool,
}

impl Links {
    pub fn new(
        me: NodeId,
        door: PathBuf,
        identity: &Identity,
        nodes: Arc<KnownNodes>,
        handler: Arc<dyn LinkHandler>,
    ) -> Result<Self, mooring_transport::Error> {
        let admission: Arc<dyn Admission> = nodes.clone();
        let dialler = Dialler::new(identity, admission, HANDSHAKE, LINK_WINDOW)?;
        Ok(Self {
            me,
            door,
            dialler,
            nodes,
            table: Mutex::default(),
            handler,
            over: AtomicBool::new(false),
        })
    }

    /// The link to `node`, if it is up.
    pub fn get(&self, node: NodeId) -> Option<Arc<Link>> {
        self.table.lock().get(&node).cloned().flatten()
    }

    /// Every link that is up.
    pub fn up(&self) -> Vec<Arc<Link>> {
        self.table.lock().values().flatten().cloned().collect()
    }

    /// Sends on the link to `node`. A link that doesn't take it is begun anew: nothing may be left
    /// out of its middle.
    pub fn send(&self, node: NodeId, message: Message) -> Result<(), SendError> {
        let link = self.get(node).ok_or(SendError::Down)?;
        link.send(message).inspect_err(|_| link.cut())
    }

    /// Wants a link to `node` from now on.
    pub fn want(self: &Arc<Self>, node: NodeId) {
        let mut table = self.table.lock();
        let is_known = node == self.me || self.nodes.address_of(node).is_some();
        if table.contains_key(&node) || !is_known || self.over.load(Ordering::Acquire) {
            return;
        }
        let links = Arc::downgrade(self);
        let thread = thread::Builder::new().name(format!("link-{node}"));
        match thread.spawn(move || Self::keep(&links, node)) {
            Ok(_) => drop(table.insert(node, None)),
            Err(error) => tracing::error!(%node, %error, "no thread for a link"),
        }
    }

    /// Notes that the link to its node is up, or gone.
    pub fn set(&self, link: &Arc<Link>, up: bool) {
        if let Some(slot) = self.table.lock().get_mut(&link.peer()) {
            *slot = up.then(|| Arc::clone(link));
        }
        if self.over.load(Ordering::Acquire) {
            link.cut();
        }
    }

    /// Cuts everything, for good.
    pub fn close(&self) {
        self.over.store(true, Ordering::Release);
        for link in self.up() {
            link.cut();
        }
    }

    /// The body of a node's thread: until the client is gone.
    fn keep(this: &Weak<Self>, node: NodeId) {
        let mut pause = PAUSES.0;
        while let Some(links) = this.upgrade() {
            let handler = Arc::clone(&links.handler);
            if links.over.load(Ordering::Acquire) {
                return;
            }
            match links.dial(node) {
                Ok(link) => {
                    drop(links);
                    pause = PAUSES.0;
                    link.run(&*handler);
                }
                // Removed from the cluster.
                Err(mooring_transport::Error::UnknownNode(_)) if links.leave(node) => return,
                Err(error) => tracing::debug!(%node, %error, "a node can't be reached"),
            }
            thread::sleep(pause);
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Wants no link to a node that isn't listed any more; tells whether it isn't.
    fn leave(&self, node: NodeId) -> bool {
        let mut table = self.table.lock();
        let is_gone = node != self.me && self.nodes.address_of(node).is_none();
        if is_gone {
            table.remove(&node);
        }
        is_gone
    }

    fn dial(&self, node: NodeId) -> Result<Arc<Link>, mooring_transport::Error> {
        if node == self.me
            && let Ok(socket) = UnixStream::connect(&self.door)
            && let Ok(link) = Link::over_unix(socket, node, LINK_WINDOW)
        {
            return Ok(link);
        }
        let unknown = mooring_transport::Error::UnknownNode(node);
        let address = self.nodes.address_of(node).ok_or(unknown)?;
        self.dialler.dial(node, address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(node: u64, key: u8, port: u16) -> Peer {
        Peer { node: NodeId(node), fingerprint: [key; 32], address: ([10, 0, 0, 1], port).into() }
    }

    fn key_of(nodes: &KnownNodes, node: u64) -> Option<u8> {
        nodes.fingerprint_of(NodeId(node)).map(|key| key.as_bytes()[0])
    }

    #[test]
    fn another_node_can_tell_addresses_and_new_nodes_but_no_keys_of_known_ones() {
        let nodes = KnownNodes::default();
        nodes.learn(&[peer(1, 1, 1), peer(2, 2, 2)], true);
        nodes.learn(&[peer(2, 66, 22), peer(3, 3, 3)], false);
        assert_eq!(key_of(&nodes, 2), Some(2));
        assert_eq!(nodes.address_of(NodeId(2)).map(|at| at.port()), Some(22));
        assert_eq!(key_of(&nodes, 3), Some(3), "it was never heard of");
        assert_eq!(key_of(&nodes, 1), Some(1), "what it leaves out stays");
        // Left out and told anew.
        nodes.learn(&[], false);
        nodes.learn(&[peer(2, 66, 22)], false);
        assert_eq!(key_of(&nodes, 2), Some(2));
    }

    #[test]
    fn a_node_that_the_own_daemon_has_removed_stays_so_whatever_others_say() {
        let nodes = KnownNodes::default();
        nodes.learn(&[peer(1, 1, 1), peer(2, 2, 2)], true);
        nodes.learn(&[peer(1, 1, 1)], true);
        for key in [2, 66] {
            nodes.learn(&[peer(2, key, 2)], false);
            assert_eq!((key_of(&nodes, 2), nodes.address_of(NodeId(2))), (None, None));
            assert_eq!(nodes.node_of(&Fingerprint::from_bytes([key; 32])), None);
        }
        assert_eq!(nodes.all(), [NodeId(1)]);
        nodes.learn(&[peer(3, 3, 3)], false);
        nodes.learn(&[peer(1, 1, 1)], true);
        assert_eq!(nodes.all(), [NodeId(1), NodeId(3)], "the own daemon may be behind");
        nodes.learn(&[peer(1, 1, 1), peer(2, 4, 2)], true);
        assert_eq!(key_of(&nodes, 2), Some(4), "the own daemon is believed");
    }

    #[test]
    fn nobody_else_gets_a_known_nodes_key() {
        let nodes = KnownNodes::default();
        nodes.learn(&[peer(2, 2, 2)], true);
        nodes.learn(&[peer(1, 2, 66)], false);
        assert_eq!(nodes.node_of(&Fingerprint::from_bytes([2; 32])), Some(NodeId(2)));
        assert_eq!(nodes.address_of(NodeId(1)), None);
    }
}
