//! Volumes used on this node.

use std::sync::Arc;
use std::time::Duration;

use mooring_replication::{ClientId, ClientOptions, ClientRole, VolumeClient};
use mooring_terms::{AttachmentEpoch, BLOCK_SIZE, VolumeId};

use super::inquiry::HandOver;
use super::{Node, NodeError};
use crate::remote::{CoordinatorVolume, Door};
use crate::volume::{Volume, VolumeParts};

/// Between two times that a primary is asked to come here, if nothing has changed.
const ATTRACT_AGAIN: Duration = Duration::from_secs(5);
/// At least between two of them.
const ATTRACT_PAUSE: Duration = Duration::from_millis(300);

/// What a volume is to be opened for.
#[derive(Clone, Copy, Debug)]
pub struct OpenVolume {
    /// The volume.
    pub volume: VolumeId,
    /// The attachment that Raft granted to this node.
    pub epoch: AttachmentEpoch,
    /// The client's number, when it goes on after a restart of the daemon; drawn otherwise.
    pub client: Option<u64>,
    /// Whether writes are refused.
    pub read_only: bool,
}

impl Node {
    /// Opens a volume under an attachment: its slices are sealed, then it serves. See
    /// [`Volume::state`].
    ///
    /// # Errors
    /// [`NodeError::UnknownVolume`].
    pub fn open_volume(&self, open: OpenVolume) -> Result<Arc<Volume>, NodeError> {
        self.open_as(open, ClientRole::Device)
    }

    fn open_as(&self, open: OpenVolume, role: ClientRole) -> Result<Arc<Volume>, NodeError> {
        let state = self.state();
        let row = state.volume(open.volume).ok_or(NodeError::UnknownVolume(open.volume))?;
        let client = ClientId(open.client.unwrap_or_else(crate::random::u64));
        let blocks = row.spec.size / BLOCK_SIZE as u64;
        // A coordinator's I/O waits through failovers, whatever its clients' may do.
        let io_timeout = match role {
            ClientRole::Device => row.spec.io_timeout_ms.map(Duration::from_millis),
            _ => None,
        };
        let options = ClientOptions {
            role,
            // Clocks differ in their pace by much less than a quarter.
            lapse: self.options.replication.lease * 5 / 4,
            io_timeout,
            ..ClientOptions::new(client, open.volume, open.epoch, blocks, row.spec.slice_blocks)
        };
        let parts = VolumeParts {
            id: open.volume,
            client,
            epoch: open.epoch,
            read_only: open.read_only,
            size_bytes: row.spec.size,
            slice_blocks: row.spec.slice_blocks,
            io_timeout,
            // A later daemon's streams supersede an earlier one's, whatever node they go to.
            first_stream: self.boot.0 << 32,
            core: VolumeClient::new(options),
        };
        let volume =
            Volume::new(parts, Arc::clone(self.plane.volume_timers()), self.plane.volume_ports());
        self.plane.add_volume(Arc::clone(&volume));
        for (slice, config) in row.slices() {
            volume.configured(slice.index, mooring_config::SliceConfig::clone(config));
        }
        // It may have ended before there was a volume to tell.
        if self.attachment_is_over(open.volume, open.epoch) {
            volume.close();
        }
        Ok(volume)
    }

    /// Opens a shared volume as its coordinator, under an attachment that was granted to this node for
    /// this one: slice 0 is sealed, then it serves ([`CoordinatorVolume::state`]); the other slices
    /// follow.
    ///
    /// # Errors
    /// [`NodeError::UnknownVolume`].
    pub fn open_coordinator(
        &self,
        volume: VolumeId,
        epoch: AttachmentEpoch,
    ) -> Result<CoordinatorVolume, NodeError> {
        let open = OpenVolume { volume, epoch, client: None, read_only: false };
        let volume = self.open_as(open, ClientRole::Coordinator)?;
        let lease = self.options.replication.lease;
        Ok(CoordinatorVolume::new(volume, Arc::clone(&self.plane), lease))
    }

    /// Takes processes of this machine's root in at the unix socket `path`, until the node stops:
    /// mounts begin there ([`Client::new`](crate::Client::new)).
    ///
    /// # Errors
    /// The socket can't be made.
    pub fn open_door(&self, path: &std::path::Path) -> std::io::Result<()> {
        let door = Door::open(path, &self.plane, self.id)?;
        *self.door.lock() = Some(door);
        Ok(())
    }

    /// Whether an attachment that was granted is known here to have ended: another followed, or it
    /// was taken away, perhaps while this node was down.
    #[must_use]
    pub fn attachment_is_over(&self, volume: VolumeId, epoch: AttachmentEpoch) -> bool {
        self.state().volume(volume).is_some_and(|row| row.is_over(epoch))
    }

    /// Ends the use of a volume: what waits fails, and nothing more goes through.
    pub fn close_volume(&self, id: VolumeId) {
        if let Some(volume) = self.plane.volume(id) {
            volume.close();
            self.plane.remove_volume(&volume);
        }
    }

    /// A volume that is used on this node.
    #[must_use]
    pub fn volume(&self, id: VolumeId) -> Option<Arc<Volume>> {
        self.plane.volume(id)
    }

    /// As [`Node::attract`], once this node's replicas are in sync: after a restart, for which they
    /// handed over or were replaced. Ends when the primaries are here, or the volume is closed.
    pub async fn attract_when_level(self: Arc<Self>, id: VolumeId) {
        let mut states = self.watch();
        while self.plane.volume(id).is_some_and(|volume| !volume.is_broken()) {
            let state = Arc::clone(&states.borrow_and_update().state);
            let Some(row) = state.volume(id) else { return };
            let opened = |pool| self.pools.get(pool).map(|open| open.pool.incarnation());
            let level = |config: &mooring_config::SliceConfig| {
                let member = config.in_sync_member(self.id);
                member.is_some_and(|member| opened(member.pool) == Some(member.incarnation))
            };
            let ours: Vec<_> = row
                .slices()
                .map(|(_, config)| config)
                .filter(|config| config.member(self.id).is_some())
                .collect();
            if ours.iter().all(|config| config.primary == self.id && level(config)) {
                return;
            }
            if ours.iter().any(|config| config.primary != self.id && level(config)) {
                self.attract(id);
            }
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(ATTRACT_AGAIN) => {}
            }
            // A change begins a series of them: not a question for each.
            tokio::time::sleep(ATTRACT_PAUSE).await;
        }
    }

    /// Primary follows use: asks the primaries of a volume's slices to hand over to this node's
    /// replicas, where those are in sync. Nothing is lost if they don't.
    pub fn attract(self: &Arc<Self>, id: VolumeId) {
        let state = self.state();
        let Some(row) = state.volume(id) else { return };
        for (slice, config) in row.slices() {
            if config.primary == self.id || config.in_sync_member(self.id).is_none() {
                continue;
            }
            let (node, from) = (Arc::clone(self), config.primary);
            self.runtime.spawn(async move {
                if let Err(error) = node.ask(from, &HandOver { slice, to: node.id }).await {
                    tracing::debug!(%slice, %from, %error, "the primary was not asked to hand over");
                }
            });
        }
    }
}
