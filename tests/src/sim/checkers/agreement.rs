//! Property: **in-sync replicas agree.** When nothing is under way, all in-sync replicas of a
//! slice have the same last version, and block by block the same version and content; none is
//! missing. And none is missing on a replica at the moment at which it is listed. What has rotted
//! may be, where the last good copy in sync went with it.

use mooring_config::SliceConfig;
use mooring_replication::ReadFault;
use mooring_terms::{BlockIndex, NodeId, SliceId};

use super::{Checked, violated};
use crate::sim::store::{Block, Pool, look};

const PROPERTY: &str = "in-sync replicas agree";

/// A replica was listed in sync because it is level: it must have every block.
///
/// # Errors
/// A violation.
pub fn listed(
    (node, slice): (NodeId, SliceId),
    pool: &mut dyn Pool,
    blocks: &[BlockIndex],
    may_rot: &dyn Fn(BlockIndex) -> bool,
) -> Checked {
    let mut sound = blocks.iter().filter(|block| !may_rot(**block));
    let missing = sound.find(|block| look(pool, slice, **block) == Block::Missing);
    match missing {
        None => Ok(()),
        Some(block) => {
            let text = format!("{node:?} is listed in sync for {slice}, but misses block {block}");
            violated(PROPERTY, text)
        }
    }
}

/// Compares the replica of `slice` on `node` with that of its primary.
///
/// # Errors
/// A violation. `may_rot` tells which blocks may be unreadable or lost.
pub fn compare(
    (slice, config): (SliceId, &SliceConfig),
    primary: &mut dyn Pool,
    node: NodeId,
    other: &mut dyn Pool,
    blocks: &[BlockIndex],
    may_rot: &dyn Fn(BlockIndex) -> bool,
) -> Checked {
    let (here, there) = (primary.recovered(slice).last, other.recovered(slice).last);
    if here != there {
        let text = format!(
            "{slice}: the log of {:?} ends at {here}, that of {node:?} at {there}",
            config.primary
        );
        return violated(PROPERTY, text);
    }
    for block in blocks {
        let (here, there) = (look(primary, slice, *block), look(other, slice, *block));
        let rotten = |block: &Block| {
            matches!(block, Block::Missing | Block::Unreadable(ReadFault::Corrupt { .. }))
        };
        if (rotten(&here) || rotten(&there)) && may_rot(*block) {
            continue;
        }
        if here != there || here == Block::Missing {
            let text = format!(
                "{slice}: block {block} is {here:?} on {:?} and {there:?} on {node:?}",
                config.primary
            );
            return violated(PROPERTY, text);
        }
    }
    Ok(())
}
