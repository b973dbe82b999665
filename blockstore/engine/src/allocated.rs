//! How many blocks of a replica hold data.
//!
//! ```text
//!   a node says how many lie beneath each child ──> what no layer touches is known at its root
//!   a layer touches it                          ──> down to those leaves, and the layers over them
//! ```
//! What counts is the present map: a block once, whatever its versions; neither holes, nor what is
//! missing, nor what only snapshots hold. The answer is exact, and costs no more than the next
//! checkpoint's merge would read: never a look at the whole map. (Nodes that were written before they
//! were counted are looked into.)

use mooring_terms::{SliceId, Version};

use crate::Result;
use crate::map::{Child, Extent, FAN, Layer, NodeSource, Root, Stop, combine, span};
use crate::pool::{Nodes, Pool};
use crate::replica::Replica;

/// One count under way.
struct Look<'a> {
    replica: &'a Replica,
    nodes: Nodes<'a>,
    root: Root,
}

/// What the layers may do to a part of the tree.
enum Touch {
    /// Nothing.
    No,
    /// No data is left there, or comes to be there.
    Empties,
    /// It must be looked at.
    Some,
}

impl Pool {
    /// How many blocks of the replica's present map hold data. What is appended meanwhile may be
    /// counted or not.
    ///
    /// # Errors
    /// [`crate::EngineError::NoReplica`].
    pub fn allocated(&self, slice: SliceId) -> Result<u64> {
        let replica = self.find(slice)?;
        loop {
            let root = replica.inner.read().root;
            let look = Look { replica: &replica, nodes: Nodes::now(&self.core), root };
            let count = look.count_all();
            // A checkpoint may have put the layers into another tree meanwhile.
            if let Ok(count) = count
                && replica.inner.read().root == root
            {
                return Ok(count);
            }
        }
    }
}

impl Look<'_> {
    fn count_all(&self) -> std::result::Result<u64, Stop> {
        let mut end = span(self.root.level);
        self.layers(|layer| end = end.max(layer.end()));
        let mut level = self.root.level;
        while span(level) < end {
            level += 1;
        }
        self.count(&self.root.child, level, 0)
    }

    fn layers(&self, mut each: impl FnMut(&Layer)) {
        let state = self.replica.inner.read();
        state.sealed.iter().map(|sealed| &*sealed.layer).chain([&state.fresh]).for_each(&mut each);
    }

    /// How many of the blocks beneath `child` hold data, with the layers over them. Above the root's
    /// level its child stands for all that would be above it.
    fn count(&self, child: &Child, level: u8, base: u64) -> std::result::Result<u64, Stop> {
        let above = base == 0 && level > self.root.level;
        let known = child.allocated();
        match (self.touch(child, base, base + span(level)), known) {
            (Touch::No, Some(count)) => return Ok(count),
            (Touch::Empties, _) => return Ok(0),
            (Touch::No | Touch::Some, _) => {}
        }
        if level == 0 {
            return self.count_leaf(child, base);
        }
        let children = if above {
            let mut children = vec![Child::Absent; FAN as usize];
            children[0] = *child;
            children
        } else {
            match child {
                Child::Node(node) => match self.nodes.node(node) {
                    Ok(node) => node.children(),
                    Err(Stop::Stale) => return Err(Stop::Stale),
                    // What the node named is missing.
                    Err(Stop::Unreadable | Stop::Failed) => {
                        vec![Child::Missing(node.newest); FAN as usize]
                    }
                },
                bare => vec![*bare; FAN as usize],
            }
        };
        let below = span(level - 1);
        let each = children.iter().enumerate();
        each.map(|(i, child)| self.count(child, level - 1, base + i as u64 * below)).sum()
    }

    fn touch(&self, child: &Child, first: u64, end: u64) -> Touch {
        let newest = child.newest();
        let (mut touched, mut points, mut emptied) = (false, false, false);
        self.layers(|layer| {
            touched |= layer.touches(first, end) || layer.cut_at().is_some_and(|cut| newest > cut);
            points |= layer.has_points(first, end);
            emptied |= layer.covers(first, end).is_some_and(|upper| upper.entry.version > newest);
        });
        match (touched, points) {
            (false, _) => Touch::No,
            (true, false) if emptied || !matches!(child, Child::Node(_)) => Touch::Empties,
            (true, _) => Touch::Some,
        }
    }

    fn count_leaf(&self, child: &Child, base: u64) -> std::result::Result<u64, Stop> {
        let end = base + span(0);
        let mut extents: Vec<Extent> = Vec::new();
        match child {
            Child::Node(node) => match self.nodes.node(node) {
                Ok(leaf) => leaf.extents(base, end, &mut extents),
                Err(Stop::Stale) => return Err(Stop::Stale),
                Err(Stop::Unreadable | Stop::Failed) => {}
            },
            bare => {
                let extent = |entry| Extent { first: base, count: span(0), entry };
                extents.extend(bare.bare().map(extent));
            }
        }
        let mut layers: Vec<(Option<Version>, Vec<_>)> = Vec::new();
        self.layers(|layer| {
            let mut uppers = Vec::new();
            layer.uppers(base, end, usize::MAX, &mut uppers);
            layers.push((layer.cut_at(), uppers));
        });
        for (cut, uppers) in layers {
            extents = combine(&extents, cut, &uppers);
        }
        Ok(extents.iter().filter(|extent| extent.entry.address().is_some()).count() as u64)
    }
}
