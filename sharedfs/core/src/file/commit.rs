//! Commits: blocks that were written become part of a file.

use serde::{Deserialize, Serialize};

use std::collections::BTreeSet;

use mooring_terms::{SliceIndex, Version};

use super::extents::{Extent, uncount};
use crate::error::Damage;
use crate::format::{
    DataClaim, ExtentRow, ExtentState, FILE_SIZE_MAX, INLINE_BYTES, InodeRow, Key,
};
use crate::ops::Progress;
use crate::{
    Attributes, BlockAddress, FileBlock, FsError, Ino, Result, Run, SessionId, Timestamp,
    Transaction,
};

/// Blocks that take a place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewExtent {
    /// Where in the file.
    pub block: FileBlock,
    /// The blocks, all in one slice: reserved by the session that commits, or the file's own
    /// preallocated ones at this very place.
    pub run: Run,
    /// The newest version that their slice gave them.
    pub version: Version,
}

/// What is to become part of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The blocks, in any order; what was in their places before is freed.
    pub extents: Vec<NewExtent>,
    /// What block 0 holds, if it lies in the tree: at most [`INLINE_BYTES`], zeros behind.
    pub inline: Option<Vec<u8>>,
    /// A block that the session has reserved and gives up if block 0 begins to lie in the tree: on a
    /// full volume it pays for that. For a writer that was refused without.
    pub pays: Option<BlockAddress>,
    /// The slices of blocks that were written in place: their data is flushed by the next fsync, as
    /// that of `extents` is.
    pub overwritten: BTreeSet<SliceIndex>,
    /// The size is at least this afterwards.
    pub size_at_least: u64,
    /// When it was last written; the operation's date if the writer doesn't say.
    pub mtime: Option<Timestamp>,
    /// Whether the writer takes setuid, setgid and capabilities from the file.
    pub kill_privileges: bool,
}

impl Transaction<'_> {
    /// Makes written blocks part of a file.
    ///
    /// # Errors
    /// [`FsError::Invalid`] if the blocks are not the session's or don't fit the file,
    /// [`FsError::TooBig`], [`FsError::IsDirectory`], [`FsError::NoSpace`] (block 0 into the tree of
    /// a full volume).
    pub fn commit(&mut self, session: SessionId, ino: Ino, commit: &Commit) -> Result<Attributes> {
        let mut row = self.file(ino)?;
        let size = row.attributes.size.max(commit.size_at_least);
        if size > FILE_SIZE_MAX {
            return Err(FsError::TooBig);
        }
        for &extent in &commit.extents {
            let end = extent.block.0.checked_add(extent.run.count);
            let inside = end.is_some_and(|end| end <= FileBlock::at_or_after(size).0);
            if extent.run.count == 0 || !inside {
                return Err(FsError::Invalid);
            }
            self.commit_extent(session, &mut row, extent)?;
        }
        if let Some(bytes) = &commit.inline {
            self.commit_inline(session, &mut row, bytes, size, commit.pays)?;
        }
        row.attributes.size = size;
        let now = self.now();
        row.attributes.mtime = commit.mtime.unwrap_or(now);
        row.attributes.ctime = now;
        if commit.kill_privileges {
            self.kill_privileges(&mut row);
        }
        self.put_inode(&mut row);
        Ok(row.attributes)
    }

    fn commit_extent(
        &mut self,
        session: SessionId,
        row: &mut InodeRow,
        new: NewExtent,
    ) -> Result<()> {
        let (ino, end) = (row.attributes.ino, new.block.plus(new.run.count));
        let there = self.extents(ino, new.block, end, 1)?.pop();
        let own = there.filter(|there| {
            there.block <= new.block
                && end <= there.end()
                && there.row.run.start.plus(new.block.0 - there.block.0) == new.run.start
        });
        if let Some(own) = own {
            self.mark(ino, own, (new.block, end), ExtentState::Written)?;
        } else {
            let slice_blocks = self.state()?.slice_blocks;
            let last = new.run.end().0 - 1;
            if new.run.start.0 / slice_blocks != last / slice_blocks {
                return Err(FsError::Invalid);
            }
            self.use_reserved(session, new.run)?;
            let removed = self.remove_blocks(row, new.block, Some(end), usize::MAX)?;
            debug_assert_eq!(removed, Progress::Done);
            if new.block == FileBlock(0) && row.flags.inline {
                self.remove_inline(row)?;
            }
            let extent = ExtentRow { run: new.run, state: ExtentState::Written };
            self.insert_extent(ino, Extent { block: new.block, row: extent })?;
            row.attributes.blocks += new.run.count;
        }
        let NewExtent { block, run, version } = new;
        self.claim(DataClaim { ino, block, run, version });
        Ok(())
    }

    fn commit_inline(
        &mut self,
        session: SessionId,
        row: &mut InodeRow,
        bytes: &[u8],
        size: u64,
        pays: Option<BlockAddress>,
    ) -> Result<()> {
        let ino = row.attributes.ino;
        let taken = !self.extents(ino, FileBlock(0), FileBlock(1), 1)?.is_empty();
        if taken || bytes.is_empty() || bytes.len() > INLINE_BYTES || bytes.len() as u64 > size {
            return Err(FsError::Invalid);
        }
        if !row.flags.inline {
            self.charge_to(session, pays)?;
            row.flags.inline = true;
            row.attributes.blocks += 1;
        }
        self.put(&Key::Inline(ino), bytes.to_vec());
        Ok(())
    }

    /// Charges a block for a file that begins to lie in the tree: on a full volume the one that the
    /// session names, of those that it has reserved.
    fn charge_to(&mut self, session: SessionId, pays: Option<BlockAddress>) -> Result<()> {
        if let Some(block) = pays {
            let block = Run::new(block, 1);
            self.use_reserved(session, block)?;
            self.add_free(block)?;
        }
        self.charge()
    }

    /// Takes block 0 out of the tree.
    pub(crate) fn remove_inline(&mut self, row: &mut InodeRow) -> Result<()> {
        row.flags.inline = false;
        uncount(row, 1)?;
        self.delete(&Key::Inline(row.attributes.ino));
        self.discharge()
    }

    /// Cuts off what lies behind `size`, which is less than the file's, working from the end; the
    /// caller sets the size when it is done. Unfinished, the size is where the cutting has come to.
    pub(crate) fn cut(&mut self, row: &mut InodeRow, size: u64, limit: usize) -> Result<Progress> {
        let kept = FileBlock::at_or_after(size);
        if self.remove_blocks(row, kept, None, limit)? == Progress::More {
            let ino = row.attributes.ino;
            let last = self.extents_end(ino)?.ok_or(Damage::Extents(ino))?;
            row.attributes.size = row.attributes.size.min(last.offset()).max(size);
            return Ok(Progress::More);
        }
        if row.flags.inline && size < INLINE_BYTES as u64 {
            if size == 0 {
                self.remove_inline(row)?;
            } else {
                let mut bytes = self.inline(row)?;
                bytes.truncate(size as usize);
                self.put(&Key::Inline(row.attributes.ino), bytes);
            }
        }
        Ok(Progress::Done)
    }
}
