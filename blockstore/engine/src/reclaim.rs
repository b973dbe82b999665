//! Reclaim: copying what lives out of a segment, so that it can be written again.
//!
//! ```text
//!   victim: the closed segment with the least that lives
//!   scan    every record's header and meta: which blocks, nodes and records may still count?
//!   copy    live blocks into `moved` records (the map follows at the next checkpoint),
//!           kept records as they are; nodes are only listed: the checkpoint writes them anew
//!   emptied at the next freeze, free when both slots are past it (order O5)
//! ```
//! Whether something lives is asked of the maps, never of a counter: a block lives if a layer or a
//! tree of its slice names its address, a node if a tree reaches it there. Trees share nodes, and
//! each node is looked into once, so many snapshots cost what they differ. A victim whose records
//! can't all be read is left alone for good.

use std::collections::{BTreeMap, HashSet, VecDeque};

use bytes::Bytes;
use mooring_terms::{BLOCK_SIZE, Sequence, SliceId, Version, crc32c};

use crate::address::Address;
use crate::disk::Area;
use crate::format::node::Node;
use crate::format::record::{Logged, MovedBlock, Operation};
use crate::format::{RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use crate::log::{Found, Piece, Placed, SegmentReader};
use crate::maintenance::Maintenance;
use crate::map::{Child, Extent, NodeSource, span};
use crate::pool::{Nodes, Pool};
use crate::space::SegmentState;
use crate::{Result, SegmentId};

/// Bytes of a victim scanned in one step.
const STEP_SCAN_BYTES: u64 = 4 << 20;
/// Candidates looked up and copied in one step.
const STEP_CANDIDATES: usize = 256;
/// Blocks in one `moved` record.
const MOVED_BLOCKS: usize = 32;

/// Something in the victim that may live.
struct Candidate {
    block: u64,
    /// 0: a block; else a node of this level plus one.
    depth: u8,
    address: Address,
    version: Version,
    lives: bool,
}

/// What a slice may have in the victim.
#[derive(Default)]
struct Share {
    candidates: Vec<Candidate>,
    records: Vec<(Sequence, Address, u32)>,
}

/// A victim being emptied.
pub(crate) struct Reclaim {
    pub(crate) victim: SegmentId,
    under: (u32, u32),
    offset: u64,
    end: u64,
    shares: BTreeMap<SliceId, Share>,
    /// Filled when the scan is through: shares in pieces of bounded size.
    work: VecDeque<(SliceId, Share)>,
    scanned: bool,
}

/// Why a victim is given up.
enum Trouble {
    Unreadable,
    Engine(crate::EngineError),
}

impl From<crate::EngineError> for Trouble {
    fn from(error: crate::EngineError) -> Self {
        Self::Engine(error)
    }
}

impl Pool {
    /// One bounded step; says whether there was something to do.
    pub(crate) fn reclaim_step(&self, m: &mut Maintenance) -> Result<bool> {
        let mut reclaim = match m.reclaim.take() {
            Some(reclaim) => reclaim,
            None => match self.choose_victim(m) {
                Some(victim) => Box::new(Reclaim::new(victim)),
                None => return Ok(false),
            },
        };
        let done = if reclaim.scanned {
            self.empty_step(&mut reclaim)
        } else {
            self.scan_step(&mut reclaim).map(|()| false)
        };
        match done {
            Ok(false) => m.reclaim = Some(reclaim),
            Ok(true) => m.emptied.push(reclaim.victim),
            Err(Trouble::Unreadable) => {
                tracing::error!(segment = reclaim.victim.0, "left alone: it can't all be read");
                self.core.space.lock().set_state(reclaim.victim, SegmentState::Quarantined);
            }
            Err(Trouble::Engine(error)) => {
                m.reclaim = Some(reclaim);
                return Err(error);
            }
        }
        Ok(true)
    }

    fn choose_victim(&self, m: &Maintenance) -> Option<SegmentId> {
        let space = self.core.space.lock();
        let worth = self.core.superblock.segment_bytes / 100 * 97;
        let closed = space.segments().iter().enumerate().filter(|(i, segment)| {
            segment.state == SegmentState::Closed
                && segment.live < worth
                && !m.emptied.contains(&SegmentId(*i as u32))
        });
        closed.min_by_key(|(_, segment)| segment.live).map(|(i, _)| SegmentId(i as u32))
    }

    fn scan_step(&self, r: &mut Reclaim) -> std::result::Result<(), Trouble> {
        let (disk, segment_bytes) = (&*self.core.disk, self.core.superblock.segment_bytes);
        let mut reader = SegmentReader::new(disk, r.victim, segment_bytes);
        if r.offset == 0 {
            let (use_count, end) = {
                let space = self.core.space.lock();
                (space.get(r.victim).use_count, space.get(r.victim).end)
            };
            let header = reader.header().ok_or(Trouble::Unreadable)?;
            if header.use_count != use_count {
                return Err(Trouble::Unreadable);
            }
            r.under = (use_count, header.opening);
            r.offset = SEGMENT_HEADER_BYTES as u64;
            r.end = end;
        }
        let stop = r.offset + STEP_SCAN_BYTES;
        while r.offset < r.end && r.offset < stop {
            let found = reader.record(r.offset, r.under, false).ok_or(Trouble::Unreadable)?;
            r.note(&found);
            r.offset = found.next;
        }
        if r.offset >= r.end {
            r.scanned = true;
            r.divide();
        }
        Ok(())
    }

    /// Handles a piece of one slice's share; says whether the victim is empty.
    fn empty_step(&self, r: &mut Reclaim) -> std::result::Result<bool, Trouble> {
        let Some((slice, mut share)) = r.work.pop_front() else { return Ok(true) };
        let Ok(replica) = self.find(slice) else { return Ok(r.work.is_empty()) };
        self.mark(&replica, &mut share.candidates, r.victim);
        let live = share.candidates.iter().filter(|candidate| candidate.lives);
        let mut blocks = Vec::new();
        for candidate in live {
            match candidate.depth {
                0 => blocks.push((candidate.block, candidate.version, candidate.address)),
                depth => self.moved.write().rewrite(slice, depth - 1, candidate.block),
            }
        }
        for chunk in blocks.chunks(MOVED_BLOCKS) {
            self.copy_blocks(slice, chunk)?;
        }
        for (sequence, address, bytes) in &share.records {
            let pinned = replica.inner.read().pinned.get(sequence).copied();
            if pinned.is_some_and(|pinned| pinned.record == *address) {
                self.keep_record(*address, *bytes)?;
            }
        }
        Ok(r.work.is_empty())
    }

    /// Marks what layers and trees name.
    fn mark(&self, replica: &crate::replica::Replica, found: &mut [Candidate], victim: SegmentId) {
        let (layers, roots) = {
            let state = replica.inner.read();
            for candidate in found.iter_mut().filter(|candidate| candidate.depth == 0) {
                let upper = state.fresh.upper(candidate.block);
                self.mark_named(candidate, upper.and_then(|upper| upper.entry.address()));
            }
            let alive = || state.snapshots.values().filter(|(_, snapshot)| !snapshot.dying);
            let mut layers = state.sealed.clone();
            layers.extend(alive().flat_map(|(_, snapshot)| snapshot.layers.iter().cloned()));
            layers.sort_by_key(|sealed| sealed.number);
            layers.dedup_by_key(|sealed| sealed.number);
            let mut roots: Vec<_> = alive().map(|(_, snapshot)| snapshot.root).collect();
            roots.push(state.root);
            (layers, roots)
        };
        for sealed in layers {
            for candidate in found.iter_mut().filter(|candidate| candidate.depth == 0) {
                let upper = sealed.layer.upper(candidate.block);
                self.mark_named(candidate, upper.and_then(|upper| upper.entry.address()));
            }
        }
        let nodes = Nodes::now(&self.core);
        let mut seen = HashSet::new();
        for root in roots {
            self.mark_tree(&nodes, &root.child, (root.level, 0), found, victim, &mut seen);
        }
    }

    fn mark_named(&self, candidate: &mut Candidate, named: Option<Address>) {
        if named.is_some_and(|named| self.moved.read().translate(named) == candidate.address) {
            candidate.lives = true;
        }
    }

    fn mark_tree(
        &self,
        nodes: &Nodes<'_>,
        child: &Child,
        (level, base): (u8, u64),
        found: &mut [Candidate],
        victim: SegmentId,
        seen: &mut HashSet<Address>,
    ) {
        let start = found.partition_point(|candidate| candidate.block < base);
        let end = found.partition_point(|candidate| candidate.block < base + span(level));
        let found = &mut found[start..end];
        let Child::Node(node) = child else { return };
        if found.is_empty() || !seen.insert(node.address) {
            return;
        }
        if node.address.segment() == victim {
            for candidate in found.iter_mut() {
                candidate.lives |= candidate.depth == level + 1
                    && candidate.block == base
                    && candidate.address == node.address;
            }
        }
        if !found.iter().any(|candidate| candidate.depth <= level) {
            return;
        }
        let Ok(node) = nodes.node(node) else { return };
        if level == 0 {
            return self.mark_leaf(&node, found);
        }
        let below = span(level - 1);
        node.visit(base, base + span(level), &mut |index, count, child| {
            if count == 1 {
                let place = (level - 1, base + index * below);
                self.mark_tree(nodes, &child, place, found, victim, seen);
            }
            true
        });
    }

    fn mark_leaf(&self, leaf: &Node, found: &mut [Candidate]) {
        let mut extents: Vec<Extent> = Vec::new();
        leaf.extents(0, u64::MAX, &mut extents);
        for candidate in found.iter_mut().filter(|candidate| candidate.depth == 0) {
            let at = extents.partition_point(|extent| extent.end() <= candidate.block);
            if let Some(extent) = extents.get(at)
                && extent.first <= candidate.block
            {
                self.mark_named(candidate, extent.entry.address());
            }
        }
    }

    fn copy_blocks(
        &self,
        slice: SliceId,
        blocks: &[(u64, Version, Address)],
    ) -> std::result::Result<(), Trouble> {
        let mut bytes = vec![0; blocks.len() * BLOCK_SIZE];
        let mut moved = Vec::with_capacity(blocks.len());
        for ((block, version, from), out) in blocks.iter().zip(bytes.chunks_exact_mut(BLOCK_SIZE)) {
            let area = Area::Segment(from.segment());
            self.core.read(area, from.offset(), out).map_err(|_| Trouble::Unreadable)?;
            // Not the map's checksum: what is corrupt is copied as it is, and found by its reader.
            let crc = crc32c(out);
            moved.push(MovedBlock { block: *block, version: *version, crc, from: *from });
        }
        let operation = Operation::Moved(moved);
        let logged = Logged { slice, version: Version::ZERO, operation, state: None };
        self.log_internal(&logged, bytes.into())
    }

    /// Copies a whole record that a peer may still ask for.
    fn keep_record(&self, address: Address, bytes: u32) -> std::result::Result<(), Trouble> {
        let mut record = vec![0; bytes as usize];
        let area = Area::Segment(address.segment());
        self.core.read(area, address.offset(), &mut record).map_err(|_| Trouble::Unreadable)?;
        let kept = crate::format::record::RecordHeader::decode(&record).and_then(|header| {
            let data_at = RECORD_HEADER_BYTES + header.meta_bytes as usize;
            let logged = Logged::decode(&header, record.get(RECORD_HEADER_BYTES..data_at)?)?;
            let data = Bytes::copy_from_slice(record.get(data_at..)?);
            logged.matches(&data).then_some((logged, data))
        });
        let (logged, data) = kept.ok_or(Trouble::Unreadable)?;
        let inner = match logged.operation {
            Operation::Kept(inner) => *inner,
            _ => logged,
        };
        let (slice, version) = (inner.slice, inner.version);
        let operation = Operation::Kept(Box::new(inner));
        self.log_internal(&Logged { slice, version, operation, state: None }, data)
    }

    fn log_internal(&self, logged: &Logged, data: Bytes) -> std::result::Result<(), Trouble> {
        let placed: Vec<Placed> = self.write_internal(&[Piece::new(logged, vec![data])])?;
        self.apply(logged, &placed[0]);
        Ok(())
    }
}

impl Reclaim {
    fn new(victim: SegmentId) -> Self {
        Self {
            victim,
            under: (0, 0),
            offset: 0,
            end: 0,
            shares: BTreeMap::new(),
            work: VecDeque::new(),
            scanned: false,
        }
    }

    /// Notes what a record may hold that lives.
    fn note(&mut self, found: &Found) {
        let data = Address::new(self.victim, found.data_at);
        let record = Address::new(self.victim, self.offset);
        let version = found.header.version;
        let share = self.shares.entry(found.header.slice).or_default();
        let block = |block, version, i: usize| Candidate {
            block,
            depth: 0,
            address: data.plus((i * BLOCK_SIZE) as u64),
            version,
            lives: false,
        };
        let kept = matches!(found.logged.operation, Operation::Kept(_));
        if found.logged.numbered() || kept {
            let bytes = found.header.total_bytes() as u32;
            share.records.push((version.sequence, record, bytes));
        }
        match &found.logged.operation {
            Operation::Write(blocks) | Operation::Copy(blocks) | Operation::Repair(blocks) => {
                let stored = (0..blocks.crcs.len()).filter(|i| blocks.is_stored(*i));
                let found = stored
                    .enumerate()
                    .map(|(place, i)| block(blocks.first + i as u64, version, place));
                share.candidates.extend(found);
            }
            Operation::Moved(moved) => {
                let found = moved.iter().enumerate();
                share.candidates.extend(found.map(|(i, m)| block(m.block, m.version, i)));
            }
            Operation::Node(bytes) => {
                if let Some(node) = Node::decode(bytes.clone()) {
                    share.candidates.push(Candidate {
                        block: node.first,
                        depth: node.level + 1,
                        address: record.plus(RECORD_HEADER_BYTES as u64),
                        version: Version::ZERO,
                        lives: false,
                    });
                }
            }
            _ => {}
        }
    }

    /// Cuts the shares into pieces for one step each, ordered by block.
    fn divide(&mut self) {
        for (slice, mut share) in std::mem::take(&mut self.shares) {
            share.candidates.sort_by_key(|candidate| (candidate.block, candidate.depth));
            let mut records = Some(share.records);
            let mut rest = share.candidates;
            while !rest.is_empty() || records.is_some() {
                let later = rest.split_off(rest.len().min(STEP_CANDIDATES));
                let records = records.take().unwrap_or_default();
                self.work.push_back((slice, Share { candidates: rest, records }));
                rest = later;
            }
        }
    }
}
