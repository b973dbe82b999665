//! Writing back: pages to their blocks, in rounds, then commits.
//!
//! ```text
//!   unwritten ──round begins──> writing ──versions──> written ──commit, with all before it──> the file's
//! ```
//! A round takes all that is dirty when it begins, but for pages that are on their way with one before.
//! Rounds of one inode overlap; what they wrote becomes part of the file in the order in which they began,
//! with one commit at a time, for all that is written by then. So a file that is written at a stretch
//! is always on its way, and its size never moves past what lacks.

use mooring_sharedfs_core::coordinator::{Operation, Reply};
use mooring_sharedfs_core::file::{Commit, Mapped, Mapping, NewExtent};
use mooring_sharedfs_core::format::{ExtentState, INLINE_BYTES, Versions};
use mooring_sharedfs_core::{BlockAddress, Caller, FileBlock, FsError, Ino, Result, Run};
use mooring_terms::{BLOCK_SIZE, SliceIndex, Version};

use bytes::Bytes;

use crate::client::{Client, Turn};
use crate::command::Command;
use crate::event::IoNumber;
use crate::inode::Inode;
use crate::pages::Pieces;
use crate::reading::Io;
use crate::replies::Purpose;

/// From as many pages on a round begins by itself: 1 MiB.
pub(crate) const FULL: usize = 256;

/// As many rounds of an inode are on their way at most, of those that begin by themselves.
const ROUNDS: usize = 8;

/// No commit takes more extents along: a letter has room for many times that.
const EXTENTS: usize = 8192;

/// One round.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    /// All writes up to this one are in it or in those before.
    number: u64,
    /// Its pages.
    pages: Vec<FileBlock>,
    /// The blocks that are written, in the order in which they were given out.
    runs: Vec<Run>,
    commit: Commit,
    /// How many blocks more the file has when it is done; and how many of these are promised to no page
    /// any more.
    grown: u64,
    placed: u64,
    /// What it waits for; nothing when it is written.
    io: Option<IoNumber>,
}

impl Round {
    /// The size that it gives the file, if that is less.
    pub(crate) fn size(&self) -> u64 {
        self.commit.size_at_least
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Blocks that the file has, though neither its attributes nor the promises to its pages say so.
    pub(crate) fn placed(&self) -> u64 {
        self.placed
    }

    /// Privileges were given after what it writes took some away.
    pub(crate) fn keep_privileges(&mut self) {
        self.commit.kill_privileges = false;
    }

    pub(crate) fn lies_in_tree(&self) -> bool {
        self.commit.inline.is_some()
    }
}

/// Blocks that are to be written: runs of addresses with their bytes.
#[derive(Default)]
struct Writes {
    runs: Vec<(Run, Pieces)>,
}

impl Writes {
    fn push(&mut self, address: BlockAddress, slice_blocks: u64, page: &crate::pages::Page) {
        match self.runs.last_mut() {
            // A run lies in one slice.
            Some((run, pieces))
                if run.end() == address && !address.0.is_multiple_of(slice_blocks) =>
            {
                run.count += 1;
                pieces.push(page, 0, BLOCK_SIZE);
            }
            _ => {
                let mut pieces = Pieces::default();
                pieces.push(page, 0, BLOCK_SIZE);
                self.runs.push((Run::new(address, 1), pieces));
            }
        }
    }

    /// Where they go, and the bytes: each as much as lies together, in whole blocks.
    fn finish(self) -> (Vec<Run>, Vec<(BlockAddress, Bytes)>) {
        let (mut runs, mut writes) = (Vec::new(), Vec::new());
        for (run, pieces) in self.runs {
            let mut at = run.start;
            for bytes in pieces.finish() {
                let blocks = (bytes.len() / BLOCK_SIZE) as u64;
                writes.push((at, bytes));
                at = at.plus(blocks);
            }
            runs.push(run);
        }
        (runs, writes)
    }
}

impl Client {
    /// Begins a round of all that is dirty, if there is anything that is not on its way.
    pub(crate) fn write_back(&mut self, turn: &mut Turn<'_>, ino: Ino) {
        let inode = self.inode(ino);
        let Some(local) = inode.local else { return };
        let (pages, waits) = inode.pages.take_unwritten(None);
        if waits.is_some() && local.size > inode.size_under_way() {
            // The size would move past what is left out, whose last bytes may be another file's.
            return inode.pages.put_back(pages);
        }
        self.begin_round(turn, ino, pages, waits, local.size);
    }

