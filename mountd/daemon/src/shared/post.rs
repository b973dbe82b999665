//! The letters of one coordinator's clients, both ways.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};

use blockstore::{Correspondent, Letters};
use bytes::Bytes;
use mooring_sharedfs_coordinator::{Coordinator, PeerId, Peers};
use parking_lot::Mutex;

/// Who has called, by the number that names a client on one link.
#[derive(Default)]
pub struct Post {
    callers: Mutex<BTreeMap<u64, Correspondent>>,
    coordinator: OnceLock<Weak<Coordinator>>,
}

impl Post {
    /// Gives letters to `coordinator` from now on.
    pub fn deliver_to(&self, coordinator: &Arc<Coordinator>) {
        // Once, by whoever made both.
        let _ = self.coordinator.set(Arc::downgrade(coordinator));
    }

    fn coordinator(&self) -> Option<Arc<Coordinator>> {
        self.coordinator.get().and_then(Weak::upgrade)
    }
}

fn peer(of: &Correspondent) -> PeerId {
    PeerId { node: of.node(), stream: of.number() }
}

impl Letters for Post {
    fn letter(&self, from: &Correspondent, letter: Bytes) {
        let Some(coordinator) = self.coordinator() else { return };
        self.callers.lock().entry(from.number()).or_insert_with(|| from.clone());
        coordinator.letter(peer(from), letter);
    }

    fn gone(&self, from: &Correspondent) {
        self.callers.lock().remove(&from.number());
        if let Some(coordinator) = self.coordinator() {
            coordinator.gone(peer(from));
        }
    }
}

impl Peers for Post {
    fn send(&self, to: PeerId, letter: Bytes) -> bool {
        let caller = self.callers.lock().get(&to.stream).cloned();
        caller.is_some_and(|caller| caller.send(letter).is_ok())
    }

    fn cut(&self, peer: PeerId) {
        let caller = self.callers.lock().remove(&peer.stream);
        if let Some(caller) = caller {
            caller.cut();
        }
    }
}
