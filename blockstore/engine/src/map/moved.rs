//! Where reclaim has put blocks whose map entries still name the old place.
//!
//! The table is keyed by the old address alone: whichever root, layer or snapshot names that
//! address is served, so what was shared stays shared, and a newer write, which names another
//! address, is never touched. The checkpoint that rewrites the nodes forgets the entries.

use mooring_terms::SliceId;

use crate::address::{Address, AddressMap};

/// Memory an entry takes in table and list, in bytes.
pub(crate) const MOVED_BYTES: usize = 72;

/// One block that was moved since the last freeze.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub(crate) slice: SliceId,
    /// The block, or the first block of a node.
    pub(crate) block: u64,
    /// 0 for a block's entry, else the level of a node to rewrite plus one.
    pub(crate) depth: u8,
    pub(crate) from: Option<Address>,
}

/// The table of moves.
#[derive(Default)]
pub(crate) struct Moved {
    table: AddressMap<Address>,
    /// What the next checkpoint has to rewrite.
    targets: Vec<Target>,
}

impl Moved {
    /// Where the bytes of `address` are now.
    pub(crate) fn translate(&self, mut address: Address) -> Address {
        if self.table.is_empty() {
            return address;
        }
        while let Some(to) = self.table.get(&address) {
            address = *to;
        }
        address
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.targets.len() * MOVED_BYTES
    }

    pub(crate) fn insert(&mut self, slice: SliceId, block: u64, from: Address, to: Address) {
        self.table.insert(from, to);
        self.targets.push(Target { slice, block, depth: 0, from: Some(from) });
    }

    /// Asks the next checkpoint to write a node anew.
    pub(crate) fn rewrite(&mut self, slice: SliceId, level: u8, first: u64) {
        self.targets.push(Target { slice, block: first, depth: level + 1, from: None });
    }

    /// Hands over what is to be rewritten; the table stays until [`Moved::forget`].
    pub(crate) fn take_targets(&mut self) -> Vec<Target> {
        std::mem::take(&mut self.targets)
    }

    /// Puts back what an abandoned checkpoint did not rewrite.
    pub(crate) fn put_back(&mut self, targets: Vec<Target>) {
        self.targets.extend(targets);
    }

    /// Forgets moves whose map entries have all been rewritten.
    pub(crate) fn forget(&mut self, targets: &[Target]) {
        for from in targets.iter().filter_map(|target| target.from) {
            self.table.remove(&from);
        }
        if self.table.is_empty() {
            self.table.shrink_to(1024);
        }
    }
}
