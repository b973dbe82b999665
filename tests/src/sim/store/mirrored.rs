//! An engine's pool with the model of it beside, and the property of it: **a pool holds what it was
//! given.** After a `kill -9` it recovers all that was appended, after a power cut an exact prefix of
//! it with at least all that was synced, and at all times each block reads as what was last put
//! there. Reclaim, checkpoints, segments written again and the opening of a pool change none of that.
//!
//! A bit that was made to rot ends the comparison for this pool: what is found of it then is the
//! replicas' to mend.

use mooring_replication::{Found, Opened, Query, ReadFault};
use mooring_terms::{BlockIndex, BlockRange, Entry, Extent, Record, Sequence, SliceId};

use super::engine::EnginePool;
use super::model::{Logged, ModelPool};
use super::{AppendFault, Block, Pool, look};
use crate::sim::Violation;
use crate::sim::prng::Prng;
use crate::sim::workload::hot_blocks;

const PROPERTY: &str = "a pool holds what it was given";

/// Steps of housekeeping at a time.
const STEPS: u32 = 8;

/// What must be there at the next opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    All,
    Prefix,
}

/// Both pools.
pub struct MirroredPool {
    engine: EnginePool,
    model: ModelPool,
    expected: Expected,
    /// Whether the two are compared: until a bit was made to rot, or they differed.
    compared: bool,
    /// Whether something failed since the opening: then nothing says what of it is there.
    uncertain: bool,
    /// After one of so many appends and steps of housekeeping, a copy of the disk loses its power, and
    /// what can be recovered from it is compared; 0: never.
    crash_every: u64,
    prng: Prng,
    /// How many copies were tried: in all, and in the middle of reclaim.
    tried: [u64; 2],
    complaint: Option<Violation>,
}

impl MirroredPool {
    /// A model beside a new pool.
    #[must_use]
    pub fn new(engine: EnginePool, seed: u64, crash_every: u64) -> Self {
        Self {
            engine,
            model: ModelPool::default(),
            expected: Expected::All,
            compared: true,
            uncertain: false,
            crash_every,
            prng: Prng::new(seed).fork(1),
            tried: [0; 2],
            complaint: None,
        }
    }

    fn complain(&mut self, property: &'static str, text: String) {
        self.complaint.get_or_insert(Violation { property, text });
        self.compared = false;
    }

    fn mirror(&mut self, logged: Logged) {
        if self.compared {
            self.model.mirror(logged);
        }
    }

    /// Whatever the engine knows to be durable, the model may not lose either.
    fn note_durable(&mut self) {
        if self.compared && !self.uncertain && self.engine.is_durable() {
            self.model.settle();
        }
    }

    /// The machine could stop now: what would be found?
    fn crash_now_and_then(&mut self) {
        if !self.compared || self.crash_every == 0 || !self.prng.chance(1, self.crash_every) {
            return;
        }
        self.note_durable();
        self.tried[0] += 1;
        self.tried[1] += u64::from(self.engine.is_reclaiming());
        let mut copy = self.engine.crashed(self.prng.next());
        if let Err(why) = recovered(&mut copy, &self.model, Expected::Prefix) {
            self.complain(PROPERTY, format!("after a power cut at this moment: {why}"));
        }
    }
}

/// What of the model's log an engine has recovered.
fn recovered(
    engine: &mut EnginePool,
    model: &ModelPool,
    expected: Expected,
) -> Result<ModelPool, String> {
    if let Some(why) = engine.refused() {
        return Err(format!("it can't be opened: {why}"));
    }
    let slices = engine.slices();
    if let Some(slice) = slices.iter().find(|slice| engine.recovered(**slice).damaged) {
        return Err(format!("{slice} opens damaged, but nothing has rotted"));
    }
    let mut last = None;
    let found = model.prefix(expected == Expected::All, |past| {
        last = first_difference(engine, past);
        last.is_none()
    });
    found.ok_or_else(|| {
        let entries = model.unsettled();
        let last = last.unwrap_or_default();
        format!(
            "what is recovered is not what was appended ({expected:?}; {entries} entries are not \
             known durable); with all of them it differs so: {last}"
        )
    })
}

/// Whether a block is as the model has it. What was discarded and never written leaves nothing in
/// an engine, so that superseding the discard takes nothing away.
fn agree(model: &ModelPool, slice: SliceId, block: BlockIndex, found: &Block, has: &Block) -> bool {
    let nothing = (Block::Hole, Block::Missing);
    found == has
        || ((found, has) == (&nothing.0, &nothing.1) && !model.ever_held_data(slice, block))
}

/// How the engine differs from the model, if it does.
fn first_difference(engine: &mut EnginePool, model: &mut ModelPool) -> Option<String> {
    let slices = model.slices();
    if engine.slices() != slices {
        return Some(format!("{:?} are there, not {slices:?}", engine.slices()));
    }
    for slice in &slices {
        let (here, there) = (engine.recovered(*slice), model.recovered(*slice));
        if (here.last, &here.state) != (there.last, &there.state) {
            return Some(format!("{slice} ends at {}, not at {}", here.last, there.last));
        }
    }
    for slice in slices {
        for block in hot_blocks(0).map(BlockIndex) {
            let (here, there) = (look(engine, slice, block), look(model, slice, block));
            if !agree(model, slice, block, &here, &there) {
                return Some(format!("{slice}: block {block} is {here:?}, not {there:?}"));
            }
        }
    }
    None
}

