//! The pool: what all its parts share, and the small operations.
//!
//! ```text
//!   Pool ── core         disk, segments and space, node cache, durable position, poison
//!        ├─ log          the head: who holds it writes (never across a sync)
//!        ├─ replicas     slice -> replica (map layers, snapshots, pinned records)
//!        ├─ moved        reclaim's moves that the maps don't show yet
//!        ├─ commit       who syncs, who waits
//!        └─ maintenance  checkpoint, reclaim, freeing: one step at a time
//! ```
//! Locks are taken in this order, and none is held while waiting for a sync or by a reader while it
//! reads the disk: maintenance, log, replicas, one replica, moved, space, cache.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use mooring_terms::{Sequence, SliceId, SnapshotId, Version};
use parking_lot::{Mutex, RwLock};

use crate::address::Address;
use crate::disk::{Area, Disk};
use crate::format::Superblock;
use crate::format::node::Node;
use crate::format::record::{Logged, Operation};
use crate::log::{Log, Piece, Placed};
use crate::maintenance::{Grave, Maintenance};
use crate::map::{Cache, Entry, Moved, NodeRef, NodeSource, Stop};
use crate::mutation::{Mutation, is_on};
use crate::replica::{Effects, Replica, ReplicaState};
use crate::space::{BLOCK_WEIGHT, Class, Space};
use crate::sync::Commit;
use crate::{EngineError, LogNumber, Result, SegmentId};

/// How a pool is made.
#[derive(Clone, Debug)]
pub struct FormatOptions {
    /// Bytes that the pool may take, at most what the disk has.
    pub size_bytes: u64,
    /// Bytes a segment, a multiple of 4,096 and at least 64 KiB.
    pub segment_bytes: u64,
    /// Tells this pool from every other: random, or a pool's identity.
    pub tag: u64,
}

impl FormatOptions {
    /// A pool of `size_bytes` in segments of 64 MiB, smaller in one too small for 128 of those.
    #[must_use]
    pub fn new(size_bytes: u64, tag: u64) -> Self {
        let mut segment_bytes = 64 << 20;
        while segment_bytes > 4 << 20 && size_bytes / segment_bytes < 128 {
            segment_bytes /= 2;
        }
        while segment_bytes > 1 << 20 && size_bytes / segment_bytes < 32 {
            segment_bytes /= 2;
        }
        Self { size_bytes, segment_bytes, tag }
    }
}

/// How a pool is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Bytes for map updates and cached map nodes together.
    pub memory_bytes: usize,
    /// A checkpoint is made when so many bytes were logged since the last one: what an opening
    /// has to read at most, more or less.
    pub checkpoint_bytes: u64,
    /// A number that no earlier opening had: random, or from a seed.
    pub opening: u64,
    /// New segments are zeroed ahead of their first use.
    pub zero_ahead: bool,
    /// The nodes of its maps may say how many blocks lie beneath them: see [`Pool::write_counts`].
    pub counts: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            checkpoint_bytes: 512 << 20,
            opening: 0,
            zero_ahead: true,
            counts: true,
        }
    }
}

/// A replica, as its pool knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaInfo {
    /// Its last numbered record; the next one has the next sequence.
    pub last: Version,
    /// The opaque state that came with it.
    pub state: Bytes,
    /// Records up to here may have been forgotten.
    pub committed: Sequence,
    /// Rot has cost it records that were durable: it can't be elected and must rejoin.
    pub damaged: bool,
    /// Its snapshots, oldest first.
    pub snapshots: Vec<SnapshotId>,
}

/// What a pool holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The pool's size.
    pub size: u64,
    /// The most that data can take of it; the rest is for the log's own work.
    pub usable: u64,
    /// What replicas and snapshots occupy, with their maps.
    pub live: u64,
    /// Promised, not yet used.
    pub reserved: u64,
    /// What could still be promised.
    pub free: u64,
    /// Segments in all, and free ones.
    pub segments: u32,
    /// Segments that can be written.
    pub free_segments: u32,
    /// Segments whose records can't all be read; they are left alone.
    pub quarantined_segments: u32,
    /// How often a segment has been written again from its start.
    pub reused_segments: u64,
    /// Memory for map updates and cached nodes, now.
    pub memory: u64,
}

