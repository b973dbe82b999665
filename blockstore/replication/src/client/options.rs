//! What can be set for a volume's client.

use std::time::Duration;

use mooring_terms::{AttachmentEpoch, SessionId, SliceIndex, VolumeId};

use crate::request::ClientId;

/// What a client is to its volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientRole {
    /// The device of a private volume: the only one.
    Device,
    /// The coordinator of a shared volume: seals, registers sessions, and does I/O beside them.
    Coordinator,
    /// A session of a shared volume: registered by the coordinator, slice by slice.
    Session(SessionId),
}

/// Blocks from this one on are the range of a shared volume's tree: the coordinator's alone. They lie
/// in slice 0, at the same place, so that they are always where slice 0 is. (Thin: nobody pays for
/// the gap. No volume reaches up to here.)
pub const TREE_FIRST: u64 = 1 << 40;

/// Blocks in the range of the tree.
pub const TREE_BLOCKS: u64 = 1 << 40;

/// One attachment's client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// Drawn at random for each client.
    pub client: ClientId,
    /// The volume.
    pub volume: VolumeId,
    /// What it is to the volume.
    pub role: ClientRole,
    /// The attachment that Raft granted to the device or coordinator; sealed in every slice first.
    pub attachment: AttachmentEpoch,
    /// Blocks in the volume.
    pub blocks: u64,
    /// Blocks in each of its slices.
    pub slice_blocks: u64,
    /// After what time without an answer an I/O fails; none: it waits for as long as it takes.
    pub io_timeout: Option<Duration>,
    /// After what time a request that was refused for the moment is sent again, and a slice without
    /// a reachable primary is asked for.
    pub retry: Duration,
    /// Blocks in one request at most; larger I/O is split.
    pub max_request_blocks: u64,
    /// Bytes of acknowledged writes that are kept until they are durable, so that they can be sent
    /// again if all replicas are restarted.
    pub keep_bytes: u64,
    /// After what time without a renewal a coordinator counts a session as over in a slice: more
    /// than the lease that the primary gives it, by as much as clocks may differ in their pace.
    pub lapse: Duration,
    /// After what time a coordinator leaves a session out in a slice where it asks for nothing.
    pub session_idle: Duration,
}

impl ClientOptions {
    /// Whether writes of this slice that all replicas lost are sent again. Only where nobody else
    /// writes: else what was written since, by another, would be overwritten.
    pub(super) fn sends_again(&self, slice: SliceIndex) -> bool {
        match self.role {
            ClientRole::Device => true,
            ClientRole::Coordinator => slice == SliceIndex(0),
            ClientRole::Session(_) => false,
        }
    }

    /// The defaults for an attachment.
    #[must_use]
    pub fn new(
        client: ClientId,
        volume: VolumeId,
        attachment: AttachmentEpoch,
        blocks: u64,
        slice_blocks: u64,
    ) -> Self {
        Self {
            client,
            volume,
            role: ClientRole::Device,
            attachment,
            blocks,
            slice_blocks,
            io_timeout: None,
            retry: Duration::from_millis(100),
            max_request_blocks: 256,
            keep_bytes: 128 << 20,
            lapse: Duration::from_millis(1_500),
            session_idle: Duration::from_secs(10),
        }
    }
}
