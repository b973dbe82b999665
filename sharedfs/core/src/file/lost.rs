//! After a power cut of all replicas: data that a record of the journal claims, and its slice has not.
//!
//! ```text
//!   journal    claim: block 70 has version 12, or zeros from byte 100 on
//!   slice      block 70 has version 9 ──> older: read it, zero 100.., write it
//! ```
//! What was not flushed may be lost; what was there and flushed before must not be lost with it, and
//! bytes that a file had given up must not be seen in it again:
//!
//! - an extent that is new to its file becomes a hole;
//! - the last block of a file of which the size moved up gets its zeros again, behind the old end;
//! - a file that grew out of the tree gets back what it had there.
//!
//! A block is judged by its own version: a slice keeps a prefix of what it took, and whatever a block
//! held before has a version older than any of the writes that a claim speaks of. The rest of a run may
//! have been freed and discarded long since.

use std::collections::BTreeMap;

use mooring_terms::BLOCK_SIZE;

use super::extents::Mapped;
use super::plan::{Base, BlockWrite};
use crate::format::{DataClaim, ExtentState, Otherwise};
use crate::ops::Progress;
use crate::{BlockAddress, FileBlock, FsError, Ino, Result, Run, Transaction};

/// What a recovery has to do about data that is lost: before anything is served, and again from the
/// start if it is interrupted: what it has written is newer than what was claimed.
///
/// 1. [`Recovery::is_older`] for each claim of the journal since its last checkpoint, in the journal's
///    order, with those of its blocks that have an older version;
/// 2. [`Recovery::settle`] until it says that this was all; what each transaction changes is applied,
///    what is to be written is written: there is one write a block;
/// 3. the slices of the claims are flushed before the checkpoint with which the changes are durable and
///    the claims over, all at once.
#[derive(Debug, Default)]
pub struct Recovery {
    /// A block can be claimed several times, also as one of an earlier content of the file.
    blocks: BTreeMap<(Ino, FileBlock, BlockAddress), Otherwise>,
}

/// Data that a file has lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The file.
    pub ino: Ino,
    /// The first block that is not as it was committed.
    pub block: FileBlock,
    /// How many are not.
    pub count: u64,
    /// What is to be written in its place; nothing if it is a hole now.
    pub write: Option<BlockWrite>,
}

impl Recovery {
    /// The blocks `old`, of those that `claim` names, have versions older than it says.
    pub fn is_older(&mut self, claim: &DataClaim, old: Run) {
        let first = claim.run.start;
        for address in (old.start.0..old.end().0).map(BlockAddress) {
            let Some(index) = address.0.checked_sub(first.0) else { continue };
            let key = (claim.ino, claim.block.plus(index), address);
            let otherwise = match (&claim.otherwise, self.blocks.remove(&key)) {
                // Who comes later knows more of what the block held.
                (Otherwise::Hole | Otherwise::Bytes(_), _) => claim.otherwise.clone(),
                (Otherwise::Zeros { .. }, None) => claim.otherwise.clone(),
                (Otherwise::Zeros { .. }, Some(Otherwise::Hole)) => Otherwise::Hole,
                (Otherwise::Zeros { from }, Some(Otherwise::Zeros { from: before })) => {
                    Otherwise::Zeros { from: before.min(*from) }
                }
                (Otherwise::Zeros { from }, Some(Otherwise::Bytes(mut bytes))) => {
                    bytes.truncate(usize::from(*from));
                    Otherwise::Bytes(bytes)
                }
            };
            self.blocks.insert(key, otherwise);
        }
    }

    /// Settles the next loss; `None` once there are no more.
    ///
    /// # Errors
    /// Damage of what this one loss is about: nothing of it is to be applied, the next call goes on with
    /// the one after.
    pub fn settle(&mut self, transaction: &mut Transaction<'_>) -> Result<Option<Lost>> {
        while let Some(((ino, block, address), otherwise)) = self.blocks.pop_first() {
            // The file, or this block of it, may be gone since.
            let mut row = match transaction.inode(ino) {
                Ok(row) => row,
                Err(FsError::Stale) => continue,
                Err(error) => return Err(error),
            };
            let mapping = transaction.map(&row, block, FileBlock(u64::MAX), 1)?.pop();
            let Some(Mapped::Blocks(there, ExtentState::Written)) = mapping.map(|m| m.mapped)
            else {
                continue;
            };
            if there.start != address {
                continue;
            }
            let (offset, bytes, base) = match otherwise {
                Otherwise::Hole => {
                    let count = 1 + self.holes_behind(ino, block, address, there.count);
                    let end = Some(block.plus(count));
                    let removed = transaction.remove_blocks(&mut row, block, end, 1)?;
                    debug_assert_eq!(removed, Progress::Done);
                    transaction.put_inode(&mut row);
                    return Ok(Some(Lost { ino, block, count, write: None }));
                }
                Otherwise::Zeros { from } => {
                    let from = usize::from(from);
                    (from, vec![0; BLOCK_SIZE - from], Base::Present)
                }
                Otherwise::Bytes(bytes) => (0, bytes, Base::Zeros),
            };
            let write = Some(BlockWrite { address, offset, bytes, base });
            return Ok(Some(Lost { ino, block, count: 1, write }));
        }
        Ok(None)
    }

    /// Makes a hole of a block whose bytes can't be written: what it holds may be anybody's.
    ///
    /// # Errors
    /// Damage.
    pub fn leave_out(transaction: &mut Transaction<'_>, lost: &Lost) -> Result<()> {
        let mut row = transaction.inode(lost.ino)?;
        let end = lost.block.plus(lost.count);
        let removed = transaction.remove_blocks(&mut row, lost.block, Some(end), usize::MAX)?;
        debug_assert_eq!(removed, Progress::Done);
        transaction.put_inode(&mut row);
        Ok(())
    }

    /// Takes the holes that go on behind a block, in the same `count` blocks of one extent.
    fn holes_behind(
        &mut self,
        ino: Ino,
        block: FileBlock,
        address: BlockAddress,
        count: u64,
    ) -> u64 {
        let mut holes = 0;
        while holes + 1 < count {
            let key = (ino, block.plus(holes + 1), address.plus(holes + 1));
            if self.blocks.get(&key) != Some(&Otherwise::Hole) {
                break;
            }
            self.blocks.remove(&key);
            holes += 1;
        }
        holes
    }
}
