//! The journal's ring: where the next batch goes, and reading batches back.

use std::io;

use mooring_sharedfs_core::format::{
    Batch, BatchHeader, JournalError, Record, Superblock, batch_blocks,
};
use mooring_sharedfs_core::{BlockAddress, JournalNumber};
use mooring_terms::BLOCK_SIZE;

use crate::{Blocks, StoreError};

/// A place between two batches. A checkpoint of the tree holds one: what comes before is in the tree.
///
/// ```text
///   in the tree, 28 bytes: number u64, block u64, checksum u32, zeros u64
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The batch before it; 0 stands before the first.
    pub(crate) number: JournalNumber,
    /// Where the batch behind it begins: blocks since the journal's first batch, so never less
    /// than before. The ring's block is this modulo its size.
    pub(crate) block: u64,
    /// The header checksum of the batch before it.
    pub(crate) crc: u32,
}

impl Position {
    pub(crate) const START: Self = Self { number: JournalNumber(0), block: 0, crc: 0 };
    pub(crate) const BYTES: usize = 28;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.number.0.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.block.to_le_bytes());
        bytes.extend_from_slice(&self.crc.to_le_bytes());
        bytes.resize(Self::BYTES, 0);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (number, rest) = bytes.split_first_chunk::<8>()?;
        let (block, rest) = rest.split_first_chunk::<8>()?;
        let (crc, rest) = rest.split_first_chunk::<4>()?;
        (rest.len() == 8).then_some(Self {
            number: JournalNumber(u64::from_le_bytes(*number)),
            block: u64::from_le_bytes(*block),
            crc: u32::from_le_bytes(*crc),
        })
    }
}

/// The ring, from the last checkpoint's position (`tail`) to the end (`head`).
///
/// Invariant: `tail.block <= head.block <= tail.block + blocks of the ring`. A batch that would not
/// fit before the ring's end begins again at its start; the blocks left out count as used.
#[derive(Debug)]
pub(crate) struct Journal {
    superblock: Superblock,
    attachment: u64,
    pub(crate) tail: Position,
    pub(crate) head: Position,
}

impl Journal {
    pub(crate) fn new(superblock: Superblock, attachment: u64, tail: Position) -> Self {
        Self { superblock, attachment, tail, head: tail }
    }

    fn ring(&self) -> u64 {
        self.superblock.journal.count
    }

    fn address(&self, block: u64) -> BlockAddress {
        self.superblock.journal.start.plus(block % self.ring())
    }

    /// Where a batch of `count` blocks goes, if it doesn't lie across the ring's end.
    fn place(&self, count: u64) -> u64 {
        let to_end = self.ring() - self.head.block % self.ring();
        if count <= to_end { self.head.block } else { self.head.block + to_end }
    }

    /// Whether a batch with a body of this size fits without a checkpoint. `None`: never.
    pub(crate) fn fits(&self, body_bytes: usize) -> Option<bool> {
        let count = batch_blocks(body_bytes);
        if count > self.ring() / 2 {
            return None;
        }
        Some(self.place(count) + count <= self.tail.block + self.ring())
    }

    /// Writes a batch that fits. When it returns every in-sync replica has it.
    pub(crate) fn write<B: Blocks>(&mut self, blocks: &B, records: &[Record]) -> io::Result<()> {
        let number = self.head.number.next();
        let (tag, previous) = (self.superblock.tag, self.head.crc);
        let (bytes, crc) = Batch::encode(number, tag, self.attachment, previous, records);
        let count = (bytes.len() / BLOCK_SIZE) as u64;
        let block = self.place(count);
        blocks.write(self.address(block), &bytes)?;
        self.head = Position { number, block: block + count, crc };
        Ok(())
    }

    /// Reads the batch behind the head, and moves there; `None` at the journal's end. The end is
    /// wherever the next batch is not: a torn one is no batch.
    pub(crate) fn read_next<B: Blocks>(&mut self, blocks: &B) -> Result<Option<Batch>, StoreError> {
        let here = self.head.block;
        let start = here.next_multiple_of(self.ring());
        // The next batch is here, or at the ring's start if it didn't fit.
        for block in if here == start { vec![here] } else { vec![here, start] } {
            if let Some((batch, crc, count)) = self.read_at(blocks, block)? {
                let number = batch.header.number;
                self.head = Position { number, block: block + count, crc };
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    fn read_at<B: Blocks>(
        &self,
        blocks: &B,
        block: u64,
    ) -> Result<Option<(Batch, u32, u64)>, StoreError> {
        let mut bytes = vec![0; BLOCK_SIZE];
        blocks.read(self.address(block), &mut bytes)?;
        let (header, crc) = match BatchHeader::decode(&bytes) {
            Ok(found) => found,
            Err(JournalError::Absent | JournalError::Damaged) => return Ok(None),
            Err(JournalError::Format(format)) => return Err(StoreError::Format(format)),
        };
        let count = batch_blocks(header.body_bytes as usize);
        let next = header.number == self.head.number.next()
            && header.tag == self.superblock.tag
            && header.previous_crc == self.head.crc
            && block % self.ring() + count <= self.ring();
        if !next {
            return Ok(None);
        }
        bytes.resize(count as usize * BLOCK_SIZE, 0);
        if count > 1 {
            blocks.read(self.address(block + 1), &mut bytes[BLOCK_SIZE..])?;
        }
        match Batch::decode_body(header, &bytes) {
            Ok(batch) => Ok(Some((batch, crc, count))),
            Err(JournalError::Absent) => Ok(None),
            Err(JournalError::Format(format)) => Err(StoreError::Format(format)),
            Err(JournalError::Damaged) => Err(StoreError::Journal(header.number)),
        }
    }
}
