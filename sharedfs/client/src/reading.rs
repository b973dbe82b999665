//! Reading: from pages and the known layout under a lease; without one, as the coordinator says where
//! the bytes are, each time anew.

use bytes::Bytes;
use mooring_sharedfs_core::coordinator::ToCoordinator;
use mooring_sharedfs_core::coordinator::{Operation, Reply};
use mooring_sharedfs_core::file::{Mapped, Mapping, Segment, Source};
use mooring_sharedfs_core::format::ExtentState;
use mooring_sharedfs_core::leases::LeaseLevel;
use mooring_sharedfs_core::{
    BlockAddress, Caller, FileBlock, FsError, Ino, QuarantineNumber, Result,
};
use mooring_terms::BLOCK_SIZE;

use crate::client::{Client, Turn};
use crate::command::Command;
use crate::event::IoNumber;
use crate::inode::Inode;
use crate::kernel::{HandleId, KernelOperation, KernelReply};
use crate::pages::{Pieces, SHARED};
use crate::replies::{Change, Purpose};
use crate::tasks::{Attempt, Stage, Task, TaskId};

/// How many blocks' places are asked for at once, at least: 1 GiB, but no more than the coordinator puts
/// into one answer.
const WINDOW: u64 = 1 << 18;

/// How many blocks are read ahead at once.
const STEP: u64 = 256;

/// A read without a lease, and how far it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gathering {
    offset: u64,
    length: u64,
    bytes: Vec<Bytes>,
    have: u64,
    /// Pieces whose blocks are being read.
    segments: Vec<Segment>,
    /// Where the file ended.
    size: u64,
    /// Its bytes go into the kernel's page cache, and whether no lease vouches for them there.
    cached: bool,
    unvouched: bool,
}

/// Something under way on blocks.
#[derive(Clone, Debug)]
pub(crate) enum Io {
    /// Pages of an inode, under the lease of that term.
    Load(Ino, u64, Vec<FileBlock>),
    /// What a read without a lease needs.
    Gather(TaskId, Ino),
    /// A write back.
    WriteBack(Ino),
}

impl Client {
    pub(crate) fn try_read(&mut self, turn: &mut Turn<'_>, id: TaskId, task: &Task) -> Attempt {
        let KernelOperation::Read { handle, offset, length, cached } = task.request.operation
        else {
            return Attempt::error(FsError::Invalid);
        };
        let number = handle;
        let Some(handle) = self.handles.get(&handle).copied() else {
            return Attempt::error(FsError::Invalid);
        };
        let ino = handle.ino;
        let inode = self.inode(ino);
        if inode.recalled.as_ref().is_some_and(|recalled| recalled.holds_reads()) {
            return Attempt::Park;
        }
        if cached && inode.maps > 0 && inode.lease < LeaseLevel::Write {
            // Nothing tells that a mapping is written to: others must not read beside it.
            let contended = turn.now < inode.contended_until;
            if inode.recalled.is_none() && !contended {
                let holds = inode.lease >= LeaseLevel::Read;
                self.want_to_write(turn, ino);
                if !holds {
                    return Attempt::Park;
                }
                // A recall of what is held would wait for this page.
            }
        }
        let inode = self.inode(ino);
        if inode.lease < LeaseLevel::Read || inode.rewriting > 0 {
            let gathering = Gathering { offset, length, cached, ..Gathering::default() };
            return self.gather(turn, id, ino, gathering);
        }
        if !self.is_fresh(turn.now) {
            return Attempt::Park;
        }
        let Some(seen) = self.need_attributes(turn, ino) else { return Attempt::Park };
        let end = offset.saturating_add(length).min(seen.size);
        if offset >= end {
            return Attempt::Answer(KernelReply::Bytes(Vec::new()));
        }
        let (from, to) = (FileBlock::of(offset), FileBlock::at_or_after(end));
        let ready = self.need_pages(turn, ino, from, to);
        self.read_ahead(turn, number, (from, to), seen.size);
        if !ready {
            return Attempt::Park;
        }
        if cached {
            self.kernel_reads(ino, seen.change);
        }
        Attempt::Answer(KernelReply::Bytes(self.assemble(ino, offset, end)))
    }

