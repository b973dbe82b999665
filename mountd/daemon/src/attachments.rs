//! The volumes attached to this node: each a client of the block store with a device of the kernel.
//!
//! ```text
//!            grant (Raft)      seal in every slice       device made
//!   (none) ──────────────> opening ──────────────> sealed ──────────────> serving
//!      ^                                                                     │
//!      └───────────── detached <──── device taken away ────── fenced <───────┘
//!                                                   (a newer attachment, or detached by force)
//! ```
//!
//! What is attached is remembered by the holder process beside the device's descriptors, and by the
//! kernel's mount table; nothing else needs to be.
//!
//! A device whose attachment was fenced turns to errors at once, and stays so until it is detached.

mod grant;
mod note;
mod resume;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use blockstore::{About, Node, OpenVolume, Severity, Volume};
use mooring_config::{AttachMode, Command};
use mooring_device::holder::HolderClient;
use mooring_device::{BlockIo, Device, DeviceError};
use mooring_terms::{AttachmentEpoch, VolumeId};
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use crate::device_hosts::DeviceHosts;
use crate::error::{DaemonError, InvalidRequest};
use note::Note;

pub use grant::GrantRequest;

/// The attached volumes of this node.
pub struct Attachments {
    node: Arc<Node>,
    hosts: DeviceHosts,
    table: Mutex<BTreeMap<VolumeId, Arc<Attached>>>,
    /// One attach or detach of a volume at a time.
    turns: Mutex<BTreeMap<VolumeId, Arc<AsyncMutex<()>>>>,
}

/// A volume with its device.
pub struct Attached {
    /// Its name.
    pub name: String,
    /// The client of the block store.
    pub volume: Arc<Volume>,
    /// The device.
    pub device: Arc<dyn Device>,
    /// Whether it is attached for a mount alone, and goes when that goes.
    pub for_mount: bool,
    /// Whether it has been seen mounted: from then on the end of its last mount is noticed.
    pub seen_mounted: AtomicBool,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}

impl Attached {
    /// The block device's path.
    ///
    /// # Errors
    /// If it is attached as something else, which can't be mounted.
    pub fn block_device(&self) -> Result<PathBuf, DaemonError> {
        self.device.block_device().map(ToOwned::to_owned).ok_or_else(|| {
            DaemonError::NoBlockDevice { volume: self.name.clone(), kind: self.device.kind() }
        })
    }
}

impl Attachments {
    /// No attachments yet; devices are made by `hosts`.
    #[must_use]
    pub fn new(node: Arc<Node>, hosts: DeviceHosts) -> Arc<Self> {
        Arc::new(Self {
            node,
            hosts,
            table: Mutex::new(BTreeMap::new()),
            turns: Mutex::new(BTreeMap::new()),
        })
    }

    /// The kinds of device that volumes can be attached as.
    #[must_use]
    pub fn hosts(&self) -> &DeviceHosts {
        &self.hosts
    }

