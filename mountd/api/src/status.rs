//! The health of a cluster as one node sees it: one line, then why, then what to do.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::device::BackendStatus;
use crate::name::NodeName;
use crate::span::Span;
use crate::timestamp::Timestamp;

/// How well something is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Everything promised holds.
    Ok,
    /// It works; something promised (a copy, a voter, a way to fail over) is missing.
    Degraded,
    /// It doesn't work: I/O or changes wait, or data is lost.
    Down,
}

/// One thing that is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    /// How bad it is.
    pub health: Health,
    /// What is wrong, in one sentence: "volume db has 2 of 3 replicas in sync: beta is joining".
    pub what: String,
    /// What to do, naming the command, or that waiting is enough.
    pub remedy: String,
}

/// The answer to `GET /v1/status`. From memory, in milliseconds, also without a quorum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The worst of the reasons; [`Health::Ok`] without any.
    pub health: Health,
    /// Health in one line, for people.
    pub summary: String,
    /// Why it isn't ok, worst first.
    pub reasons: Vec<Reason>,
    /// The node that answers.
    pub node: LocalNode,
    /// Its cluster; none before `cluster create` or `cluster join`.
    pub cluster: Option<ClusterStatus>,
    /// How records travel between nodes.
    pub transport: TransportStatus,
    /// The kinds of device that this node can offer, best first.
    pub backends: Vec<BackendStatus>,
    /// Where this node speaks NBD over TCP; none if it doesn't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbd: Option<NbdStatus>,
}

/// The node that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LocalNode {
    /// Its name.
    pub name: NodeName,
    /// Its number in the cluster.
    pub id: Option<u64>,
    /// Where other nodes reach it, `IP:PORT`.
    pub address: String,
    /// The daemon's version.
    pub version: String,
    /// When the daemon was started.
    pub started_at: Timestamp,
    /// The daemon's process.
    pub pid: u32,
    /// Volumes attached here.
    pub attachments: u32,
    /// Volumes mounted here.
    pub mounts: u32,
}

/// The cluster as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterStatus {
    /// Its id, the same on every node.
    pub id: String,
    /// The newest formats and messages that any node writes.
    pub version: u32,
    /// The Raft leader, if there is one.
    pub leader: Option<NodeName>,
    /// The Raft term.
    pub term: u64,
    /// The last configuration entry applied here.
    pub applied: u64,
    /// The voters.
    pub voters: Vec<VoterStatus>,
    /// Whether the configuration can be changed: a leader has a majority. I/O goes on without.
    pub quorum: bool,
    /// Whether another voter may fail and the cluster still fail over.
    pub survives_a_failure: bool,
    /// Counts for a glance.
    pub counts: Counts,
}

/// One voter of the Raft group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VoterStatus {
    /// Which node.
    pub node: NodeName,
    /// Whether it was heard of within the grace.
    pub reachable: bool,
    /// How long ago it was last heard of; none if never, or if it is this node.
    pub silent_for: Option<Span>,
}

/// How much there is, and how much of it is well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counts {
    /// Nodes in the configuration.
    pub nodes: u32,
    /// Of these, heard of within the grace.
    pub nodes_up: u32,
    /// Pools in the configuration.
    pub pools: u32,
    /// Of these, without a fault.
    pub pools_ok: u32,
    /// Volumes.
    pub volumes: u32,
    /// Of these, fully replicated and served.
    pub volumes_ok: u32,
    /// Served with less than promised.
    pub volumes_degraded: u32,
    /// Not served now.
    pub volumes_down: u32,
    /// Primaries that moved though nothing had failed, since the daemon's start.
    pub false_failovers: u64,
}

/// How nodes talk.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum TransportKind {
    /// TLS over TCP, both sides authenticated.
    Tls,
    /// ZeroMQ, for networks that are trusted and encrypted by other means.
    Zeromq,
}

/// NBD over TCP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NbdStatus {
    /// Where, `IP:PORT`.
    pub address: String,
    /// Whether clients are authenticated, and what they read and write encrypted.
    pub protected: bool,
}

/// The transport in use, and whether it protects what it carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransportStatus {
    /// Which.
    pub kind: TransportKind,
    /// Whether it authenticates and encrypts.
    pub protected: bool,
}
