//! Property: **resync copies only what changed.** Every block that a join copies was touched by a
//! record newer than the version up to which the joiner was complete, or has rotted somewhere, so
//! that the joiner may miss it; and each is copied once, or once more for each time that the join was interrupted or fell behind.

use std::collections::{BTreeMap, BTreeSet};

use mooring_replication::{JoinId, Message, MessageBody};
use mooring_terms::{BLOCK_SIZE, BlockIndex, BlockRange, NodeId, SliceId, Version};

use super::{Checked, violated};

const PROPERTY: &str = "resync copies only what changed";

/// One join under way.
#[derive(Debug)]
struct Join {
    /// The attempt, once the joiner has begun with it.
    id: Option<JoinId>,
    /// The joiner is complete up to here.
    after: Version,
    /// How often records or copies had to begin again.
    beginnings: usize,
}

/// Every record's range, and the joins under way.
#[derive(Debug, Default)]
pub struct Resync {
    ranges: BTreeMap<SliceId, BTreeMap<Version, BlockRange>>,
    joins: BTreeMap<(SliceId, NodeId), Join>,
    rotten: BTreeMap<SliceId, BTreeSet<u64>>,
}

impl Resync {
    /// A stored block has rotted.
    pub fn rotted(&mut self, slice: SliceId, block: BlockIndex) {
        self.rotten.entry(slice).or_default().insert(block.0);
    }

    /// A record was ordered.
    pub fn written(&mut self, slice: SliceId, version: Version, range: BlockRange) {
        self.ranges.entry(slice).or_default().insert(version, range);
    }

    fn changed(&self, slice: SliceId, after: Version) -> BTreeSet<u64> {
        let newer = self.ranges.get(&slice).into_iter().flat_map(|ranges| {
            ranges.iter().filter(move |(version, _)| **version > after).map(|(_, range)| *range)
        });
        let rotten = self.rotten.get(&slice).into_iter().flatten().copied();
        newer.flat_map(|range| range.first.0..range.end().0).chain(rotten).collect()
    }

    /// A join starts: what is newer than the common position `after` is superseded.
    pub fn started(&mut self, slice: SliceId, node: NodeId, after: Version) {
        self.joins.insert((slice, node), Join { id: None, after, beginnings: 0 });
    }

    /// A message arrives at `to`.
    ///
    /// # Errors
    /// A violation.
    pub fn arrived(&mut self, from: NodeId, to: NodeId, message: &Message) -> Checked {
        let slice = message.slice;
        match &message.body {
            MessageBody::JoinReady(ready) => {
                if let Some(join) = self.joins.get_mut(&(slice, from)) {
                    join.id = Some(ready.join);
                    join.after = ready.complete_to.min(join.after);
                }
            }
            MessageBody::JoinFrom(_) => {
                if let Some(join) = self.joins.get_mut(&(slice, to)) {
                    join.beginnings += 1;
                }
            }
            MessageBody::Hello(_) => {
                if let Some(join) = self.joins.get_mut(&(slice, from)) {
                    join.beginnings += 1;
                }
            }
            MessageBody::Copy(step) => {
                // What is left of an earlier attempt is no concern of this one.
                let current = |join: &&Join| join.id == Some(step.join);
                let Some(join) = self.joins.get(&(slice, to)).filter(current) else {
                    return Ok(());
                };
                let changed = self.changed(slice, join.after);
                for extent in &step.extents {
                    let range = extent.range();
                    if let Some(block) =
                        (range.first.0..range.end().0).find(|b| !changed.contains(b))
                    {
                        let text = format!(
                            "{slice}: block {block} is copied to {to:?}, but nothing newer than {} \
                             has touched it",
                            join.after
                        );
                        return violated(PROPERTY, text);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A join is done.
    ///
    /// # Errors
    /// A violation.
    pub fn finished(&mut self, slice: SliceId, node: NodeId, copied: u64) -> Checked {
        let Some(join) = self.joins.remove(&(slice, node)) else { return Ok(()) };
        let changed = self.changed(slice, join.after).len() * BLOCK_SIZE;
        let most = (changed * join.beginnings.max(1)) as u64;
        if copied > most {
            let text = format!(
                "{slice}: the join of {node:?} from {} copied {copied} bytes, but only {changed} \
                 have changed since, and it began {} times",
                join.after, join.beginnings
            );
            return violated(PROPERTY, text);
        }
        Ok(())
    }
}
