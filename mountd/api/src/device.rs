//! Volumes in use: attached as block devices, mounted as file systems.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::name::{NodeName, VolumeName};
use crate::timestamp::Timestamp;
use crate::volume::FileSystem;

/// How a volume is reached by programs of the node that it is attached to.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// The kernel's user-space block driver.
    Ublk,
    /// The kernel's NBD client, on the daemon's own server.
    Nbd,
    /// A loop device over a FUSE file; works everywhere.
    Loop,
    /// A socket of the daemon's NBD server, for programs that speak NBD: there is no block device, and
    /// nothing to mount.
    NbdSocket,
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Ublk => "ublk",
            Self::Nbd => "nbd",
            Self::Loop => "loop",
            Self::NbdSocket => "nbd-socket",
        })
    }
}

/// Whether a node can use a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackendStatus {
    /// Which.
    pub backend: Backend,
    /// Whether it can be used here.
    pub usable: bool,
    /// Whether it is what `attach` takes when not told.
    pub chosen: bool,
    /// Why it can't be used; empty if it can.
    pub why: String,
}

/// What an attachment's device does with I/O.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum AttachmentState {
    /// The seal is on its way to the slices; there is no device yet.
    Opening,
    /// It serves.
    Serving,
    /// It holds I/O until the volume comes back.
    Waiting,
    /// A newer attachment exists, it was detached by force, or its device was aborted: every I/O
    /// fails.
    Fenced,
}

/// The right of one node to do I/O on a volume, and its device there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attachment {
    /// The volume.
    pub volume: VolumeName,
    /// The node.
    pub node: NodeName,
    /// The attachment's number; each fences every lower one.
    pub epoch: u64,
    /// What its device does with I/O; none if the node can't be asked.
    pub state: Option<AttachmentState>,
    /// The device on that node, a path or (for NBD) a URI; none while there is none, or if the node can't be asked.
    pub device: Option<String>,
    /// How the device is made.
    pub backend: Option<Backend>,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Since when.
    pub since: Timestamp,
}

/// Body of `POST /v1/volumes/{volume}/attachment`. The volume is attached to the node that is
/// asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// How to make the device; default the best that works.
    #[serde(default)]
    pub backend: Option<Backend>,
    /// Refuse writes.
    #[serde(default)]
    pub read_only: bool,
    /// Take the volume from the node that has it, though that node is alive. Its device turns to
    /// errors.
    #[serde(default)]
    pub force: bool,
}

/// A volume mounted on the node that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mount {
    /// The volume.
    pub volume: VolumeName,
    /// The directory.
    pub dir: String,
    /// The device under it.
    pub device: String,
    /// The file system.
    pub fs: FileSystem,
    /// The mount options.
    pub options: Vec<String>,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// Body of `POST /v1/mounts`. The volume is attached, formatted if new, checked, and mounted on
/// the node that is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MountVolume {
    /// The volume.
    pub volume: VolumeName,
    /// An existing directory, absolute, in the mount namespace of the daemon.
    pub dir: String,
    /// Options of the file system and of mount(8), such as `noatime`; those that only mount(8)
    /// understands (`_netdev`, `nofail`, `x-*`) and our own (`backend=`, `wait=`) have been taken out.
    #[serde(default)]
    pub options: Vec<String>,
    /// Mount it read-only.
    #[serde(default)]
    pub read_only: bool,
    /// How to make the device; default the best that works.
    #[serde(default)]
    pub backend: Option<Backend>,
    /// Take the volume from the node that has it, though that node is alive. Its device turns to
    /// errors.
    #[serde(default)]
    pub force: bool,
}

/// The answer to `POST /v1/mounts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mounted {
    /// The mount.
    pub mount: Mount,
    /// False if it was mounted there already.
    pub mounted: bool,
    /// Whether the volume was formatted just now.
    pub formatted: bool,
    /// Whether the file system was grown to the volume's size just now.
    pub grown: bool,
}

/// Query of `DELETE /v1/mounts`: exactly one of `volume`, `dir` and `all`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UnmountQuery {
    /// Every mount of this volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub volume: Option<VolumeName>,
    /// The mount on this directory, absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<String>,
    /// Every mount on this node.
    #[serde(default)]
    pub all: bool,
    /// Turn the device to errors and unmount though files are open: what wasn't written is lost.
    #[serde(default)]
    pub force: bool,
}

/// One mount that `DELETE /v1/mounts` ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unmounted {
    /// The volume.
    pub volume: VolumeName,
    /// The directory.
    pub dir: String,
    /// Whether the volume was detached too: it had been attached by its mount alone.
    pub detached: bool,
}
