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

/// The cluster's nodes, as last told by any of them.
#[derive(Default)]
pub struct KnownNodes(ArcSwap<BTreeMap<NodeId, Peer>>);

impl KnownNodes {
    /// Takes in what a daemon says. Which key a known node has is believed of the own daemon alone.
    pub fn learn(&self, nodes: &[Peer], is_own: bool) {
        let known = self.0.load();
        let believed = |peer: &Peer| {
            let key = known.get(&peer.node).filter(|_| !is_own).map(|known| known.fingerprint);
            (peer.node, Peer { fingerprint: key.unwrap_or(peer.fingerprint), ..*peer })
        };
        self.0.store(Arc::new(nodes.iter().map(believed).collect()));
    }

    pub fn all(&self) -> Vec<NodeId> {
        self.0.load().keys().copied().collect()
    }
}

impl Admission for KnownNodes {
    fn node_of(&self, fingerprint: &Fingerprint) -> Option<NodeId> {
        let nodes = self.0.load();
        let mut peers = nodes.values();
        peers.find(|peer| peer.fingerprint == *fingerprint.as_bytes()).map(|peer| peer.node)
    }

    fn fingerprint_of(&self, node: NodeId) -> Option<Fingerprint> {
        self.0.load().get(&node).map(|peer| Fingerprint::from_bytes(peer.fingerprint))
    }

    fn address_of(&self, node: NodeId) -> Option<std::net::SocketAddr> {
        self.0.load().get(&node).map(|peer| peer.address)
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
