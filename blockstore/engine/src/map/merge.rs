//! Putting a layer, and reclaim's moves, into a tree: copy-on-write, leaf by leaf.
//!
//! ```text
//!   merge(child) = child                     if nothing in its range changes
//!                = hole                      if a newer discard covers it
//!                = written anew              else, children first
//! ```
//! The trees of a family (snapshots, live) share nodes. What a relocation alone makes of a node is
//! remembered by the node's address, so that it is written once and stays shared. What the new tree
//! no longer names is freed, unless the newest snapshot (the *shadow*) names it too.

use mooring_terms::{Version, crc32c};

use super::moved::Target;
use super::{Child, Entry, FAN, Layer, NodeRef, NodeSource, Root, Stop, span};
use crate::address::{Address, AddressMap};
use crate::disk::Area;
use crate::format::node::{Children, Entries, encode_inner, encode_leaf};
use crate::trash::{Dropped, Keep};
use crate::{EngineError, Result, SegmentId};

/// Where new nodes go, and what is told about old ones.
pub(crate) trait NodeSink {
    /// Writes nodes to the log; returns where each lies.
    fn write_nodes(&self, nodes: Vec<Vec<u8>>) -> Result<Vec<Address>>;
    /// No tree of the family names this block any more.
    fn free_block(&self, address: Address);
    /// No tree of the family names this node any more.
    fn free_node(&self, node: &NodeRef);
    /// A whole subtree is given up, but for what the shadow's tree still names.
    fn drop_tree(&self, dropped: Dropped);
    /// Where the bytes of `address` are now.
    fn translate(&self, address: Address) -> Address;
    /// Whether inner nodes say how many blocks lie beneath their children.
    fn counts(&self) -> bool;
    /// Whether nodes must leave the segment.
    fn leaves(&self, segment: SegmentId) -> bool;
}

/// The tree of the newest snapshot, at the place where a merge is.
#[derive(Clone, Copy)]
pub(crate) enum Shadow {
    /// There is none: what is replaced is free.
    None,
    /// It names the same node: nothing beneath is free.
    Same,
    /// It names this.
    Child(Child),
    /// Its root is lower than the present level.
    Below(Root),
}

impl Shadow {
    pub(crate) fn of(root: Option<Root>) -> Self {
        root.map_or(Self::None, Self::Below)
    }

    /// Settles what the shadow is at a node of `level`.
    fn at(self, level: u8, child: &Child) -> Self {
        match self {
            Self::Below(root) if root.level == level => Self::Child(root.child).at(level, child),
            Self::Child(Child::Node(other)) => match child {
                Child::Node(node) if node.address == other.address => Self::Same,
                _ => self,
            },
            Self::Child(_) => Self::None,
            other => other,
        }
    }

    fn node(&self) -> Option<NodeRef> {
        match self {
            Self::Child(Child::Node(node)) => Some(*node),
            _ => None,
        }
    }

    fn keep(&self, level: u8) -> Option<Keep> {
        match self {
            Self::Child(Child::Node(node)) => Some(Keep { level, node: *node }),
            Self::Below(Root { level, child: Child::Node(node) }) => {
                Some(Keep { level: *level, node: *node })
            }
            _ => None,
        }
    }
}

/// A node to be written, before it has an address.
struct Unwritten {
    bytes: Vec<u8>,
    newest: Version,
    missing: bool,
    allocated: Option<u64>,
    /// What it replaces, where that is worth remembering for the other trees of the family.
    memo: Option<Address>,
}

enum Merged {
    Done(Child),
    Write(Unwritten),
}

/// One merge into one tree.
pub(crate) struct Merge<'a> {
    pub(crate) source: &'a dyn NodeSource,
    pub(crate) sink: &'a dyn NodeSink,
    pub(crate) layer: &'a Layer,
    /// What reclaim wants rewritten, ordered by block.
    pub(crate) targets: &'a [Target],
    /// What relocation made of nodes, by old address.
    pub(crate) memo: &'a mut AddressMap<Child>,
    /// Nodes are handed to the log in batches of about this many bytes.
    pub(crate) batch_bytes: usize,
    /// Only blocks within are merged; the rest of the tree stays.
    pub(crate) window: (u64, u64),
}

