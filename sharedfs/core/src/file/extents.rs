//! The rows of a file's extents.

use serde::{Deserialize, Serialize};

use crate::error::Damage;
use crate::format::{EXTENT_BLOCKS_MAX, ExtentRow, ExtentState, InodeRow, Key, KeyRange};
use crate::ops::Progress;
use crate::transaction::damaged;
use crate::tree::Row;
use crate::{FileBlock, Ino, Result, Run, Transaction};

/// What holds some of a file's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mapped {
    /// Nothing: zeros.
    Hole,
    /// The tree (block 0 only).
    Inline,
    /// The volume.
    Blocks(Run, ExtentState),
}

/// A part of a file that one thing holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// The first block.
    pub block: FileBlock,
    /// How many blocks.
    pub count: u64,
    /// What holds them.
    pub mapped: Mapped,
}

impl Mapping {
    /// The first block behind.
    #[must_use]
    pub fn end(&self) -> FileBlock {
        self.block.plus(self.count)
    }
}

/// An extent with its place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) block: FileBlock,
    pub(super) row: ExtentRow,
}

impl Extent {
    pub(super) fn end(&self) -> FileBlock {
        self.block.plus(self.row.run.count)
    }

    /// The part of it in blocks `from..end` of the file, which it overlaps.
    fn part(&self, from: FileBlock, end: FileBlock) -> Self {
        let (from, end) = (from.max(self.block), end.min(self.end()));
        let start = self.row.run.start.plus(from.0 - self.block.0);
        let run = Run::new(start, end.0 - from.0);
        Self { block: from, row: ExtentRow { run, ..self.row } }
    }
}

