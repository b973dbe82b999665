//! What can be set for a volume's client.

use std::time::Duration;

use mooring_terms::{AttachmentEpoch, VolumeId};

use crate::request::ClientId;

/// One attachment's client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// Drawn at random for each client.
    pub client: ClientId,
    /// The volume.
    pub volume: VolumeId,
    /// The attachment that Raft granted; sealed in every slice first.
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
}

impl ClientOptions {
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
            attachment,
            blocks,
            slice_blocks,
            io_timeout: None,
            retry: Duration::from_millis(100),
            max_request_blocks: 256,
            keep_bytes: 128 << 20,
        }
    }
}
