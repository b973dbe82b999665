//! What a client wants done. What each demands of the shell stands in the crate's documentation.

use bytes::Bytes;
use mooring_sharedfs_core::coordinator::ToCoordinator;
use mooring_sharedfs_core::sessions::EndReason;
use mooring_sharedfs_core::{BlockAddress, Ino};

use crate::event::{InvalidationNumber, IoNumber, StreamNumber};
use crate::kernel::{KernelId, KernelReply};

/// Which of the kernel's caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalidation {
    /// Of what.
    pub ino: Ino,
    /// Its pages: dirty ones are written first. Without, `inval_inode` with offset -1.
    pub pages: bool,
    /// All names, by raising the epoch (`FUSE_NOTIFY_INC_EPOCH`): no directory's lock is taken.
    pub names: bool,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Answer the kernel.
    Answer(KernelId, KernelReply),
    /// Say something to the coordinator.
    Send(StreamNumber, ToCoordinator),
    /// Nothing is heard over the stream: open another.
    Reconnect,
    /// Read these blocks; [`crate::Event::BlocksRead`] answers.
    ReadBlocks(IoNumber, Vec<BlockAddress>),
    /// Write these blocks: at each address one or more whole ones, which lie in one slice;
    /// [`crate::Event::BlocksWritten`] answers.
    WriteBlocks(IoNumber, Vec<(BlockAddress, Bytes)>),
    /// Have the kernel forget; [`crate::Event::Invalidated`] answers.
    Invalidate(InvalidationNumber, Invalidation),
    /// The session is over: what was not written back is lost, and files that had any say so at the
    /// next fsync and close.
    Ended(EndReason),
    /// Everything is written back and the session given up, after [`crate::Event::Unmount`].
    Unmounted,
}
