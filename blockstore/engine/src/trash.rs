//! Trees that were given up: counting what they held as free, a bounded number of nodes at a time.
//!
//! A discard of a whole range, a removed snapshot or replica drops a subtree at once; what lay
//! beneath is counted later. `keep` names trees beside it that may share nodes and blocks: what
//! they name is not free. Counting only feeds the choice of victims and the answer to "how much is
//! left" (see `space.rs`), and no emptied segment is written again before it is done (order O6), so
//! the nodes can still be read.

use std::collections::{HashSet, VecDeque};

use crate::address::Address;
use crate::map::{Child, Extent, NodeRef, NodeSource, Root};
use crate::pool::{Nodes, Pool};
use crate::space::node_weight;

/// Nodes counted in one step.
const STEP_NODES: usize = 512;

/// A subtree that was given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Dropped {
    pub(crate) level: u8,
    pub(crate) node: NodeRef,
    /// Neighbouring trees, at the same place.
    pub(crate) keep: [Option<Keep>; 2],
}

/// A node of a neighbouring tree: at the same place and level, or, where that tree is lower, its
/// root, which stands somewhere beneath the first child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Keep {
    pub(crate) level: u8,
    pub(crate) node: NodeRef,
}

impl Pool {
    /// Counts some of what was dropped.
    pub(crate) fn count_dropped(&self, trash: &mut VecDeque<Dropped>) {
        let nodes = Nodes::now(&self.core);
        for _ in 0..STEP_NODES {
            let Some(dropped) = trash.pop_front() else { break };
            if dropped.keep.iter().flatten().any(|keep| keep.node.address == dropped.node.address) {
                continue;
            }
            let (address, length) = (dropped.node.address, dropped.node.length);
            self.core.space.lock().free(address.segment(), node_weight(length));
            if dropped.level == 0 {
                self.count_leaf(&nodes, &dropped);
            } else {
                Self::push_children(&nodes, &dropped, trash);
            }
        }
    }

    fn count_leaf(&self, nodes: &Nodes<'_>, dropped: &Dropped) {
        let mut kept: HashSet<Address> = HashSet::new();
        let places = |node: &NodeRef| -> Vec<Address> {
            let Ok(leaf) = nodes.node(node) else { return Vec::new() };
            let mut out: Vec<Extent> = Vec::new();
            leaf.extents(0, u64::MAX, &mut out);
            out.iter().filter_map(|extent| extent.entry.address()).collect()
        };
        let moved = self.moved.read();
        for keep in dropped.keep.iter().flatten() {
            kept.extend(places(&keep.node).into_iter().map(|address| moved.translate(address)));
        }
        let mut space = self.core.space.lock();
        for address in places(&dropped.node) {
            let address = moved.translate(address);
            if !kept.contains(&address) {
                space.free_block(address);
            }
        }
    }

    fn push_children(nodes: &Nodes<'_>, dropped: &Dropped, trash: &mut VecDeque<Dropped>) {
        let Ok(node) = nodes.node(&dropped.node) else { return };
        let kept = dropped.keep.map(|keep| {
            let keep = keep.filter(|keep| keep.level == dropped.level)?;
            nodes.node(&keep.node).ok().map(|node| node.children())
        });
        for (i, child) in node.children().into_iter().enumerate() {
            let Child::Node(node) = child else { continue };
            let level = dropped.level - 1;
            let keep = [0, 1].map(|side| match (&kept[side], dropped.keep[side]) {
                (Some(children), _) => match children[i] {
                    Child::Node(node) => Some(Keep { level, node }),
                    _ => None,
                },
                (None, Some(lower)) if i == 0 && lower.level < dropped.level => Some(lower),
                _ => None,
            });
            // Depth first keeps the list short.
            trash.push_front(Dropped { level, node, keep });
        }
    }

    /// Gives up a tree, but for what its neighbours name.
    pub(crate) fn drop_root(
        &self,
        root: &Root,
        neighbours: [Option<Root>; 2],
        trash: &mut Vec<Dropped>,
    ) {
        let Child::Node(node) = root.child else { return };
        let nodes = Nodes::now(&self.core);
        let keep = neighbours.map(|neighbour| {
            let mut neighbour = neighbour?;
            // A higher tree has the same place beneath its first child.
            while neighbour.level > root.level {
                let Child::Node(node) = neighbour.child else { return None };
                let child = nodes.node(&node).ok()?.children()[0];
                neighbour = Root { level: neighbour.level - 1, child };
            }
            match neighbour.child {
                Child::Node(node) => Some(Keep { level: neighbour.level, node }),
                _ => None,
            }
        });
        trash.push(Dropped { level: root.level, node, keep });
    }
}
