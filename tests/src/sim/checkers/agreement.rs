//! Property: **in-sync replicas agree.** When nothing is under way, all in-sync replicas of a
//! slice have the same last version, and block by block the same version and content; none is
//! missing.

use mooring_config::SliceConfig;
use mooring_replication::ReadFault;
use mooring_terms::{BlockIndex, BlockRange, Extent, NodeId, SliceId, Version};

use super::{Checked, violated};
use crate::sim::store::Pool;

/// One block of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Block {
    /// Without its version: the engine keeps none for what was discarded and never written.
    Hole,
    Data(Version, u32),
    Missing,
    Unreadable(ReadFault),
}

fn look(pool: &mut dyn Pool, slice: SliceId, block: BlockIndex) -> Block {
    match pool.read(slice, BlockRange::new(block, 1)) {
        Err(fault) => Block::Unreadable(fault),
        Ok(extents) => match extents.first() {
            Some(Extent::Hole { .. }) => Block::Hole,
            Some(Extent::Data { version, data, .. }) => Block::Data(*version, data.crcs()[0]),
            Some(Extent::Missing { .. }) | None => Block::Missing,
        },
    }
}

/// Compares the replica of `slice` on `node` with that of its primary.
///
/// # Errors
/// A violation. `may_rot` tells which blocks may be unreadable.
pub fn compare(
    (slice, config): (SliceId, &SliceConfig),
    primary: &mut dyn Pool,
    node: NodeId,
    other: &mut dyn Pool,
    blocks: &[BlockIndex],
    may_rot: &dyn Fn(BlockIndex) -> bool,
) -> Checked {
    let property = "in-sync replicas agree";
    let (here, there) = (primary.recovered(slice).last, other.recovered(slice).last);
    if here != there {
        let text = format!(
            "{slice}: the log of {:?} ends at {here}, that of {node:?} at {there}",
            config.primary
        );
        return violated(property, text);
    }
    for block in blocks {
        let (here, there) = (look(primary, slice, *block), look(other, slice, *block));
        let rotten = |block: &Block| matches!(block, Block::Unreadable(ReadFault::Corrupt { .. }));
        if (rotten(&here) || rotten(&there)) && may_rot(*block) {
            continue;
        }
        if here != there || here == Block::Missing {
            let text = format!(
                "{slice}: block {block} is {here:?} on {:?} and {there:?} on {node:?}",
                config.primary
            );
            return violated(property, text);
        }
    }
    Ok(())
}