impl Pool for MirroredPool {
    fn open(&mut self) -> bool {
        let opened = self.engine.open();
        self.uncertain = false;
        if self.compared {
            match recovered(&mut self.engine, &self.model, self.expected) {
                Ok(model) => self.model = model,
                Err(why) => self.complain(PROPERTY, why),
            }
        } else if let Some(why) = self.engine.refused() {
            self.complain(PROPERTY, format!("it can't be opened: {why}"));
        }
        opened
    }

    fn kill(&mut self) {
        self.note_durable();
        self.engine.kill();
        self.expected = Expected::All;
    }

    fn cut(&mut self, prng: &mut Prng) {
        self.note_durable();
        self.engine.cut(prng);
        self.expected = Expected::Prefix;
    }

    fn slices(&self) -> Vec<SliceId> {
        self.engine.slices()
    }

    fn create(&mut self, slice: SliceId) {
        self.engine.create(slice);
        self.mirror(Logged::Created(slice));
        self.uncertain |= !self.engine.slices().contains(&slice);
        self.note_durable();
    }

    fn remove(&mut self, slice: SliceId) {
        self.engine.remove(slice);
        self.mirror(Logged::Removed(slice));
        self.uncertain |= self.engine.slices().contains(&slice);
        self.note_durable();
    }

    fn recovered(&self, slice: SliceId) -> Opened {
        self.engine.recovered(slice)
    }

    fn append(&mut self, slice: SliceId, entries: &[Entry]) -> Result<(), AppendFault> {
        let result = self.engine.append(slice, entries);
        self.uncertain |= result == Err(AppendFault::Failed);
        if result != Err(AppendFault::NoSpace) {
            for entry in entries {
                self.mirror(Logged::Entry(slice, entry.clone()));
            }
        }
        self.crash_now_and_then();
        result
    }

    fn sync(&mut self) -> bool {
        let synced = self.engine.sync();
        self.uncertain |= !synced;
        if synced {
            self.model.settle();
        }
        synced
    }

    fn committed(&mut self, slice: SliceId, sequence: Sequence) {
        self.engine.committed(slice, sequence);
    }

    fn read(&mut self, slice: SliceId, range: BlockRange) -> Result<Vec<Extent>, ReadFault> {
        let result = self.engine.read(slice, range);
        for extent in result.iter().flatten() {
            if let Extent::Data { first, data, .. } = extent
                && data.first_corrupt().is_some()
            {
                let text = format!("{slice}: what is read from block {first} on is corrupt");
                self.complain("a corrupt block is never returned", text);
            }
        }
        if self.compared && result != Err(ReadFault::Failed) {
            for block in (range.first.0..range.end().0).map(BlockIndex) {
                let expected = look(&mut self.model, slice, block);
                let found = match &result {
                    Ok(extents) => Block::of(extents, block),
                    Err(fault) => Block::Unreadable(*fault),
                };
                if !agree(&self.model, slice, block, &found, &expected) {
                    let text =
                        format!("{slice}: block {block} is read as {found:?}, not {expected:?}");
                    self.complain(PROPERTY, text);
                }
            }
        }
        result
    }

    fn query(
        &mut self,
        slice: SliceId,
        query: Query,
        from: BlockIndex,
        limit_blocks: u64,
    ) -> Result<Found, ReadFault> {
        self.engine.query(slice, query, from, limit_blocks)
    }

    fn records(&mut self, slice: SliceId, after: Sequence, limit_bytes: u64) -> Vec<Record> {
        self.engine.records(slice, after, limit_bytes)
    }

    fn reserve(&mut self, slice: SliceId, bytes: u64) -> u64 {
        self.engine.reserve(slice, bytes)
    }

    fn release(&mut self, slice: SliceId, bytes: u64) {
        self.engine.release(slice, bytes);
    }

    fn fill(&mut self, full: bool) {
        self.engine.fill(full);
    }

    fn rot(&mut self, slice: SliceId, candidates: &[BlockIndex]) -> Option<BlockIndex> {
        self.compared = false;
        self.engine.rot(slice, candidates)
    }

    fn fail_next(&mut self, sync: bool) {
        self.engine.fail_next(sync);
    }

    fn tend(&mut self) {
        for _ in 0..STEPS {
            if !self.engine.step() {
                break;
            }
            self.crash_now_and_then();
        }
        self.engine.tend();
    }

    fn describe(&self) -> String {
        self.engine.describe()
    }

    fn crash_points(&mut self) -> [u64; 2] {
        std::mem::take(&mut self.tried)
    }

    fn reclaim_and_stop(&mut self, operations: u64) -> bool {
        self.engine.reclaim_and_stop(operations)
    }

    fn reused(&self) -> u64 {
        self.engine.reused()
    }

    fn complaint(&mut self) -> Option<Violation> {
        self.complaint.take()
    }
}
