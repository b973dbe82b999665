//! Mooring's API: its types, its routes, and a client. HTTP and JSON, on the daemon's unix socket
//! or over TLS.
//!
//! ```text
//!   mountctl   plugins/docker   plugins/csi
//!       \            |            /
//!        client  ── routes ── types          (this crate)
//!                      |
//!                mountd's handlers
//! ```
//!
//! What a program needs to talk to `mountd`, and nothing of what `mountd` is made of: no engine, no
//! replication, no server.
//!
//! Invariants:
//! - a route stands in [`routes`] and nowhere else; client and daemon take it from there;
//! - every answer that is not a success is an [`ApiError`];
//! - names that reach a path have been checked ([`VolumeName`], [`NodeName`]);
//! - a token is shown by no `{:?}` ([`Secret`]).

mod access;
mod client;
mod cluster;
mod device;
mod error;
mod event;
mod name;
mod node;
pub mod openapi;
mod pool;
pub mod routes;
mod shared;
mod size;
mod slice;
mod span;
mod status;
mod task;
mod timestamp;
mod volume;

pub use access::{AccessToken, CreateAccessToken, NewAccessToken, Rights};
pub use client::{Client, ClientError, Endpoint};
pub use cluster::{CreateToken, JoinCluster, Membership, Secret, SetVoters, Token, VoterTarget};
pub use device::{
    Attach, Attachment, AttachmentState, Backend, BackendStatus, Mount, MountVolume, Mounted,
    UnmountQuery, Unmounted,
};
pub use error::{ApiError, ErrorKind};
pub use event::{Event, Events, EventsQuery, Severity};
pub use name::{Label, LabelKey, LabelValue, Labels, NameError, NodeName, TokenName, VolumeName};
pub use node::{ChangeLabels, ForceQuery, Node, NodeDetail, NodeState};
pub use pool::{AddPool, Class, Pool, PoolBacking, PoolId, PoolSpeed, PoolState};
pub use routes::{EVENTS_PAGE, EVENTS_WAIT, Route};
pub use shared::{Check, SharedClient, SharedMount};
pub use size::{ByteSize, ByteSizeError};
pub use slice::{Replica, Resync, ResyncPhase, Role, Slice, Version};
pub use span::{Span, SpanError};
pub use status::{
    ClusterStatus, Counts, Health, LocalNode, NbdStatus, Reason, Status, TransportKind,
    TransportStatus, VoterStatus,
};
pub use task::{ProgressUnit, Task, TaskId, TaskKind, TaskState};
pub use timestamp::Timestamp;
pub use volume::{
    AcceptLoss, AcceptedLoss, AcceptedSlice, ChangeVolume, Chosen, ClassChoice, CreateVolume,
    CreatedVolume, FileSystem, IoTimeout, ResizeVolume, Volume, VolumeDetail, VolumePolicy,
};

/// The daemon's socket.
pub const DEFAULT_SOCKET: &str = "/run/mooring/mountd.sock";