    /// Begins a round if as much is dirty as one is worth. A last block that isn't full stays: it is
    /// written again when the file goes on, and would have to wait for this round then.
    pub(crate) fn write_back_if_full(&mut self, turn: &mut Turn<'_>, ino: Ino) {
        let inode = self.inode(ino);
        let Some(local) = inode.local else { return };
        if inode.pages.unwritten() < FULL || inode.rounds.len() >= ROUNDS {
            return;
        }
        let last = FileBlock::of(local.size);
        let leave = inode.pages.is_unwritten(last).then_some(last);
        let size = leave.map_or(local.size, FileBlock::offset);
        let (pages, waits) = inode.pages.take_unwritten(leave);
        let on_their_way = inode.pages.unwritten() > usize::from(leave.is_some());
        if on_their_way && size > inode.size_under_way() {
            return inode.pages.put_back(pages);
        }
        self.begin_round(turn, ino, pages, waits, size);
    }

    fn begin_round(
        &mut self,
        turn: &mut Turn<'_>,
        ino: Ino,
        pages: Vec<FileBlock>,
        waits: Option<u64>,
        size: u64,
    ) {
        let inode = self.inode(ino);
        let Some(local) = inode.local.filter(|_| !pages.is_empty()) else { return };
        let number = waits.map_or(inode.written, |first| first - 1);
        self.unwritten_since(turn.now, ino, waits.is_some());
        let mut commit = Commit {
            size_at_least: size,
            mtime: Some(local.mtime),
            kill_privileges: local.kill_privileges,
            ..Commit::default()
        };
        let inode = self.inode(ino);
        let grown = pages.iter().filter(|&&block| grows(inode, block)).count() as u64;
        let mut writes = Writes::default();
        let only_zero = pages.iter().all(|&block| block == FileBlock(0));
        if only_zero && self.lies_in_tree(ino, size) {
            let inode = self.inode(ino);
            let page = inode.pages.get(FileBlock(0));
            commit.inline = page.map(|page| page.bytes()[..size as usize].to_vec());
            inode.pages.begin(FileBlock(0), true);
        } else {
            self.place(ino, &pages, &mut commit, &mut writes);
        }
        let (runs, writes) = writes.finish();
        let io = (!writes.is_empty()).then(|| self.next_io());
        let inode = self.inode(ino);
        let placed = if commit.inline.is_some() { 0 } else { grown };
        inode.rounds.push_back(Round { number, pages, runs, commit, grown, placed, io });
        let Some(io) = io else { return self.commit(turn, ino) };
        inode.reading += 1;
        self.ios.insert(io, Io::WriteBack(ino));
        turn.out.push(Command::WriteBlocks(io, writes));
    }

    /// Whether a file of this size keeps its first block in the tree.
    fn lies_in_tree(&mut self, ino: Ino, size: u64) -> bool {
        let inode = self.inode(ino);
        let piece = inode.layout.at(FileBlock(0));
        let blocks = piece.is_some_and(|piece| matches!(piece.mapped, Mapped::Blocks(..)));
        // On its way with a round before, it has a block by now.
        let under_way = inode
            .rounds
            .iter()
            .any(|round| round.commit.extents.iter().any(|extent| extent.block == FileBlock(0)));
        size <= INLINE_BYTES as u64 && !blocks && !under_way
    }

