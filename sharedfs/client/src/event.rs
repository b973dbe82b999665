//! What happens to a client.

use bytes::Bytes;
use mooring_sharedfs_core::Result;
use mooring_sharedfs_core::coordinator::ToClient;
use mooring_terms::Version;

use crate::kernel::{KernelId, KernelRequest};

/// A stream to a coordinator: each that is opened has a higher number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamNumber(pub u64);

/// The number of something that the client wants done with blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IoNumber(pub u64);

/// The number of an invalidation of the kernel's caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InvalidationNumber(pub u64);

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The kernel asks for something.
    Kernel(KernelRequest),
    /// The caller of a request has a signal and should not wait any longer.
    Interrupt(KernelId),
    /// A stream to the coordinator is open; those before are given up.
    Connected(StreamNumber),
    /// A stream is broken.
    Disconnected(StreamNumber),
    /// The coordinator says something.
    Message(StreamNumber, ToClient),
    /// What blocks hold, in the order in which they were asked for: in pieces of one or more whole blocks.
    BlocksRead(IoNumber, Result<Vec<Bytes>>),
    /// Blocks are written, with these versions, one a block, in order.
    BlocksWritten(IoNumber, Result<Vec<Version>>),
    /// The kernel has given up what it was told to.
    Invalidated(InvalidationNumber),
    /// Somebody unmounts: what is dirty is written back, then the session is given up.
    Unmount,
    /// Time has passed: at [`crate::Client::next_tick`].
    Tick,
}
