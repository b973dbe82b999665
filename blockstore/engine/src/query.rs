//! Queries over the map: what is newer than a version, what is missing.

use mooring_terms::{BlockIndex, BlockRange, SliceId, Version};

use crate::Result;
use crate::map::{Content, Extent, Filter, MAX_BLOCKS, Walk, coalesce};
use crate::pool::{Nodes, Pool};
use crate::read::Root;

/// What a changed run of blocks holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangedKind {
    /// Bytes, to be read.
    Data,
    /// Zeros.
    Hole,
    /// Nobody knows here: lost, and of this version, or of none newer if a piece of the map went.
    Missing,
}

/// A run of blocks newer than a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The blocks.
    pub range: BlockRange,
    /// The version of each of them.
    pub version: Version,
    /// What they hold.
    pub kind: ChangedKind,
}

/// One answer to [`Pool::newer_than`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// In order of blocks; at most as many as were asked for.
    pub extents: Vec<Changed>,
    /// Where to ask on; `None` at the end.
    pub next: Option<BlockIndex>,
}

impl Pool {
    /// The blocks from `from` on that are newer than `after`, holes included, at most `limit`
    /// runs. Reads only map nodes that have something newer beneath them. What is missing is among
    /// them, where it may be newer: who copies from here must learn that it is not to be had.
    ///
    /// # Errors
    /// [`crate::EngineError::NoReplica`], [`crate::EngineError::NoSnapshot`].
    pub fn newer_than(
        &self,
        slice: SliceId,
        root: Root,
        after: Version,
        from: BlockIndex,
        limit: usize,
    ) -> Result<Changes> {
        let limit = limit.max(1);
        let (mut extents, next) = self.query(
            slice,
            root,
            |_| Filter::NewerThan(after),
            from.0,
            limit,
            |extent| extent.entry.version > after,
        )?;
        let next = cut_to(&mut extents, limit, next);
        let changed = |extent: &Extent| Changed {
            range: BlockRange::new(BlockIndex(extent.first), extent.count),
            version: extent.entry.version,
            kind: match extent.entry.content {
                Content::Data { .. } => ChangedKind::Data,
                Content::Hole => ChangedKind::Hole,
                Content::Missing | Content::Lost => ChangedKind::Missing,
            },
        };
        Ok(Changes { extents: extents.iter().map(changed).collect(), next })
    }

    /// The blocks from `from` on that this replica hasn't got, at most `limit` runs, and where to
    /// ask on.
    ///
    /// # Errors
    /// [`crate::EngineError::NoReplica`].
    pub fn missing(
        &self,
        slice: SliceId,
        from: BlockIndex,
        limit: usize,
    ) -> Result<(Vec<BlockRange>, Option<BlockIndex>)> {
        let limit = limit.max(1);
        let (mut extents, next) =
            self.query(slice, Root::Live, Filter::Missing, from.0, limit, |extent| {
                extent.entry.is_missing()
            })?;
        let next = cut_to(&mut extents, limit, next);
        let range = |extent: &Extent| BlockRange::new(BlockIndex(extent.first), extent.count);
        Ok((extents.iter().map(range).collect(), next))
    }

    /// Gathers what `keep` takes, in windows, until there are `limit` extents or the end.
    fn query(
        &self,
        slice: SliceId,
        root: Root,
        filter: impl Fn(Option<Version>) -> Filter,
        from: u64,
        limit: usize,
        keep: impl Fn(&Extent) -> bool,
    ) -> Result<(Vec<Extent>, Option<u64>)> {
        let mut out: Vec<Extent> = Vec::new();
        let mut from = from;
        while from < MAX_BLOCKS {
            let nodes = Nodes::now(&self.core);
            let view = self.view(slice, root, (from, MAX_BLOCKS), limit.max(256))?;
            let filter = filter(view.cut());
            let mut walk = Walk { source: &nodes, filter, limit, out: Vec::new() };
            let end = match walk.run(&view.root, from, view.end) {
                Ok(stopped) => stopped.min(view.end),
                // Nodes were freed meanwhile: look again.
                Err(_) => continue,
            };
            out.extend(view.over(walk.out, end).into_iter().filter(|extent| keep(extent)));
            from = end;
            if out.len() >= limit {
                coalesce(&mut out);
                if out.len() >= limit {
                    break;
                }
            }
        }
        coalesce(&mut out);
        Ok((out, (from < MAX_BLOCKS).then_some(from)))
    }
}

/// Cuts to `limit` extents; says where to go on.
fn cut_to(extents: &mut Vec<Extent>, limit: usize, next: Option<u64>) -> Option<BlockIndex> {
    let cut = extents.get(limit).map(|extent| extent.first);
    extents.truncate(limit);
    cut.or(next).map(BlockIndex)
}
