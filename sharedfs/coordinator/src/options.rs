//! What a coordinator is told when it begins.

use std::time::Duration;

use mooring_sharedfs_core::coordinator;
use mooring_terms::AttachmentEpoch;

/// The volume's geometry, and times.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The attachment under which it runs; stands in every batch of the journal.
    pub attachment: AttachmentEpoch,
    /// The volume's size in blocks, the tree's range aside.
    pub blocks: u64,
    /// Blocks in a slice.
    pub slice_blocks: u64,
    /// Where the range for the tree begins, and its length in blocks.
    pub tree: (u64, u64),
    /// Drawn at random: names the file system if it is made now.
    pub tag: u64,
    /// Bytes of the tree that stay in memory.
    pub cache_bytes: usize,
    /// A checkpoint is made when nothing was journaled for so long, and earlier if the journal is half full.
    pub checkpoint_idle: Duration,
    /// Records are made durable after so long even if nobody asks: freed blocks wait for it.
    pub durable_after: Duration,
    /// Times and bounds of the core. `grace` is longer than `lease` here: a client that has heard nothing of
    /// this coordinator may go on until the lease that the one before gave it is over.
    pub core: coordinator::Options,
}

impl Options {
    /// For a volume of `blocks` in slices of `slice_blocks`.
    #[must_use]
    pub fn new(attachment: AttachmentEpoch, blocks: u64, slice_blocks: u64) -> Self {
        let core = coordinator::Options::default();
        // And something for the difference between two machines' clocks.
        let grace = core.lease + core.lease / 8;
        Self {
            attachment,
            blocks,
            slice_blocks,
            tree: (1 << 40, 1 << 40),
            tag: 0,
            cache_bytes: 32 << 20,
            checkpoint_idle: Duration::from_secs(2),
            durable_after: Duration::from_secs(1),
            core: coordinator::Options { grace, ..core },
        }
    }
}
