//! Who coordinates: for each shared volume the node that has slice 0's primary, and as long as it has.
//!
//! ```text
//!   (waits) ──slice 0's primary is here──> claim ──> open, seal ──> coordinator runs ──> stopped
//!      ^                                                                 │ primary elsewhere, volume grown,
//!      └───────────────────────────── a pause after a failure ───────────┘ volume removed, or it failed
//! ```
//! Each has an attachment of its own, so that clients tell them apart, and the slices fence the one before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use blockstore::{CoordinatorVolume, Node};
use mooring_config::{ClusterState, CoordinatorDuty, SliceConfig};
use mooring_sharedfs_coordinator::{Coordinator, Observer, Options, Parts, Peers, Slices, State};
use mooring_terms::{AttachmentEpoch, BLOCK_SIZE, SliceId, SliceIndex, VolumeId};
use parking_lot::Mutex;

use super::observer::{EventObserver, Stage};
use super::post::Post;
use super::questions::Checks;
use super::slices::{VolumeSlices, serves};
use crate::attachments::blocking;
use crate::error::DaemonError;

/// After a failure, and the most after several.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// The most where the attachment was not to be had: the control plane may be back at any moment, and clients
/// wait.
const CLAIM_PAUSE: Duration = Duration::from_secs(1);
/// Whoever has run for so long has not failed to begin.
const RAN: Duration = Duration::from_secs(30);

/// The coordinators of this node.
pub struct Coordinators {
    node: Arc<Node>,
    /// How long slices and sessions live without being heard.
    lease: Duration,
    running: Mutex<BTreeMap<VolumeId, Arc<Coordinator>>>,
    checks: Checks,
}

/// What a volume's row says, as far as a coordinator depends on it.
#[derive(Clone, PartialEq, Eq)]
struct Wanted {
    name: String,
    size: u64,
    slice_blocks: u64,
}

/// Where a coordinator has failed.
enum Failed {
    /// It got no attachment.
    Claiming(DaemonError),
    /// It had one.
    Running(DaemonError),
}

impl Coordinators {
    /// None yet; see [`Coordinators::follow`].
    pub fn new(node: Arc<Node>, lease: Duration) -> Arc<Self> {
        Arc::new(Self { node, lease, running: Mutex::default(), checks: Checks::default() })
    }

    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    pub(super) fn checks(&self) -> &Checks {
        &self.checks
    }

    /// The coordinator of a volume, if it runs here.
    pub fn get(&self, volume: VolumeId) -> Option<Arc<Coordinator>> {
        self.running.lock().get(&volume).cloned()
    }

    /// Every coordinator that runs here.
    pub fn all(&self) -> Vec<(VolumeId, Arc<Coordinator>)> {
        self.running.lock().iter().map(|(id, one)| (*id, Arc::clone(one))).collect()
    }

    /// Runs coordinators as the configuration wants them, until the node stops.
    pub async fn follow(self: Arc<Self>) {
        let mut states = self.node.watch();
        let mut known = std::collections::BTreeSet::new();
        loop {
            let state = Arc::clone(&states.borrow_and_update().state);
            let shared = state.volumes().iter().filter(|(_, row)| row.spec.is_shared());
            for (&volume, _) in shared {
                if known.insert(volume) {
                    tokio::spawn(Arc::clone(&self).keep(volume));
                }
            }
            known.retain(|volume| state.volume(*volume).is_some());
            if states.changed().await.is_err() {
                return;
            }
        }
    }

    /// What is wanted of a coordinator here; nothing, if slice 0's primary is elsewhere.
    fn wanted(&self, state: &ClusterState, volume: VolumeId) -> Option<Wanted> {
        let row = state.volume(volume)?;
        let slice = state.slice(SliceId { volume, index: SliceIndex(0) })?;
        (slice.primary == self.node.id()).then(|| Wanted {
            name: row.name.clone(),
            size: row.spec.size,
            slice_blocks: row.spec.slice_blocks,
        })
    }

