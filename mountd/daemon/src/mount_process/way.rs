//! The way to the coordinator: links of the block store's client as the mount's streams.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use blockstore::{Client, Coordinator};
use bytes::Bytes;
use mooring_sharedfs_mount::{Lost, Mount, Post, StreamNumber};
use mooring_terms::AttachmentEpoch;
use parking_lot::Mutex;

/// What the block store tells of the coordinator, on its way to the mount.
#[derive(Default)]
pub struct Way {
    client: OnceLock<Weak<Client>>,
    state: Mutex<State>,
    /// Which meeting this is; streams of earlier ones are gone.
    meeting: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    mount: Option<Weak<Mount>>,
    /// There is a coordinator that the mount hasn't heard of.
    met: bool,
    stream: Option<StreamNumber>,
}

impl Way {
    /// Whose links they are.
    pub fn to(&self, client: &Arc<Client>) {
        // Set once, by whoever has made both.
        let _ = self.client.set(Arc::downgrade(client));
    }

    /// Whose letters they are. A coordinator that was met already is met now.
    pub fn begin(&self, mount: &Arc<Mount>) {
        let mut state = self.state.lock();
        state.mount = Some(Arc::downgrade(mount));
        if std::mem::take(&mut state.met) {
            state.stream = Some(mount.met(self.post()));
        }
    }

    fn post(&self) -> Arc<dyn Post> {
        let number = self.meeting.fetch_add(1, Ordering::SeqCst) + 1;
        let client = self.client.get().cloned().unwrap_or_default();
        Arc::new(Stream { client, meeting: self.meeting.clone(), number })
    }

    /// The mount, and the stream that is open.
    fn open(&self) -> Option<(Arc<Mount>, StreamNumber)> {
        let state = self.state.lock();
        Some((state.mount.as_ref()?.upgrade()?, state.stream?))
    }
}

impl Coordinator for Way {
    fn met(&self, epoch: AttachmentEpoch) {
        tracing::debug!(epoch = epoch.0, "there is a coordinator");
        let mut state = self.state.lock();
        let mount = state.mount.as_ref().and_then(Weak::upgrade);
        match mount {
            Some(mount) => state.stream = Some(mount.met(self.post())),
            None => state.met = true,
        }
    }

    fn letter(&self, letter: Bytes) {
        let Some((mount, stream)) = self.open() else { return };
        if let Err(error) = mount.letter(stream, &letter) {
            tracing::error!(%error, "the coordinator's letter can't be read: another link");
            if let Some(client) = self.client.get().and_then(Weak::upgrade) {
                client.reconnect();
            }
        }
    }

    fn lost(&self) {
        self.meeting.fetch_add(1, Ordering::SeqCst);
        let open = self.open();
        let mut state = self.state.lock();
        (state.met, state.stream) = (false, None);
        drop(state);
        if let Some((mount, stream)) = open {
            mount.lost(stream);
        }
    }
}

/// One meeting with the coordinator.
struct Stream {
    client: Weak<Client>,
    meeting: Arc<AtomicU64>,
    number: u64,
}

impl Stream {
    fn client(&self) -> Option<Arc<Client>> {
        let open = self.meeting.load(Ordering::SeqCst) == self.number;
        self.client.upgrade().filter(|_| open)
    }
}

impl Post for Stream {
    fn send(&self, letter: Bytes) -> Result<(), Lost> {
        // Between this look and the sending the next coordinator may have been met: what comes to it
        // then before a Hello has it cut the link, and everything begins anew.
        let client = self.client().ok_or(Lost)?;
        client.send(letter).map_err(|_| Lost)
    }

    fn cut(&self) {
        if let Some(client) = self.client() {
            client.reconnect();
        }
    }
}
