//! Streams between mounts and the coordinator, in memory: in order, cut at will, and opened anew.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use mooring_sharedfs_coordinator::{Coordinator, PeerId, Peers};
use mooring_sharedfs_mount::{Lost, Mount, Post};
use mooring_terms::NodeId;
use parking_lot::Mutex;

/// How long until a mount that lost its stream opens another.
const AGAIN: Duration = Duration::from_millis(20);

/// All streams, and the coordinator at their end.
#[derive(Default)]
pub struct Links {
    coordinator: Mutex<Option<Arc<Coordinator>>>,
    mounts: Mutex<BTreeMap<u64, Arc<Mount>>>,
    /// Letters on their way to mounts.
    streams: Mutex<BTreeMap<PeerId, Sender<Bytes>>>,
    last: AtomicU64,
}

impl Links {
    /// A coordinator begins, or none is there.
    pub fn set_coordinator(&self, coordinator: Option<Coordinator>) {
        let before = std::mem::replace(&mut *self.coordinator.lock(), coordinator.map(Arc::new));
        drop(before);
    }

    /// Another mount, of a node of its own.
    pub fn add(self: &Arc<Self>, node: u64, mount: Arc<Mount>) {
        self.mounts.lock().insert(node, mount);
        self.connect(node);
    }

    /// A mount is over.
    pub fn remove(self: &Arc<Self>, node: u64) -> Option<Arc<Mount>> {
        let mount = self.mounts.lock().remove(&node);
        self.cut_node(node);
        mount
    }

    pub fn mount(&self, node: u64) -> Option<Arc<Mount>> {
        self.mounts.lock().get(&node).cloned()
    }

    /// Cuts a node's streams; it comes again.
    pub fn cut_node(self: &Arc<Self>, node: u64) {
        let of_node = |peer: &PeerId| peer.node == NodeId(node);
        let peers: Vec<PeerId> =
            self.streams.lock().keys().copied().filter(|peer| of_node(peer)).collect();
        peers.into_iter().for_each(|peer| self.break_off(peer));
    }

    /// Cuts all streams.
    pub fn cut_all(self: &Arc<Self>) {
        let peers: Vec<PeerId> = self.streams.lock().keys().copied().collect();
        peers.into_iter().for_each(|peer| self.break_off(peer));
    }

    fn connect(self: &Arc<Self>, node: u64) {
        let Some(mount) = self.mount(node) else { return };
        let stream = self.last.fetch_add(1, Ordering::SeqCst) + 1;
        let peer = PeerId { node: NodeId(node), stream };
        let (letters, incoming) = channel::<Bytes>();
        self.streams.lock().insert(peer, letters);
        let links = Arc::downgrade(self);
        let number = mount.met(Arc::new(Stream { links: links.clone(), peer }));
        std::thread::spawn(move || {
            while let Ok(letter) = incoming.recv() {
                mount.letter(number, &letter).expect("a coordinator writes letters");
            }
            mount.lost(number);
            drop(mount);
            std::thread::sleep(AGAIN);
            if let Some(links) = links.upgrade() {
                links.connect(node);
            }
        });
    }

    /// Ends a stream; on both sides nothing more comes over it.
    fn break_off(&self, peer: PeerId) {
        if self.streams.lock().remove(&peer).is_some()
            && let Some(coordinator) = self.coordinator.lock().clone()
        {
            coordinator.gone(peer);
        }
    }
}

/// The coordinator's way to the mounts.
pub struct ToMounts(pub Weak<Links>);

impl Peers for ToMounts {
    fn send(&self, to: PeerId, letter: Bytes) -> bool {
        let Some(links) = self.0.upgrade() else { return false };
        let stream = links.streams.lock().get(&to).cloned();
        stream.is_some_and(|stream| stream.send(letter).is_ok())
    }

    fn cut(&self, peer: PeerId) {
        if let Some(links) = self.0.upgrade() {
            links.streams.lock().remove(&peer);
        }
    }
}

/// A mount's way to the coordinator.
struct Stream {
    links: Weak<Links>,
    peer: PeerId,
}

impl Post for Stream {
    fn send(&self, letter: Bytes) -> Result<(), Lost> {
        let links = self.links.upgrade().ok_or(Lost)?;
        if !links.streams.lock().contains_key(&self.peer) {
            return Err(Lost);
        }
        let coordinator = links.coordinator.lock().clone().ok_or(Lost)?;
        coordinator.letter(self.peer, letter);
        Ok(())
    }

    fn cut(&self) {
        if let Some(links) = self.links.upgrade() {
            links.break_off(self.peer);
        }
    }
}
