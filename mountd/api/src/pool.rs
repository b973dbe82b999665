//! Pools: one backing directory or block device of one node.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::name::NodeName;
use crate::size::ByteSize;
use crate::task::TaskId;

/// A pool's number in the cluster, never reused.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(transparent)]
#[schema(value_type = u64)]
pub struct PoolId(pub u64);

impl std::fmt::Display for PoolId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for PoolId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// How fast a pool is; a volume of a class lies in pools of that class.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// NVMe and the like.
    High,
    /// SATA flash, network disks.
    Medium,
    /// Spinning disks.
    Low,
}

/// What a pool lies on.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum PoolBacking {
    /// A directory of somebody else's file system.
    Directory,
    /// A whole block device.
    Device,
}

/// What a pool can do now.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum PoolState {
    /// It serves.
    Ok,
    /// It has just been added and its class is being measured; it holds nothing yet.
    Measuring,
    /// It serves, and takes no new data until space is freed.
    Full,
    /// It was opened damaged: its replicas can't be elected, and rejoin.
    Damaged,
    /// An I/O error or a failed sync stopped it; its replicas are placed elsewhere.
    Failed,
    /// Its replicas are moving elsewhere, then it is removed.
    Draining,
    /// Its node can't be asked.
    Unreachable,
}

/// What a short run on a pool gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolSpeed {
    /// Random 4 KiB writes per second, each durable.
    pub random_write_iops: u64,
    /// Random 4 KiB reads per second.
    pub random_read_iops: u64,
    /// Sequential writes, bytes per second.
    pub write_bandwidth: ByteSize,
    /// Sequential reads, bytes per second.
    pub read_bandwidth: ByteSize,
}

/// A pool, as listed and in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// Its number.
    pub id: PoolId,
    /// The node it is on.
    pub node: NodeName,
    /// Its directory or device there.
    pub path: String,
    /// Which of the two.
    pub backing: PoolBacking,
    /// Its class; none while it is being measured.
    pub class: Option<Class>,
    /// Whether the class was set by hand.
    pub class_set: bool,
    /// What was measured; none if the class was set by hand.
    pub speed: Option<PoolSpeed>,
    /// What it can do now.
    pub state: PoolState,
    /// What is wrong with it; empty if nothing is.
    pub fault: String,
    /// How much it may hold.
    pub size: ByteSize,
    /// How much is taken: live data, and what reclaim has still to free.
    pub used: ByteSize,
    /// How much of this is live data.
    pub live: ByteSize,
    /// How many replicas it holds.
    pub replicas: u32,
    /// Its present opening, 16 hex digits; empty while it isn't open.
    pub incarnation: String,
    /// The measurement or drain that is running.
    pub task: Option<TaskId>,
}

/// Body of `POST /v1/pools`. The pool is on the node that is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddPool {
    /// Absolute path of a directory (made if missing) or block device.
    pub path: String,
    /// How much it may hold; by default all that is there.
    #[serde(default)]
    pub size: Option<ByteSize>,
    /// Its class; measured if not given.
    #[serde(default)]
    pub class: Option<Class>,
    /// Take a device that holds a file system or partition table, or the pool of another cluster.
    /// What was there is lost.
    #[serde(default)]
    pub force: bool,
}