    /// Says where each dirty block goes: where it is, or into one that is reserved.
    fn place(&mut self, ino: Ino, pages: &[FileBlock], commit: &mut Commit, writes: &mut Writes) {
        let slice_blocks = self.options.slice_blocks.max(1);
        let mut before = None;
        for &block in pages {
            let Some(inode) = self.inodes.get_mut(&ino) else { return };
            let (address, new, goes_on) = match inode.layout.at(block).map(|piece| piece.mapped) {
                Some(Mapped::Blocks(run, state)) => {
                    before = None;
                    (run.start, state == ExtentState::Unwritten, false)
                }
                _ => {
                    let follows = before.filter(|(of, _)| block == FileBlock(of + 1));
                    let taken = self.pool.take(follows.map(|(_, address)| address));
                    let Some((address, goes_on)) = taken else {
                        // Its promise has paid for a place in the tree: nothing is left for it.
                        self.lose(ino, block);
                        continue;
                    };
                    before = Some((block.0, address));
                    (address, true, goes_on)
                }
            };
            let Some(page) = inode.pages.get(block) else { continue };
            writes.push(address, slice_blocks, page);
            inode.pages.begin(block, false);
            if !new {
                continue;
            }
            match commit.extents.last_mut() {
                Some(last) if goes_on && last.run.end() == address => last.run.count += 1,
                _ => {
                    let versions = Versions::default();
                    let run = Run::new(address, 1);
                    commit.extents.push(NewExtent { block, run, versions });
                }
            }
        }
    }

    /// A page for which there is no block: its bytes are lost, and every handle says so once.
    fn lose(&mut self, ino: Ino, block: FileBlock) {
        self.with_pages(ino, |inode| {
            inode.pages.begin(block, false);
            inode.pages.lose(block);
            (inode.errors, inode.error) = (inode.errors + 1, FsError::NoSpace { coming: false });
        });
    }

    /// The blocks of a round are written.
    pub(crate) fn blocks_written(
        &mut self,
        turn: &mut Turn<'_>,
        io: IoNumber,
        versions: Result<Vec<Version>>,
    ) {
        if let Some(Io::WriteBack(ino)) = self.ios.remove(&io) {
            let slice_blocks = self.options.slice_blocks.max(1);
            let inode = self.inode(ino);
            inode.reading -= 1;
            let place = inode.rounds.iter().position(|round| round.io == Some(io));
            match (versions, place) {
                (Ok(versions), Some(place)) => {
                    let round = &mut inode.rounds[place];
                    round.io = None;
                    let blocks =
                        round.runs.iter().flat_map(|run| (0..run.count).map(|i| run.start.plus(i)));
                    let written = blocks.zip(versions).collect();
                    round.commit.name_versions(&written, |block| slice_of(block, slice_blocks));
                    self.commit(turn, ino);
                }
                (Err(error), Some(place)) => {
                    let mut round = inode.rounds.remove(place);
                    if let (Some(round), Some(front)) = (&mut round, place.checked_sub(1)) {
                        // Whoever waits for it waits for what lies in front of it, too.
                        let front = &mut inode.rounds[front];
                        front.number = front.number.max(std::mem::take(&mut round.number));
                    }
                    self.rounds_failed(turn, ino, round.into_iter().collect(), error);
                }
                (_, None) => {}
            }
        }
        self.io_done(turn, io);
    }

    /// Commits what is written, unless a commit is on its way: all rounds up to the first that isn't.
    fn commit(&mut self, turn: &mut Turn<'_>, ino: Ino) {
        let inode = self.inode(ino);
        if inode.committing > 0 {
            return;
        }
        let mut commit: Option<Commit> = None;
        let mut rounds = 0;
        for round in &inode.rounds {
            let fits = match &commit {
                None => round.io.is_none(),
                Some(before) => {
                    round.io.is_none()
                        && before.inline.is_none()
                        && round.commit.inline.is_none()
                        && before.extents.len() + round.commit.extents.len() <= EXTENTS
                }
            };
            if !fits {
                break;
            }
            rounds += 1;
            commit = Some(match commit {
                None => round.commit.clone(),
                Some(before) => both(before, &round.commit),
            });
        }
        let Some(commit) = commit else { return };
        inode.committing = rounds;
        inode.queued = inode.is_alone();
        if inode.queued {
            return self.commit_early(turn, ino, commit);
        }
        let asked = Operation::Commit { ino, commit };
        self.ask(turn, Caller::ROOT, asked, Vec::new(), Purpose::Commit(ino));
    }

