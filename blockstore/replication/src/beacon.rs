//! Beacons between pairs of nodes: who is alive, and vouches for which slices at which epochs.
//!
//! `Beacons::new(NodeId, &Options)`, `handle(now, BeaconEvent, &mut Vec<BeaconCommand>)`,
//! `deadline()`, and [`crate::Leases`] for the replicas of this node.

mod message;

use mooring_terms::{Epoch, NodeId, SliceId};

pub use message::BeaconMessage;

/// What happens to a node's beacons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BeaconEvent {
    /// [`crate::Command::Vouch`] of a slice's replica.
    Vouch {
        /// The slice.
        slice: SliceId,
        /// At which epoch; none: no longer.
        epoch: Option<Epoch>,
        /// To whom.
        peers: Vec<NodeId>,
    },
    /// The slice's pool hangs (or goes on): vouch for it to nobody, whatever its replica says.
    Mute {
        /// The slice.
        slice: SliceId,
        /// Whether it hangs.
        muted: bool,
    },
    /// A beacon or an answer arrived.
    Message {
        /// The node it came from, as authenticated.
        from: NodeId,
        /// What came.
        message: BeaconMessage,
    },
    /// The deadline has come.
    Tick,
}

/// What a node's beacons want done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BeaconCommand {
    /// Send; may be lost, must not wait for anything but the network.
    Send {
        /// The node.
        to: NodeId,
        /// What.
        message: BeaconMessage,
    },
    /// Deliver [`crate::Event::Tick`] to the replicas of these slices: a node that matters to them
    /// fell silent or is heard again.
    Wake {
        /// The slices.
        slices: Vec<SliceId>,
    },
}
