//! Checkpoints: layers into trees, then everything that roll-forward builds on, then a slot.
//!
//! ```text
//!   freeze     under the log's lock: seal every layer, note the position        (no I/O)
//!   merge      replica by replica, a chunk of blocks a step; install its roots  (nodes into the log)
//!   body       replicas, segments, dropped trees                                (chunks into the log)
//!   sync       O3                     slot, sync   O4                     free what O5 allows
//! ```
//! Writes go on meanwhile into fresh layers; what they log lies behind the noted position and is
//! rolled forward. A checkpoint that can't be finished (no space) is abandoned: the roots it has
//! installed are as good as the ones before.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mooring_terms::{SliceId, Version, crc32c};
use parking_lot::Mutex;

use crate::address::{Address, AddressMap};
use crate::disk::Area;
use crate::format::body::{Body, ReplicaBody, SnapshotBody};
use crate::format::record::{Logged, Operation};
use crate::format::{ChunkRef, MAX_CHUNKS, Slot};
use crate::log::Piece;
use crate::maintenance::{Grave, Maintenance};
use crate::map::{Child, Layer, MAX_BLOCKS, Merge, NodeRef, NodeSink, Root, Shadow, Target};
use crate::mutation::{Mutation, is_on};
use crate::pool::{Nodes, Pool};
use crate::replica::{Replica, ReplicaState, Sealed};
use crate::space::{Class, SegmentState, node_weight};
use crate::trash::Dropped;
use crate::{EngineError, LogNumber, Result, SegmentId};

/// Points and ranges merged in one step.
const STEP_ITEMS: usize = 2048;

/// A checkpoint under way.
pub(crate) struct Checkpointing {
    number: u64,
    roll_from: LogNumber,
    roll_at: Address,
    roll_use: u32,
    work: VecDeque<Work>,
    done: Vec<ReplicaBody>,
    targets: Vec<Target>,
    emptied: HashSet<SegmentId>,
    /// Segments whose nodes are written anew: the emptied ones, and the one that reclaim is at,
    /// since what it has listed so far is in `targets`.
    leaving: HashSet<SegmentId>,
    /// Live bytes a segment as of the freeze, with what the merges change.
    live: Mutex<Vec<u64>>,
    dropped: Mutex<Vec<Dropped>>,
    began_at: u64,
    own_bytes: u64,
}

/// One replica to be merged.
struct Work {
    replica: Arc<Replica>,
    body: ReplicaBody,
    layers: Vec<Sealed>,
    /// How many of `layers` each of the body's snapshots has over its root.
    counts: Vec<usize>,
    targets: Vec<Target>,
    memo: AddressMap<Child>,
    /// What the snapshots without layers became, by place in the body.
    moved_roots: BTreeMap<usize, Root>,
    /// The live tree after 0, 1, 2... layers.
    roots: Vec<Root>,
    /// The tree in the middle of a layer, and where to go on.
    current: Option<(Root, u64)>,
}

struct Sink<'a> {
    pool: &'a Pool,
    slice: SliceId,
    checkpoint: &'a Checkpointing,
}

impl NodeSink for Sink<'_> {
    fn write_nodes(&self, nodes: Vec<Vec<u8>>) -> Result<Vec<Address>> {
        let pieces: Vec<Piece> = nodes
            .into_iter()
            .map(|bytes| internal_piece(self.slice, Operation::Node(bytes.into())))
            .collect();
        let placed = self.pool.write_internal(&pieces)?;
        let mut live = self.checkpoint.live.lock();
        let mut space = self.pool.core.space.lock();
        let weigh = |placed: &crate::log::Placed| {
            let weight = u64::from(placed.bytes).next_multiple_of(8);
            live[placed.meta.segment().0 as usize] += weight;
            space.add(placed.meta.segment(), weight);
            placed.meta
        };
        Ok(placed.iter().map(weigh).collect())
    }

    fn free_block(&self, address: Address) {
        self.free(address.segment(), crate::space::BLOCK_WEIGHT);
    }

    fn free_node(&self, node: &NodeRef) {
        self.free(node.address.segment(), node_weight(node.length));
    }

    fn drop_tree(&self, dropped: Dropped) {
        self.checkpoint.dropped.lock().push(dropped);
    }

    fn translate(&self, address: Address) -> Address {
        self.pool.moved.read().translate(address)
    }

    fn counts(&self) -> bool {
        self.pool.core.counts()
    }

    fn leaves(&self, segment: SegmentId) -> bool {
        self.checkpoint.leaving.contains(&segment)
    }
}

