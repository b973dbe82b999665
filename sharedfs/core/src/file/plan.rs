//! Plans: which bytes have to be in which blocks before a change can be committed. A plan reads the
//! tree and changes nothing.

use mooring_terms::BLOCK_SIZE;

use super::commit::{Commit, NewExtent};
use super::extents::{Mapped, Mapping};
use crate::format::{ExtentState, FILE_SIZE_MAX, INLINE_BYTES, InodeRow, Versions};
use crate::{BlockAddress, FileBlock, FsError, Ino, Result, Run, Transaction};

/// What stands around the bytes of a [`BlockWrite`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Zeros: the block is new.
    Zeros,
    /// What the block holds: it must be read, if the bytes don't fill it.
    Present,
}

/// Bytes for one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockWrite {
    /// The block.
    pub address: BlockAddress,
    /// Where in it the bytes begin.
    pub offset: usize,
    /// The bytes; they don't reach behind the block.
    pub bytes: Vec<u8>,
    /// What is around them.
    pub base: Base,
}

/// What a write amounts to: first these blocks, then this commit (with the versions that the slices
/// gave the blocks).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The blocks to write.
    pub writes: Vec<BlockWrite>,
    /// What to commit when they are written.
    pub commit: Commit,
}

/// Blocks that a session has reserved, to be taken one by one.
struct Pool<'a> {
    runs: &'a [Run],
    used: u64,
}

impl Pool<'_> {
    /// The next block, and whether it goes on in the run of the one before. Runs that touch are not
    /// one: they may lie in two slices.
    fn take(&mut self) -> Option<(BlockAddress, bool)> {
        let (first, rest) = self.runs.split_first()?;
        let (address, goes_on) = (first.start.plus(self.used), self.used > 0);
        self.used += 1;
        if self.used == first.count {
            (self.runs, self.used) = (rest, 0);
        }
        Some((address, goes_on))
    }
}

impl Transaction<'_> {
    /// How many reserved blocks a write of `length` bytes at `offset` takes at most.
    ///
    /// # Errors
    /// [`FsError::IsDirectory`] and [`FsError::Invalid`] for what has no contents,
    /// [`FsError::TooBig`].
    pub fn blocks_needed(&self, ino: Ino, offset: u64, length: u64) -> Result<u64> {
        let row = self.file(ino)?;
        let end = end_of(offset, length)?;
        let mut at = FileBlock::of(offset);
        let behind = FileBlock::at_or_after(end);
        let mut needed = 0;
        while at < behind {
            for mapping in self.map(&row, at, behind, 256)? {
                if !matches!(mapping.mapped, Mapped::Blocks(..)) {
                    needed += mapping.count;
                }
                at = mapping.end();
            }
        }
        Ok(needed)
    }

    /// Plans a write of `bytes` at `offset`; new blocks come from `reserved`, in order.
    ///
    /// # Errors
    /// Those of [`Transaction::blocks_needed`]; [`FsError::NoSpace`] if `reserved` is too little.
    pub fn plan_write(
        &self,
        ino: Ino,
        offset: u64,
        bytes: &[u8],
        reserved: &[Run],
    ) -> Result<Plan> {
        let row = self.file(ino)?;
        let end = end_of(offset, bytes.len() as u64)?;
        let mut plan = Plan::default();
        if bytes.is_empty() {
            return Ok(plan);
        }
        let size = row.attributes.size;
        plan.commit.size_at_least = end;
        if offset > size {
            // What lies between the old end and the write becomes visible.
            plan.writes = self.zero_behind_end(&row)?;
        }
        let mut pool = Pool { runs: reserved, used: 0 };
        let (mut at, behind) = (FileBlock::of(offset), FileBlock::at_or_after(end));
        while at < behind {
            for mapping in self.map(&row, at, behind, 256)? {
                let from = mapping.block.offset().max(offset);
                let to = mapping.end().offset().min(end);
                let part = &bytes[(from - offset) as usize..(to - offset) as usize];
                self.plan_piece(&row, mapping, from, part, end.max(size), &mut pool, &mut plan)?;
                at = mapping.end();
            }
        }
        Ok(plan)
    }

    /// Plans that a file's size moves up to `size`: what has to be zeroed first.
    ///
    /// # Errors
    /// [`FsError::IsDirectory`] and [`FsError::Invalid`] for what has no contents.
    pub fn plan_extend(&self, ino: Ino, size: u64) -> Result<Vec<BlockWrite>> {
        let row = self.file(ino)?;
        if size > row.attributes.size { self.zero_behind_end(&row) } else { Ok(Vec::new()) }
    }

    /// Plans that the bytes `from..to` become zeros: the parts of blocks at both ends. (Whole blocks
    /// are [`Transaction::punch`]'s and [`Transaction::zero`]'s.)
    ///
    /// # Errors
    /// [`FsError::IsDirectory`] and [`FsError::Invalid`] for what has no contents.
    pub fn plan_zero(&self, ino: Ino, from: u64, to: u64) -> Result<Vec<BlockWrite>> {
        let row = self.file(ino)?;
        let to = to.min(row.attributes.size);
        let mut writes = Vec::new();
        let (first, last) = (FileBlock::of(from), FileBlock::of(to));
        let head_end = to.min(first.plus(1).offset());
        if from < to && from > first.offset() {
            writes.extend(self.zero_part(&row, from, head_end)?);
        }
        let tail = last.offset();
        if tail < to && from <= tail {
            writes.extend(self.zero_part(&row, tail, to)?);
        }
        Ok(writes)
    }

    /// Zeros for what the last block holds behind the file's size.
    fn zero_behind_end(&self, row: &InodeRow) -> Result<Vec<BlockWrite>> {
        let size = row.attributes.size;
        let end = FileBlock::at_or_after(size).offset();
        Ok(self.zero_part(row, size, end)?.into_iter().collect())
    }

    /// Zeros for the bytes `from..to`, which lie in one block, if that is in the volume.
    fn zero_part(&self, row: &InodeRow, from: u64, to: u64) -> Result<Option<BlockWrite>> {
        let block = FileBlock::of(from);
        let mapping = self.map(row, block, block.plus(1), 1)?.pop();
        Ok(match mapping.map(|mapping| mapping.mapped) {
            Some(Mapped::Blocks(run, ExtentState::Written)) if from < to => Some(BlockWrite {
                address: run.start,
                offset: (from - block.offset()) as usize,
                bytes: vec![0; (to - from) as usize],
                base: Base::Present,
            }),
            _ => None,
        })
    }

    /// Plans the part of a write that lies in one mapping. `size` is the file's size afterwards.
    #[expect(clippy::too_many_arguments, reason = "one step of a loop, with the loop's state")]
    fn plan_piece(
        &self,
        row: &InodeRow,
        mapping: Mapping,
        offset: u64,
        bytes: &[u8],
        size: u64,
        pool: &mut Pool<'_>,
        plan: &mut Plan,
    ) -> Result<()> {
        match mapping.mapped {
            Mapped::Blocks(run, state) => {
                let base = match state {
                    ExtentState::Written => Base::Present,
                    ExtentState::Unwritten => Base::Zeros,
                };
                for (block, at, part) in blocks_of(offset, bytes) {
                    let address = run.start.plus(block.0 - mapping.block.0);
                    add_write(plan, BlockWrite { address, offset: at, bytes: part.to_vec(), base });
                }
                if state == ExtentState::Unwritten {
                    let versions = Versions::default();
                    plan.commit.extents.push(NewExtent { block: mapping.block, run, versions });
                }
                Ok(())
            }
            Mapped::Hole | Mapped::Inline => {
                let is_inline = mapping.mapped == Mapped::Inline;
                let first = mapping.block == FileBlock(0);
                if is_inline || (first && size <= INLINE_BYTES as u64) {
                    let mut content = if is_inline { self.inline(row)? } else { Vec::new() };
                    let end = offset as usize + bytes.len().min(BLOCK_SIZE - offset as usize);
                    content.resize(content.len().max(end), 0);
                    content[offset as usize..end].copy_from_slice(&bytes[..end - offset as usize]);
                    if size <= INLINE_BYTES as u64 {
                        plan.commit.inline = Some(content);
                        return Ok(());
                    }
                    // It grows out of the tree.
                    return new_blocks(plan, pool, 0, &content);
                }
                new_blocks(plan, pool, offset, bytes)
            }
        }
    }
}