    /// The kernel has pages of the inode as it is at this change; if it has older ones, as of those.
    /// Without a lease nobody vouches for them: a writer that is lost before its commit has changed
    /// blocks, and nothing tells.
    fn kernel_reads(&mut self, ino: Ino, change: u64) {
        let inode = self.inode(ino);
        let known = inode.kernel_pages.get_or_insert(change);
        if inode.lease < LeaseLevel::Read {
            *known = Inode::UNVOUCHED;
        }
        if let Some(recalled) = &mut inode.recalled {
            recalled.repopulated();
        }
    }

    /// The bytes of pages and holes that are all known.
    fn assemble(&self, ino: Ino, offset: u64, end: u64) -> Vec<Bytes> {
        let Some(inode) = self.inodes.get(&ino) else { return Vec::new() };
        let mut pieces = Pieces::default();
        let mut at = offset;
        while at < end {
            let block = FileBlock::of(at);
            let (from, to) = ((at - block.offset()) as usize, end.min(block.plus(1).offset()));
            let count = (to - at) as usize;
            match inode.pages.get(block) {
                Some(page) => pieces.push(page, from, from + count),
                None => pieces.zeros(count),
            }
            at = to;
        }
        pieces.finish()
    }

    /// Has the blocks behind these read, if whoever reads does so at a stretch.
    fn read_ahead(
        &mut self,
        turn: &mut Turn<'_>,
        handle: HandleId,
        (from, to): (FileBlock, FileBlock),
        size: u64,
    ) {
        let ahead_max = self.options.ahead_max / BLOCK_SIZE as u64;
        let Some(of) = self.handles.get_mut(&handle) else { return };
        // Tried again, it is the same read.
        let again = of.stretch.last == (from, to);
        if !again {
            let goes_on = from == of.stretch.last.1 || from.plus(1) == of.stretch.last.1;
            of.stretch.reads = if goes_on { of.stretch.reads + 1 } else { 0 };
            of.stretch.last = (from, to);
            if !goes_on {
                of.stretch.ahead = to;
            }
        }
        if again || of.stretch.reads == 0 {
            return;
        }
        let mut at = of.stretch.ahead.max(to);
        let end = to.plus(ahead_max).min(FileBlock::at_or_after(size));
        // By steps: so that what is asked for is worth a message.
        if end.0 < at.plus(STEP).0 && end != FileBlock::at_or_after(size) {
            return;
        }
        let ino = of.ino;
        while at < end {
            let next = at.plus(STEP).min(end);
            if self.inode(ino).layout.first_unknown(at, next).is_some() {
                self.need_layout(turn, ino, at, next);
                break;
            }
            self.need_pages(turn, ino, at, next);
            at = next;
        }
        if let Some(of) = self.handles.get_mut(&handle) {
            of.stretch.ahead = at;
        }
    }

    /// Whether all blocks `from..to` are in pages or known to be zeros; has read what lacks.
    pub(crate) fn need_pages(
        &mut self,
        turn: &mut Turn<'_>,
        ino: Ino,
        from: FileBlock,
        to: FileBlock,
    ) -> bool {
        let inode = self.inode(ino);
        let mut missing = Vec::new();
        let (mut inline, mut ready) = (false, true);
        let mut at = from;
        while at < to {
            if inode.pages.get(at).is_none() {
                let Some(piece) = inode.layout.at(at) else {
                    self.need_layout(turn, ino, at, to);
                    return false;
                };
                match piece.mapped {
                    Mapped::Hole | Mapped::Blocks(_, ExtentState::Unwritten) => {}
                    Mapped::Inline => (inline, ready) = (true, false),
                    Mapped::Blocks(run, ExtentState::Written) => {
                        ready = false;
                        if !inode.loading.contains(&at) {
                            missing.push((at, run.start));
                        }
                    }
                }
            }
            at = at.plus(1);
        }
        if inline {
            self.need_inline(turn, ino);
        }
        if !missing.is_empty() {
            self.load(turn, ino, &missing);
        }
        ready
    }