/// What the pool's parts share.
pub(crate) struct Core {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) superblock: Superblock,
    pub(crate) options: OpenOptions,
    pub(crate) opening: u32,
    /// How often the pool was opened, this time included.
    pub(crate) openings: u64,
    pub(crate) space: Mutex<Space>,
    pub(crate) cache: Cache,
    /// The highest log number known durable.
    pub(crate) durable: AtomicU64,
    poisoned: AtomicBool,
    counts: AtomicBool,
    /// Raised whenever segments are freed; when each was freed last.
    pub(crate) moment: AtomicU64,
    pub(crate) freed_at: Vec<AtomicU64>,
}

impl Core {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        superblock: Superblock,
        options: OpenOptions,
        openings: u64,
        space: Space,
    ) -> Self {
        // With the count in it, even a caller that always says the same gets different numbers.
        let count = (openings as u32).wrapping_mul(0x9e37_79b9);
        let folded = (options.opening ^ (options.opening >> 32)) as u32 ^ count;
        let cache = Cache::new(options.memory_bytes / 2);
        let counts = AtomicBool::new(options.counts);
        let freed_at = (0..superblock.segments).map(|_| AtomicU64::new(0)).collect();
        Self {
            disk,
            superblock,
            opening: folded,
            openings,
            options,
            space: Mutex::new(space),
            cache,
            durable: AtomicU64::new(0),
            poisoned: AtomicBool::new(false),
            counts,
            moment: AtomicU64::new(1),
            freed_at,
        }
    }

    /// Latches: nothing is written any more.
    pub(crate) fn poison(&self, reason: &str) {
        if !self.poisoned.swap(true, Ordering::SeqCst) {
            tracing::error!(reason, "the pool takes no more writes");
        }
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::SeqCst)
    }

    /// Whether what is written may have counts in it.
    pub(crate) fn counts(&self) -> bool {
        self.counts.load(Ordering::Relaxed)
    }

    /// # Errors
    /// [`EngineError::Poisoned`].
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_poisoned() { Err(EngineError::Poisoned) } else { Ok(()) }
    }

    pub(crate) fn write(&self, area: Area, at: u64, parts: &[io::IoSlice<'_>]) -> Result<()> {
        self.check()?;
        self.disk.write(area, at, parts).map_err(|source| {
            self.poison("a write failed");
            EngineError::Io { operation: "write", area, source }
        })
    }

    pub(crate) fn sync(&self, area: Area) -> Result<()> {
        self.check()?;
        self.disk.sync(area).map_err(|source| {
            self.poison("a sync failed");
            EngineError::Io { operation: "sync", area, source }
        })
    }

    pub(crate) fn read(&self, area: Area, offset: u64, out: &mut [u8]) -> Result<()> {
        self.disk.read(area, offset, out).map_err(|source| EngineError::Io {
            operation: "read",
            area,
            source,
        })
    }

    /// Gives a segment its space.
    pub(crate) fn prepare(&self, segment: SegmentId) -> Result<()> {
        let (area, bytes) = (Area::Segment(segment), self.superblock.segment_bytes);
        self.disk.prepare(area, bytes, false).map_err(|source| {
            if source.kind() == io::ErrorKind::StorageFull {
                EngineError::NoSpace { wanted: bytes, free: 0 }
            } else {
                self.poison("a segment could not be allocated");
                EngineError::Io { operation: "allocation", area, source }
            }
        })
    }

    /// O8: whether `address` may have been overwritten since `moment`.
    pub(crate) fn freed_since(&self, address: Address, moment: u64) -> bool {
        self.freed_at
            .get(address.segment().0 as usize)
            .is_none_or(|freed| freed.load(Ordering::SeqCst) > moment)
    }

    /// The largest record.
    pub(crate) fn record_limit(&self) -> u64 {
        self.superblock.segment_bytes / 2
    }
}