/// Puts bytes for a hole into new blocks.
fn new_blocks(plan: &mut Plan, pool: &mut Pool<'_>, offset: u64, bytes: &[u8]) -> Result<()> {
    let begin = plan.commit.extents.len();
    for (block, at, part) in blocks_of(offset, bytes) {
        let (address, goes_on) = pool.take().ok_or(FsError::NoSpace { coming: false })?;
        let bytes = part.to_vec();
        plan.writes.push(BlockWrite { address, offset: at, bytes, base: Base::Zeros });
        match plan.commit.extents[begin..].last_mut() {
            Some(last) if goes_on => last.run.count += 1,
            _ => plan.commit.extents.push(NewExtent {
                block,
                run: Run::new(address, 1),
                versions: Versions::default(),
            }),
        }
    }
    Ok(())
}

/// Adds a write to a plan; the zeros that were planned for the same block become part of it.
fn add_write(plan: &mut Plan, write: BlockWrite) {
    if let Some(zeros) = plan.writes.iter_mut().find(|before| before.address == write.address) {
        let end = zeros.bytes.len() + zeros.offset;
        debug_assert!(zeros.offset <= write.offset && write.offset + write.bytes.len() <= end);
        let at = write.offset - zeros.offset;
        zeros.bytes[at..at + write.bytes.len()].copy_from_slice(&write.bytes);
        return;
    }
    plan.writes.push(write);
}

/// The parts of `bytes`, which begin at `offset` of a file, block by block: the block, where in it
/// they begin, and they.
fn blocks_of(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (FileBlock, usize, &[u8])> {
    let mut rest = bytes;
    let mut at = offset;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let block = FileBlock::of(at);
        let begin = (at - block.offset()) as usize;
        let (part, behind) = rest.split_at(rest.len().min(BLOCK_SIZE - begin));
        rest = behind;
        at += part.len() as u64;
        Some((block, begin, part))
    })
}

fn end_of(offset: u64, length: u64) -> Result<u64> {
    let end = offset.checked_add(length).filter(|&end| end <= FILE_SIZE_MAX);
    end.ok_or(FsError::TooBig)
}