    /// Runs the coordinator of a volume whenever it is this node's, until the volume is gone.
    async fn keep(self: Arc<Self>, volume: VolumeId) {
        let mut states = self.node.watch();
        let mut pause = PAUSES.0;
        loop {
            let state = Arc::clone(&states.borrow_and_update().state);
            if state.volume(volume).is_none() {
                return;
            }
            let Some(wanted) = self.wanted(&state, volume) else {
                if states.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let began = tokio::time::Instant::now();
            let ground = Self::ground(&state, volume);
            let (error, most) = match self.coordinate(volume, &wanted).await {
                Ok(()) => {
                    pause = PAUSES.0;
                    continue;
                }
                Err(Failed::Claiming(error)) => (error, CLAIM_PAUSE),
                Err(Failed::Running(error)) => (error, PAUSES.1),
            };
            tracing::warn!(volume = wanted.name, %error, "it has no coordinator here");
            if began.elapsed() > RAN {
                pause = PAUSES.0;
            }
            tokio::time::sleep(PAUSES.0).await;
            let otherwise = |published: &mooring_control::Published| {
                Self::ground(&published.state, volume) != ground
            };
            // What it has failed for may be over.
            let changed = tokio::time::timeout(pause - PAUSES.0, states.wait_for(otherwise)).await;
            pause = if changed.is_ok() { PAUSES.0 } else { (pause * 2).min(most) };
        }
    }

    /// What a coordinator stands on, its own attachments aside.
    fn ground(state: &ClusterState, volume: VolumeId) -> Option<Arc<SliceConfig>> {
        state.slice(SliceId { volume, index: SliceIndex(0) }).cloned()
    }

    /// Waits until a volume's coordinator is not wanted here any more, or not like this.
    async fn changed(&self, volume: VolumeId, wanted: &Wanted) {
        let mut states = self.node.watch();
        let otherwise = |published: &mooring_control::Published| {
            self.wanted(&published.state, volume).as_ref() != Some(wanted)
        };
        // An error is the node's end.
        let _ = states.wait_for(otherwise).await;
    }

    /// Waits until the attachment is another's.
    async fn ends(&self, volume: VolumeId, epoch: AttachmentEpoch) {
        let mut states = self.node.watch();
        while self.node.coordinator_duty(volume, Some(epoch)) != CoordinatorDuty::End {
            if states.changed().await.is_err() {
                return;
            }
        }
    }

    async fn coordinate(&self, volume: VolumeId, wanted: &Wanted) -> Result<(), Failed> {
        let epoch = tokio::select! {
            () = self.changed(volume, wanted) => return Ok(()),
            epoch = self.node.claim_coordinator(volume) => epoch,
        };
        let epoch = epoch.map_err(|error| Failed::Claiming(error.into()))?;
        self.coordinate_as(volume, wanted, epoch).await.map_err(Failed::Running)
    }

    async fn coordinate_as(
        &self,
        volume: VolumeId,
        wanted: &Wanted,
        epoch: AttachmentEpoch,
    ) -> Result<(), DaemonError> {
        let node = Arc::clone(&self.node);
        let opened = blocking(move || node.open_coordinator(volume, epoch)).await??;
        let mut state = opened.state();
        let sealed = tokio::select! {
            () = self.changed(volume, wanted) => false,
            state = state.wait_for(|state| serves(state).is_some()) => {
                state.is_ok_and(|state| serves(&state) == Some(true))
            }
        };
        if !sealed {
            return blocking(move || drop(opened)).await;
        }
        self.run(opened, wanted, epoch).await
    }

    /// Runs a coordinator to its end.
    async fn run(
        &self,
        opened: CoordinatorVolume,
        wanted: &Wanted,
        epoch: AttachmentEpoch,
    ) -> Result<(), DaemonError> {
        let volume = opened.id();
        let observer = EventObserver::new(Arc::clone(&self.node), volume, wanted.name.clone());
        let mut stage = observer.stage();
        let post = Arc::new(Post::default());
        let slices = Arc::new(VolumeSlices::new(opened, wanted.slice_blocks));
        let blocks = wanted.size / BLOCK_SIZE as u64;
        let mut options = Options::new(epoch, blocks, wanted.slice_blocks);
        options.core.lease = self.lease;
        options.core.grace = self.lease + self.lease / 8;
        options.tag = rand::random();
        options.tree = (blockstore::TREE_FIRST, blockstore::TREE_BLOCKS);
        let coordinator = Coordinator::start(Parts {
            blocks: Arc::clone(&slices),
            slices: Arc::clone(&slices) as Arc<dyn Slices>,
            peers: Arc::clone(&post) as Arc<dyn Peers>,
            observer: Arc::clone(&observer) as Arc<dyn Observer>,
            options,
        });
        let coordinator = Arc::new(coordinator.map_err(DaemonError::Thread)?);
        post.deliver_to(&coordinator);
        self.running.lock().insert(volume, Arc::clone(&coordinator));
        let mut attachment = slices.volume().state();
        tokio::select! {
            () = self.changed(volume, wanted) => {}
            () = self.ends(volume, epoch) => {}
            // It may have nothing to do by which it would find out.
            _ = attachment.wait_for(|attachment| attachment.is_over()) => {}
            () = async {
                if stage.wait_for(|stage| *stage >= Stage::Open).await.is_ok() {
                    slices.volume().receive_letters(post);
                    let _ = stage.wait_for(|stage| *stage == Stage::Over).await;
                }
            } => {}
        }
        let failed = coordinator.state() == State::Stopped && !slices.is_over();
        self.running.lock().remove(&volume);
        blocking(move || {
            coordinator.stop();
            drop(slices);
        })
        .await?;
        if failed { Err(DaemonError::Coordinator { volume: wanted.name.clone() }) } else { Ok(()) }
    }
}
