//! What a replica asks about other nodes: who answered, and who was heard.

use mooring_terms::{Epoch, NodeId, SliceId, Time};

/// Beacons as one node sees them. Implemented by [`crate::Beacons`].
///
/// The promise behind it: when `answered` gives a moment for (peer, slice, epoch), the peer vouched
/// for the slice at that epoch, and counted itself as having heard from us, at that moment or later.
pub trait Leases {
    /// When the newest beacon was *sent* that `peer` answered while vouching for `slice` at
    /// `epoch`; `None` if it never did.
    fn answered(&self, peer: NodeId, slice: SliceId, epoch: Epoch) -> Option<Time>;

    /// When the newest beacon of `peer` that vouches for `slice` at `epoch` was *received*; `None`
    /// if none was. A node that was stopped for a while counts from when it went on.
    fn heard(&self, peer: NodeId, slice: SliceId, epoch: Epoch) -> Option<Time>;
}