/// The nodes of trees that were looked up at `moment`.
pub(crate) struct Nodes<'a> {
    core: &'a Core,
    pub(crate) moment: u64,
}

impl<'a> Nodes<'a> {
    pub(crate) fn now(core: &'a Core) -> Self {
        Self { core, moment: core.moment.load(Ordering::SeqCst) }
    }

    fn load(&self, node: &NodeRef) -> std::result::Result<Arc<Node>, Stop> {
        if u64::from(node.length) > self.core.superblock.segment_bytes {
            return Err(Stop::Unreadable);
        }
        let mut bytes = vec![0; node.length as usize];
        let area = Area::Segment(node.address.segment());
        let read = self.core.disk.read(area, node.address.offset(), &mut bytes);
        read.map_err(|_| Stop::Failed)?;
        if mooring_terms::crc32c(&bytes) != node.crc {
            return Err(Stop::Unreadable);
        }
        Node::decode(bytes.into()).map(Arc::new).ok_or(Stop::Unreadable)
    }
}

impl NodeSource for Nodes<'_> {
    fn node(&self, node: &NodeRef) -> std::result::Result<Arc<Node>, Stop> {
        if self.core.freed_since(node.address, self.moment) {
            let segments = self.core.superblock.segments;
            let known = node.address.segment().0 < segments;
            return Err(if known { Stop::Stale } else { Stop::Unreadable });
        }
        let freed = &self.core.freed_at[node.address.segment().0 as usize];
        if let Some(found) = self.core.cache.get(node.address, freed.load(Ordering::SeqCst)) {
            return Ok(found);
        }
        let loaded = self.load(node);
        if self.core.freed_since(node.address, self.moment) {
            return Err(Stop::Stale);
        }
        let loaded = loaded.inspect_err(|stop| {
            tracing::error!(address = ?node.address, ?stop, "a map node can't be had");
        })?;
        self.core.cache.put(node.address, loaded.clone(), self.moment);
        Ok(loaded)
    }
}

/// A pool: the replicas that one directory or block device holds. See the crate's documentation.
pub struct Pool {
    pub(crate) core: Core,
    pub(crate) log: Mutex<Log>,
    pub(crate) replicas: RwLock<BTreeMap<SliceId, Arc<Replica>>>,
    pub(crate) moved: RwLock<Moved>,
    pub(crate) commit: Commit,
    pub(crate) maintenance: Mutex<Maintenance>,
    /// Removed replicas whose trees are not yet given up.
    pub(crate) graves: Mutex<Vec<Grave>>,
    /// Somebody waits for space that a checkpoint may show to be free.
    pub(crate) space_wanted: AtomicBool,
    /// Bytes that fresh and sealed layers take.
    pub(crate) layer_bytes: AtomicUsize,
    /// A snapshot was removed since the last freeze: the next one may free something.
    pub(crate) snapshot_removed: AtomicBool,
}

impl Pool {
    /// The slices that have a replica here, in order.
    #[must_use]
    pub fn replicas(&self) -> Vec<SliceId> {
        self.replicas.read().keys().copied().collect()
    }

    /// A replica's position and state.
    ///
    /// # Errors
    /// [`EngineError::NoReplica`].
    pub fn replica(&self, slice: SliceId) -> Result<ReplicaInfo> {
        let replica = self.find(slice)?;
        let state = replica.inner.read();
        Ok(ReplicaInfo {
            last: state.last,
            state: state.state.clone(),
            committed: state.committed,
            damaged: state.damaged,
            snapshots: state
                .snapshots
                .values()
                .filter(|(_, snapshot)| !snapshot.dying)
                .map(|(id, _)| *id)
                .collect(),
        })
    }

    pub(crate) fn find(&self, slice: SliceId) -> Result<Arc<Replica>> {
        self.replicas.read().get(&slice).cloned().ok_or(EngineError::NoReplica(slice))
    }

