//! Looking over a whole pool: every tree, every layer, against the table of segments. For tests,
//! the simulator and the curious; takes time with the size of the maps.

use std::collections::HashSet;

use mooring_terms::{BLOCK_SIZE, BlockIndex, SliceId};

use crate::address::Address;
use crate::map::{Child, Extent, MAX_BLOCKS, NodeSource, Root};
use crate::pool::{Nodes, Pool};
use crate::space::{BLOCK_WEIGHT, SegmentState, node_weight};
use crate::{Result, SegmentId};

/// What a look over a pool found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Bytes that trees and layers name, as [`crate::Usage::live`] counts them.
    pub live: u64,
    /// Nodes that can't be read.
    pub lost_nodes: u64,
    /// Blocks or nodes that lie in a segment that may be written anew: never.
    pub in_free_segments: u64,
    /// The first few of the latter: slice, first block.
    pub examples: Vec<(SliceId, BlockIndex)>,
}

struct Look<'a> {
    pool: &'a Pool,
    nodes: Nodes<'a>,
    states: Vec<SegmentState>,
    seen: HashSet<Address>,
    found: Verified,
    slice: SliceId,
}

impl Pool {
    /// Looks over every tree and layer. Nothing else should be going on in the pool.
    ///
    /// # Errors
    /// None so far; rot is reported in the result.
    pub fn verify(&self) -> Result<Verified> {
        let _quiet = self.maintenance.lock();
        let states = self.core.space.lock().segments().iter().map(|s| s.state).collect();
        let mut look = Look {
            pool: self,
            nodes: Nodes::now(&self.core),
            states,
            seen: HashSet::new(),
            found: Verified::default(),
            slice: SliceId::default(),
        };
        for replica in self.replicas.read().values() {
            look.slice = replica.slice;
            let state = replica.inner.read();
            let layers = state.sealed.iter().map(|sealed| &*sealed.layer).chain([&state.fresh]);
            for layer in layers {
                let mut uppers = Vec::new();
                layer.uppers(0, MAX_BLOCKS, usize::MAX, &mut uppers);
                for upper in uppers {
                    look.block(upper.first, upper.entry.address());
                }
            }
            let snapshots = state.snapshots.values().filter(|(_, snapshot)| !snapshot.dying);
            let roots: Vec<Root> =
                snapshots.map(|(_, snapshot)| snapshot.root).chain([state.root]).collect();
            for root in roots {
                look.tree(&root.child, root.level);
            }
        }
        Ok(look.found)
    }
}

impl Look<'_> {
    fn place(&mut self, block: u64, segment: SegmentId) {
        if matches!(self.states[segment.0 as usize], SegmentState::Free) {
            self.found.in_free_segments += 1;
            if self.found.examples.len() < 8 {
                self.found.examples.push((self.slice, BlockIndex(block)));
            }
        }
    }

    fn block(&mut self, block: u64, address: Option<Address>) {
        let Some(address) = address else { return };
        let address = self.pool.moved.read().translate(address);
        self.place(block, address.plus(BLOCK_SIZE as u64 - 1).segment());
        if self.seen.insert(address) {
            self.found.live += BLOCK_WEIGHT;
        }
    }

    fn tree(&mut self, child: &Child, level: u8) {
        let Child::Node(reference) = child else { return };
        if !self.seen.insert(reference.address) {
            return;
        }
        self.found.live += node_weight(reference.length);
        let Ok(node) = self.nodes.node(reference) else {
            self.found.lost_nodes += 1;
            return;
        };
        self.place(node.first, reference.address.segment());
        if level > 0 {
            for child in node.children() {
                self.tree(&child, level - 1);
            }
            return;
        }
        let mut extents: Vec<Extent> = Vec::new();
        node.extents(0, u64::MAX, &mut extents);
        for extent in extents {
            self.block(extent.first, extent.entry.address());
        }
    }
}