impl Merge<'_> {
    /// The tree that `root` becomes.
    pub(crate) fn run(&mut self, root: Root, shadow: Shadow) -> Result<Root> {
        let mut root = root;
        let end = self.layer.end().min(self.window.1);
        while span(root.level) < end {
            if root.child != Child::Absent {
                let mut children = vec![Child::Absent; FAN as usize];
                children[0] = root.child;
                let node = self.inner_node(root.level + 1, 0, &children, None);
                root.child = self.write_one(node)?;
            }
            root.level += 1;
        }
        let child = match self.merge(root.child, root.level, 0, shadow)? {
            Merged::Done(child) => child,
            Merged::Write(node) => self.write_one(node)?,
        };
        Ok(Root { level: root.level, child })
    }

    fn merge(&mut self, child: Child, level: u8, base: u64, shadow: Shadow) -> Result<Merged> {
        let end = base + span(level);
        let (from, to) = (base.max(self.window.0), end.min(self.window.1));
        if from >= to {
            return Ok(Merged::Done(child));
        }
        let touched = self.layer.touches(from, to);
        let cut = self.layer.cut_at().is_some_and(|cut| child.newest() > cut);
        let node = match child {
            Child::Node(node) => Some(node),
            _ => None,
        };
        let relocate = node.is_some() && self.wants(base, end, level);
        if !touched && !cut && !relocate {
            return Ok(Merged::Done(child));
        }
        let whole = from == base && to == end;
        let beneath = self
            .layer
            .cut_at()
            .map_or(child.bare(), |cut| child.bare().map(|entry| entry.cut_off(cut)));
        if let (true, false, Some(entry)) = (whole, touched, beneath) {
            return Ok(Merged::Done(Child::of(&entry)));
        }
        let memo = node.filter(|_| whole && !touched && !cut).map(|node| node.address);
        if let Some(done) = memo.and_then(|address| self.memo.get(&address)) {
            return Ok(Merged::Done(*done));
        }
        let shadow = shadow.at(level, &child);
        if whole
            && let Some(upper) = self.layer.covers(base, end)
            && (node.is_none() || upper.forced || upper.entry.version > child.newest())
        {
            if node.is_none() {
                let winner = upper.over(beneath);
                return Ok(Merged::Done(winner.as_ref().map_or(Child::Absent, Child::of)));
            }
            if let Some(node) = node
                && !matches!(shadow, Shadow::Same)
            {
                self.sink.drop_tree(Dropped { level, node, keep: [shadow.keep(level), None] });
            }
            return Ok(Merged::Done(Child::of(&upper.entry)));
        }
        let merged = if level == 0 {
            self.merge_leaf(child, base, shadow, memo)?
        } else {
            self.merge_inner(child, level, base, shadow, memo)?
        };
        if let (Some(address), Merged::Done(done)) = (memo, &merged) {
            self.memo.insert(address, *done);
        }
        Ok(merged)
    }

    fn merge_leaf(
        &mut self,
        child: Child,
        base: u64,
        shadow: Shadow,
        memo: Option<Address>,
    ) -> Result<Merged> {
        let end = base + span(0);
        let (from, to) = (base.max(self.window.0), end.min(self.window.1));
        let old = self.load_leaf(&child)?;
        let mut new = old.clone();
        if let Some(cut) = self.layer.cut_at() {
            for entry in new[(from - base) as usize..(to - base) as usize].iter_mut().flatten() {
                *entry = entry.cut_off(cut);
            }
        }
        let mut uppers = Vec::new();
        self.layer.uppers(from, to, usize::MAX, &mut uppers);
        for upper in uppers {
            for slot in &mut new[(upper.first - base) as usize..(upper.end() - base) as usize] {
                let winner = upper.over(*slot);
                if let Some(address) = upper.entry.address()
                    && winner != Some(upper.entry)
                {
                    self.sink.free_block(self.sink.translate(address));
                }
                *slot = winner;
            }
        }
        for entry in new.iter_mut().flatten() {
            if let Some(address) = entry.address() {
                let to = self.sink.translate(address);
                if to != address {
                    *entry = moved_entry(entry, to);
                }
            }
        }
        let stays = match child {
            Child::Node(node) => !self.sink.leaves(node.address.segment()),
            _ => true,
        };
        if new == old && stays {
            return Ok(Merged::Done(child));
        }
        self.free_replaced(&child, &old, &new, shadow);
        if let Some(child) = uniform(&new) {
            return Ok(Merged::Done(child));
        }
        let newest = new.iter().flatten().map(|entry| entry.version).max().unwrap_or_default();
        let missing = new.iter().flatten().any(Entry::is_missing);
        let data = new.iter().flatten().filter(|entry| entry.address().is_some()).count();
        let (bytes, allocated) = (encode_leaf(base, &new), Some(data as u64));
        Ok(Merged::Write(Unwritten { bytes, newest, missing, allocated, memo }))
    }

    fn load_leaf(&self, child: &Child) -> Result<Entries> {
        Ok(match child {
            Child::Node(node) => match self.source.node(node) {
                Ok(leaf) => leaf.entries(),
                // Its blocks are lost here; they come back from a peer.
                Err(Stop::Unreadable) => {
                    vec![Some(Entry::missing(node.newest)); FAN as usize]
                }
                Err(stop) => return Err(not_now(node, stop)),
            },
            bare => vec![bare.bare(); FAN as usize],
        })
    }

    fn free_replaced(&self, child: &Child, old: &Entries, new: &Entries, shadow: Shadow) {
        let Child::Node(node) = child else { return };
        if matches!(shadow, Shadow::Same) {
            return;
        }
        self.sink.free_node(node);
        let kept = match shadow.node().map(|node| self.source.node(&node)) {
            Some(Ok(leaf)) => leaf.entries(),
            _ => vec![None; FAN as usize],
        };
        let place = |entry: &Option<Entry>| {
            entry.and_then(|entry| entry.address()).map(|address| self.sink.translate(address))
        };
        for ((old, new), kept) in old.iter().zip(new).zip(&kept) {
            if let Some(address) = place(old)
                && place(new) != Some(address)
                && place(kept) != Some(address)
            {
                self.sink.free_block(address);
            }
        }
    }

    fn merge_inner(
        &mut self,
        child: Child,
        level: u8,
        base: u64,
        shadow: Shadow,
        memo: Option<Address>,
    ) -> Result<Merged> {
        let old = self.load_inner(&child, level)?;
        let shadows = match shadow.node().map(|node| self.source.node(&node)) {
            Some(Ok(node)) => Some(node.children()),
            _ => None,
        };
        let mut new = old.clone();
        let mut batch: Vec<(usize, Unwritten)> = Vec::new();
        let mut batched = 0;
        let below = span(level - 1);
        let mut index = 0;
        while let Some(i) = self.next_index(base, below, index, &old) {
            index = i + 1;
            let shadow = match (shadow, &shadows) {
                (Shadow::Same, _) => Shadow::Same,
                (Shadow::Below(root), _) if i == 0 => Shadow::Below(root),
                (_, Some(children)) => Shadow::Child(children[i]),
                _ => Shadow::None,
            };
            match self.merge(old[i], level - 1, base + i as u64 * below, shadow)? {
                Merged::Done(child) => new[i] = child,
                Merged::Write(node) => {
                    batched += node.bytes.len();
                    batch.push((i, node));
                    if batched > self.batch_bytes {
                        self.write_batch(&mut batch, &mut new)?;
                        batched = 0;
                    }
                }
            }
        }
        self.write_batch(&mut batch, &mut new)?;
        let node = match child {
            Child::Node(node) => Some(node),
            _ => None,
        };
        if new == old && node.is_none_or(|node| !self.sink.leaves(node.address.segment())) {
            return Ok(Merged::Done(child));
        }
        if let Some(node) = node
            && !matches!(shadow, Shadow::Same)
        {
            self.sink.free_node(&node);
        }
        let first = new[0];
        if !matches!(first, Child::Node(_)) && new.iter().all(|child| *child == first) {
            return Ok(Merged::Done(first));
        }
        Ok(Merged::Write(self.inner_node(level, base, &new, memo)))
    }

    fn load_inner(&self, child: &Child, level: u8) -> Result<Children> {
        Ok(match child {
            Child::Node(node) => match self.source.node(node) {
                Ok(node) if node.level == level => node.children(),
                Ok(_) | Err(Stop::Unreadable) => vec![Child::Missing(node.newest); FAN as usize],
                Err(stop) => return Err(not_now(node, stop)),
            },
            bare => vec![*bare; FAN as usize],
        })
    }

    /// The next child, from `index` on, in which something may change.
    fn next_index(&self, base: u64, below: u64, index: usize, old: &Children) -> Option<usize> {
        let from = (base + index as u64 * below).max(self.window.0);
        let end = (base + FAN * below).min(self.window.1);
        let target = self.targets.partition_point(|target| target.block < from);
        let target = self.targets.get(target).map(|target| target.block);
        let mut next = target.into_iter().chain(self.layer.next(from)).min();
        if let Some(cut) = self.layer.cut_at() {
            let start = (from.saturating_sub(base) / below) as usize;
            let newer = (start..old.len()).find(|i| old[*i].newest() > cut);
            let newer = newer.map(|i| (base + i as u64 * below).max(from));
            next = next.into_iter().chain(newer).min();
        }
        next.filter(|next| *next < end).map(|next| ((next - base) / below) as usize)
    }

    /// Whether a target lies in the range of a node of `level`.
    fn wants(&self, base: u64, end: u64, level: u8) -> bool {
        let start = self.targets.partition_point(|target| target.block < base);
        self.targets[start..]
            .iter()
            .take_while(|target| target.block < end)
            .any(|target| target.depth <= level + 1)
    }

    fn inner_node(
        &self,
        level: u8,
        base: u64,
        children: &Children,
        memo: Option<Address>,
    ) -> Unwritten {
        let newest = children.iter().map(Child::newest).max().unwrap_or_default();
        let missing = children.iter().any(Child::has_missing);
        let allocated = children.iter().map(Child::allocated).sum();
        let bytes = encode_inner(level, base, children, self.sink.counts());
        Unwritten { bytes, newest, missing, allocated, memo }
    }

    fn write_one(&mut self, node: Unwritten) -> Result<Child> {
        let mut children = vec![Child::Absent];
        self.write_batch(&mut vec![(0, node)], &mut children)?;
        Ok(children[0])
    }

    fn write_batch(
        &mut self,
        batch: &mut Vec<(usize, Unwritten)>,
        children: &mut Children,
    ) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut nodes = Vec::with_capacity(batch.len());
        let mut refs = Vec::with_capacity(batch.len());
        for (i, node) in batch.drain(..) {
            let crc = crc32c(&node.bytes);
            let child = NodeRef {
                address: Address(0),
                length: node.bytes.len() as u32,
                crc,
                newest: node.newest,
                missing: node.missing,
                allocated: node.allocated,
            };
            refs.push((i, child, node.memo));
            nodes.push(node.bytes);
        }
        let addresses = self.sink.write_nodes(nodes)?;
        for ((i, child, memo), address) in refs.into_iter().zip(addresses) {
            let child = Child::Node(NodeRef { address, ..child });
            children[i] = child;
            if let Some(old) = memo {
                self.memo.insert(old, child);
            }
        }
        Ok(())
    }
}

/// A node that may still be there: the merge is put off rather than its blocks given up.
fn not_now(node: &NodeRef, stop: Stop) -> EngineError {
    let area = Area::Segment(node.address.segment());
    EngineError::Io { operation: "read", area, source: std::io::Error::other(format!("{stop:?}")) }
}

fn moved_entry(entry: &Entry, to: Address) -> Entry {
    match entry.content {
        super::Content::Data { crc, .. } => Entry::data(entry.version, to, crc),
        _ => *entry,
    }
}

/// What stands for a leaf whose blocks are all the same and occupy nothing.
fn uniform(entries: &Entries) -> Option<Child> {
    let first = entries[0];
    if !entries.iter().all(|entry| *entry == first) {
        return None;
    }
    match first {
        None => Some(Child::Absent),
        Some(entry) if entry.address().is_none() => Some(Child::of(&entry)),
        Some(_) => None,
    }
}
