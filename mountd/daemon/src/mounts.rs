//! Mounting volumes: attach, format at first use, check, mount, grow; and all of that backwards.
//!
//! The kernel's mount table is the only record of what is mounted (see `mount_table`).

mod follow;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockstore::{About, Node, Severity};
use mooring_config::{AttachMode, Command, Filesystem, Volume};
use mooring_device::DeviceKind;
use mooring_terms::VolumeId;
use tokio::sync::Mutex;

use crate::attachments::{Attached, Attachments, GrantRequest, blocking, to_the_end};
use crate::error::{DaemonError, InvalidRequest};
use crate::filesystem::{self, Found, Wanted};
use crate::mount_table::{self, Mount};
use crate::shared::{self, SharedMount, SharedMounts};

pub use follow::{follow_sizes, follow_unmounts};

/// The mounts of this node's volumes.
pub struct Mounts {
    node: Arc<Node>,
    attachments: Arc<Attachments>,
    shared: Arc<SharedMounts>,
    /// One mount, unmount or growth of a volume at a time.
    turns: parking_lot::Mutex<BTreeMap<VolumeId, Arc<Mutex<()>>>>,
}

/// What is to be mounted, and how.
#[derive(Clone, Debug)]
pub struct MountRequest {
    /// On whose behalf, for the events.
    pub by: String,
    /// The volume.
    pub volume: VolumeId,
    /// Where.
    pub dir: PathBuf,
    /// Options of the file system.
    pub options: Vec<String>,
    /// Mount it read-only.
    pub read_only: bool,
    /// As what kind of block device.
    pub kind: Option<DeviceKind>,
    /// Take it from a node that is alive.
    pub force: bool,
}

/// What a mount request did.
#[derive(Clone, Debug)]
pub struct MountOutcome {
    /// The mount.
    pub mount: VolumeMount,
    /// False if it was mounted there already.
    pub mounted: bool,
    /// Whether a file system was made just now.
    pub formatted: bool,
}

/// One mount of one volume.
#[derive(Clone, Debug)]
pub struct VolumeMount {
    /// The volume's name.
    pub volume: String,
    /// Its id.
    pub id: VolumeId,
    /// The device under it.
    pub device: PathBuf,
    /// As the kernel lists it.
    pub mount: Mount,
}

impl Mounts {
    /// The mounts of what is attached.
    #[must_use]
    pub fn new(
        node: Arc<Node>,
        attachments: Arc<Attachments>,
        shared: Arc<SharedMounts>,
    ) -> Arc<Self> {
        Arc::new(Self { node, attachments, shared, turns: parking_lot::Mutex::default() })
    }

    /// Every mount of an attached or shared volume, by directory.
    ///
    /// # Errors
    /// If the mount table can't be read.
    pub fn all(&self) -> Result<Vec<VolumeMount>, DaemonError> {
        let mut all = Vec::new();
        let table = mount_table::read().map_err(unreadable)?;
        for attached in self.attachments.all() {
            all.extend(of_in(&table, &attached)?);
        }
        all.extend(shared_in(&self.node, &table));
        all.sort_by(|a, b| a.mount.dir.cmp(&b.mount.dir));
        Ok(all)
    }

    /// The processes that serve mounts of shared volumes here.
    #[must_use]
    pub fn shared(&self) -> &Arc<SharedMounts> {
        &self.shared
    }

