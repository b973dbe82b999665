//! Blocks that the coordinator reads and writes itself: for several writers of one inode, and the
//! zeros that must stand where a size moves up or a hole has ragged ends.
//!
//! ```text
//!   plan ──nothing to write──────────────────────────────────────────────> execute (commit)
//!    ├── all of every block is known ──────────> WriteBlocks ──versions──>    │
//!    └── parts ──> ReadBlocks ──merged──────────────┘                       answer
//! ```
//! From the plan to the commit the inode is *busy*: nothing else is done with it, so that the size
//! that an append was placed at is still the size when it is committed. What is busy waits for blocks
//! alone and never for a client, so no circle can arise. New blocks come from what session 0 has
//! reserved: a failover frees it ([`super::ending::Work::ReservationsOfNobody`]).
//!
//! Bytes in flight outlive the request: if its session ends meanwhile, the inode stays busy until they
//! have landed, or they would fall on what the next writer wrote.

use std::collections::BTreeMap;

use mooring_terms::{BLOCK_SIZE, SliceIndex, Version};

use super::ending::Work;
use super::event::{Command, IoNumber};
use super::request::{Operation, Reply, Request, WritePlace};
use super::waiting::Stage;
use super::{Coordinator, Turn};
use crate::file::{Base, BlockWrite, Commit};
use crate::tree::TreeStore;
use crate::{BlockAddress, Context, FsError, Ino, Result, Run, SessionId, Transaction};

/// As many blocks are reserved at once: appends of a few bytes don't each need a record for it.
const RESERVE_BLOCKS: u64 = 64;

/// A change of contents between its plan and its commit.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    ino: Ino,
    /// Where the bytes of a write go.
    offset: u64,
    /// What to write, by block; several parts of one may come from several plans.
    writes: BTreeMap<BlockAddress, Vec<BlockWrite>>,
    /// The blocks that had to be read, in the order in which they were asked for.
    read: Vec<BlockAddress>,
    pub(super) commit: Commit,
    /// Blocks of session 0 that were set aside for this.
    reserved: Vec<Run>,
}

impl Planned {
    pub(super) fn ino(&self) -> Ino {
        self.ino
    }

    fn new(ino: Ino, offset: u64, writes: Vec<BlockWrite>, commit: Commit) -> Self {
        let mut by_block: BTreeMap<BlockAddress, Vec<BlockWrite>> = BTreeMap::new();
        for write in writes {
            by_block.entry(write.address).or_default().push(write);
        }
        Self { ino, offset, writes: by_block, read: Vec::new(), commit, reserved: Vec::new() }
    }

    /// The blocks of which a part stays as it is.
    fn partly_present(&self) -> Vec<BlockAddress> {
        let partly =
            |write: &BlockWrite| write.base == Base::Present && write.bytes.len() < BLOCK_SIZE;
        let blocks = self.writes.iter().filter(|(_, parts)| parts.iter().any(partly));
        blocks.map(|(&block, _)| block).collect()
    }

    /// The blocks as they are to be written.
    fn merged(&self, read: &[Vec<u8>]) -> Vec<(BlockAddress, Vec<u8>)> {
        let before: BTreeMap<BlockAddress, &Vec<u8>> =
            self.read.iter().copied().zip(read).collect();
        let merge = |(&address, parts): (&BlockAddress, &Vec<BlockWrite>)| {
            let mut block = vec![0; BLOCK_SIZE];
            if let Some(before) = before.get(&address) {
                let known = before.len().min(BLOCK_SIZE);
                block[..known].copy_from_slice(&before[..known]);
            }
            for part in parts {
                block[part.offset..part.offset + part.bytes.len()].copy_from_slice(&part.bytes);
            }
            (address, block)
        };
        self.writes.iter().map(merge).collect()
    }

    /// Names the versions that the slices gave the blocks.
    fn written(&mut self, versions: &[Version], slice_blocks: u64) {
        let versions = self.writes.keys().copied().zip(versions.iter().copied()).collect();
        self.commit.name_versions(&versions, |block| slice_of(block, slice_blocks));
    }
}

/// The slice that a block lies in.
pub(super) fn slice_of(block: BlockAddress, slice_blocks: u64) -> SliceIndex {
    SliceIndex(u32::try_from(block.0 / slice_blocks).unwrap_or(u32::MAX))
}

impl Coordinator {
    /// Whether the coordinator has to look after blocks before the request can be executed.
    pub(super) fn changes_blocks(operation: &Operation) -> bool {
        match operation {
            Operation::Write { .. } | Operation::Punch { .. } | Operation::Zero { .. } => true,
            Operation::Setattr { set, .. } => set.size.is_some(),
            Operation::Allocate { keep_size, .. } => !keep_size,
            _ => false,
        }
    }

