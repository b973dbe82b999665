//! Commits: blocks that were written become part of a file.

use serde::{Deserialize, Serialize};

use std::collections::BTreeMap;

use mooring_terms::{SliceIndex, Version};

use super::extents::{Extent, Mapped, uncount};
use crate::error::Damage;
use crate::format::{
    DataClaim, ExtentRow, ExtentState, FILE_SIZE_MAX, INLINE_BYTES, InodeRow, Key, Otherwise,
    Versions,
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
    /// The versions that their slice gave them.
    pub versions: Versions,
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
    /// The slices of blocks that were written in place, with the versions that they gave them: their
    /// data is flushed by the next fsync, as that of `extents` is.
    pub overwritten: BTreeMap<SliceIndex, Versions>,
    /// The size is at least this afterwards.
    pub size_at_least: u64,
    /// When it was last written; the operation's date if the writer doesn't say.
    pub mtime: Option<Timestamp>,
    /// Whether the writer takes setuid, setgid and capabilities from the file.
    pub kill_privileges: bool,
}

impl Commit {
    /// Names the versions that blocks got: of the new ones, and of those that were written in place.
    pub fn name_versions(
        &mut self,
        written: &BTreeMap<BlockAddress, Version>,
        slice_of: impl Fn(BlockAddress) -> SliceIndex,
    ) {
        let mut in_place = written.clone();
        for extent in &mut self.extents {
            let new = written.range(extent.run.start..extent.run.end());
            extent.versions = Versions::of(new.map(|(_, &version)| version));
            in_place.retain(|address, _| !(extent.run.start..extent.run.end()).contains(address));
        }
        self.overwritten.clear();
        for (address, version) in in_place {
            let first = Versions { oldest: version, newest: version };
            let of = self.overwritten.entry(slice_of(address)).or_insert(first);
            *of = Versions::of([of.oldest, of.newest, version].into_iter());
        }
    }
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
        // While the last block is what it was before.
        self.claim_zeros(&row, size, &commit.overwritten)?;
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
        let written = commit.mtime.unwrap_or(self.now());
        row.attributes.mtime = written;
        // When it was written, as whoever wrote it has shown all the time; but not before a change since,
        // nor at a date that was set and is still to come.
        row.attributes.ctime = row.attributes.ctime.max(written.min(self.now()));
        if commit.kill_privileges {
            self.kill_privileges(&mut row);
        }
        self.put_inode(&mut row);
        Ok(row.attributes)
    }

    /// A size that moves up to `size` shows what the file's last block has behind its end. Whoever moves
    /// it has written that block in place, with one of these versions or a newer one; if that is lost,
    /// there are zeros.
    pub(crate) fn claim_zeros(
        &mut self,
        row: &InodeRow,
        size: u64,
        overwritten: &BTreeMap<SliceIndex, Versions>,
    ) -> Result<()> {
        let before = row.attributes.size;
        let block = FileBlock::of(before);
        let from = before - block.offset();
        if size <= before || from == 0 {
            return Ok(());
        }
        let mapping = self.map(row, block, block.plus(1), 1)?.pop();
        let Some(Mapped::Blocks(run, ExtentState::Written)) = mapping.map(|m| m.mapped) else {
            return Ok(());
        };
        let slice = self.slice_of(run.start)?;
        if let Some(&versions) = overwritten.get(&slice) {
            let otherwise = Otherwise::Zeros { from: from as u16 };
            self.claim(DataClaim { ino: row.attributes.ino, block, run, versions, otherwise });
        }
        Ok(())
    }

    /// [`Transaction::claim_zeros`] for an operation that moves a size up and is no commit.
    pub(crate) fn claim_zeros_of(
        &mut self,
        ino: Ino,
        size: u64,
        overwritten: &BTreeMap<SliceIndex, Versions>,
    ) -> Result<()> {
        let row = self.file(ino)?;
        self.claim_zeros(&row, size, overwritten)
    }

    /// The slice that a block lies in.
    pub(crate) fn slice_of(&self, block: BlockAddress) -> Result<SliceIndex> {
        let index = block.0 / self.slice_blocks()?;
        Ok(SliceIndex(u32::try_from(index).unwrap_or(u32::MAX)))
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
        let NewExtent { mut block, mut run, versions } = new;
        if let Some(own) = own {
            if own.row.state == ExtentState::Written {
                // In its place before this: an earlier record has claimed it.
                return Ok(());
            }
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
                let first = Run::new(run.start, 1);
                let otherwise = Otherwise::Bytes(self.inline(row)?);
                self.claim(DataClaim { ino, block, run: first, versions, otherwise });
                (block, run) = (block.plus(1), Run::new(run.start.plus(1), run.count - 1));
                self.remove_inline(row)?;
            }
            let extent = ExtentRow { run: new.run, state: ExtentState::Written };
            self.insert_extent(ino, Extent { block: new.block, row: extent })?;
            row.attributes.blocks += new.run.count;
        }
        if run.count > 0 {
            self.claim(DataClaim { ino, block, run, versions, otherwise: Otherwise::Hole });
        }
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