    /// Commits what only this client can have changed: behind all else that was done here. What the file
    /// will be is known, but for its blocks, which are promised or placed until then.
    fn commit_early(&mut self, turn: &mut Turn<'_>, ino: Ino, mut commit: Commit) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        let (Some(local), Some(attributes)) = (inode.local, inode.attributes.as_mut()) else {
            return;
        };
        commit.mtime = Some(local.mtime);
        if let Some(round) = inode.rounds.front_mut()
            && commit.inline.is_some()
            && round.grown > 0
        {
            // Whatever space is left then: it is paid for.
            commit.pays = self.pool.take(None).map(|(block, _)| block);
            inode.pages.unpromise(FileBlock(0));
            round.placed = round.grown;
        }
        let before = attributes.change;
        attributes.size = attributes.size.max(commit.size_at_least);
        attributes.mtime = local.mtime;
        attributes.ctime = attributes.ctime.max(local.mtime.min(local.ctime));
        if commit.kill_privileges {
            attributes.mode = attributes.mode.without_privileges();
        }
        attributes.change += 1;
        if inode.kernel_pages == Some(before) {
            inode.kernel_pages = Some(attributes.change);
        }
        let hurry = inode.hurry;
        let operation = Operation::Commit { ino, commit };
        self.push_step(turn, (Caller::ROOT, local.ctime), None, operation, vec![ino]);
        if hurry {
            self.send_early(turn);
        }
    }

    /// The commit of a batch is done, or not.
    pub(crate) fn committed_early(&mut self, turn: &mut Turn<'_>, ino: Ino, good: bool) {
        let inode = self.inode(ino);
        let committing = std::mem::take(&mut inode.committing).min(inode.rounds.len());
        let rounds: Vec<Round> = inode.rounds.drain(..committing).collect();
        if !good {
            return self.rounds_failed(turn, ino, rounds, FsError::Unavailable);
        }
        if let Some(attributes) = &mut inode.attributes {
            attributes.blocks += rounds.iter().map(|round| round.grown).sum::<u64>();
        }
        self.rounds_done(turn, ino, rounds);
    }

    /// Rounds are part of the file, or not.
    pub(crate) fn committed(&mut self, turn: &mut Turn<'_>, ino: Ino, reply: Reply) {
        let inode = self.inode(ino);
        let committing = std::mem::take(&mut inode.committing).min(inode.rounds.len());
        let attributes = match reply {
            Reply::Attributes(attributes) => attributes,
            Reply::Refused(FsError::NoSpace { .. }) if self.pay(ino) => {
                return self.commit(turn, ino);
            }
            refused => {
                let error = match refused {
                    Reply::Refused(error) => error,
                    _ => FsError::Unavailable,
                };
                let rounds = self.inode(ino).rounds.drain(..committing).collect();
                return self.rounds_failed(turn, ino, rounds, error);
            }
        };
        let inode = self.inode(ino);
        let rounds: Vec<Round> = inode.rounds.drain(..committing).collect();
        if inode.kernel_pages.is_some()
            && inode.kernel_pages == inode.attributes.map(|before| before.change)
        {
            inode.kernel_pages = Some(attributes.change);
        }
        inode.learn(attributes);
        self.rounds_done(turn, ino, rounds);
    }

    fn rounds_done(&mut self, turn: &mut Turn<'_>, ino: Ino, rounds: Vec<Round>) {
        let inode = self.inode(ino);
        if inode.lease >= mooring_sharedfs_core::leases::LeaseLevel::Read {
            let before = inode.layout.len();
            for round in &rounds {
                learn_places(&mut inode.layout, &round.commit);
            }
            let more = inode.layout.len().saturating_sub(before);
            self.pieces += more;
        }
        for round in rounds {
            let (number, pages) = (round.number, round.pages);
            let freed = self.with_pages(ino, |inode| {
                inode.committed = inode.committed.max(number);
                inode.pages.committed(&pages, &inode.loading)
            });
            self.pool.release(freed);
            self.keep_for_now(ino, &pages);
        }
        self.settled(turn, ino);
    }

    /// On a full volume the promised block pays for a place in the tree.
    fn pay(&mut self, ino: Ino) -> bool {
        let pool = &mut self.pool;
        let Some(inode) = self.inodes.get_mut(&ino) else { return false };
        let Some(round) = inode.rounds.front_mut() else { return false };
        if round.commit.inline.is_none() || round.commit.pays.is_some() {
            return false;
        }
        round.commit.pays = pool.take(None).map(|(block, _)| block);
        inode.pages.unpromise(FileBlock(0));
        round.commit.pays.is_some()
    }