impl Sink<'_> {
    fn free(&self, segment: SegmentId, bytes: u64) {
        let mut live = self.checkpoint.live.lock();
        let place = &mut live[segment.0 as usize];
        *place = place.saturating_sub(bytes);
        self.pool.core.space.lock().free(segment, bytes);
    }
}

fn internal_piece(slice: SliceId, operation: Operation) -> Piece {
    Piece::new(&Logged { slice, version: Version::ZERO, operation, state: None }, Vec::new())
}

impl Pool {
    /// Logs records of the pool's own, from its reserve.
    pub(crate) fn write_internal(&self, pieces: &[Piece]) -> Result<Vec<crate::log::Placed>> {
        let bytes = pieces.iter().map(Piece::bytes).sum();
        let mut log = self.log.lock();
        self.core.check()?;
        {
            let space = self.core.space.lock();
            let room = self.core.superblock.segment_bytes
                - log.offset.min(self.core.superblock.segment_bytes);
            if bytes > room && !space.has_room(Class::Internal, bytes) {
                return Err(EngineError::NoSpace { wanted: bytes, free: 0 });
            }
        }
        let (placed, hints) = log.write(&self.core, pieces, false)?;
        drop(log);
        hints.tell(&self.core);
        Ok(placed)
    }

    /// The freeze: short, without I/O.
    pub(crate) fn begin_checkpoint(&self, m: &mut Maintenance) {
        let number = m.slots[0].max(m.slots[1]) + 1;
        let log = self.log.lock();
        self.snapshot_removed.store(false, Ordering::Relaxed);
        let mut dropped = Vec::new();
        for grave in self.graves.lock().drain(..) {
            self.bury(&grave, &mut dropped);
        }
        let mut targets = self.moved.write().take_targets();
        targets.sort_by_key(|target| (target.slice, target.block, target.depth));
        let emptied: HashSet<SegmentId> = m.emptied.drain(..).collect();
        let leaving = emptied.iter().copied().chain(m.reclaim.as_ref().map(|r| r.victim)).collect();
        let (mut work, mut done) = (VecDeque::new(), Vec::new());
        for replica in self.replicas.read().values() {
            let of_slice = |target: &Target| target.slice.cmp(&replica.slice);
            let start = targets.partition_point(|target| of_slice(target).is_lt());
            let end = targets.partition_point(|target| of_slice(target).is_le());
            let mut state = replica.inner.write();
            self.drop_dying(&mut state, &mut dropped);
            state.seal();
            let (body, counts) = capture(replica.slice, &state);
            if state.sealed.is_empty() && start == end {
                done.push(body);
            } else {
                let (layers, root) = (state.sealed.clone(), state.root);
                drop(state);
                work.push_back(Work {
                    replica: replica.clone(),
                    body,
                    layers,
                    counts,
                    targets: targets[start..end].to_vec(),
                    memo: AddressMap::default(),
                    moved_roots: BTreeMap::new(),
                    roots: Vec::new(),
                    current: Some((root, 0)),
                });
            }
        }
        let mut space = self.core.space.lock();
        for segment in &emptied {
            space.evacuated(*segment, number);
        }
        let live = space.segments().iter().map(|segment| segment.live).collect();
        drop(space);
        m.begun_at = log.appended_bytes;
        m.checkpoint = Some(Box::new(Checkpointing {
            number,
            roll_from: log.next,
            roll_at: log.position(),
            roll_use: log.use_count,
            work,
            done,
            targets,
            emptied,
            leaving,
            live: Mutex::new(live),
            dropped: Mutex::new(dropped),
            began_at: log.appended_bytes,
            own_bytes: 0,
        }));
        if is_on(Mutation::ReuseTooEarly) {
            self.free_emptied(m);
        }
    }

