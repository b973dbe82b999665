//! Tasks: work that goes on after its request was answered, and how far it has come.
//!
//! ```text
//!   running ──> done | failed | cancelled
//! ```

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::name::NodeName;
use crate::timestamp::Timestamp;

/// A task's number on its node, never reused while the daemon lives.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(transparent)]
#[schema(value_type = u64)]
pub struct TaskId(pub u64);

impl std::fmt::Display for TaskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What a task does.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum TaskKind {
    /// Measures the class of a new pool.
    MeasurePool,
    /// Moves every replica off a node.
    DrainNode,
    /// Moves every replica out of a pool, then removes it.
    RemovePool,
    /// Brings a joining replica level.
    Resync,
}

/// Where a task stands.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum TaskState {
    /// At work.
    Running,
    /// Ended well.
    Done,
    /// Ended with an error.
    Failed,
    /// Called off.
    Cancelled,
}

/// What a task's progress counts.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum ProgressUnit {
    /// Bytes.
    Bytes,
    /// Replicas.
    Replicas,
    /// Milliseconds of a run whose length is known.
    Milliseconds,
}

/// One task of the node that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Task {
    /// Its number.
    pub id: TaskId,
    /// What it does.
    pub kind: TaskKind,
    /// The node that does it.
    pub node: NodeName,
    /// What it does it to: the name of a node or volume, the path of a pool.
    pub subject: String,
    /// Where it stands.
    pub state: TaskState,
    /// How much is done.
    pub done: u64,
    /// How much there is to do, as far as known.
    pub total: Option<u64>,
    /// What the two count.
    pub unit: ProgressUnit,
    /// What it is doing or waiting for, in a few words.
    pub message: String,
    /// Why it failed.
    pub error: Option<ApiError>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}
