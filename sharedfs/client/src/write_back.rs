//! Writing back: pages to their blocks, then one commit. One round an inode at a time, of all that is
//! dirty when it begins.

use mooring_sharedfs_core::coordinator::{Operation, Reply};
use mooring_sharedfs_core::file::{Commit, Mapped, Mapping, NewExtent};
use mooring_sharedfs_core::format::{ExtentState, INLINE_BYTES, Versions};
use mooring_sharedfs_core::{BlockAddress, Caller, FileBlock, FsError, Ino, Result, Run};
use mooring_terms::{SliceIndex, Time, Version};

use crate::client::{Client, Turn};
use crate::command::Command;
use crate::event::IoNumber;
use crate::reading::Io;
use crate::replies::Purpose;

/// One round.
#[derive(Clone, Debug)]
pub(crate) struct WriteBack {
    /// It takes along all writes up to this one.
    number: u64,
    /// The blocks that are written, in the order in which they were given out.
    addresses: Vec<BlockAddress>,
    commit: Commit,
}

impl Client {
    /// Begins a round, unless one is under way.
    pub(crate) fn write_back(&mut self, turn: &mut Turn<'_>, ino: Ino) {
        let inode = self.inode(ino);
        if inode.write_back.is_some() || !inode.is_dirty() {
            return;
        }
        let Some(local) = inode.local else { return };
        let number = inode.written;
        let mut commit = Commit {
            size_at_least: local.size,
            mtime: Some(local.mtime),
            kill_privileges: local.kill_privileges,
            ..Commit::default()
        };
        let mut writes = Vec::new();
        let blocks = inode.pages.dirty_blocks();
        let only_zero = blocks.iter().all(|&block| block == FileBlock(0));
        if only_zero && !blocks.is_empty() && self.lies_in_tree(ino, local.size) {
            let inode = self.inode(ino);
            let page = inode.pages.get(FileBlock(0)).map(|page| page.bytes.clone());
            commit.inline = page.map(|bytes| bytes[..local.size as usize].to_vec());
            inode.pages.begin(FileBlock(0), true);
        } else {
            self.place(ino, &blocks, &mut commit, &mut writes);
        }
        let addresses: Vec<BlockAddress> = writes.iter().map(|&(address, _)| address).collect();
        let inode = self.inode(ino);
        inode.write_back = Some(WriteBack { number, addresses, commit });
        if writes.is_empty() {
            return self.commit(turn, ino);
        }
        let io = self.next_io();
        self.inode(ino).reading += 1;
        self.ios.insert(io, Io::WriteBack(ino));
        turn.out.push(Command::WriteBlocks(io, writes));
    }

    /// Whether a file of this size keeps its first block in the tree.
    fn lies_in_tree(&mut self, ino: Ino, size: u64) -> bool {
        let piece = self.inode(ino).layout.at(FileBlock(0));
        let blocks = piece.is_some_and(|piece| matches!(piece.mapped, Mapped::Blocks(..)));
        size <= INLINE_BYTES as u64 && !blocks
    }

    /// Says where each dirty block goes: where it is, or into one that is reserved.
    fn place(
        &mut self,
        ino: Ino,
        blocks: &[FileBlock],
        commit: &mut Commit,
        writes: &mut Vec<(BlockAddress, Vec<u8>)>,
    ) {
        let mut before = None;
        for &block in blocks {
            let inode = self.inode(ino);
            let Some(bytes) = inode.pages.get(block).map(|page| page.bytes.clone()) else {
                continue;
            };
            let versions = Versions::default();
            let (address, goes_on) = match inode.layout.at(block).map(|piece| piece.mapped) {
                Some(Mapped::Blocks(run, ExtentState::Written)) => {
                    writes.push((run.start, bytes));
                    self.inode(ino).pages.begin(block, false);
                    before = None;
                    continue;
                }
                Some(Mapped::Blocks(run, ExtentState::Unwritten)) => {
                    before = None;
                    inode.pages.begin(block, false);
                    (run.start, false)
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
                    self.inode(ino).pages.begin(block, false);
                    (address, goes_on)
                }
            };
            writes.push((address, bytes));
            match commit.extents.last_mut() {
                Some(last) if goes_on && last.run.end() == address => last.run.count += 1,
                _ => commit.extents.push(NewExtent { block, run: Run::new(address, 1), versions }),
            }
        }
    }

