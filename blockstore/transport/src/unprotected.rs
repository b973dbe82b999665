//! What may go over ZeroMQ, that is unprotected.

use crate::contract::Channel;

/// Which streams are neither authenticated nor encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unprotected {
    /// None: everything is TLS. Whoever speaks ZeroMQ is refused.
    #[default]
    Refused,
    /// Data is taken over either and sent over TLS: a cluster goes over to [`Self::Data`], or back,
    /// node by node.
    #[cfg(feature = "zeromq")]
    Accepted,
    /// Data is sent over ZeroMQ. Raft, requests between nodes and beacons stay on TLS.
    #[cfg(feature = "zeromq")]
    Data,
    /// Everything is sent over ZeroMQ: for tests and measurements.
    #[cfg(feature = "zeromq")]
    Everything,
}

impl Unprotected {
    /// Whether anything may come over ZeroMQ.
    #[must_use]
    pub fn accepts_any(self) -> bool {
        self != Self::Refused
    }

    /// Whether an incoming stream of this channel may come over ZeroMQ.
    #[must_use]
    pub fn accepts(self, channel: Channel) -> bool {
        match (self, channel) {
            (Self::Refused, _) => false,
            #[cfg(feature = "zeromq")]
            (Self::Accepted | Self::Data, channel) => channel == Channel::Data,
            #[cfg(feature = "zeromq")]
            (Self::Everything, _) => true,
        }
    }

    /// Whether streams of this channel are dialled over ZeroMQ.
    #[must_use]
    pub fn dials(self, channel: Channel) -> bool {
        #[cfg(feature = "zeromq")]
        let dials = self != Self::Accepted && self.accepts(channel);
        #[cfg(not(feature = "zeromq"))]
        let dials = self.accepts(channel);
        dials
    }
}
