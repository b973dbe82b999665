//! Reclaim: copying what lives out of a segment, so that it can be written again.
//!
//! ```text
//!   victim: the closed segment with the least that lives
//!   scan    every record's header and meta: which blocks, nodes and kept records still count?
//!   copy    live blocks into `moved` records (the map follows at the next checkpoint),
//!           kept records as they are; nodes are only listed: the checkpoint writes them anew
//!   emptied at the next freeze, free when both slots are past it (order O5)
//! ```
//! Whether something lives is asked of the maps, never of a counter: a block lives if the live map
//! or a snapshot's names its address, a node if a tree reaches it. A victim whose records can't all
//! be read is left alone for good.

use crate::Result;
use crate::maintenance::Maintenance;
use crate::pool::Pool;

/// A victim being emptied.
pub(crate) struct Reclaim {}

impl Pool {
    /// One bounded step; says whether there was something to do.
    pub(crate) fn reclaim_step(&self, _m: &mut Maintenance) -> Result<bool> {
        Ok(false)
    }
}