    /// What rounds took along is lost, and every handle of the file says so once.
    fn rounds_failed(&mut self, turn: &mut Turn<'_>, ino: Ino, rounds: Vec<Round>, error: FsError) {
        for round in rounds {
            let freed = self.with_pages(ino, |inode| {
                // Those that wait for what came before it are told of the error.
                inode.committed = inode.committed.max(round.number);
                inode.pages.failed(&round.pages)
            });
            self.pool.release(freed);
        }
        let inode = self.inode(ino);
        (inode.errors, inode.error) = (inode.errors + 1, error);
        inode.attributes = None;
        inode.layout.clear();
        self.settled(turn, ino);
    }

    fn settled(&mut self, turn: &mut Turn<'_>, ino: Ino) {
        self.commit(turn, ino);
        self.write_back_if_full(turn, ino);
        let inode = self.inode(ino);
        if inode.rounds.is_empty() && inode.pages.dirty() == 0 {
            inode.local = None;
            inode.hurry = false;
            self.dirty.remove(&ino);
        } else if inode.pages.unwritten() > 0 && inode.due.is_none() {
            // It was due, and had to wait.
            (inode.due, self.next_look) = (Some(turn.now), turn.now);
            self.due.insert((turn.now, ino));
        }
        self.to_close.insert(ino);
        self.poked = true;
    }

    /// Whether there is anything that no round has taken, since now if there wasn't.
    pub(crate) fn unwritten_since(&mut self, now: mooring_terms::Time, ino: Ino, there_is: bool) {
        let inode = self.inode(ino);
        if there_is && inode.due.is_some() {
            return;
        }
        let before = inode.due.take();
        if let Some(before) = before {
            self.due.remove(&(before, ino));
        }
        if there_is {
            let due = now + self.options.write_back_after;
            self.inode(ino).due = Some(due);
            self.due.insert((due, ino));
        }
    }

    /// Writes back what is old enough, and says when to look again.
    pub(crate) fn look_after_age(&mut self, turn: &mut Turn<'_>) {
        while let Some(&(at, ino)) = self.due.first()
            && (at <= turn.now || self.unmounting)
        {
            self.due.remove(&(at, ino));
            self.inode(ino).due = None;
            // What is left is on its way once already: it is due when that is there.
            self.write_back(turn, ino);
        }
        let later = turn.now + std::time::Duration::from_secs(3600);
        let next = self.due.first().into_iter().chain(self.mapped.first());
        self.next_look = next.map(|&(at, _)| at).min().unwrap_or(later);
    }
}

/// Two commits as one: the second comes behind the first, and neither has bytes for the tree.
fn both(mut first: Commit, second: &Commit) -> Commit {
    first.extents.extend(second.extents.iter().copied());
    for (&slice, versions) in &second.overwritten {
        let of = first.overwritten.entry(slice).or_insert(*versions);
        *of = Versions::of([of.oldest, of.newest, versions.oldest, versions.newest].into_iter());
    }
    first.size_at_least = first.size_at_least.max(second.size_at_least);
    first.mtime = second.mtime;
    first.kill_privileges |= second.kill_privileges;
    first
}

/// Where the blocks of a commit are, now that they are the file's.
fn learn_places(layout: &mut crate::layout::Layout, commit: &Commit) {
    for extent in &commit.extents {
        let mapped = Mapped::Blocks(extent.run, ExtentState::Written);
        layout.put(Mapping { block: extent.block, count: extent.run.count, mapped });
    }
    if commit.inline.is_some() {
        layout.put(Mapping { block: FileBlock(0), count: 1, mapped: Mapped::Inline });
    }
}

/// Whether a file has a block more once this one is written.
fn grows(inode: &Inode, block: FileBlock) -> bool {
    let mapped = inode.layout.at(block).map(|piece| piece.mapped);
    !matches!(mapped, Some(Mapped::Blocks(..) | Mapped::Inline))
}

/// The slice of a block.
fn slice_of(block: BlockAddress, slice_blocks: u64) -> SliceIndex {
    SliceIndex(u32::try_from(block.0 / slice_blocks).unwrap_or(u32::MAX))
}
