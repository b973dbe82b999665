//! Raft as openraft has it; nothing outside this crate sees these types.
//!
//! One log entry is a batch of proposals: openraft 0.9 waits for the disk after each append, so that
//! 64 callers share a commit only if they share an entry.

pub(crate) mod batch;
pub(crate) mod members;
pub(crate) mod network;
pub(crate) mod quorum;
pub(crate) mod services;

use std::sync::Arc;

use mooring_config::{Command, Proposal, Response};
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// The types that openraft is used with.
    pub(crate) TypeConfig:
        D = Batch,
        R = Answers,
        NodeId = u64,
        Node = openraft::EmptyNode,
        SnapshotData = std::io::Cursor<Vec<u8>>,
);

/// An entry of the log.
pub(crate) type Entry = openraft::Entry<TypeConfig>;
/// A node of the group.
pub(crate) type Raft = openraft::Raft<TypeConfig>;

/// Proposals that are applied together, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Batch(pub(crate) Arc<Vec<Proposal>>);

/// The answers to a batch, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answers(pub(crate) Vec<Response>);

/// How much an entry carries: one for each proposal and each slice it names.
pub(crate) fn weight(entry: &Entry) -> usize {
    match &entry.payload {
        openraft::EntryPayload::Normal(batch) => batch.0.iter().map(proposal_weight).sum(),
        _ => 1,
    }
}

/// How much a proposal carries.
pub(crate) fn proposal_weight(proposal: &Proposal) -> usize {
    1 + match &proposal.command {
        Command::ChangeSlices { changes, .. } => changes.len(),
        Command::AssignReplicas(assignments) => assignments.len(),
        Command::RemoveReplicas(removals) => removals.len(),
        Command::CreateVolume { placement, .. } | Command::ResizeVolume { placement, .. } => {
            placement.len()
        }
        _ => 0,
    }
}
