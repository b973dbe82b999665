//! What a replica's log and map lie in, as the simulator sees it: one pool a node, twice.
//!
//! ```text
//!                     Pool
//!        ______________|______________
//!       |                             |
//!    ModelPool                    EnginePool
//!    ordered maps: fast,          the real engine on its memory disk, with small
//!    for most seeds               segments: recovery, reclaim, torn writes
//! ```
//! Both keep one log for all replicas of the node. What was appended is with the kernel: it
//! survives `kill -9`, while a power cut takes whatever was not synced, in the log's order.

mod engine;
mod model;

use mooring_replication::{Found, Opened, Query, ReadFault};
use mooring_terms::{BlockIndex, BlockRange, Entry, Extent, Record, Sequence, SliceId};

pub use model::ModelPool;

use super::prng::Prng;

/// Why a pool didn't take an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendFault {
    /// The disk failed, now or earlier.
    Failed,
    /// There was no space, though every entry was promised it.
    NoSpace,
}

/// A pool on the real engine, whose disk loses and tears as `seed` says.
#[must_use]
pub fn engine_pool(seed: u64) -> Box<dyn Pool> {
    Box::new(engine::EnginePool::new(seed))
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
}
