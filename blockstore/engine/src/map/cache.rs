//! Map nodes in memory, bounded in bytes: a clock over what was used lately.
//!
//! Entries carry the moment of their loading; whoever looks one up says since when its segment has
//! been free, so that a node of a reused segment is never served.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::address::{Address, AddressMap};
use crate::format::node::Node;

/// Memory beside a node's bytes: map entry, queue entry, counts.
const OVERHEAD_BYTES: usize = 160;

struct Slot {
    node: Arc<Node>,
    loaded: u64,
    used: bool,
}

#[derive(Default)]
struct Inner {
    slots: AddressMap<Slot>,
    clock: VecDeque<Address>,
    bytes: usize,
}

/// The cache of all trees of a pool.
pub(crate) struct Cache {
    inner: Mutex<Inner>,
    budget: usize,
}

impl Cache {
    pub(crate) fn new(budget: usize) -> Self {
        Self { inner: Mutex::new(Inner::default()), budget }
    }

    /// The node at `address`, if it was loaded after its segment was last freed.
    pub(crate) fn get(&self, address: Address, freed_at: u64) -> Option<Arc<Node>> {
        let mut inner = self.inner.lock();
        let slot = inner.slots.get_mut(&address)?;
        if slot.loaded < freed_at {
            return None;
        }
        slot.used = true;
        Some(slot.node.clone())
    }

    pub(crate) fn put(&self, address: Address, node: Arc<Node>, loaded: u64) {
        let mut inner = self.inner.lock();
        inner.bytes += node.bytes() + OVERHEAD_BYTES;
        match inner.slots.insert(address, Slot { node, loaded, used: false }) {
            Some(old) => inner.bytes -= old.node.bytes() + OVERHEAD_BYTES,
            None => inner.clock.push_back(address),
        }
        while inner.bytes > self.budget
            && let Some(address) = inner.clock.pop_front()
        {
            match inner.slots.get_mut(&address) {
                Some(slot) if slot.used => {
                    slot.used = false;
                    inner.clock.push_back(address);
                }
                Some(_) => {
                    if let Some(slot) = inner.slots.remove(&address) {
                        inner.bytes -= slot.node.bytes() + OVERHEAD_BYTES;
                    }
                }
                None => {}
            }
        }
    }

    /// Bytes in use.
    pub(crate) fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }
}
