//! The tree of a replica or snapshot, and walking it.
//!
//! ```text
//!   level 2   [ node | hole v | ... ]                one child: 65,536 blocks
//!   level 1   [ node | - | missing | ... ]           one child: 256 blocks
//!   level 0   [ data v addr crc | hole v | - | ... ] one entry: a block
//! ```
//! The root's level grows with the highest block written. A walk descends only where its filter
//! may find something: "newer than v" never reads a node whose newest version is not above v.

use std::sync::Arc;

use mooring_terms::Version;

use super::{Content, Entry, Extent, FAN_BITS};
use crate::address::Address;
use crate::format::node::Node;

/// Blocks beneath a node of `level`.
pub(crate) fn span(level: u8) -> u64 {
    1 << (FAN_BITS * (u32::from(level) + 1))
}

/// A node of the tree, named by where it lies and what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NodeRef {
    pub(crate) address: Address,
    pub(crate) length: u32,
    pub(crate) crc: u32,
    /// At least the newest version beneath.
    pub(crate) newest: Version,
    /// Whether a block beneath is missing.
    pub(crate) missing: bool,
    /// How many blocks beneath hold data; unknown of what was written before this was counted.
    pub(crate) allocated: Option<u64>,
}

/// What stands in one place of an inner node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Child {
    /// Never written.
    Absent,
    Node(NodeRef),
    /// All blocks beneath are holes of this version.
    Hole(Version),
    /// All blocks beneath are missing, and none was newer than this.
    Missing(Version),
    /// All blocks beneath are lost that had this version.
    Lost(Version),
}

impl Child {
    pub(crate) fn newest(&self) -> Version {
        match self {
            Self::Absent => Version::ZERO,
            Self::Node(node) => node.newest,
            Self::Hole(version) | Self::Missing(version) | Self::Lost(version) => *version,
        }
    }

    pub(crate) fn has_missing(&self) -> bool {
        match self {
            Self::Node(node) => node.missing,
            Self::Missing(_) | Self::Lost(_) => true,
            Self::Absent | Self::Hole(_) => false,
        }
    }

    /// How many blocks beneath hold data, where that is known.
    pub(crate) fn allocated(&self) -> Option<u64> {
        match self {
            Self::Node(node) => node.allocated,
            Self::Absent | Self::Hole(_) | Self::Missing(_) | Self::Lost(_) => Some(0),
        }
    }

    /// The entry of every block beneath, unless it is a node.
    pub(crate) fn bare(&self) -> Option<Entry> {
        match self {
            Self::Absent | Self::Node(_) => None,
            Self::Hole(version) => Some(Entry::hole(*version)),
            Self::Missing(version) => Some(Entry::missing(*version)),
            Self::Lost(version) => Some(Entry::lost(*version)),
        }
    }

    /// What stands for blocks that all have this entry; none that occupies space.
    pub(crate) fn of(entry: &Entry) -> Self {
        match entry.content {
            Content::Hole | Content::Data { .. } => Self::Hole(entry.version),
            Content::Missing => Self::Missing(entry.version),
            Content::Lost => Self::Lost(entry.version),
        }
    }
}

/// The root of a tree: what stands for blocks `0..span(level)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Root {
    pub(crate) level: u8,
    pub(crate) child: Child,
}

impl Root {
    pub(crate) const EMPTY: Self = Self { level: 0, child: Child::Absent };
}

/// Why a node can't be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// Its segment was freed meanwhile: look the root up again.
    Stale,
    /// It is not what its parent says: lost.
    Unreadable,
    /// The disk failed to read it; it may still be there.
    Failed,
}

/// Where nodes come from: the cache, and the log behind it.
pub(crate) trait NodeSource {
    fn node(&self, node: &NodeRef) -> Result<Arc<Node>, Stop>;
}

/// Which extents a walk is after.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Filter {
    All,
    NewerThan(Version),
    /// What is missing, and what a cut above makes missing.
    Missing(Option<Version>),
}

impl Filter {
    fn skips(&self, child: &Child) -> bool {
        match self {
            Self::All => *child == Child::Absent,
            Self::NewerThan(version) => child.newest() <= *version,
            Self::Missing(cut) => {
                !child.has_missing() && cut.is_none_or(|cut| child.newest() <= cut)
            }
        }
    }

    fn takes(&self, entry: &Entry) -> bool {
        match self {
            Self::All => true,
            Self::NewerThan(version) => entry.version > *version,
            Self::Missing(cut) => entry.is_missing() || cut.is_some_and(|cut| entry.version > cut),
        }
    }
}

/// One walk over a range of a tree, in order, up to a number of extents.
pub(crate) struct Walk<'a> {
    pub(crate) source: &'a dyn NodeSource,
    pub(crate) filter: Filter,
    pub(crate) limit: usize,
    pub(crate) out: Vec<Extent>,
}

impl Walk<'_> {
    /// Gathers the extents of `first..end`; says where it stopped (`end` if it got through).
    pub(crate) fn run(&mut self, root: &Root, first: u64, end: u64) -> Result<u64, Stop> {
        self.descend(&root.child, root.level, 0, first, end)
    }

    fn descend(
        &mut self,
        child: &Child,
        level: u8,
        base: u64,
        first: u64,
        end: u64,
    ) -> Result<u64, Stop> {
        let (from, to) = (first.max(base), end.min(base + span(level)));
        if from >= to || self.filter.skips(child) {
            return Ok(end);
        }
        if self.out.len() >= self.limit {
            return Ok(from);
        }
        let node = match child {
            Child::Node(node) => match self.source.node(node) {
                Ok(node) => node,
                Err(Stop::Stale) => return Err(Stop::Stale),
                Err(Stop::Unreadable | Stop::Failed) => {
                    let entry = Entry::missing(node.newest);
                    self.push(Extent { first: from, count: to - from, entry });
                    return Ok(end);
                }
            },
            bare => {
                if let Some(entry) = bare.bare() {
                    self.push(Extent { first: from, count: to - from, entry });
                }
                return Ok(end);
            }
        };
        if level == 0 {
            let start = self.out.len();
            node.extents(from, to, &mut self.out);
            let filter = self.filter;
            let mut kept = start;
            for i in start..self.out.len() {
                if filter.takes(&self.out[i].entry) {
                    self.out[kept] = self.out[i];
                    kept += 1;
                }
            }
            self.out.truncate(kept);
            return Ok(end);
        }
        let below = span(level - 1);
        let mut result = Ok(end);
        node.visit(from, to, &mut |start, count, child| {
            let base = base + start * below;
            if count > 1
                && let Some(entry) = child.bare()
            {
                let (from, to) = (from.max(base), to.min(base + count * below));
                if !self.filter.skips(&child) {
                    self.push(Extent { first: from, count: to - from, entry });
                }
                return true;
            }
            result = self.descend(&child, level - 1, base, first, end);
            result == Ok(end)
        });
        result
    }

    fn push(&mut self, extent: Extent) {
        if self.filter.takes(&extent.entry) {
            self.out.push(extent);
        }
    }
}
