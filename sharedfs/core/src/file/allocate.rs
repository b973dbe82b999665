//! `fallocate`: blocks before there is data, and none where data was. (FUSE passes no other modes
//! on: the kernel answers collapse, insert and unshare itself.)

use super::extents::{Extent, Mapped};
use crate::format::{ExtentRow, ExtentState, FILE_SIZE_MAX, INLINE_BYTES, InodeRow, Key};
use crate::ops::{Progress, STEP_ROWS};
use crate::{BlockAddress, Caller, FileBlock, FsError, Ino, Result, Transaction};

impl Transaction<'_> {
    /// Preallocates blocks for the bytes `from..to`, where the file has none; unless `keep_size`,
    /// the size is at least `to` afterwards (and [`Transaction::plan_extend`] came before). Looks
    /// for space from `near` on.
    ///
    /// # Errors
    /// [`FsError::NoSpace`]: what was allocated in earlier steps stays. [`FsError::TooBig`],
    /// [`FsError::Invalid`].
    pub fn allocate(
        &mut self,
        caller: &Caller,
        ino: Ino,
        (from, to): (u64, u64),
        keep_size: bool,
        near: BlockAddress,
    ) -> Result<Progress> {
        let mut row = self.range_of_file(ino, from, to)?;
        let progress = self.fill_holes(&mut row, from, to, near)?;
        if progress == Progress::Done && !keep_size {
            row.attributes.size = row.attributes.size.max(to);
        }
        self.put_changed_contents(caller, &mut row);
        Ok(progress)
    }

    /// Makes a hole of the bytes `from..to`: their whole blocks are freed. Parts of blocks were
    /// zeroed before, by [`Transaction::plan_zero`].
    ///
    /// # Errors
    /// [`FsError::Invalid`], [`FsError::TooBig`].
    pub fn punch(&mut self, caller: &Caller, ino: Ino, (from, to): (u64, u64)) -> Result<Progress> {
        let mut row = self.range_of_file(ino, from, to)?;
        let end = whole_blocks_end(&row, to);
        let progress =
            self.remove_blocks(&mut row, FileBlock::at_or_after(from), Some(end), STEP_ROWS)?;
        if progress == Progress::Done {
            self.zero_inline(&mut row, from, to)?;
        }
        self.put_changed_contents(caller, &mut row);
        Ok(progress)
    }

    /// Makes zeros of the bytes `from..to`, and keeps or allocates their blocks. Parts of blocks
    /// were zeroed before, by [`Transaction::plan_zero`].
    ///
    /// # Errors
    /// As [`Transaction::allocate`].
    pub fn zero(
        &mut self,
        caller: &Caller,
        ino: Ino,
        (from, to): (u64, u64),
        keep_size: bool,
        near: BlockAddress,
    ) -> Result<Progress> {
        let mut row = self.range_of_file(ino, from, to)?;
        let mut at = FileBlock::at_or_after(from);
        let end = whole_blocks_end(&row, to);
        let mut marked = 0;
        while at < end {
            let Some(extent) = self.extents(ino, at, end, 1)?.pop() else { break };
            let part = (at.max(extent.block), end.min(extent.end()));
            if extent.row.state == ExtentState::Written {
                if marked == STEP_ROWS {
                    self.put_changed_contents(caller, &mut row);
                    return Ok(Progress::More);
                }
                self.mark(ino, extent, part, ExtentState::Unwritten)?;
                marked += 1;
            }
            at = part.1;
        }
        self.zero_inline(&mut row, from, to)?;
        let progress = self.fill_holes(&mut row, from, to, near)?;
        if progress == Progress::Done && !keep_size {
            row.attributes.size = row.attributes.size.max(to);
        }
        self.put_changed_contents(caller, &mut row);
        Ok(progress)
    }

    fn range_of_file(&self, ino: Ino, from: u64, to: u64) -> Result<InodeRow> {
        let row = self.file(ino)?;
        if from >= to {
            return Err(FsError::Invalid);
        }
        if to > FILE_SIZE_MAX {
            return Err(FsError::TooBig);
        }
        Ok(row)
    }

    /// Puts unwritten blocks into the holes of all blocks that `from..to` touches.
    fn fill_holes(
        &mut self,
        row: &mut InodeRow,
        from: u64,
        to: u64,
        near: BlockAddress,
    ) -> Result<Progress> {
        let (mut at, end) = (FileBlock::of(from), FileBlock::at_or_after(to));
        let mut near = near;
        let mut filled = 0;
        while at < end {
            let Some(mapping) = self.map(row, at, end, 1)?.pop() else { break };
            if mapping.mapped == Mapped::Hole {
                if filled >= STEP_ROWS {
                    return Ok(Progress::More);
                }
                let mut block = mapping.block;
                for run in self.take_free(mapping.count, near)? {
                    let extent = ExtentRow { run, state: ExtentState::Unwritten };
                    self.insert_extent(row.attributes.ino, Extent { block, row: extent })?;
                    row.attributes.blocks += run.count;
                    block = block.plus(run.count);
                    near = run.end();
                    filled += 1;
                }
                at = block;
            } else {
                at = mapping.end();
            }
        }
        Ok(Progress::Done)
    }

    /// Zeroes the bytes `from..to` as far as they are in the tree.
    fn zero_inline(&mut self, row: &mut InodeRow, from: u64, to: u64) -> Result<()> {
        if !row.flags.inline || from >= INLINE_BYTES as u64 {
            return Ok(());
        }
        if from == 0 && whole_blocks_end(row, to) > FileBlock(0) {
            return self.remove_inline(row);
        }
        let mut bytes = self.inline(row)?;
        let to = (to.min(INLINE_BYTES as u64) as usize).min(bytes.len());
        let from = (from as usize).min(to);
        bytes[from..to].fill(0);
        self.put(&Key::Inline(row.attributes.ino), bytes);
        Ok(())
    }

    fn put_changed_contents(&mut self, caller: &Caller, row: &mut InodeRow) {
        let now = self.now();
        row.attributes.mtime = now;
        row.attributes.ctime = now;
        if !caller.privileged {
            self.kill_privileges(row);
        }
        self.put_inode(row);
    }
}

/// The end of the blocks that lie wholly before `to`. The last block of a file does, if `to` is at
/// or behind its end: there is nothing of the file in the rest of it.
fn whole_blocks_end(row: &InodeRow, to: u64) -> FileBlock {
    if to >= row.attributes.size && FileBlock::of(to) < FileBlock::at_or_after(row.attributes.size)
    {
        FileBlock::of(to).plus(1)
    } else {
        FileBlock::of(to)
    }
}
