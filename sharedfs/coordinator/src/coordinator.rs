//! A running coordinator, from outside.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use mooring_sharedfs_store::Blocks;
use parking_lot::Mutex;

use crate::options::Options;
use crate::peers::{PeerId, Peers};
use crate::report::Observer;
use crate::shell::{Arrival, Shell};
use crate::slices::Slices;

/// Bytes of letters that may wait; who writes more is cut. Clients have a bounded number of requests on
/// their way, so it takes a great many of them, or one that doesn't keep to that.
const WAITING_MAX: usize = 256 << 20;

/// What a coordinator stands on.
pub struct Parts<B> {
    /// Journal and tree, under the attachment.
    pub blocks: Arc<B>,
    /// The slices, under the same attachment.
    pub slices: Arc<dyn Slices>,
    /// The clients.
    pub peers: Arc<dyn Peers>,
    /// Who is told what happens.
    pub observer: Arc<dyn Observer>,
    /// Geometry and times.
    pub options: Options,
}

/// Where a coordinator is in its life: `Opening -> Grace -> Serving -> Stopped`, and from each to `Stopped`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Replaying the journal.
    #[default]
    Opening,
    /// Clients of the coordinator before are reclaiming.
    Grace,
    /// Serving.
    Serving,
    /// Over, for good.
    Stopped,
}

/// What it has done so far, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Letters that came.
    pub letters: u64,
    /// Batches that were journaled.
    pub batches: u64,
    /// Records in them: operations that changed something, and steps of what goes on beside.
    pub records: u64,
    /// Checkpoints of the tree.
    pub checkpoints: u64,
}

/// What the thread shows to whoever asks.
#[derive(Default)]
pub(crate) struct Shown {
    state: Mutex<State>,
    counters: Mutex<Counters>,
    /// Bytes of letters that wait.
    pub(crate) waiting: AtomicUsize,
}

impl Shown {
    pub(crate) fn set_state(&self, state: State) {
        *self.state.lock() = state;
    }

    pub(crate) fn count(&self, count: impl FnOnce(&mut Counters)) {
        count(&mut self.counters.lock());
    }
}

/// The coordinator of one shared volume. Stopped when dropped.
pub struct Coordinator {
    inbox: Sender<Arrival>,
    shown: Arc<Shown>,
    peers: Arc<dyn Peers>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Coordinator {
    /// Begins on a thread of its own: makes a file system if the volume is empty, replays, gives the clients
    /// of the coordinator before time to reclaim, and serves. By now nobody else can write the volume.
    ///
    /// # Errors
    /// No thread.
    pub fn start<B: Blocks>(parts: Parts<B>) -> io::Result<Self> {
        let (inbox, arrivals) = channel();
        let shown = Arc::new(Shown::default());
        let peers = Arc::clone(&parts.peers);
        let (sender, of_thread) = (inbox.clone(), Arc::clone(&shown));
        let thread = std::thread::Builder::new()
            .name("coordinator".to_owned())
            .spawn(move || Shell::live(parts, sender, arrivals, &of_thread))?;
        Ok(Self { inbox, shown, peers, thread: Mutex::new(Some(thread)) })
    }

    /// A client has written. Letters of one stream come in order.
    pub fn letter(&self, from: PeerId, letter: Bytes) {
        let waiting = self.shown.waiting.fetch_add(letter.len(), Ordering::Relaxed);
        if waiting > WAITING_MAX {
            self.shown.waiting.fetch_sub(letter.len(), Ordering::Relaxed);
            self.peers.cut(from);
            // What follows on the stream must not be taken without what was left out.
            self.gone(from);
            return;
        }
        // To one that has stopped: nobody answers, and the client looks for the next.
        let _ = self.inbox.send(Arrival::Letter(from, letter));
    }

    /// A stream is gone.
    pub fn gone(&self, from: PeerId) {
        let _ = self.inbox.send(Arrival::Gone(from));
    }

    /// To one that has stopped: nothing comes of it.
    pub(crate) fn send(&self, arrival: Arrival) {
        let _ = self.inbox.send(arrival);
    }

    /// Where it is in its life.
    #[must_use]
    pub fn state(&self) -> State {
        *self.shown.state.lock()
    }

    /// What it has done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        *self.shown.counters.lock()
    }

    /// Ends it, after what it is doing; sessions stay for the next.
    pub fn stop(&self) {
        let _ = self.inbox.send(Arrival::Stop);
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the coordinator's thread panicked");
        }
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.stop();
    }
}