    /// Gives up all trees and layers of a removed replica.
    fn bury(&self, grave: &Grave, dropped: &mut Vec<Dropped>) {
        let mut state = grave.replica.inner.write();
        state.seal();
        let moved = self.moved.read();
        let mut space = self.core.space.lock();
        for sealed in &state.sealed {
            self.layer_bytes.fetch_sub(sealed.layer.bytes(), Ordering::Relaxed);
            let mut uppers = Vec::new();
            sealed.layer.uppers(0, MAX_BLOCKS, usize::MAX, &mut uppers);
            for address in uppers.iter().filter_map(|upper| upper.entry.address()) {
                space.free_block(moved.translate(address));
            }
        }
        for pinned in state.pinned.values() {
            space.free(pinned.record.segment(), u64::from(pinned.bytes));
        }
        drop((moved, space));
        self.drop_chain(&state, dropped);
    }

    fn drop_chain(&self, state: &ReplicaState, dropped: &mut Vec<Dropped>) {
        let mut chain: Vec<Root> = state.snapshots.values().map(|(_, s)| s.root).collect();
        chain.push(state.root);
        for i in (0..chain.len()).rev() {
            let below = i.checked_sub(1).map(|below| chain[below]);
            self.drop_root(&chain[i], [below, None], dropped);
        }
    }

    /// Takes removed snapshots out of the chain, each compared with its neighbours.
    fn drop_dying(&self, state: &mut ReplicaState, dropped: &mut Vec<Dropped>) {
        while let Some((order, root)) = state
            .snapshots
            .iter()
            .find(|(_, (_, snapshot))| snapshot.dying)
            .map(|(order, (_, snapshot))| (*order, snapshot.root))
        {
            let before = state.snapshots.range(..order).next_back().map(|(_, (_, s))| s.root);
            let after = state.snapshots.range(order.next()..).next().map(|(_, (_, s))| s.root);
            self.drop_root(&root, [before, Some(after.unwrap_or(state.root))], dropped);
            state.snapshots.remove(&order);
        }
    }

    /// One step of the checkpoint under way.
    pub(crate) fn advance_checkpoint(&self, m: &mut Maintenance) -> Result<()> {
        let Some(mut checkpoint) = m.checkpoint.take() else { return Ok(()) };
        let appended = self.log.lock().appended_bytes;
        let result = self.checkpoint_step(m, &mut checkpoint);
        checkpoint.own_bytes += self.log.lock().appended_bytes - appended;
        match result {
            Ok(true) => {
                m.begun_at = checkpoint.began_at + checkpoint.own_bytes;
                Ok(())
            }
            Ok(false) => {
                m.checkpoint = Some(checkpoint);
                Ok(())
            }
            Err(error) => {
                // Abandoned: what it was to rewrite stays to be rewritten.
                self.moved.write().put_back(std::mem::take(&mut checkpoint.targets));
                for segment in checkpoint.emptied.drain() {
                    // Emptied it is, but as of no checkpoint yet.
                    self.core.space.lock().set_state(segment, SegmentState::Closed);
                    m.emptied.push(segment);
                }
                m.trash.extend(checkpoint.dropped.lock().drain(..));
                Err(error)
            }
        }
    }

    fn checkpoint_step(&self, m: &mut Maintenance, c: &mut Checkpointing) -> Result<bool> {
        let Some(mut work) = c.work.pop_front() else {
            self.finish_checkpoint(m, c)?;
            return Ok(true);
        };
        let finished = self.merge_step(c, &mut work)?;
        if finished {
            c.done.push(self.install(work));
        } else {
            c.work.push_front(work);
        }
        Ok(false)
    }