    async fn turn(&self, volume: VolumeId) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = Arc::clone(self.turns.lock().entry(volume).or_default());
        turn.lock_owned().await
    }

    /// Mounts a volume. Attaches it if it isn't, and makes its file system if it is new.
    ///
    /// # Errors
    /// [`DaemonError`]; what was attached only for this is detached again.
    pub async fn mount(
        self: &Arc<Self>,
        request: MountRequest,
    ) -> Result<MountOutcome, DaemonError> {
        let this = Arc::clone(self);
        to_the_end(async move { this.mount_now(request).await }).await
    }

    async fn mount_now(&self, request: MountRequest) -> Result<MountOutcome, DaemonError> {
        if !request.dir.is_absolute() {
            return Err(DaemonError::Invalid(InvalidRequest::RelativePath(request.dir)));
        }
        let _turn = self.turn(request.volume).await;
        let volume = self.volume(request.volume)?;
        if volume.spec.is_shared() {
            return self.mount_shared(&request, &volume).await;
        }
        let was_attached = self.attachments.get(request.volume).is_some();
        let mode = if request.read_only { AttachMode::ReadOnly } else { AttachMode::ReadWrite };
        let grant = GrantRequest {
            by: request.by.clone(),
            volume: request.volume,
            mode,
            kind: request.kind,
            force: request.force,
        };
        let attached = self.attachments.attach(grant, true).await?;
        let result = self.mount_attached(&request, &attached).await;
        if result.is_err()
            && !was_attached
            && let Err(error) = self.attachments.detach(request.volume, false).await
        {
            tracing::warn!(volume = attached.name, %error, "stays attached after a failed mount");
        }
        result
    }

    async fn mount_shared(
        &self,
        request: &MountRequest,
        volume: &Volume,
    ) -> Result<MountOutcome, DaemonError> {
        let dir = &resolved(&request.dir).await?;
        self.shared.settle(dir).await;
        let here = || -> Result<Option<VolumeMount>, DaemonError> {
            let table = mount_table::read().map_err(unreadable)?;
            let Some(there) = table.iter().rev().find(|mount| mount.dir == *dir) else {
                return Ok(None);
            };
            let ours = there.file_system == shared::FILE_SYSTEM && there.source == volume.name;
            if !ours {
                return Err(DaemonError::MountPointTaken { dir: dir.clone() });
            }
            Ok(Some(shared_mount(volume, there)))
        };
        if let Some(mount) = here()? {
            return Ok(MountOutcome { mount, mounted: false, formatted: false });
        }
        let mut options = request.options.clone();
        if request.read_only {
            options.insert(0, "ro".to_owned());
        }
        let wanted = SharedMount {
            volume: volume.id,
            name: volume.name.clone(),
            dir: dir.clone(),
            options,
            io_timeout_ms: volume.spec.io_timeout_ms,
        };
        self.shared.mount(wanted).await?;
        let mount =
            here()?.ok_or_else(|| DaemonError::NotMounted { what: dir.display().to_string() })?;
        Ok(MountOutcome { mount, mounted: true, formatted: false })
    }

    async fn mount_attached(
        &self,
        request: &MountRequest,
        attached: &Arc<Attached>,
    ) -> Result<MountOutcome, DaemonError> {
        let volume = self.volume(request.volume)?;
        let device = attached.block_device()?;
        if let Some(mount) = of(attached)?.into_iter().find(|m| m.mount.dir == request.dir) {
            return Ok(MountOutcome { mount, mounted: false, formatted: false });
        }
        if mount_table::read().map_err(unreadable)?.iter().any(|m| m.dir == request.dir) {
            return Err(DaemonError::MountPointTaken { dir: request.dir.clone() });
        }
        let wanted = match volume.spec.fs {
            Filesystem::Ext4 => Wanted::Ext4,
            Filesystem::Xfs => Wanted::Xfs,
            Filesystem::Raw => Wanted::Raw,
            Filesystem::Shared => {
                return Err(DaemonError::Shared { volume: volume.name.clone() });
            }
        };
        let dir = request.dir.clone();
        let mut options = request.options.clone();
        if request.read_only {
            options.insert(0, "ro".to_owned());
        }
        let mounted_elsewhere = !of(attached)?.is_empty();
        let name = attached.name.clone();
        let read_only = request.read_only;
        let first_use = !volume.formatted;
        let (formatted, not_grown) = blocking(move || -> Result<_, DaemonError> {
            let (file_system, was_empty) = if mounted_elsewhere || read_only {
                (found(&device)?, false)
            } else {
                let was_empty = filesystem::probe(&device)? == Found::Nothing;
                (filesystem::prepare(&device, wanted, first_use, &name)?, was_empty)
            };
            let mut grown = Ok(());
            if !mounted_elsewhere && !read_only && !was_empty {
                grown = filesystem::grow_unmounted(&device, &file_system);
            }
            filesystem::mount(&device, &dir, &file_system, &options.join(","))?;
            if !read_only && file_system == "xfs" {
                grown = filesystem::grow(&device, &dir, &file_system);
            }
            Ok((was_empty, grown.err()))
        })
        .await??;
        if let Some(error) = not_grown {
            self.not_grown(attached, &error.into());
        }
        if formatted {
            let epoch = attached.volume.epoch();
            let command = Command::VolumeFormatted { volume: request.volume, epoch };
            if let Err(error) = self.node.propose_as_system(command).await {
                tracing::warn!(volume = attached.name, %error, "that it was formatted could not be recorded");
            }
        }
        let mount = of(attached)?
            .into_iter()
            .find(|m| m.mount.dir == request.dir)
            .ok_or_else(|| DaemonError::NotMounted { what: request.dir.display().to_string() })?;
        Ok(MountOutcome { mount, mounted: true, formatted })
    }

    /// Unmounts one mount; the volume is detached if it was attached for its mounts alone and this
    /// was the last. Says whether it was.
    ///
    /// # Errors
    /// If it is in use, unless forced: then its device turns to errors first, which frees whoever
    /// waits for it.
    pub async fn unmount(
        self: &Arc<Self>,
        mount: &VolumeMount,
        force: bool,
    ) -> Result<bool, DaemonError> {
        if mount.mount.file_system == shared::FILE_SYSTEM {
            // Whatever it waits for, it is freed: no turn is waited for.
            self.shared.unmount(&mount.volume, &mount.mount.dir, force).await?;
            return Ok(false);
        }
        if force {
            self.attachments.break_now(mount.id).await?;
        }
        let (this, mount) = (Arc::clone(self), mount.clone());
        to_the_end(async move { this.unmount_now(&mount, force).await }).await
    }

    async fn unmount_now(&self, mount: &VolumeMount, force: bool) -> Result<bool, DaemonError> {
        let _turn = self.turn(mount.id).await;
        let attached = self.attachments.get(mount.id);
        let broken = attached.as_ref().is_some_and(|attached| attached.volume.is_broken());
        let lazy = force || broken;
        let dir = mount.mount.dir.clone();
        blocking(move || filesystem::unmount(&dir, lazy)).await??;
        let Some(attached) = attached else { return Ok(false) };
        if !lazy && (!attached.for_mount || !of(&attached)?.is_empty()) {
            return Ok(false);
        }
        self.attachments.detach(mount.id, lazy).await
    }

    /// A file system that stays smaller than its device is worth an event, not a failure.
    fn not_grown(&self, attached: &Attached, error: &DaemonError) {
        let about = About { volume: Some(attached.volume.id()), ..About::default() };
        let message = format!(
            "volume {}: its file system did not grow to the size of its device: {error}",
            attached.name
        );
        self.node.events().push(Severity::Warning, "not-grown", message, about);
    }

    /// Detaches a volume whose last mount has gone.
    async fn end_unused(&self, attached: &Arc<Attached>) {
        let id = attached.volume.id();
        let _turn = self.turn(id).await;
        let still = self.attachments.get(id).is_some_and(|now| Arc::ptr_eq(&now, attached));
        if !still || of(attached).is_ok_and(|found| !found.is_empty()) {
            return;
        }
        let broken = attached.volume.is_broken();
        match self.attachments.detach(id, broken).await {
            Ok(_) => tracing::info!(volume = attached.name, "unmounted, so detached"),
            Err(error) => tracing::debug!(volume = attached.name, %error, "stays attached"),
        }
    }

    /// Grows device and mounted file systems to a volume's new size. A file system that can't grow
    /// while mounted does so at its next mount.
    ///
    /// # Errors
    /// What the kernel says of the device.
    pub async fn grow(&self, volume: VolumeId) -> Result<(), DaemonError> {
        let _turn = self.turn(volume).await;
        let Some(attached) = self.attachments.get(volume) else { return Ok(()) };
        self.attachments.grow(volume).await?;
        if let Some(mount) = of(&attached)?.into_iter().next() {
            let device = attached.block_device()?;
            let grown = blocking(move || {
                filesystem::grow(&device, &mount.mount.dir, &mount.mount.file_system)
            });
            if let Err(error) = grown.await? {
                self.not_grown(&attached, &error.into());
            }
        }
        Ok(())
    }

    fn volume(&self, id: VolumeId) -> Result<Arc<Volume>, DaemonError> {
        self.node
            .state()
            .volume(id)
            .cloned()
            .ok_or_else(|| DaemonError::NotFound { what: "volume", name: id.to_string() })
    }
}

