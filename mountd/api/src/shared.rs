//! Shared volumes: who has one mounted, and whether its structure is sound.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::name::{NodeName, VolumeName};

/// One mount of a shared volume, as its coordinator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SharedClient {
    /// Its number: what `mountctl evict` takes.
    pub client: u64,
    /// The node that the mount is on.
    pub node: NodeName,
    /// The coordinator has just begun, and the client has yet to say what it holds.
    pub reclaiming: bool,
    /// Files that it has open.
    pub open_files: u64,
    /// Leases under which it caches.
    pub read_leases: u64,
    /// Leases under which it may hold what it has not written back.
    pub write_leases: u64,
    /// Leases that others wait for, and that it has not given back yet.
    pub recalled: u64,
    /// Locked ranges of files, of `flock` and `fcntl`.
    pub locks: u64,
    /// Locks that its programs wait for.
    pub lock_waits: u64,
    /// Its requests that wait.
    pub requests: u64,
    /// What the mount says of itself, as of about a second ago; null while its node can't be asked.
    pub mount: Option<SharedMount>,
}

/// What one mount of a shared volume has done since it began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SharedMount {
    /// Where.
    pub dir: String,
    /// How: `ro`, `soft`...
    pub options: Vec<String>,
    /// Bytes that programs have written and that are not stored yet.
    pub dirty_bytes: u64,
    /// Requests of the kernel, by kind: `lookup`, `read`, `fsync`...
    pub operations: BTreeMap<String, u64>,
    /// Of them, answered from what the mount had, without a word to any other host.
    pub at_once: u64,
    /// Bytes that programs have read.
    pub read_bytes: u64,
    /// Bytes that programs have written.
    pub written_bytes: u64,
    /// Leases that other hosts wanted back.
    pub recalls: u64,
    /// Writes of blocks that failed; who had the file open is told at the next fsync or close.
    pub write_back_errors: u64,
}

/// The answer to `POST /v1/volumes/{volume}/check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// The volume.
    pub volume: VolumeName,
    /// What is wrong; nothing, if it is sound.
    pub findings: Vec<String>,
}
