//! What a mount needs of the volume that its files lie in.

use bytes::Bytes;
use mooring_sharedfs_core::{BlockAddress, Result};
use mooring_terms::Version;

/// Told what blocks hold, in the order in which they were asked for, each of 4 KiB.
pub type BlocksRead = Box<dyn FnOnce(Result<Vec<Vec<u8>>>) + Send>;

/// Told with which versions blocks were written, in order.
pub type BlocksWritten = Box<dyn FnOnce(Result<Vec<Version>>) + Send>;

/// Reads and writes blocks straight at the primaries of their slices, for this mount's session.
///
/// Neither call waits: `done` is called once, from whichever thread, when all blocks are read, or
/// received by all in-sync replicas. Failovers are waited out, however long they take. The error is
/// [`Unavailable`](mooring_sharedfs_core::FsError::Unavailable): the session is fenced, or the blocks
/// are lost for good.
pub trait DataBlocks: Send + Sync + 'static {
    /// Reads blocks, in any order, also the same twice.
    fn read(&self, blocks: Vec<BlockAddress>, done: BlocksRead);

    /// Writes blocks, each of 4 KiB.
    fn write(&self, blocks: Vec<(BlockAddress, Bytes)>, done: BlocksWritten);
}