    /// Every attached volume.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Attached>> {
        self.table.lock().values().cloned().collect()
    }

    /// An attached volume.
    #[must_use]
    pub fn get(&self, volume: VolumeId) -> Option<Arc<Attached>> {
        self.table.lock().get(&volume).cloned()
    }

    /// Gives every device to another holder, in place of one that has ended. Says how many it has
    /// now, and which it could not be given.
    pub fn change_holder(&self, holder: &Arc<HolderClient>) -> (usize, Vec<(String, DeviceError)>) {
        self.hosts.change_holder(holder);
        let mut kept = 0;
        let mut lost = Vec::new();
        for attached in self.all() {
            match self.hosts.keep(&*attached.device) {
                Ok(_) => kept += 1,
                Err(error) => lost.push((attached.name.clone(), error)),
            }
        }
        (kept, lost)
    }

    /// Waits for the turn to attach or detach `volume`.
    async fn turn(&self, volume: VolumeId) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = Arc::clone(self.turns.lock().entry(volume).or_default());
        turn.lock_owned().await
    }

    /// Attaches a volume here; one that is attached already is answered as it is.
    ///
    /// # Errors
    /// Refused while a node that is alive has it, unless forced; [`DaemonError`] otherwise. Nothing
    /// is left behind then.
    pub async fn attach(
        self: &Arc<Self>,
        request: GrantRequest,
        for_mount: bool,
    ) -> Result<Arc<Attached>, DaemonError> {
        let this = Arc::clone(self);
        to_the_end(async move { this.attach_now(request, for_mount).await }).await
    }

    async fn attach_now(
        self: &Arc<Self>,
        request: GrantRequest,
        for_mount: bool,
    ) -> Result<Arc<Attached>, DaemonError> {
        let turn = self.turn(request.volume).await;
        if let Some(attached) = self.get(request.volume) {
            if attached.volume.is_broken() {
                return Err(DaemonError::Fenced { volume: attached.name.clone() });
            }
            if attached.volume.is_read_only() != (request.mode == AttachMode::ReadOnly) {
                return Err(DaemonError::AttachedOtherwise { volume: attached.name.clone() });
            }
            let kind = attached.device.kind();
            if request.kind.is_some_and(|asked| asked != kind) {
                return Err(DaemonError::AttachedAs { volume: attached.name.clone(), kind });
            }
            return Ok(attached);
        }
        if let Some(volume) = self.node.state().volume(request.volume)
            && volume.spec.is_shared()
        {
            return Err(DaemonError::Shared { volume: volume.name.clone() });
        }
        if self.hosts.find(request.kind).is_none() {
            let kind = request.kind.map(|kind| kind.to_string()).unwrap_or_default();
            return Err(DaemonError::Invalid(InvalidRequest::Backend(kind)));
        }
        let (name, epoch) = self.grant(&request).await?;
        let result = self.open(&request, &name, epoch, for_mount).await;
        if result.is_err() {
            self.give_back(request.volume, epoch).await;
        }
        drop(turn);
        result
    }

    async fn open(
        self: &Arc<Self>,
        request: &GrantRequest,
        name: &str,
        epoch: AttachmentEpoch,
        for_mount: bool,
    ) -> Result<Arc<Attached>, DaemonError> {
        let open = OpenVolume {
            volume: request.volume,
            epoch,
            client: None,
            read_only: request.mode == AttachMode::ReadOnly,
        };
        let node = Arc::clone(&self.node);
        let volume = blocking(move || node.open_volume(open)).await??;
        let note = Note {
            volume: request.volume,
            epoch,
            client: volume.client().0,
            read_only: volume.is_read_only(),
            for_mount,
            since_ms: blockstore::unix_ms(),
        };
        let made = match self.sealed(&volume, name).await {
            Ok(()) => self.make_device(request, name, &volume, &note).await,
            Err(error) => Err(error),
        };
        match made {
            Ok(device) => {
                self.node.attract(request.volume);
                Ok(self.register(name, volume, device, &note))
            }
            Err(error) => {
                self.node.close_volume(request.volume);
                Err(error)
            }
        }
    }

    async fn make_device(
        &self,
        request: &GrantRequest,
        name: &str,
        volume: &Arc<Volume>,
        note: &Note,
    ) -> Result<Arc<dyn Device>, DaemonError> {
        let kind = request.kind.map(|kind| kind.to_string()).unwrap_or_default();
        let unknown = DaemonError::Invalid(InvalidRequest::Backend(kind));
        let host = self.hosts.find(request.kind).ok_or(unknown)?;
        let io: Arc<dyn BlockIo> = Arc::clone(volume) as _;
        let (name, read_only, note) = (name.to_owned(), note.read_only, note.encode());
        blocking(move || host.attach(&name, io, read_only, note))
            .await?
            .map_err(DaemonError::Device)
    }

    fn register(
        self: &Arc<Self>,
        name: &str,
        volume: Arc<Volume>,
        device: Arc<dyn Device>,
        note: &Note,
    ) -> Arc<Attached> {
        let attached = Arc::new(Attached {
            name: name.to_owned(),
            volume,
            device,
            for_mount: note.for_mount,
            seen_mounted: AtomicBool::new(false),
            since_ms: note.since_ms,
        });
        self.table.lock().insert(note.volume, Arc::clone(&attached));
        // The holder may have been replaced while the device was made.
        if let Err(error) = self.hosts.keep(&*attached.device) {
            tracing::error!(volume = name, %error, "the device has no holder");
        }
        self.watch(Arc::clone(&attached));
        attached
    }

    /// Turns the device to errors when the attachment is fenced or ended elsewhere.
    fn watch(self: &Arc<Self>, attached: Arc<Attached>) {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let node = &this.node;
            let mut state = attached.volume.state();
            let ended = state.wait_for(|state| state.is_over()).await.map(|state| *state);
            let Ok(ended) = ended else { return };
            // Detached meanwhile: there is no device left to fail.
            let still = this.get(attached.volume.id());
            if !still.is_some_and(|still| Arc::ptr_eq(&still, &attached)) {
                return;
            }
            let device = Arc::clone(&attached.device);
            let failed = blocking(move || device.fail()).await;
            if let blockstore::Attachment::Fenced { by } = ended {
                node.events().push(
                    Severity::Error,
                    "fenced",
                    format!(
                        "volume {}: attachment {by} has begun elsewhere; {} gives errors from now on",
                        attached.name,
                        attached.device.address()
                    ),
                    About { volume: Some(attached.volume.id()), ..About::default() },
                );
            }
            if let Ok(Err(error)) = failed {
                tracing::error!(volume = attached.name, %error, "the device could not be failed");
            }
        });
    }

    /// Detaches a volume from this node; nothing to do if it isn't attached here.
    ///
    /// # Errors
    /// [`mooring_device::DeviceError::Busy`] while the device is mounted or open, unless forced.
    pub async fn detach(
        self: &Arc<Self>,
        volume: VolumeId,
        force: bool,
    ) -> Result<bool, DaemonError> {
        if force {
            self.break_now(volume).await?;
        }
        let this = Arc::clone(self);
        to_the_end(async move { this.detach_now(volume, force).await }).await
    }

    /// Turns a volume's device to errors at once, whoever has the turn: that is what frees them.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn break_now(&self, volume: VolumeId) -> Result<(), DaemonError> {
        if let Some(attached) = self.get(volume) {
            attached.volume.close();
            let device = Arc::clone(&attached.device);
            blocking(move || device.fail()).await?.map_err(DaemonError::Device)?;
        } else {
            // One that is still being attached waits for its seal no longer.
            self.node.close_volume(volume);
        }
        Ok(())
    }

    async fn detach_now(&self, volume: VolumeId, force: bool) -> Result<bool, DaemonError> {
        let _turn = self.turn(volume).await;
        let Some(attached) = self.get(volume) else {
            self.give_back_unused(volume).await;
            return Ok(false);
        };
        let broken = attached.volume.is_broken();
        let device = Arc::clone(&attached.device);
        if force || broken {
            attached.volume.close();
            blocking(move || device.detach_forced()).await?.map_err(DaemonError::Device)?;
        } else {
            blocking(move || device.detach()).await?.map_err(DaemonError::Device)?;
        }
        self.table.lock().remove(&volume);
        let epoch = attached.volume.epoch();
        self.node.close_volume(volume);
        // It names its epoch: where a newer attachment exists, it ends nothing.
        self.give_back(volume, epoch).await;
        Ok(true)
    }

    /// Ends an attachment that Raft still lists for this node, though nothing here serves it.
    async fn give_back_unused(&self, volume: VolumeId) {
        let held = self.node.state().volume(volume).and_then(|row| row.attachment);
        if let Some(held) = held.filter(|held| held.node == self.node.id()) {
            self.give_back(volume, held.epoch).await;
        }
    }

    /// Tells Raft that the attachment is over. Best effort: without a quorum it stays granted to
    /// this node, which may have it again.
    async fn give_back(&self, volume: VolumeId, epoch: AttachmentEpoch) {
        let command =
            Command::Detach { volume, epoch: Some(epoch), node: self.node.id(), force: false };
        if let Err(error) = self.node.propose_as_system(command).await {
            tracing::warn!(%volume, %error, "the end of an attachment could not be recorded");
        }
    }

    /// Hands a larger size on to the device. Says how large the device is now; `None` if the volume
    /// isn't attached here.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn grow(&self, volume: VolumeId) -> Result<Option<u64>, DaemonError> {
        let Some(attached) = self.get(volume) else { return Ok(None) };
        let device = Arc::clone(&attached.device);
        blocking(move || device.grow()).await?.map(Some).map_err(DaemonError::Device)
    }
}

/// Runs work to its end, also when whoever asked for it goes away in the middle: half an attachment
/// would be nobody's.
///
/// # Errors
/// What the work gives; [`DaemonError::Panicked`].
pub async fn to_the_end<R: Send + 'static>(
    work: impl Future<Output = Result<R, DaemonError>> + Send + 'static,
) -> Result<R, DaemonError> {
    tokio::spawn(work).await.map_err(|_| DaemonError::Panicked)?
}

/// Runs what waits for the kernel on a thread that may wait.
///
/// # Errors
/// If it panicked.
pub async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, DaemonError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| DaemonError::Panicked)
}