    /// Makes an empty replica with an opaque state. Durable after the next [`Pool::sync`].
    ///
    /// # Errors
    /// [`EngineError::ReplicaExists`], and those of [`Pool::append`].
    pub fn create(&self, slice: SliceId, state: Bytes) -> Result<()> {
        let logged = Logged {
            slice,
            version: Version::ZERO,
            operation: Operation::Create,
            state: Some(state),
        };
        self.log_one(logged, |pool| match pool.find(slice) {
            Ok(_) => Err(EngineError::ReplicaExists(slice)),
            Err(_) => Ok(()),
        })
    }

    /// Removes a replica with its snapshots; its space comes back in the background. Durable after
    /// the next [`Pool::sync`].
    ///
    /// # Errors
    /// [`EngineError::NoReplica`], and those of [`Pool::append`].
    pub fn remove(&self, slice: SliceId) -> Result<()> {
        let logged =
            Logged { slice, version: Version::ZERO, operation: Operation::Remove, state: None };
        self.log_one(logged, |pool| pool.find(slice).map(|_| ()))?;
        self.core.space.lock().forget(slice);
        Ok(())
    }

    /// Logs a record that carries no data, if `allowed` still says so under the log's lock.
    pub(crate) fn log_one(
        &self,
        logged: Logged,
        allowed: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        let piece = Piece::new(&logged, Vec::new());
        self.check_size(piece.bytes())?;
        self.make_room(logged.slice, Class::Exempt, 0, piece.bytes())?;
        let mut log = self.log.lock();
        self.core.check()?;
        allowed(self)?;
        let (placed, _) = log.write(&self.core, &[piece], false)?;
        self.apply(&logged, &placed[0]);
        Ok(())
    }

    pub(crate) fn check_size(&self, bytes: u64) -> Result<()> {
        let limit = self.core.record_limit();
        if bytes > limit { Err(EngineError::TooLarge { bytes, limit }) } else { Ok(()) }
    }

    /// Takes a record that is in the log into the pool's state. Called with the log locked, or by
    /// recovery.
    pub(crate) fn apply(&self, logged: &Logged, placed: &Placed) {
        let slice = logged.slice;
        match &logged.operation {
            Operation::Create => {
                let state = ReplicaState::new(logged.state.clone().unwrap_or_default());
                let replica = Arc::new(Replica::new(slice, state));
                self.replicas.write().insert(slice, replica);
            }
            Operation::Remove => {
                if let Some(replica) = self.replicas.write().remove(&slice) {
                    let mut state = replica.inner.write();
                    state.removed = true;
                    drop(state);
                    self.graves.lock().push(Grave { replica });
                }
            }
            Operation::Moved(blocks) => {
                let mut moved = self.moved.write();
                let mut space = self.core.space.lock();
                let mut to = placed.data;
                for block in blocks {
                    moved.insert(slice, block.block, block.from, to);
                    space.free_block(block.from);
                    space.add(to.segment(), BLOCK_WEIGHT);
                    if is_on(Mutation::MoveOverNewer)
                        && let Some(replica) = self.replicas.read().get(&slice)
                    {
                        let entry = Entry::data(block.version, to, block.crc);
                        replica.inner.write().fresh.put(block.block, entry, true, &mut |_| {});
                    }
                    to = to.plus(mooring_terms::BLOCK_SIZE as u64);
                }
            }
            _ => {
                if matches!(logged.operation, Operation::RemoveSnapshot(_)) {
                    self.snapshot_removed.store(true, Ordering::Relaxed);
                }
                if let Ok(replica) = self.find(slice) {
                    let mut effects = Effects::default();
                    let mut state = replica.inner.write();
                    let before = state.fresh.bytes();
                    let sealed = state.sealed.len();
                    state.apply(logged, placed, &mut effects);
                    // A seal moves the fresh layer among the sealed ones; its bytes stay.
                    let kept = if state.sealed.len() > sealed { 0 } else { before };
                    let after = state.fresh.bytes();
                    drop(state);
                    if after >= kept {
                        self.layer_bytes.fetch_add(after - kept, Ordering::Relaxed);
                    } else {
                        self.layer_bytes.fetch_sub(kept - after, Ordering::Relaxed);
                    }
                    self.account(&effects);
                }
            }
        }
    }

