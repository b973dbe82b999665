//! After a power cut of all replicas: data that a record of the journal claims, and its slice has not.

use super::extents::Mapped;
use crate::format::{DataClaim, ExtentState};
use crate::ops::Progress;
use crate::{Result, Transaction};

impl Transaction<'_> {
    /// A slice ends before what `claim` says of it: the extent's blocks are not what was committed.
    /// Makes a hole of it, as far as the file still has it there. Whether anything was lost; it is to
    /// be reported, and done before anything is served.
    ///
    /// # Errors
    /// Damage.
    pub fn forget_lost(&mut self, claim: &DataClaim) -> Result<bool> {
        let Ok(mut row) = self.inode(claim.ino) else { return Ok(false) };
        let (mut at, end) = (claim.block, claim.block.plus(claim.run.count));
        let mut lost = false;
        while at < end {
            let Some(mapping) = self.map(&row, at, end, 1)?.pop() else { break };
            let place = claim.run.start.plus(at.0 - claim.block.0);
            if let Mapped::Blocks(run, ExtentState::Written) = mapping.mapped
                && run.start == place
            {
                let part = Some(mapping.end());
                let removed = self.remove_blocks(&mut row, at, part, usize::MAX)?;
                debug_assert_eq!(removed, Progress::Done);
                lost = true;
            }
            at = mapping.end();
        }
        if lost {
            self.put_inode(&mut row);
        }
        Ok(lost)
    }
}