    /// Merges one chunk of one replica; says whether it is through.
    fn merge_step(&self, c: &Checkpointing, work: &mut Work) -> Result<bool> {
        let source = Nodes::now(&self.core);
        let sink = Sink { pool: self, slice: work.body.slice, checkpoint: c };
        let nothing = Layer::default();
        let batch_bytes = (self.core.superblock.segment_bytes / 16).min(256 << 10) as usize;
        if work.roots.is_empty() {
            // What relocation alone changes: snapshots first, oldest first, then live, all sharing.
            for i in 0..work.counts.len() {
                if work.counts[i] == 0 && !work.targets.is_empty() {
                    let mut merge = Merge {
                        source: &source,
                        sink: &sink,
                        layer: &nothing,
                        targets: &work.targets,
                        memo: &mut work.memo,
                        batch_bytes,
                        window: (0, MAX_BLOCKS),
                    };
                    let root = merge.run(work.body.snapshots[i].root, Shadow::None)?;
                    work.moved_roots.insert(i, root);
                }
            }
            let base = work.body.root;
            let root = if work.layers.is_empty() {
                let mut merge = Merge {
                    source: &source,
                    sink: &sink,
                    layer: &nothing,
                    targets: &work.targets,
                    memo: &mut work.memo,
                    batch_bytes,
                    window: (0, MAX_BLOCKS),
                };
                // What a snapshot shares it has rewritten above; the rest is live's alone.
                merge.run(base, Shadow::None)?
            } else {
                base
            };
            work.roots.push(root);
            return Ok(work.layers.is_empty());
        }
        let index = work.roots.len() - 1;
        let layer = work.layers[index].layer.clone();
        let (root, from) = work.current.take().unwrap_or((work.roots[index], 0));
        let to = layer.chunk_end(from, STEP_ITEMS, 256).unwrap_or(MAX_BLOCKS);
        let shadow = work.shadow(index);
        let mut merge = Merge {
            source: &source,
            sink: &sink,
            layer: &layer,
            targets: if index == 0 { &work.targets } else { &[] },
            memo: &mut work.memo,
            batch_bytes,
            window: (from, to),
        };
        let root = merge.run(root, Shadow::of(shadow))?;
        if to < MAX_BLOCKS {
            work.current = Some((root, to));
            return Ok(false);
        }
        work.roots.push(root);
        Ok(work.roots.len() > work.layers.len())
    }

    /// Puts what a replica's trees became in their place.
    fn install(&self, mut work: Work) -> ReplicaBody {
        let old = work.body.root;
        for (i, snapshot) in work.body.snapshots.iter_mut().enumerate() {
            match work.counts[i] {
                0 => snapshot.root = work.moved_roots.get(&i).copied().unwrap_or(snapshot.root),
                count => snapshot.root = work.roots[count],
            }
        }
        let root = *work.roots.last().expect("there is a root for no layers");
        work.body.root = root;
        let mut state = work.replica.inner.write();
        let merged = work.layers.len();
        for (order, (_, snapshot)) in &mut state.snapshots {
            let frozen = work.body.snapshots.iter().position(|found| found.order == *order);
            let count = snapshot.layers.len().min(merged);
            if count > 0 {
                snapshot.root = work.roots[count];
                snapshot.layers.drain(..count);
            } else if let Some(i) = frozen {
                snapshot.root = work.body.snapshots[i].root;
            } else if snapshot.root == old {
                // Taken since the freeze, when nothing lay over the tree.
                snapshot.root = work.roots[0];
            }
        }
        state.root = root;
        let bytes: usize = state.sealed.drain(..merged).map(|sealed| sealed.layer.bytes()).sum();
        self.layer_bytes.fetch_sub(bytes, Ordering::Relaxed);
        work.body
    }

