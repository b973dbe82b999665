//! The volume's slices as the coordinator uses them, beside the journal and the tree.

use std::collections::BTreeSet;
use std::time::Duration;

use mooring_sharedfs_core::{BlockAddress, Run, SessionId};
use mooring_terms::{Epoch, NodeId, SliceIndex, Version};

/// Why a slice refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SliceError {
    /// The attachment or session is over: final.
    #[error("fenced")]
    Fenced,
    /// No replica has this block whole.
    #[error("block {0} is damaged on every replica")]
    Damaged(BlockAddress),
    /// A pool is full.
    #[error("no space in a pool")]
    NoSpace,
    /// What was written without a flush went with the power of all replicas.
    #[error("writes that were not flushed are lost")]
    Lost,
}

/// Takes the outcome, once; on any thread, perhaps within the call.
pub type Done<T> = Box<dyn FnOnce(Result<T, SliceError>) + Send>;

/// What a coordinator asks of the slices, under its attachment. No method waits; what can't be done now
/// (a slice in failover) is done later, and fails only for the reasons of [`SliceError`].
pub trait Slices: Send + Sync + 'static {
    /// For how long slice 0 can't have another primary; `None`: it may have one now.
    fn leased_for(&self) -> Option<Duration>;

    /// Whether the attachment is over for good.
    fn is_over(&self) -> bool;

    /// Reads blocks of [`mooring_terms::BLOCK_SIZE`] bytes, in this order.
    fn read(&self, blocks: Vec<BlockAddress>, done: Done<Vec<Vec<u8>>>);

    /// Writes whole blocks: done when all in-sync replicas have received them; with their versions, in
    /// order.
    fn write(&self, blocks: Vec<(BlockAddress, Vec<u8>)>, done: Done<Vec<Version>>);

    /// Makes zeros of blocks, and gives their space back.
    fn discard(&self, runs: Vec<Run>, done: Done<()>);

    /// Makes durable what these slices (or all) had taken when this was asked, whoever wrote it.
    fn flush(&self, slices: Option<BTreeSet<SliceIndex>>, done: Done<()>);

    /// The versions of blocks that lie in one slice: all of `run`, in parts; [`Version::ZERO`] for those
    /// that were never written.
    fn versions(&self, run: Run, done: Done<Vec<(Run, Version)>>);

    /// The newest epoch of a slice that began without all that had been acknowledged in it before;
    /// `Epoch(0)` if none did. What got its version in an older epoch may be gone. As of the slice's last
    /// answer here; a newer one ends the attachment.
    fn tail_lost(&self, slice: SliceIndex) -> Epoch;

    /// Lets a session of a client on `node` read and write, wherever it asks to.
    fn register(&self, session: SessionId, node: NodeId);

    /// Has the slices take nothing more of a session, ever: done when none will.
    fn fence(&self, session: SessionId, done: Done<()>);
}
