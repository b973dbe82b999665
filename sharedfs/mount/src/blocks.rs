//! What a mount needs of the volume that its files lie in.

use bytes::Bytes;
use mooring_sharedfs_core::{BlockAddress, Result};
use mooring_terms::Version;

/// Told what blocks hold, in the order in which they were asked for, in pieces of one or more of them. A piece
/// keeps nothing else in memory than its bytes, and what is small beside them.
pub type BlocksRead = Box<dyn FnOnce(Result<Vec<Bytes>>) + Send>;

/// Told with which versions blocks were written, one a block, in order.
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

    /// Writes blocks: at each address one or more of them, which lie in one slice.
    fn write(&self, blocks: Vec<(BlockAddress, Bytes)>, done: BlocksWritten);
}
