//! Everything that can go wrong in the daemon, and what the API makes of it.

use std::path::PathBuf;

use blockstore::NodeError;
use mooring_api::{ApiError, ErrorKind as ApiKind};
use mooring_config::Refused;
use mooring_device::{DeviceError, DeviceKind};
use mooring_terms::ErrorKind;

use crate::filesystem::FileSystemError;

/// An error of the daemon.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The block store, or Raft, refuses or can't.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A device.
    #[error(transparent)]
    Device(DeviceError),
    /// A file system.
    #[error(transparent)]
    FileSystem(#[from] FileSystemError),
    /// The attachment was fenced.
    #[error(
        "volume {volume} was taken over elsewhere, and its device here gives errors: detach it (mountctl detach {volume} --force), then attach it again"
    )]
    Fenced {
        /// The volume.
        volume: String,
    },
    /// A shared volume has no device.
    #[error(
        "volume {volume} is shared: it has no device to attach. Mount it (mountctl mount {volume} DIR), on as many nodes as you like"
    )]
    Shared {
        /// The volume.
        volume: String,
    },
    /// The attachment has another mode.
    #[error("volume {volume} is attached here with the other access mode: detach it first")]
    AttachedOtherwise {
        /// The volume.
        volume: String,
    },
    /// The attachment is of another kind.
    #[error("volume {volume} is attached here with the backend {kind}: detach it first")]
    AttachedAs {
        /// The volume.
        volume: String,
        /// The kind of its device.
        kind: DeviceKind,
    },
    /// What is attached can't be mounted.
    #[error(
        "volume {volume} is attached here with the backend {kind}, which makes no block device: there is nothing to mount. Detach it first (mountctl detach {volume})"
    )]
    NoBlockDevice {
        /// The volume.
        volume: String,
        /// The kind of its device.
        kind: DeviceKind,
    },
    /// The slices did not seal the attachment in time.
    #[error(
        "volume {volume} is not served: too few of its replicas can be reached. `mountctl volume inspect {volume}` says which; bring their nodes back"
    )]
    NotServed {
        /// The volume.
        volume: String,
    },
    /// Something else is mounted there.
    #[error("{} is a mount point already, of something else: choose another directory", dir.display())]
    MountPointTaken {
        /// The directory.
        dir: PathBuf,
    },
    /// Nothing of ours is mounted there.
    #[error("{what} is not mounted on this node")]
    NotMounted {
        /// A volume or a directory.
        what: String,
    },
    /// The note in the holder is of another version.
    #[error("the holder's note on it is of a version that this daemon doesn't know")]
    NoteUnknown,
    /// Raft answered something that the request can't have.
    #[error("the configuration gave an answer that doesn't fit the request")]
    UnexpectedAnswer,
    /// The voters were not changed in time.
    #[error(
        "{wanted} nodes are to vote, and don't yet: the nodes that are to begin must answer (mountctl status says which don't). It goes on by itself"
    )]
    VotersUnsettled {
        /// How many.
        wanted: usize,
    },
    /// A shared volume could not be mounted.
    #[error("volume {volume} can't be mounted: {why}")]
    SharedMount {
        /// The volume.
        volume: String,
        /// What its process says.
        why: String,
    },
    /// Something else was mounted over a shared volume.
    #[error(
        "{} shows something else now, mounted over volume {volume}: unmount that first", dir.display()
    )]
    Covered {
        /// The volume.
        volume: String,
        /// The directory.
        dir: PathBuf,
    },
    /// Unmounted, and not everything is stored.
    #[error(
        "{} is unmounted, but the volume does not answer: {bytes} bytes that were written there are still to be stored. A process of this node keeps them and goes on trying; an event says how it ends",
        dir.display()
    )]
    NotWrittenBack {
        /// The directory.
        dir: PathBuf,
        /// How many.
        bytes: u64,
    },
    /// Unmounted, and something is lost.
    #[error(
        "{} is unmounted, but {bytes} bytes that were written there could not be stored and are lost: the mount was cut off from the volume for too long",
        dir.display()
    )]
    LostAtUnmount {
        /// The directory.
        dir: PathBuf,
        /// How many.
        bytes: u64,
    },
    /// Nobody coordinates a shared volume now.
    #[error(
        "volume {volume} has no coordinator now: too few of its replicas can be reached, or it is just moving. `mountctl volume inspect {volume}` says more"
    )]
    NoCoordinator {
        /// The volume.
        volume: String,
    },
    /// It has no coordinator at all.
    #[error("volume {volume} is not shared")]
    NotShared {
        /// The volume.
        volume: String,
    },
    /// Somebody has it mounted.
    #[error("volume {volume} is mounted on {nodes}: unmount it there first, or use --force")]
    SharedInUse {
        /// The volume.
        volume: String,
        /// Where.
        nodes: String,
    },
    /// A coordinator has failed; what of is an event.
    #[error("the coordinator of volume {volume} has failed; `mountctl events` says why")]
    Coordinator {
        /// The volume.
        volume: String,
    },
    /// The socket where mounts begin.
    #[error("can't listen for mounts: {0}")]
    Door(std::io::Error),
    /// The system has no thread left.
    #[error("can't start a thread: {0}")]
    Thread(std::io::Error),
    /// A thread of the daemon panicked.
    #[error("a part of the daemon failed; its log says more")]
    Panicked,
    /// The request is wrong.
    #[error("{0}")]
    Invalid(InvalidRequest),
    /// What the request names doesn't exist.
    #[error("there is no {what} {name:?}")]
    NotFound {
        /// Volume, node, pool, task.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The node has no cluster.
    #[error(
        "this node belongs to no cluster yet: `mountctl cluster create` makes one, `mountctl cluster join` joins one"
    )]
    NoCluster,
}

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// A relative directory.
    #[error("{} is not an absolute path", .0.display())]
    RelativePath(PathBuf),
    /// Not exactly one of several.
    #[error("say exactly one of: a volume, a directory, all")]
    UnmountWhat,
    /// A backend that isn't there.
    #[error("the backend {0} can't be used here: `mountctl status` lists those that can")]
    Backend(String),
    /// Two voters are worse than one.
    #[error(
        "three voters need three nodes, and there {}: add one, without a pool if you like (mountctl cluster token here, mountctl cluster join there)",
        if *nodes == 1 { "is 1".to_owned() } else { format!("are {nodes}") }
    )]
    TooFewToVote {
        /// The nodes there are.
        nodes: usize,
    },
    /// A token that nobody could use.
    #[error("a token of no time, or of no uses, lets nobody in: give --ttl some time, such as 1h")]
    UselessToken,
    /// The body isn't what it should be.
    #[error("{0}")]
    Body(String),
    /// Accept-loss needs a confirmation.
    #[error("{0}")]
    NeedsForce(String),
}

