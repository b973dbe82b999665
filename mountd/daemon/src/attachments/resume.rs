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
use crate::error::DaemonError;

/// How long the row of a volume may take to arrive.
const KNOWN_WAIT: Duration = Duration::from_secs(20);
/// Between two tries to see whether an attachment still stands.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Attachments {
    /// The volumes whose devices a holder still serves.
    #[must_use]
    pub fn volumes_of(held: &[(String, Vec<u8>)]) -> Vec<VolumeId> {
        held.iter().filter_map(|(_, note)| Note::decode(note)).map(|note| note.volume).collect()
    }

    /// Takes back every device that the holder kept, and clears away what can't be taken back. A
    /// device's failure is an event.
    pub fn resume(self: &Arc<Self>, held: Vec<(String, Vec<u8>)>) {
        let mut resumed = tokio::task::JoinSet::new();
        for (name, note) in held {
            let this = Arc::clone(self);
            resumed.spawn(async move {
                if let Err(error) = this.resume_one(&name, &note).await {
                    this.give_up(&name, Note::decode(&note), &error).await;
                }
            });
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            // One volume that can't be found yet holds up no other, and not the API.
            while resumed.join_next().await.is_some() {}
            this.sweep().await;
        });
    }

    async fn sweep(&self) {
        let host = self.host.clone();
        let swept = match blocking(move || host.sweep()).await {
            Ok(Ok(swept)) => swept,
            Ok(Err(error)) => {
                tracing::warn!(%error, "what earlier daemons left behind was not looked for");
                return;
            }
            Err(_) => return,
        };
        for name in swept.cleaned.iter().chain(&swept.lingering) {
            tracing::info!(device = name, "what an earlier daemon left behind was cleared away");
        }
        for (name, error) in swept.failed {
            tracing::warn!(device = name, %error, "what an earlier daemon left behind stays");
        }
    }

    async fn resume_one(self: &Arc<Self>, name: &str, note: &[u8]) -> Result<(), DaemonError> {
        let note = Note::decode(note).ok_or(DaemonError::NoteUnknown)?;
        // The local configuration may be a moment behind: it condemns only what it knows to be over.
        // The replicas refuse an attachment that is over, whatever is believed here.
        if self.node.state().volume(note.volume).is_none() {
            self.wait_until_known(note.volume, name).await?;
        }
        if self.node.attachment_is_over(note.volume, note.epoch) {
            return Err(DaemonError::Fenced { volume: name.to_owned() });
        }
        let open = OpenVolume {
            volume: note.volume,
            epoch: note.epoch,
            client: Some(note.client),
            read_only: note.read_only,
        };
        let node = Arc::clone(&self.node);
        let volume = blocking(move || node.open_volume(open)).await??;
        let host = self.host.clone();
        let io = Arc::clone(&volume);
        let device_name = name.to_owned();
        match blocking(move || host.resume(&device_name, io)).await? {
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
                Err(DaemonError::Device(error))
            }
        }
    }

    /// An attachment that was ended by force while this daemon was away, and not given to anybody
    /// since: nobody's seal fences it, so its device is turned to errors from here.
    async fn end_if_over(self: Arc<Self>, attached: Arc<Attached>, note: Note) {
        let state = loop {
            match self.node.control().read_linearizable().await {
                Ok(state) => break state,
                Err(mooring_control::Error::Stopped { .. }) => return,
                // Without a quorum nobody has ended anything either.
                Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        };
        let held = state.volume(note.volume).and_then(|row| row.attachment);
        if held.is_none_or(|held| held.node != self.node.id() || held.epoch != note.epoch) {
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
    async fn give_up(&self, name: &str, note: Option<Note>, error: &DaemonError) {
        self.node.events().push(
            Severity::Error,
            "device-lost",
            format!(
                "volume {name}: its device can't be served again ({error}); it gives errors now"
            ),
            About { volume: note.as_ref().map(|note| note.volume), ..About::default() },
        );
        let host = self.host.clone();
        let device = name.to_owned();
        match blocking(move || host.abandon(&device)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::error!(device = name, %error, "the device stays behind"),
            Err(error) => tracing::error!(device = name, %error, "the device stays behind"),
        }
        if let Some(note) = note {
            self.give_back(note.volume, note.epoch).await;
        }
    }
}