impl Transaction<'_> {
    /// What holds the blocks `from..end` of a file, in order and without gaps: at most `limit`
    /// pieces, so it may end before `end`.
    ///
    /// # Errors
    /// Damage.
    pub fn mappings(
        &self,
        ino: Ino,
        from: FileBlock,
        end: FileBlock,
        limit: usize,
    ) -> Result<Vec<Mapping>> {
        let row = self.inode(ino)?;
        self.map(&row, from, end, limit)
    }

    pub(super) fn map(
        &self,
        row: &InodeRow,
        from: FileBlock,
        end: FileBlock,
        limit: usize,
    ) -> Result<Vec<Mapping>> {
        let mut at = from;
        let mut pieces = Vec::new();
        let is_inline = row.flags.inline && from == FileBlock(0) && from < end;
        if is_inline {
            pieces.push(Mapping { block: from, count: 1, mapped: Mapped::Inline });
            at = FileBlock(1);
        }
        for extent in self.extents(row.attributes.ino, at, end, limit)? {
            if at < extent.block {
                let count = extent.block.0 - at.0;
                pieces.push(Mapping { block: at, count, mapped: Mapped::Hole });
            }
            let part = extent.part(at, end);
            let mapped = Mapped::Blocks(part.row.run, part.row.state);
            pieces.push(Mapping { block: part.block, count: part.row.run.count, mapped });
            at = part.end();
        }
        // With `limit` extents found, there may be more before `end`.
        if at < end && pieces.len() < limit {
            pieces.push(Mapping { block: at, count: end.0 - at.0, mapped: Mapped::Hole });
        }
        pieces.truncate(limit);
        Ok(pieces)
    }

    /// The first `limit` extents that have blocks in `from..end`, whole.
    pub(super) fn extents(
        &self,
        ino: Ino,
        from: FileBlock,
        end: FileBlock,
        limit: usize,
    ) -> Result<Vec<Extent>> {
        if from >= end {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        found.extend(self.extent_before(ino, from)?.filter(|extent| extent.end() > from));
        let range = KeyRange::between(&Key::Extent(ino, from), &Key::Extent(ino, end));
        for row in self.scan(&range, limit)? {
            found.push(decode(ino, &row)?);
        }
        found.truncate(limit);
        Ok(found)
    }

    /// The last extent that begins before `block`.
    fn extent_before(&self, ino: Ino, block: FileBlock) -> Result<Option<Extent>> {
        let before = KeyRange::between(&Key::Extent(ino, FileBlock(0)), &Key::Extent(ino, block));
        self.scan_back(&before, 1)?.pop().map(|row| decode(ino, &row)).transpose()
    }

    /// Where the last extent of a file ends.
    pub(super) fn extents_end(&self, ino: Ino) -> Result<Option<FileBlock>> {
        Ok(self.extent_before(ino, FileBlock(u64::MAX))?.map(|extent| extent.end()))
    }

    /// Takes the blocks `from..end` (to the last one, without an end) from the file and sends them
    /// into quarantine, working from the end, `limit` extents at most. Does not touch the inline row.
    pub(crate) fn remove_blocks(
        &mut self,
        row: &mut InodeRow,
        from: FileBlock,
        end: Option<FileBlock>,
        limit: usize,
    ) -> Result<Progress> {
        let ino = row.attributes.ino;
        let end = end.unwrap_or(FileBlock(u64::MAX));
        if from >= end {
            return Ok(Progress::Done);
        }
        for _ in 0..limit {
            let Some(extent) = self.extent_before(ino, end)?.filter(|e| e.end() > from) else {
                return Ok(Progress::Done);
            };
            let removed = extent.part(from, end);
            self.cut_out(ino, extent, removed);
            self.free(removed.row.run)?;
            uncount(row, removed.row.run.count)?;
        }
        let left = self.extent_before(ino, end)?.is_some_and(|extent| extent.end() > from);
        Ok(if left { Progress::More } else { Progress::Done })
    }

    /// Leaves of `extent` what lies before and behind `part`.
    fn cut_out(&mut self, ino: Ino, extent: Extent, part: Extent) {
        self.delete(&Key::Extent(ino, extent.block));
        for (from, end) in [(extent.block, part.block), (part.end(), extent.end())] {
            if from < end {
                self.put_extent(ino, extent.part(from, end));
            }
        }
    }

    /// Puts blocks where the file has a hole, as one with neighbours that go on where they begin or
    /// end. Does not count them.
    pub(super) fn insert_extent(&mut self, ino: Ino, mut extent: Extent) -> Result<()> {
        let slice_blocks = self.state()?.slice_blocks;
        let at = extent.block;
        let joins = |a: &Extent, b: &Extent| {
            a.end() == b.block
                && a.row.run.end() == b.row.run.start
                && a.row.state == b.row.state
                && a.row.run.count + b.row.run.count <= EXTENT_BLOCKS_MAX
                && !b.row.run.start.0.is_multiple_of(slice_blocks)
        };
        if let Some(before) = self.extent_before(ino, at)? {
            if before.end() > at {
                return Err(Damage::Extents(ino).into());
            }
            if joins(&before, &extent) {
                let count = before.row.run.count + extent.row.run.count;
                extent.block = before.block;
                extent.row.run = Run::new(before.row.run.start, count);
            }
        }
        let behind = KeyRange { from: Key::Extent(ino, at).encode(), ..KeyRange::extents(ino) };
        if let Some(row) = self.scan(&behind, 1)?.pop() {
            let next = decode(ino, &row)?;
            if next.block < extent.end() {
                return Err(Damage::Extents(ino).into());
            }
            if joins(&extent, &next) {
                self.delete(&Key::Extent(ino, next.block));
                extent.row.run.count += next.row.run.count;
            }
        }
        self.put_extent(ino, extent);
        Ok(())
    }

    /// Says of the blocks `from..end` of an extent whether they hold data.
    pub(super) fn mark(
        &mut self,
        ino: Ino,
        extent: Extent,
        (from, end): (FileBlock, FileBlock),
        state: ExtentState,
    ) -> Result<()> {
        if extent.row.state == state {
            return Ok(());
        }
        let mut part = extent.part(from, end);
        self.cut_out(ino, extent, part);
        part.row.state = state;
        self.insert_extent(ino, part)
    }

    fn put_extent(&mut self, ino: Ino, extent: Extent) {
        self.put(&Key::Extent(ino, extent.block), extent.row.encode());
    }
}

pub(super) fn uncount(row: &mut InodeRow, count: u64) -> Result<()> {
    let left = row.attributes.blocks.checked_sub(count);
    row.attributes.blocks = left.ok_or(Damage::Extents(row.attributes.ino))?;
    Ok(())
}

fn decode(ino: Ino, (key, value): &Row) -> Result<Extent> {
    let damage = || damaged(&Key::Extent(ino, FileBlock(0)));
    match (Key::decode(key), ExtentRow::decode(value)) {
        (Some(Key::Extent(_, block)), Some(row))
            if block.0.checked_add(row.run.count).is_some() =>
        {
            Ok(Extent { block, row })
        }
        _ => Err(damage()),
    }
}