    /// Plans a request that changes blocks, and has them read or written.
    pub(super) fn begin_blocks<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        arrival: u64,
        request: &Request,
    ) -> Result<Stage> {
        let mut planned = self.plan(turn, request)?;
        if planned.writes.is_empty() {
            return Ok(Stage::Prepared(planned));
        }
        self.busy.insert(planned.ino, arrival);
        planned.read = planned.partly_present();
        if planned.read.is_empty() {
            let blocks = planned.merged(&[]);
            let io = self.next_io(arrival);
            turn.out.push(Command::WriteBlocks(io, blocks));
            return Ok(Stage::Writing(planned));
        }
        let io = self.next_io(arrival);
        turn.out.push(Command::ReadBlocks(io, planned.read.clone()));
        Ok(Stage::Reading(planned))
    }

    fn plan<S: TreeStore>(&mut self, turn: &mut Turn<'_, S>, request: &Request) -> Result<Planned> {
        if let Operation::Write { ino, place, bytes, kill_privileges, .. } = &request.operation {
            return self.plan_bytes(turn, *ino, *place, bytes, *kill_privileges);
        }
        let view = Transaction::new(turn.store, Context { now: turn.date });
        let (ino, writes) = match &request.operation {
            // Who may not do it learns so without anything being written.
            Operation::Setattr { ino, set } => {
                let mut trial = Transaction::new(turn.store, Context { now: turn.date });
                let grows = set.size.filter(|&size| {
                    view.getattr(*ino).is_ok_and(|attributes| attributes.size < size)
                });
                match grows {
                    Some(size) => {
                        let _ = trial.setattr(&request.caller, *ino, set)?;
                        (*ino, view.plan_extend(*ino, size)?)
                    }
                    None => (*ino, Vec::new()),
                }
            }
            Operation::Allocate { ino, range, .. } => (*ino, view.plan_extend(*ino, range.1)?),
            Operation::Punch { ino, range } => (*ino, view.plan_zero(*ino, range.0, range.1)?),
            Operation::Zero { ino, range, keep_size, .. } => {
                let mut writes = view.plan_zero(*ino, range.0, range.1)?;
                if !keep_size {
                    writes.extend(view.plan_extend(*ino, range.1)?);
                }
                (*ino, writes)
            }
            _ => return Err(FsError::NotSupported),
        };
        Ok(Planned::new(ino, 0, writes, Commit::default()))
    }

    fn plan_bytes<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        ino: Ino,
        place: WritePlace,
        bytes: &[u8],
        kill_privileges: bool,
    ) -> Result<Planned> {
        let view = Transaction::new(turn.store, Context { now: turn.date });
        let offset = match place {
            WritePlace::At(offset) => offset,
            WritePlace::End => view.getattr(ino)?.size,
        };
        let mut needed = view.blocks_needed(ino, offset, bytes.len() as u64)?;
        // A file that grows out of the tree takes a block for what was there.
        needed += 1;
        let reserved = self.set_aside(turn, needed)?;
        let view = Transaction::new(turn.store, Context { now: turn.date });
        match view.plan_write(ino, offset, bytes, &reserved) {
            Ok(plan) => {
                let mut planned = Planned::new(ino, offset, plan.writes, plan.commit);
                planned.commit.kill_privileges = kill_privileges;
                planned.reserved = reserved;
                Ok(planned)
            }
            Err(error) => {
                self.own_blocks.extend(reserved);
                Err(error)
            }
        }
    }

    /// Takes up to `needed` blocks of session 0, and reserves more if it has too few. Fewer come if
    /// there is no space: the plan says whether they will do.
    fn set_aside<S: TreeStore>(&mut self, turn: &mut Turn<'_, S>, needed: u64) -> Result<Vec<Run>> {
        if self.work.contains(&Work::ReservationsOfNobody) {
            // What is reserved now would be freed with what the coordinator before had.
            return Err(FsError::NoSpace { coming: true });
        }
        let have: u64 = self.own_blocks.iter().map(|run| run.count).sum();
        if have < needed {
            let near = self.own_blocks.last().map_or(self.own_place, Run::end);
            let mut transaction = Transaction::new(turn.store, Context { now: turn.date });
            let ahead = RESERVE_BLOCKS.min(transaction.fair_share()?);
            let want = needed.max(ahead).max(have + 1) - have;
            match transaction.reserve(SessionId::COORDINATOR, want, near) {
                Ok(runs) => {
                    self.own_place = runs.last().map_or(near, Run::end);
                    self.own_blocks.extend(runs);
                    let outcome = transaction.finish();
                    self.record(turn, outcome.record)?;
                }
                Err(FsError::NoSpace { coming }) if coming && have == 0 => {
                    return Err(FsError::NoSpace { coming });
                }
                Err(FsError::NoSpace { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let mut taken = Vec::new();
        let mut left = needed;
        while left > 0 && !self.own_blocks.is_empty() {
            let run = self.own_blocks.remove(0);
            let count = run.count.min(left);
            taken.push(Run::new(run.start, count));
            if count < run.count {
                self.own_blocks.insert(0, Run::new(run.start.plus(count), run.count - count));
            }
            left -= count;
        }
        Ok(taken)
    }

    fn next_io(&mut self, arrival: u64) -> IoNumber {
        self.last_io = IoNumber(self.last_io.0 + 1);
        self.ios.insert(self.last_io, arrival);
        self.last_io
    }

    /// Blocks were read: the rest of them is known now.
    pub(super) fn blocks_read<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        io: IoNumber,
        read: Result<Vec<Vec<u8>>>,
    ) -> Result<()> {
        let Some(arrival) = self.ios.remove(&io) else { return Ok(()) };
        let Some(waiting) = self.waiting.get_mut(&arrival) else { return Ok(()) };
        let Stage::Reading(planned) = std::mem::take(&mut waiting.stage) else { return Ok(()) };
        match read {
            Ok(read) => {
                let blocks = planned.merged(&read);
                waiting.stage = Stage::Writing(planned);
                let io = self.next_io(arrival);
                turn.out.push(Command::WriteBlocks(io, blocks));
                Ok(())
            }
            Err(error) => self.failed(turn, arrival, &planned, error),
        }
    }

    /// Blocks were written: they can become part of the file.
    pub(super) fn blocks_written<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        io: IoNumber,
        versions: Result<Vec<Version>>,
    ) -> Result<()> {
        let Some(arrival) = self.ios.remove(&io) else { return Ok(()) };
        let slice_blocks =
            Transaction::new(turn.store, Context { now: turn.date }).slice_blocks()?;
        let Some(waiting) = self.waiting.get_mut(&arrival) else { return Ok(()) };
        let Stage::Writing(mut planned) = std::mem::take(&mut waiting.stage) else { return Ok(()) };
        match versions {
            Ok(versions) => {
                planned.written(&versions, slice_blocks);
                waiting.stage = Stage::Prepared(planned);
                self.retry(turn)
            }
            Err(error) => self.failed(turn, arrival, &planned, error),
        }
    }

    fn failed<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        arrival: u64,
        planned: &Planned,
        error: FsError,
    ) -> Result<()> {
        if error == FsError::Unavailable {
            return Err(error);
        }
        self.free_from(arrival, planned);
        if let Some(waiting) = self.waiting.remove(&arrival) {
            self.refuse(turn, waiting.request(), error)?;
        }
        self.retry(turn)
    }

    /// A request's inode is busy no more, and the blocks that it didn't use are for others.
    pub(super) fn free_from(&mut self, arrival: u64, planned: &Planned) {
        if self.busy.get(&planned.ino) == Some(&arrival) {
            self.busy.remove(&planned.ino);
        }
        self.own_blocks.extend(planned.reserved.iter().copied());
    }

    /// Commits bytes that are in their blocks.
    pub(super) fn commit_bytes(t: &mut Transaction<'_>, planned: &mut Planned) -> Result<Reply> {
        if planned.commit.size_at_least == 0 {
            return Ok(Reply::Written(planned.offset, t.getattr(planned.ino)?));
        }
        let session = SessionId::COORDINATOR;
        let attributes = t.commit(session, planned.ino, &planned.commit)?;
        // What the commit used of what was set aside: blocks are taken in order.
        let mut used = |run: Run| {
            let mut left = Vec::new();
            for reserved in std::mem::take(&mut planned.reserved) {
                if reserved.start <= run.start && run.end() <= reserved.end() {
                    let before = Run::new(reserved.start, run.start.0 - reserved.start.0);
                    let behind = Run::new(run.end(), reserved.end().0 - run.end().0);
                    left.extend([before, behind].into_iter().filter(|run| run.count > 0));
                } else {
                    left.push(reserved);
                }
            }
            planned.reserved = left;
        };
        planned.commit.extents.iter().for_each(|extent| used(extent.run));
        if let Some(block) = planned.commit.pays {
            used(Run::new(block, 1));
        }
        Ok(Reply::Written(planned.offset, attributes))
    }

    /// On a full volume a block that was set aside pays for a file that begins to lie in the tree.
    pub(super) fn pay(planned: &mut Planned) -> bool {
        let can = planned.commit.inline.is_some() && planned.commit.pays.is_none();
        match planned.reserved.first() {
            Some(run) if can => {
                planned.commit.pays = Some(run.start);
                true
            }
            _ => false,
        }
    }
}
