//! What `df` tells, exactly.

use serde::{Deserialize, Serialize};

use crate::format::StateRow;
use crate::{Result, Transaction};

/// How much there is, and how much is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Blocks of 4 KiB for data.
    pub blocks: u64,
    /// Those that no file occupies. What sessions have reserved and what was just freed counts as
    /// free: nothing that a user could delete holds it.
    pub free: u64,
    /// How many inodes there can be.
    pub inodes: u64,
    /// How many more can be made.
    pub free_inodes: u64,
}

impl StateRow {
    /// The most inodes: one a block, as the tree's size must have some bound; and a thousand on the
    /// smallest volume.
    #[must_use]
    pub fn inode_limit(&self) -> u64 {
        self.capacity.max(1024)
    }
}

impl Transaction<'_> {
    /// The volume's counters as `statfs` gives them.
    ///
    /// # Errors
    /// Damage.
    pub fn statfs(&self) -> Result<Statistics> {
        let state = self.state()?;
        let inodes = state.inode_limit();
        Ok(Statistics {
            blocks: state.capacity,
            free: state.free + state.reserved + state.quarantined - state.charged,
            inodes,
            free_inodes: inodes.saturating_sub(state.inodes),
        })
    }
}
