//! Block 0: where everything is. What changes in a volume's life stands in the tree.

use mooring_terms::{BLOCK_SIZE, crc32c};

use super::FORMAT;
use super::codec::{Reader, Writer};
use crate::{BlockAddress, Run};

const MAGIC: [u8; 8] = *b"MOORSHFS";
const CRC_AT: usize = BLOCK_SIZE - 4;

/// A volume's geometry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Random, drawn when the file system was made; stands in every batch of the journal.
    pub tag: u64,
    /// Blocks in a slice.
    pub slice_blocks: u64,
    /// The journal's ring. Lies in slice 0.
    pub journal: Run,
    /// The first block of data.
    pub data_first: BlockAddress,
    /// The first block of the tree, behind all data that there can ever be.
    pub tree_first: BlockAddress,
}

/// Why a block is no superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuperblockError {
    /// It doesn't begin like one: there is no shared file system here.
    Absent,
    /// It was written by a newer program.
    Format(u32),
    /// Its checksum or its contents are wrong.
    Damaged,
}

impl Superblock {
    /// The block's bytes, [`BLOCK_SIZE`] of them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut block = Writer::default()
            .bytes(&MAGIC)
            .u32(FORMAT)
            .u32(0)
            .u64(self.tag)
            .u64(self.slice_blocks)
            .u64(self.journal.start.0)
            .u64(self.journal.count)
            .u64(self.data_first.0)
            .u64(self.tree_first.0)
            .0;
        block.resize(CRC_AT, 0);
        let crc = crc32c(&block);
        block.extend_from_slice(&crc.to_le_bytes());
        block
    }

    /// Reads the block.
    ///
    /// # Errors
    /// [`SuperblockError`] if it is none.
    pub fn decode(block: &[u8]) -> Result<Self, SuperblockError> {
        if block.len() != BLOCK_SIZE || block[..8] != MAGIC {
            return Err(SuperblockError::Absent);
        }
        if block[CRC_AT..] != crc32c(&block[..CRC_AT]).to_le_bytes() {
            return Err(SuperblockError::Damaged);
        }
        let mut r = Reader(&block[8..]);
        let format = r.u32().ok_or(SuperblockError::Damaged)?;
        if format != FORMAT {
            return Err(SuperblockError::Format(format));
        }
        Self::read(r).filter(Self::is_sound).ok_or(SuperblockError::Damaged)
    }

    fn read(mut r: Reader<'_>) -> Option<Self> {
        r.u32()?;
        Some(Self {
            tag: r.u64()?,
            slice_blocks: r.u64()?,
            journal: Run::new(BlockAddress(r.u64()?), r.u64()?),
            data_first: BlockAddress(r.u64()?),
            tree_first: BlockAddress(r.u64()?),
        })
    }

    /// Whether the areas lie one behind the other, the journal in slice 0 and the tree at the
    /// beginning of a slice.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let journal_end = self.journal.start.0.checked_add(self.journal.count);
        self.slice_blocks > 0
            && self.journal.start.0 >= 1
            && self.journal.count >= 2
            && journal_end.is_some_and(|end| end <= self.data_first.0 && end <= self.slice_blocks)
            && self.data_first < self.tree_first
            && self.tree_first.0.is_multiple_of(self.slice_blocks)
    }
}