    fn load(&mut self, turn: &mut Turn<'_>, ino: Ino, missing: &[(FileBlock, BlockAddress)]) {
        let io = self.next_io();
        let inode = self.inode(ino);
        let blocks: Vec<FileBlock> = missing.iter().map(|&(block, _)| block).collect();
        inode.loading.extend(&blocks);
        inode.reading += 1;
        let term = inode.term;
        self.ios.insert(io, Io::Load(ino, term, blocks));
        let addresses = missing.iter().map(|&(_, address)| address).collect();
        turn.out.push(Command::ReadBlocks(io, addresses));
    }

    /// Has the places of blocks asked for, if they aren't known.
    pub(crate) fn need_layout(
        &mut self,
        turn: &mut Turn<'_>,
        ino: Ino,
        from: FileBlock,
        to: FileBlock,
    ) {
        let inode = self.inode(ino);
        if inode.attributes.is_some_and(|attributes| attributes.blocks == 0) {
            // Nothing of it is anywhere.
            let all = Mapping { block: FileBlock(0), count: 1 << 52, mapped: Mapped::Hole };
            inode.layout.put(all);
            self.poked = true;
            return;
        }
        if inode.layout_asked {
            return;
        }
        inode.layout_asked = true;
        inode.reading += 1;
        let term = inode.term;
        let end = FileBlock(to.0.max(from.0 + WINDOW));
        let asked = Operation::Mappings { ino, from, end };
        self.ask(turn, Caller::ROOT, asked, Vec::new(), Purpose::Layout(ino, term));
    }

    fn need_inline(&mut self, turn: &mut Turn<'_>, ino: Ino) {
        let inode = self.inode(ino);
        if inode.loading.insert(FileBlock(0)) {
            inode.reading += 1;
            let term = inode.term;
            let length = BLOCK_SIZE as u64;
            let asked = Operation::Read { ino, offset: 0, length, kept: false };
            self.ask(turn, Caller::ROOT, asked, Vec::new(), Purpose::Inline(ino, term));
        }
    }

    /// Asks where the rest of a read without a lease is.
    fn gather(
        &mut self,
        turn: &mut Turn<'_>,
        id: TaskId,
        ino: Ino,
        gathering: Gathering,
    ) -> Attempt {
        let offset = gathering.offset + gathering.have;
        let length = gathering.length - gathering.have;
        self.inode(ino).reading += 1;
        let kept = gathering.cached;
        let wanted = match kept {
            // A mapping may show these bytes until a lease on them is recalled.
            true => vec![(ino, LeaseLevel::Read)],
            false => self.wanted(&[(ino, LeaseLevel::Read)]),
        };
        let purpose = Purpose::Task(id, Change::none());
        let asked = Operation::Read { ino, offset, length, kept };
        self.ask(turn, Caller::ROOT, asked, wanted, purpose);
        Attempt::Wait(Stage::Gathering(gathering))
    }

    /// The coordinator has said where bytes are. An `old` reply may name blocks that were freed since,
    /// and that this client has said it doesn't name any more.
    pub(crate) fn read_answered(
        &mut self,
        turn: &mut Turn<'_>,
        id: TaskId,
        reply: Reply,
        old: bool,
    ) {
        let Some(mut task) = self.tasks.remove(&id) else { return };
        let Stage::Gathering(gathering) = &mut task.stage else { return };
        let (attributes, segments) = match reply {
            Reply::Segments(attributes, _) if old => {
                let gathering = gathering.clone();
                if let Attempt::Wait(stage) = self.gather(turn, id, attributes.ino, gathering) {
                    task.stage = stage;
                }
                self.tasks.insert(id, task);
                return;
            }
            Reply::Segments(attributes, segments) => (attributes, segments),
            Reply::Refused(error) => {
                return self.reply(turn, &task.request, KernelReply::Error(error));
            }
            _ => return self.reply(turn, &task.request, Self::refused()),
        };
        self.inode(attributes.ino).learn(attributes);
        gathering.size = attributes.size;
        let blocks = blocks_of(&segments);
        gathering.segments = segments;
        if gathering.cached {
            gathering.unvouched |= self.lease(attributes.ino) < LeaseLevel::Read;
            self.kernel_reads(attributes.ino, attributes.change);
        }
        self.tasks.insert(id, task);
        if blocks.is_empty() {
            return self.gathered(turn, id, attributes.ino, Vec::new());
        }
        let io = self.next_io();
        self.inode(attributes.ino).reading += 1;
        self.ios.insert(io, Io::Gather(id, attributes.ino));
        turn.out.push(Command::ReadBlocks(io, blocks));
    }

