//! Property: **resync copies only what changed.** A join copies at most the blocks that any record
//! newer than its starting version has touched, each once.

use std::collections::{BTreeMap, BTreeSet};

use mooring_terms::{BLOCK_SIZE, BlockRange, NodeId, SliceId, Version};

use super::{Checked, violated};

/// Every record's range, and the joins under way.
#[derive(Debug, Default)]
pub struct Resync {
    ranges: BTreeMap<SliceId, BTreeMap<Version, BlockRange>>,
    joins: BTreeMap<(SliceId, NodeId), Version>,
}

impl Resync {
    /// A record was ordered.
    pub fn written(&mut self, slice: SliceId, version: Version, range: BlockRange) {
        self.ranges.entry(slice).or_default().insert(version, range);
    }

    /// A join starts: what is newer than the common position `after` is superseded.
    pub fn started(&mut self, slice: SliceId, node: NodeId, after: Version) {
        self.joins.insert((slice, node), after);
    }

    /// The joiner says up to where it has every block: an earlier join may have been interrupted.
    pub fn ready(&mut self, slice: SliceId, node: NodeId, complete_to: Version) {
        if let Some(after) = self.joins.get_mut(&(slice, node)) {
            *after = complete_to.min(*after);
        }
    }

    /// It is done.
    ///
    /// # Errors
    /// A violation.
    pub fn finished(&mut self, slice: SliceId, node: NodeId, copied: u64) -> Checked {
        let Some(after) = self.joins.remove(&(slice, node)) else { return Ok(()) };
        let newer = self.ranges.get(&slice).into_iter().flat_map(|ranges| {
            ranges.iter().filter(|(version, _)| **version > after).map(|(_, range)| *range)
        });
        let blocks: BTreeSet<u64> = newer.flat_map(|r| r.first.0..r.end().0).collect();
        let most = (blocks.len() * BLOCK_SIZE) as u64;
        if copied > most {
            let text = format!(
                "{slice}: the join of {node:?} from {after} copied {copied} bytes, \
                 but only {most} have changed since"
            );
            return violated("resync copies only what changed", text);
        }
        Ok(())
    }
}
