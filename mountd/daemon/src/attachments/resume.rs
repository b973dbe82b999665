//! After a restart of the daemon: taking back what the holder process kept.
//!
//! The devices' users have noticed nothing but a pause. For each device the block store is asked to
//! go on under the same attachment and the same client number; then the kernel sends again whatever
//! the dead daemon had not answered.

use std::sync::Arc;
use std::time::Duration;

use blockstore::{About, OpenVolume, Severity};
use mooring_terms::VolumeId;

use super::note::Note;
use super::{Attached, Attachments, blocking};
use crate::device_hosts::Held;
use crate::error::DaemonError;

/// How long the row of a volume may take to arrive.
const KNOWN_WAIT: Duration = Duration::from_secs(20);
/// Between two tries to see whether an attachment still stands.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Attachments {
    /// The volumes whose devices a holder still serves.
    #[must_use]
    pub fn volumes_of(held: &[Held]) -> Vec<VolumeId> {
        held.iter().filter_map(|held| Note::decode(&held.note)).map(|note| note.volume).collect()
    }

    /// Takes back every device that the holder kept, and clears away what can't be taken back. A
    /// device's failure is an event.
    pub fn resume(self: &Arc<Self>, held: Vec<Held>) {
        let mut resumed = tokio::task::JoinSet::new();
        for held in held {
            let this = Arc::clone(self);
            resumed.spawn(async move {
                if let Err(error) = this.resume_one(&held).await {
                    this.give_up(&held, &error).await;
                }
            });
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            // One volume that can't be found yet holds up no other, and not the API.
            while resumed.join_next().await.is_some() {}
            this.hosts.sweep().await;
        });
    }

    async fn resume_one(self: &Arc<Self>, held: &Held) -> Result<(), DaemonError> {
        let name = &held.name;
        let note = Note::decode(&held.note).ok_or(DaemonError::NoteUnknown)?;
        // The local configuration may be a moment behind: it condemns only what it knows to be over.
        // The replicas refuse an attachment that is over, whatever is believed here.
        if self.node.state().volume(note.volume).is_none() {
            self.wait_until_known(note.volume, name).await?;
        }
        if self.node.attachment_is_over(note.volume, note.epoch) {
            return Err(DaemonError::Fenced { volume: name.clone() });
        }
        let open = OpenVolume {
            volume: note.volume,
            epoch: note.epoch,
            client: Some(note.client),
            read_only: note.read_only,
        };
        let node = Arc::clone(&self.node);
        let volume = blocking(move || node.open_volume(open)).await??;
        match self.hosts.resume(held, &volume).await {
            Ok(device) => {
                tracing::info!(volume = name, "the device is served again");
                let volume_id = note.volume;
                let attached = self.register(name, volume, device, &note);
                tokio::spawn(Arc::clone(self).end_if_over(attached, note));
                tokio::spawn(Arc::clone(&self.node).attract_when_level(volume_id));
                Ok(())
            }
            Err(error) => {
                self.node.close_volume(note.volume);
                Err(error)
            }
        }
    }

    /// An attachment that was ended by force while this daemon was away, and not given to anybody
    /// since: nobody's seal fences it, so its device is turned to errors from here.
    async fn end_if_over(self: Arc<Self>, attached: Arc<Attached>, note: Note) {
        let over = loop {
            match self.node.control().read_linearizable().await {
                Ok(state) => match state.volume(note.volume) {
                    Some(row) => {
                        break row.attachment.is_none_or(|held| {
                            held.node != self.node.id() || held.epoch != note.epoch
                        });
                    }
                    None => break true,
                },
                Err(mooring_control::Error::Stopped { .. }) => return,
                // Without a quorum nobody has ended anything either.
                Err(_) => {}
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        };
        if over {
            tracing::warn!(volume = attached.name, "it was detached while this daemon was away");
            attached.volume.close();
        }
    }

    /// Waits for a volume that the local configuration doesn't have (yet): its row may be on its way.
    async fn wait_until_known(&self, volume: VolumeId, name: &str) -> Result<(), DaemonError> {
        let mut states = self.node.watch();
        let known = states.wait_for(|published| published.state.volume(volume).is_some());
        match tokio::time::timeout(KNOWN_WAIT, known).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(DaemonError::NotFound { what: "volume", name: name.to_owned() }),
        }
    }

    /// A device that can't be served again turns to errors, which frees all who wait for it.
    async fn give_up(&self, held: &Held, error: &DaemonError) {
        let (name, note) = (&held.name, Note::decode(&held.note));
        self.node.events().push(
            Severity::Error,
            "device-lost",
            format!(
                "volume {name}: its device can't be served again ({error}); it gives errors now"
            ),
            About { volume: note.as_ref().map(|note| note.volume), ..About::default() },
        );
        if let Err(error) = self.hosts.abandon(held).await {
            tracing::error!(device = name, %error, "the device stays behind");
        }
        if let Some(note) = note {
            self.give_back(note.volume, note.epoch).await;
        }
    }
}