impl DaemonError {
    /// What the caller must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Node(error) => error.kind(),
            Self::Device(error) => error.kind(),
            Self::FileSystem(error) => error.kind(),
            Self::Fenced { .. } => ErrorKind::Fenced,
            Self::NotServed { .. }
            | Self::NoCluster
            | Self::VotersUnsettled { .. }
            | Self::SharedMount { .. }
            | Self::NotWrittenBack { .. }
            | Self::NoCoordinator { .. }
            | Self::Coordinator { .. } => ErrorKind::Unavailable,
            Self::NotMounted { .. } | Self::NotFound { .. } => ErrorKind::NotFound,
            Self::AttachedOtherwise { .. }
            | Self::AttachedAs { .. }
            | Self::NoBlockDevice { .. }
            | Self::Shared { .. }
            | Self::NotShared { .. }
            | Self::SharedInUse { .. }
            | Self::Covered { .. }
            | Self::MountPointTaken { .. }
            | Self::Invalid(_) => ErrorKind::Invalid,
            Self::NoteUnknown
            | Self::LostAtUnmount { .. }
            | Self::UnexpectedAnswer
            | Self::Panicked
            | Self::Thread(_)
            | Self::Door(_) => ErrorKind::Fatal,
        }
    }

    /// The word the API uses: finer than [`ErrorKind`] where a person would act differently.
    fn api_kind(&self) -> ApiKind {
        match self {
            Self::Node(NodeError::Refused(
                Refused::Attached { .. }
                | Refused::NodeHoldsReplicas { .. }
                | Refused::NodeHasAttachments { .. }
                | Refused::PoolHoldsReplicas { .. }
                | Refused::CannotSpare { .. }
                | Refused::NothingLost { .. },
            ))
            | Self::Device(DeviceError::Busy { .. } | DeviceError::AlreadyAttached { .. })
            | Self::AttachedOtherwise { .. }
            | Self::AttachedAs { .. }
            | Self::NoBlockDevice { .. }
            | Self::MountPointTaken { .. }
            | Self::SharedInUse { .. }
            | Self::Covered { .. }
            | Self::Invalid(InvalidRequest::NeedsForce(_)) => ApiKind::InUse,
            Self::Node(NodeError::Refused(
                Refused::VolumeExists { .. }
                | Refused::NodeNameTaken { .. }
                | Refused::TokenNameTaken { .. }
                | Refused::PoolExists { .. }
                | Refused::AlreadyCreated { .. },
            )) => ApiKind::Exists,
            Self::FileSystem(FileSystemError::Unmount { .. }) => ApiKind::InUse,
            other => match other.kind() {
                ErrorKind::Retry => ApiKind::Retry,
                ErrorKind::Fenced => ApiKind::Fenced,
                ErrorKind::Invalid => ApiKind::Invalid,
                ErrorKind::NotFound => ApiKind::NotFound,
                ErrorKind::NoSpace => ApiKind::NoSpace,
                ErrorKind::Corrupt => ApiKind::Corrupt,
                ErrorKind::Unavailable => ApiKind::Unavailable,
                ErrorKind::Fatal => ApiKind::Fatal,
            },
        }
    }
}

impl From<DaemonError> for ApiError {
    fn from(error: DaemonError) -> Self {
        Self::new(error.api_kind(), error.to_string())
    }
}
