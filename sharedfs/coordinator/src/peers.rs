//! Clients, as far as letters go to them and come from them.

use bytes::Bytes;
use mooring_terms::NodeId;

/// A stream of one client. A client that comes again does so on another stream, with a greater number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId {
    /// The node that the client acts for, as the transport has made sure of it.
    pub node: NodeId,
    /// Which stream: unique in the coordinator's life, and growing with time.
    pub stream: u64,
}

/// The way to clients.
pub trait Peers: Send + Sync + 'static {
    /// Sends a letter, behind those that were sent before on this stream. Never waits. False: the stream is
    /// gone, or its client doesn't read; nothing more is sent on it.
    fn send(&self, to: PeerId, letter: Bytes) -> bool;

    /// Cuts a stream: it was superseded, or what came on it makes no sense.
    fn cut(&self, peer: PeerId);
}