    /// A page for which there is no block: its bytes are lost, and every handle says so once.
    fn lose(&mut self, ino: Ino, block: FileBlock) {
        self.with_pages(ino, |inode| {
            inode.pages.begin(block, false);
            inode.pages.lose(block);
            inode.errors += 1;
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
            match (versions, &mut inode.write_back) {
                (Ok(versions), Some(round)) => {
                    let written = round.addresses.iter().copied().zip(versions).collect();
                    round.commit.name_versions(&written, |block| slice_of(block, slice_blocks));
                    self.commit(turn, ino);
                }
                (Err(_), _) => self.write_back_failed(turn, ino),
                (Ok(_), None) => {}
            }
        }
        self.io_done(turn, io);
    }

    fn commit(&mut self, turn: &mut Turn<'_>, ino: Ino) {
        let Some(round) = &self.inode(ino).write_back else { return };
        let asked = Operation::Commit { ino, commit: round.commit.clone() };
        self.ask(turn, Caller::ROOT, asked, Vec::new(), Purpose::Commit(ino));
    }

    /// A round is part of the file, or not.
    pub(crate) fn committed(&mut self, turn: &mut Turn<'_>, ino: Ino, reply: Reply) {
        let attributes = match reply {
            Reply::Attributes(attributes) => attributes,
            Reply::Refused(FsError::NoSpace { .. }) if self.pay(ino) => {
                return self.commit(turn, ino);
            }
            _ => return self.write_back_failed(turn, ino),
        };
        let Some(round) = self.inode(ino).write_back.take() else { return };
        let inode = self.inode(ino);
        for extent in &round.commit.extents {
            let mapped = Mapped::Blocks(extent.run, ExtentState::Written);
            inode.layout.put(Mapping { block: extent.block, count: extent.run.count, mapped });
        }
        if round.commit.inline.is_some() {
            let mapped = Mapped::Inline;
            inode.layout.put(Mapping { block: FileBlock(0), count: 1, mapped });
        }
        if inode.kernel_pages.is_some()
            && inode.kernel_pages == inode.attributes.map(|before| before.change)
        {
            inode.kernel_pages = Some(attributes.change);
        }
        inode.committed = inode.committed.max(round.number);
        if inode.written == round.number {
            inode.local = None;
        } else if let Some(local) = &mut inode.local {
            local.since = turn.now;
        }
        inode.learn(attributes);
        let freed = self.with_pages(ino, |inode| inode.pages.committed(round.number));
        self.pool.release(freed);
        self.settled(ino);
    }

    /// On a full volume the promised block pays for a place in the tree.
    fn pay(&mut self, ino: Ino) -> bool {
        let pool = &mut self.pool;
        let Some(inode) = self.inodes.get_mut(&ino) else { return false };
        let Some(round) = inode.write_back.as_mut() else { return false };
        if round.commit.inline.is_none() || round.commit.pays.is_some() {
            return false;
        }
        round.commit.pays = pool.take(None).map(|(block, _)| block);
        inode.pages.unpromise(FileBlock(0));
        round.commit.pays.is_some()
    }

    /// What a round took along is lost, and every handle of the file says so once.
    fn write_back_failed(&mut self, turn: &mut Turn<'_>, ino: Ino) {
        let _ = turn;
        let Some(round) = self.inode(ino).write_back.take() else { return };
        let freed = self.with_pages(ino, |inode| inode.pages.failed(round.number));
        self.pool.release(freed);
        let inode = self.inode(ino);
        inode.errors += 1;
        inode.committed = inode.committed.max(round.number);
        if inode.written == round.number {
            inode.local = None;
        }
        inode.attributes = None;
        inode.layout.clear();
        self.settled(ino);
    }

    fn settled(&mut self, ino: Ino) {
        let inode = self.inode(ino);
        if !inode.is_dirty() {
            self.dirty.remove(&ino);
        }
        self.to_close.insert(ino);
        self.poked = true;
    }

    /// Writes back what is old enough, and says when to look again.
    pub(crate) fn look_after_age(&mut self, turn: &mut Turn<'_>) {
        let after = self.options.write_back_after;
        let mut next = Time(turn.now.0 + std::time::Duration::from_secs(3600));
        for ino in self.dirty.clone() {
            let inode = self.inode(ino);
            let Some(local) = inode.local else { continue };
            if inode.write_back.is_some() {
                continue;
            }
            let due = local.since + after;
            if due <= turn.now || self.unmounting {
                self.write_back(turn, ino);
            } else {
                next = next.min(due);
            }
        }
        self.next_look = next;
    }
}

/// The slice of a block.
fn slice_of(block: BlockAddress, slice_blocks: u64) -> SliceIndex {
    SliceIndex(u32::try_from(block.0 / slice_blocks).unwrap_or(u32::MAX))
}