/// The directory as the mount table shows it. One that isn't there is left to whoever mounts to refuse.
async fn resolved(dir: &Path) -> Result<PathBuf, DaemonError> {
    let given = dir.to_owned();
    let resolved = blocking(move || given.canonicalize()).await?;
    Ok(resolved.unwrap_or_else(|_| dir.to_owned()))
}

/// The file system on a device that is not to be touched.
fn found(device: &Path) -> Result<String, DaemonError> {
    match filesystem::probe(device)? {
        Found::Something(found) => Ok(found),
        Found::Nothing | Found::Unknown => {
            Err(filesystem::FileSystemError::RawWithoutFileSystem(device.to_owned()).into())
        }
    }
}

/// The mounts of one attached volume.
fn of(attached: &Attached) -> Result<Vec<VolumeMount>, DaemonError> {
    of_in(&mount_table::read().map_err(unreadable)?, attached)
}

/// Those of a table's mounts that are of one attached volume.
fn of_in(table: &[Mount], attached: &Attached) -> Result<Vec<VolumeMount>, DaemonError> {
    let Some(device) = attached.device.block_device() else { return Ok(Vec::new()) };
    let found = mount_table::of_device(table, device).map_err(unreadable)?;
    let each = found.into_iter().map(|mount| VolumeMount {
        volume: attached.name.clone(),
        id: attached.volume.id(),
        device: device.to_owned(),
        mount: mount.clone(),
    });
    Ok(each.collect())
}

/// Those of a table's mounts that are of shared volumes.
fn shared_in(node: &Node, table: &[Mount]) -> Vec<VolumeMount> {
    let state = node.state();
    let ours = table.iter().filter(|mount| mount.file_system == shared::FILE_SYSTEM);
    ours.filter_map(|mount| Some(shared_mount(state.volume_by_name(&mount.source)?, mount)))
        .collect()
}

fn shared_mount(volume: &Volume, mount: &Mount) -> VolumeMount {
    VolumeMount {
        volume: volume.name.clone(),
        id: volume.id,
        device: PathBuf::from(&mount.source),
        mount: mount.clone(),
    }
}

fn unreadable(source: std::io::Error) -> DaemonError {
    DaemonError::FileSystem(filesystem::FileSystemError::Run {
        tool: "/proc/self/mountinfo".to_owned(),
        source,
    })
}
