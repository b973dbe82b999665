//! Nodes: one daemon on one host.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::device::Attachment;
use crate::name::{LabelKey, Labels, NodeName};
use crate::pool::Pool;
use crate::size::ByteSize;
use crate::span::Span;
use crate::task::TaskId;

/// What a node is doing.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Heard of within the grace.
    Up,
    /// Not heard of for longer.
    Down,
    /// Up, and its replicas are moving elsewhere.
    Draining,
    /// Up, and holds no replica: it can be removed.
    Drained,
}

/// A node as `GET /v1/nodes` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its number, never reused.
    pub id: u64,
    /// Where other nodes reach it, `IP:PORT`.
    pub address: String,
    /// What it is doing.
    pub state: NodeState,
    /// How long ago it was last heard of; none for the node that answers, or if never.
    pub silent_for: Option<Span>,
    /// Whether it votes on the configuration.
    pub voter: bool,
    /// Whether it is the Raft leader.
    pub leader: bool,
    /// Its labels; `zone`, `rack`, `region` steer placement.
    pub labels: Labels,
    /// Its daemon's version; empty if not known yet.
    pub version: String,
    /// How many pools it has.
    pub pools: u32,
    /// How large its pools are together.
    pub size: ByteSize,
    /// How much of them is used.
    pub used: ByteSize,
}

/// A node in full, as `GET /v1/nodes/{node}` answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeDetail {
    /// As listed.
    pub node: Node,
    /// The fingerprint of its key, by which it is admitted: SHA-256, hex.
    pub fingerprint: String,
    /// Its pools.
    pub pools: Vec<Pool>,
    /// How many replicas its pools hold.
    pub replicas: u32,
    /// How many of these are primaries.
    pub primaries: u32,
    /// The volumes attached there.
    pub attachments: Vec<Attachment>,
    /// The drain that is running.
    pub drain: Option<TaskId>,
}

/// Body of `PATCH /v1/nodes/{node}`: labels to change, the rest stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeLabels {
    /// Labels to add or change.
    #[serde(default)]
    pub set: Labels,
    /// Labels to remove; those that aren't there are passed over.
    #[serde(default)]
    pub remove: Vec<LabelKey>,
}

/// Query of `DELETE` on nodes, pools, volumes and attachments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ForceQuery {
    /// Do it although it is in use, unreachable, or the last one. The error without it says what
    /// it would cost.
    #[serde(default)]
    pub force: bool,
}