    /// All pieces of an answer are there.
    fn gathered(&mut self, turn: &mut Turn<'_>, id: TaskId, ino: Ino, read: Vec<Bytes>) {
        let Some(mut task) = self.tasks.remove(&id) else { return };
        let Stage::Gathering(gathering) = &mut task.stage else { return };
        let mut read = Blocks::of(read);
        for segment in std::mem::take(&mut gathering.segments) {
            let length = segment.length as usize;
            match segment.source {
                Source::Zeros => gathering.bytes.push(vec![0; length].into()),
                Source::Bytes(bytes) => gathering.bytes.push(bytes.into()),
                Source::Blocks(_, at) => {
                    let count = blocks_in(at, segment.length) as usize;
                    gathering.bytes.extend(read.take(count, at, length));
                }
            }
            gathering.have += segment.length;
        }
        let end = (gathering.offset + gathering.length).min(gathering.size);
        let have = gathering.offset + gathering.have;
        if have >= end || gathering.have == 0 {
            let bytes = std::mem::take(&mut gathering.bytes);
            let unvouched = gathering.unvouched;
            self.reply(turn, &task.request, KernelReply::Bytes(bytes));
            if unvouched {
                self.take_pages_back(turn, ino);
            }
            return;
        }
        // It lies in more pieces than one answer has.
        let gathering = gathering.clone();
        if let Attempt::Wait(stage) = self.gather(turn, id, ino, gathering) {
            task.stage = stage;
        }
        self.tasks.insert(id, task);
    }

    /// Blocks were read.
    pub(crate) fn blocks_read(
        &mut self,
        turn: &mut Turn<'_>,
        io: IoNumber,
        read: Result<Vec<Bytes>>,
    ) {
        match self.ios.remove(&io) {
            Some(Io::Load(ino, term, blocks)) => self.loaded(turn, ino, term, &blocks, read),
            Some(Io::Gather(id, ino)) => {
                self.inode(ino).reading -= 1;
                match read {
                    Ok(read) => self.gathered(turn, id, ino, read),
                    Err(error) => {
                        if let Some(task) = self.tasks.remove(&id) {
                            self.reply(turn, &task.request, KernelReply::Error(error));
                        }
                    }
                }
            }
            _ => {}
        }
        self.io_done(turn, io);
    }

    fn loaded(
        &mut self,
        turn: &mut Turn<'_>,
        ino: Ino,
        term: u64,
        blocks: &[FileBlock],
        read: Result<Vec<Bytes>>,
    ) {
        let failed = read.is_err();
        self.with_pages(ino, |inode| {
            inode.reading -= 1;
            for block in blocks {
                inode.loading.remove(block);
            }
            let (Ok(read), Some(attributes)) = (read, inode.attributes) else { return };
            if inode.term != term || inode.lease < LeaseLevel::Read {
                return;
            }
            let pieces = read.iter().flat_map(|piece| {
                (0..piece.len() / BLOCK_SIZE).map(move |i| (piece, i * BLOCK_SIZE))
            });
            for (&block, (piece, at)) in blocks.iter().zip(pieces) {
                // What lies behind the end is anything.
                let inside = attributes.size.saturating_sub(block.offset());
                let inside = usize::try_from(inside).unwrap_or(BLOCK_SIZE).min(BLOCK_SIZE);
                match (inside, piece.len()) {
                    (BLOCK_SIZE, BLOCK_SIZE | SHARED..) => {
                        inode.pages.load(block, piece.clone(), at)
                    }
                    _ => inode.pages.load_part(block, &piece[at..at + inside]),
                }
            }
        });
        // Also where nothing was read: pages that were kept because of it may go from now on.
        self.keep_for_now(ino, blocks);
        if failed {
            self.fail_readers(turn, ino);
        }
    }

