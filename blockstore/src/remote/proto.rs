//! What goes over a link beside requests and replies: questions about the cluster, knocks at the
//! coordinator, and letters between it and its clients.
//!
//! ```text
//!   process                          daemon
//!   Ask ───────────────────────────> any                 Told
//!   Call ──────────────────────────> coordinator's       Here, as soon as there is a coordinator
//!   Letter <───────────────────────> coordinator's       Away, when there is none any more
//!   Knock ─────────────────────────> coordinator's       Admitted
//! ```
//!
//! Version history
//! - 1: ask, told, knock, admitted, call, here, away, letter.

use mooring_config::SliceConfig;
use mooring_replication::ClientId;
use mooring_terms::{AttachmentEpoch, NodeId, SessionId, SliceIndex, VolumeId};
use serde::{Deserialize, Serialize};

use crate::admission::Peer;

/// A message on a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkMessage {
    /// To any daemon: how is the cluster, as far as you know?
    Ask(Ask),
    /// The answer.
    Told(Box<Told>),
    /// To the coordinator's daemon: let the session in, in this slice.
    Knock {
        /// The volume.
        volume: VolumeId,
        /// The session.
        session: SessionId,
        /// Where it was refused.
        slice: SliceIndex,
    },
    /// It is let in.
    Admitted {
        /// The volume.
        volume: VolumeId,
        /// The session.
        session: SessionId,
        /// Where.
        slice: SliceIndex,
    },
    /// To a daemon: this client has letters for the volume's coordinator, if there is one, or once
    /// there is.
    Call {
        /// The volume.
        volume: VolumeId,
        /// The client.
        client: ClientId,
    },
    /// There is a coordinator here, and it takes the client's letters.
    Here(Place),
    /// There is none any more.
    Away(Place),
    /// To the coordinator, or from it: what only it and its client understand. The payload is the next
    /// frame.
    Letter(Place),
}

/// Which client and which coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The volume.
    pub volume: VolumeId,
    /// The client.
    pub client: ClientId,
    /// The coordinator's attachment: what was meant for another is for nobody.
    pub epoch: AttachmentEpoch,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// About this volume.
    pub volume: VolumeId,
    /// And these of its slices.
    pub slices: Vec<SliceIndex>,
    /// On a unix socket only: what a process of this node needs to speak for it.
    pub identity: bool,
}

/// What a daemon knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The node that answers.
    pub node: NodeId,
    /// Every node, and where it listens.
    pub nodes: Vec<Peer>,
    /// The volume, if it is known there.
    pub volume: Option<VolumeTold>,
    /// The slices asked about.
    pub slices: Vec<(SliceIndex, SliceConfig)>,
    /// The node's key and certificates, if they were asked for and may be told.
    pub identity: Option<Vec<u8>>,
}

/// A volume, as a client needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeTold {
    /// Which.
    pub id: VolumeId,
    /// Its size, in bytes.
    pub size: u64,
    /// Blocks in each slice.
    pub slice_blocks: u64,
    /// The coordinator's node and attachment, if there is one.
    pub coordinator: Option<(NodeId, AttachmentEpoch)>,
}

impl LinkMessage {
    /// The message's bytes.
    #[must_use]
    pub fn encode(&self) -> bytes::Bytes {
        postcard::to_stdvec(self).expect("plain data encodes").into()
    }

    /// The message of these bytes; none for whatever [`LinkMessage::encode`] doesn't write.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}
