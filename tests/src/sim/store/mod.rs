//! What a replica's log and map lie in, as the simulator sees it: one pool a node, twice.
//!
//! ```text
//!                     Pool
//!        ______________|______________
//!       |                             |
//!    ModelPool                    EnginePool
//!    ordered maps: fast,          the real engine on its memory disk, with small
//!    for most seeds               segments: recovery, reclaim, torn writes
//!                                 (in a `MirroredPool`: with a ModelPool beside it, whose word
//!                                 the engine's is compared with at each opening and read)
//! ```
//! Both keep one log for all replicas of the node. What was appended is with the kernel: it
//! survives `kill -9`, while a power cut takes whatever was not synced, in the log's order.

mod engine;
mod mirrored;
mod model;

use mooring_replication::{Found, Opened, Query, ReadFault};
use mooring_terms::{BlockIndex, BlockRange, Entry, Extent, Record, Sequence, SliceId, Version};

pub use model::ModelPool;

use super::Violation;
use super::prng::Prng;

/// Why a pool didn't take an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendFault {
    /// The disk failed, now or earlier.
    Failed,
    /// There was no space, though every entry was promised it.
    NoSpace,
}

/// A pool of so many segments on the real engine, whose disk loses and tears as `seed` says; beside
/// it the model of what it should hold. After one of `crash_every` appends a copy of it loses its
/// power.
#[must_use]
pub fn engine_pool(seed: u64, segments: u64, crash_every: u64) -> Box<dyn Pool> {
    let engine = engine::EnginePool::new(seed, segments);
    Box::new(mirrored::MirroredPool::new(engine, seed, crash_every))
}

/// One node's pool, over all of the node's restarts.
pub trait Pool {
    /// Opens the pool anew, as a daemon does that starts: what the last one left is recovered.
    /// Gives whether the pool could be opened.
    fn open(&mut self) -> bool;

    /// `kill -9`: whatever was appended stays.
    fn kill(&mut self);

    /// A power cut: of what was not synced, some prefix stays, and the rest is gone.
    fn cut(&mut self, prng: &mut Prng);

    /// The replicas that are here.
    fn slices(&self) -> Vec<SliceId>;

    /// A new, empty replica.
    fn create(&mut self, slice: SliceId);

    /// Takes a replica away.
    fn remove(&mut self, slice: SliceId);

    /// What the replica begins with; `kept` is not the pool's to know.
    fn recovered(&self, slice: SliceId) -> Opened;

    /// Appends to the log of a slice.
    ///
    /// # Errors
    /// [`AppendFault`].
    fn append(&mut self, slice: SliceId, entries: &[Entry]) -> Result<(), AppendFault>;

    /// Makes durable whatever was appended. False if that failed, for good.
    fn sync(&mut self) -> bool;

    /// The last records up to here need not be found any more.
    fn committed(&mut self, slice: SliceId, sequence: Sequence);

    /// The blocks of a range.
    ///
    /// # Errors
    /// [`ReadFault`].
    fn read(&mut self, slice: SliceId, range: BlockRange) -> Result<Vec<Extent>, ReadFault>;

    /// Searches the map.
    ///
    /// # Errors
    /// [`ReadFault`].
    fn query(
        &mut self,
        slice: SliceId,
        query: Query,
        from: BlockIndex,
        limit_blocks: u64,
    ) -> Result<Found, ReadFault>;

    /// Records after `after`.
    fn records(&mut self, slice: SliceId, after: Sequence, limit_bytes: u64) -> Vec<Record>;

    /// Sets space aside; gives what was asked for, or 0.
    fn reserve(&mut self, slice: SliceId, bytes: u64) -> u64;

    /// Gives space back.
    fn release(&mut self, slice: SliceId, bytes: u64);

    /// Whether the pool has all of its space taken away from now on (what is promised stays so).
    fn fill(&mut self, full: bool);

    /// Flips a bit of a stored block, if one of `candidates` is stored. Gives which.
    fn rot(&mut self, slice: SliceId, candidates: &[BlockIndex]) -> Option<BlockIndex>;

    /// The next write or sync fails, and so the pool, until it is opened anew.
    fn fail_next(&mut self, sync: bool);

    /// Housekeeping that the real engine does on threads of its own: checkpoints, reclaim.
    fn tend(&mut self);

    /// Goes on with housekeeping until reclaim is under way, and lets so many more operations of the
    /// disk happen: then nothing works until the power is cut. False if there is nothing to reclaim.
    fn reclaim_and_stop(&mut self, _operations: u64) -> bool {
        false
    }

    /// How often a segment has been written again from its start.
    fn reused(&self) -> u64 {
        0
    }

    /// What takes the pool's space, for people.
    fn describe(&self) -> String {
        String::new()
    }

    /// How many copies of the disk have lost their power since this was last asked: in all, and in the
    /// middle of reclaim.
    fn crash_points(&mut self) -> [u64; 2] {
        [0; 2]
    }

    /// What the pool has done wrong since it was last asked, if it can tell.
    fn complaint(&mut self) -> Option<Violation> {
        None
    }
}

/// One block of one replica, as it can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// Without its version: the engine keeps none for what was discarded and never written.
    Hole,
    /// Its version and its checksum.
    Data(Version, u32),
    /// Nobody knows what it holds.
    Missing,
    /// It can't be read.
    Unreadable(ReadFault),
}

impl Block {
    /// The block `wanted` among what was read.
    #[must_use]
    pub fn of(extents: &[Extent], wanted: BlockIndex) -> Self {
        match extents.iter().find(|extent| extent.range().contains(wanted)) {
            Some(Extent::Hole { .. }) => Self::Hole,
            Some(Extent::Data { version, first, data }) => {
                let at = usize::try_from(wanted.0 - first.0).expect("few blocks");
                Self::Data(*version, data.crcs()[at])
            }
            Some(Extent::Missing { .. }) | None => Self::Missing,
        }
    }
}

/// Reads one block, to compare it.
pub fn look(pool: &mut dyn Pool, slice: SliceId, block: BlockIndex) -> Block {
    match pool.read(slice, BlockRange::new(block, 1)) {
        Err(fault) => Block::Unreadable(fault),
        Ok(extents) => Block::of(&extents, block),
    }
}