    /// A block can't be read: those who wait for pages of the inode are told.
    fn fail_readers(&mut self, turn: &mut Turn<'_>, ino: Ino) {
        let of = |client: &Self, id: &TaskId| {
            let task = client.tasks.get(id)?;
            let (KernelOperation::Read { handle, .. } | KernelOperation::Write { handle, .. }) =
                task.request.operation
            else {
                return None;
            };
            (client.handles.get(&handle)?.ino == ino).then_some(*id)
        };
        let waiting: Vec<TaskId> = self.parked.iter().filter_map(|id| of(self, id)).collect();
        for id in waiting {
            self.parked.remove(&id);
            if let Some(task) = self.tasks.remove(&id) {
                self.reply(turn, &task.request, Self::refused());
            }
        }
    }

    /// Something under way on blocks has ended: layouts that it used may be returned by now.
    pub(crate) fn io_done(&mut self, turn: &mut Turn<'_>, io: IoNumber) {
        self.poked = true;
        let mut over = Vec::new();
        for (&number, ios) in &mut self.returns {
            if ios.remove(&io) && ios.is_empty() {
                over.push(number);
            }
        }
        for number in over {
            self.returns.remove(&number);
            self.returned(turn, number);
        }
    }

    /// Blocks were freed. Layouts that are kept don't name them, as their leases were recalled first;
    /// what is under way may.
    pub(crate) fn return_layouts(&mut self, turn: &mut Turn<'_>, number: QuarantineNumber) {
        if self.ios.is_empty() {
            return self.returned(turn, number);
        }
        self.returns.insert(number, self.ios.keys().copied().collect());
    }

    fn returned(&mut self, turn: &mut Turn<'_>, number: QuarantineNumber) {
        if let Some(session) = self.link.session {
            self.link.send(ToCoordinator::LayoutsReturned(session, number), turn.out);
        }
    }
}

/// Blocks that were read, taken from the front.
struct Blocks {
    pieces: std::vec::IntoIter<Bytes>,
    /// What is left of the piece that is being taken.
    rest: Bytes,
}

impl Blocks {
    fn of(pieces: Vec<Bytes>) -> Self {
        Self { pieces: pieces.into_iter(), rest: Bytes::new() }
    }

    /// Of the next `count` blocks, `length` bytes from byte `at` on; zeros for what isn't there.
    fn take(&mut self, count: usize, at: usize, length: usize) -> Vec<Bytes> {
        let (mut out, mut skip, mut wanted) = (Vec::new(), at, length);
        let mut left = count * BLOCK_SIZE;
        while left > 0 {
            if self.rest.is_empty() {
                let Some(next) = self.pieces.next() else { break };
                self.rest = next;
                continue;
            }
            let mut part = self.rest.split_to(self.rest.len().min(left));
            left -= part.len();
            let skipped = skip.min(part.len());
            let _ = part.split_to(skipped);
            skip -= skipped;
            part.truncate(wanted);
            wanted -= part.len();
            if !part.is_empty() {
                out.push(part);
            }
        }
        if wanted > 0 {
            out.push(vec![0; wanted].into());
        }
        out
    }
}

/// How many blocks `length` bytes lie in that begin at byte `at` of the first.
fn blocks_in(at: usize, length: u64) -> u64 {
    (at as u64 + length).div_ceil(BLOCK_SIZE as u64)
}

/// The blocks that hold segments, in order.
fn blocks_of(segments: &[Segment]) -> Vec<BlockAddress> {
    let mut blocks = Vec::new();
    for segment in segments {
        if let Source::Blocks(address, at) = segment.source {
            blocks.extend((0..blocks_in(at, segment.length)).map(|i| address.plus(i)));
        }
    }
    blocks
}
