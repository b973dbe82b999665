//! Where a file's bytes are to be read from, and where it has any.

use serde::{Deserialize, Serialize};

use super::extents::Mapped;
use crate::error::Damage;
use crate::format::{ExtentState, InodeRow, Key};
use crate::{Attributes, BlockAddress, FileBlock, FileType, FsError, Ino, Result, Transaction};

/// As many pieces as one answer has.
const PIECES: usize = 256;

/// Where some bytes of a file are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// Nowhere: they are zeros.
    Zeros,
    /// Here.
    Bytes(Vec<u8>),
    /// In the volume, from this byte of this block on, and in the blocks behind it.
    Blocks(BlockAddress, usize),
}

/// Some bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The first one's offset in the file.
    pub offset: u64,
    /// How many.
    pub length: u64,
    /// Where they are.
    pub source: Source,
}

/// What `lseek` is to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seek {
    /// SEEK_DATA.
    Data,
    /// SEEK_HOLE; the end of the file is one.
    Hole,
}

impl Transaction<'_> {
    /// Where `length` bytes from `offset` on are, as far as the file goes; the first pieces of it, if
    /// it lies in very many.
    ///
    /// # Errors
    /// [`FsError::IsDirectory`] and [`FsError::Invalid`] for what has no contents.
    pub fn read(&self, ino: Ino, offset: u64, length: u64) -> Result<(Attributes, Vec<Segment>)> {
        let row = self.file(ino)?;
        let end = offset.saturating_add(length).min(row.attributes.size);
        let mut segments = Vec::new();
        if offset >= end {
            return Ok((row.attributes, segments));
        }
        let blocks = (FileBlock::of(offset), FileBlock::at_or_after(end));
        for mapping in self.map(&row, blocks.0, blocks.1, PIECES)? {
            let from = mapping.block.offset().max(offset);
            let to = mapping.end().offset().min(end);
            let source = match mapped_source(mapping.mapped, mapping.block, from) {
                Some(source) => source,
                None => Source::Bytes(self.inline_bytes(&row, from as usize, to as usize)?),
            };
            segments.push(Segment { offset: from, length: to - from, source });
        }
        Ok((row.attributes, segments))
    }

    /// The next data or hole at or behind `offset`. Preallocated blocks are holes.
    ///
    /// # Errors
    /// [`FsError::NoOffset`] at or behind the end, or if only a hole follows data that is sought.
    pub fn seek(&self, ino: Ino, offset: u64, seek: Seek) -> Result<u64> {
        let row = self.file(ino)?;
        let size = row.attributes.size;
        if offset >= size {
            return Err(FsError::NoOffset);
        }
        let (mut at, end) = (FileBlock::of(offset), FileBlock::at_or_after(size));
        while at < end {
            for mapping in self.map(&row, at, end, PIECES)? {
                let data = match mapping.mapped {
                    Mapped::Inline | Mapped::Blocks(_, ExtentState::Written) => Seek::Data,
                    Mapped::Hole | Mapped::Blocks(_, ExtentState::Unwritten) => Seek::Hole,
                };
                if data == seek {
                    return Ok(mapping.block.offset().max(offset));
                }
                at = mapping.end();
            }
        }
        match seek {
            Seek::Data => Err(FsError::NoOffset),
            Seek::Hole => Ok(size),
        }
    }

    /// An inode that has contents.
    pub(super) fn file(&self, ino: Ino) -> Result<InodeRow> {
        let row = self.inode(ino)?;
        match row.attributes.file_type {
            FileType::Regular => Ok(row),
            FileType::Directory => Err(FsError::IsDirectory),
            _ => Err(FsError::Invalid),
        }
    }

    /// The bytes `from..to` of block 0, which lies in the tree; zeros where the row ends.
    fn inline_bytes(&self, row: &InodeRow, from: usize, to: usize) -> Result<Vec<u8>> {
        let mut bytes = self.inline(row)?;
        bytes.resize(to, 0);
        Ok(bytes.split_off(from))
    }

    /// The inline row of a file that has one.
    pub(super) fn inline(&self, row: &InodeRow) -> Result<Vec<u8>> {
        let ino = row.attributes.ino;
        self.get(&Key::Inline(ino))?.ok_or(FsError::Damaged(Damage::Extents(ino)))
    }
}

/// Where the bytes from `offset` on are; `None` if they are in the tree.
fn mapped_source(mapped: Mapped, block: FileBlock, offset: u64) -> Option<Source> {
    match mapped {
        Mapped::Inline => None,
        Mapped::Hole | Mapped::Blocks(_, ExtentState::Unwritten) => Some(Source::Zeros),
        Mapped::Blocks(run, ExtentState::Written) => {
            let skipped = offset - block.offset();
            let whole = skipped / mooring_terms::BLOCK_SIZE as u64;
            let rest = (skipped % mooring_terms::BLOCK_SIZE as u64) as usize;
            Some(Source::Blocks(run.start.plus(whole), rest))
        }
    }
}