    fn account(&self, effects: &Effects) {
        let moved = self.moved.read();
        let mut space = self.core.space.lock();
        for (address, blocks) in &effects.gained {
            space.add(address.segment(), blocks * BLOCK_WEIGHT);
        }
        for address in &effects.freed {
            space.free_block(moved.translate(*address));
        }
        // Counted beside the blocks in them: a record that is kept holds its whole place.
        for pinned in &effects.pinned {
            space.add(pinned.record.segment(), u64::from(pinned.bytes));
        }
        for pinned in &effects.unpinned {
            space.free(pinned.record.segment(), u64::from(pinned.bytes));
        }
    }

    /// Says that the slice's records up to `sequence` need not be kept: every replica has them.
    pub fn committed(&self, slice: SliceId, sequence: Sequence) {
        if let Ok(replica) = self.find(slice) {
            let unpinned = replica.inner.write().commit(sequence);
            let mut space = self.core.space.lock();
            for pinned in unpinned.values() {
                space.free(pinned.record.segment(), u64::from(pinned.bytes));
            }
        }
    }

    /// Promises space to a slice: writes against it can't meet [`EngineError::NoSpace`]. Promises
    /// end with the pool's closing.
    ///
    /// Returns how many bytes were promised, up to `bytes`.
    ///
    /// # Errors
    /// [`EngineError::NoReplica`], [`EngineError::Poisoned`].
    pub fn reserve(&self, slice: SliceId, bytes: u64) -> Result<u64> {
        self.core.check()?;
        self.find(slice)?;
        Ok(self.core.space.lock().reserve(slice, bytes))
    }

    /// Gives back `bytes` bytes of what a slice was promised.
    pub fn release(&self, slice: SliceId, bytes: u64) {
        self.core.space.lock().release(slice, bytes);
    }

    /// Lowers what a slice is promised to `bytes`, rounded up to blocks: for a holder that counts
    /// its promises otherwise than this pool does (zeros and headers, say), and knows what is left.
    pub fn keep_reserved(&self, slice: SliceId, bytes: u64) {
        self.core.space.lock().keep(slice, bytes);
    }

    /// From now on what is written says how many blocks lie beneath each node. Software from before
    /// cluster version 2 can't read that; pools of such a cluster are opened without, and every
    /// [`Pool::allocated`] then walks what was written without.
    pub fn write_counts(&self) {
        self.core.counts.store(true, Ordering::Relaxed);
    }

    /// What the pool holds.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let memory = self.layer_bytes.load(Ordering::Relaxed)
            + self.core.cache.bytes()
            + self.moved.read().bytes();
        let space = self.core.space.lock();
        let quarantined = space
            .segments()
            .iter()
            .filter(|segment| segment.state == crate::space::SegmentState::Quarantined)
            .count();
        let again =
            |segment: &crate::space::Segment| u64::from(segment.use_count.saturating_sub(1));
        let reused = space.segments().iter().map(again).sum();
        Usage {
            size: u64::from(self.core.superblock.segments) * self.core.superblock.segment_bytes,
            usable: space.usable(),
            live: space.live(),
            reserved: space.reserved(),
            free: space.available(),
            segments: self.core.superblock.segments,
            free_segments: space.free_count() as u32,
            quarantined_segments: quarantined as u32,
            reused_segments: reused,
            memory: memory as u64,
        }
    }

    /// The most payload bytes that one entry may carry; larger writes are cut by the caller. At
    /// least 1 MiB in pools of 128 MiB and more.
    #[must_use]
    pub fn max_payload_bytes(&self) -> u64 {
        // Header, state and a checksum a block take less than an eighth.
        self.core.record_limit() / 8 * 7 / 4096 * 4096
    }

    /// Whether an earlier failure has ended all writing.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.core.is_poisoned()
    }

    /// The highest log number known durable.
    #[must_use]
    pub fn durable(&self) -> LogNumber {
        LogNumber(self.core.durable.load(Ordering::Acquire))
    }

    /// The highest log number that has been appended.
    #[must_use]
    pub fn last_appended(&self) -> LogNumber {
        self.log.lock().last()
    }
}