    fn finish_checkpoint(&self, m: &mut Maintenance, c: &mut Checkpointing) -> Result<()> {
        let mut segments = self.core.space.lock().segments().to_vec();
        for (segment, live) in segments.iter_mut().zip(&*c.live.lock()) {
            segment.live = *live;
        }
        c.done.sort_by_key(|body| body.slice);
        let dropped: Vec<Dropped> =
            m.trash.iter().copied().chain(c.dropped.lock().iter().copied()).collect();
        let body = Body { replicas: std::mem::take(&mut c.done), segments, dropped };
        let bytes = body.encode(self.core.counts());
        let chunks = self.write_body(&bytes)?;
        if !is_on(Mutation::SlotBeforeNodes) {
            // O3: nodes, body and the log before them.
            self.sync()?;
        }
        let slot = Slot {
            number: c.number,
            tag: self.core.superblock.tag,
            roll_from: c.roll_from,
            roll_at: c.roll_at,
            roll_use: c.roll_use,
            roll_opening: self.core.opening,
            openings: self.core.openings,
            durable: self.durable(),
            body_bytes: bytes.len() as u64,
            chunks,
        };
        self.write_slot(m, slot)?;
        self.moved.write().forget(&c.targets);
        m.trash.extend(c.dropped.lock().drain(..));
        self.free_emptied(m);
        Ok(())
    }

    fn write_body(&self, bytes: &[u8]) -> Result<Vec<ChunkRef>> {
        let most = self.core.record_limit() as usize / 4;
        let size = bytes.len().div_ceil(MAX_CHUNKS - 1).max(most.min(256 << 10));
        assert!(size <= most, "segments are too small for a pool with so many replicas");
        let mut chunks = Vec::new();
        for chunk in bytes.chunks(size) {
            let operation = Operation::Chunk(bytes::Bytes::copy_from_slice(chunk));
            let placed = self.write_internal(&[internal_piece(SliceId::default(), operation)])?;
            let address = placed[0].meta;
            chunks.push(ChunkRef { address, length: chunk.len() as u32, crc: crc32c(chunk) });
        }
        Ok(chunks)
    }

    /// Writes a slot over the older one.
    fn write_slot(&self, m: &mut Maintenance, slot: Slot) -> Result<()> {
        let place = usize::from(m.slots[0] > m.slots[1]);
        let area = Area::Checkpoint(place as u8);
        self.core.write(area, 0, &[IoSlice::new(&slot.encode())])?;
        // O4
        self.core.sync(area)?;
        m.slots[place] = slot.number;
        m.newest = Some(slot);
        Ok(())
    }

    /// O5: brings the older slot up to the newer one, so that segments emptied before can be freed.
    pub(crate) fn write_second_slot(&self, m: &mut Maintenance) -> Result<()> {
        if let Some(mut slot) = m.newest.clone() {
            slot.number += 1;
            self.write_slot(m, slot)?;
            self.free_emptied(m);
        }
        Ok(())
    }
}

impl Work {
    /// The tree of the newest snapshot beneath the layer at `index`.
    fn shadow(&self, index: usize) -> Option<Root> {
        let newest = (0..self.counts.len()).rev().find(|i| self.counts[*i] <= index)?;
        match self.counts[newest] {
            0 => Some(self.body.snapshots[newest].root),
            count => Some(self.roots[count]),
        }
    }
}

fn capture(slice: SliceId, state: &ReplicaState) -> (ReplicaBody, Vec<usize>) {
    let snapshots = state.snapshots.values().map(|(id, snapshot)| SnapshotBody {
        id: *id,
        order: snapshot.order,
        version: snapshot.version,
        root: snapshot.root,
    });
    let counts = state.snapshots.values().map(|(_, snapshot)| snapshot.layers.len()).collect();
    let body = ReplicaBody {
        slice,
        gathering: state.gathering,
        damaged: state.damaged,
        last: state.last,
        committed: state.committed,
        state: state.state.clone(),
        root: state.root,
        snapshots: snapshots.collect(),
        pinned: state.pinned.iter().map(|(sequence, pinned)| (*sequence, *pinned)).collect(),
    };
    (body, counts)
}
