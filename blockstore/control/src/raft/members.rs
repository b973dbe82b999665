//! The worker that keeps Raft's members in step with the table of nodes. Only the leader's acts.
//!
//! ```text
//!   a row without a member      -> learner
//!   a member without a row      -> removed (no voter any more first)
//!   voters not as desired       -> changed, once the new ones are level
//!   a role that isn't so        -> noted in the table
//! ```
#![allow(clippy::disallowed_methods)] // A shell: it waits between its rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mooring_config::{Actor, ClusterState, Command, Role, desired_voters};
use mooring_terms::NodeId;
use openraft::{ChangeMembers, EmptyNode, RaftMetrics};

use super::Raft;
use crate::contacts::Contacts;
use crate::control::Control;
use crate::error::Error;

/// Between two rounds when nothing happens.
const ROUND: Duration = Duration::from_secs(1);
/// How long one change may take before the next round looks again.
const CHANGE: Duration = Duration::from_secs(5);
/// A learner this few entries behind may vote.
const LEVEL: u64 = 100;

type Metrics = RaftMetrics<u64, EmptyNode>;

/// Runs until the control plane is shut down.
pub(crate) async fn run(control: std::sync::Weak<Control>) {
    loop {
        let Some(control) = control.upgrade() else { return };
        let mut published = control.watch();
        let mut metrics = control.raft().metrics();
        if metrics.borrow().running_state.is_err() {
            return;
        }
        if let Err(error) = round(&control).await {
            tracing::debug!(%error, "Raft's members are not as they should be yet");
        }
        drop(control);
        published.mark_unchanged();
        let leading = |m: &Metrics| m.current_leader == Some(m.id);
        let led = leading(&metrics.borrow_and_update());
        tokio::select! {
            _ = published.changed() => {}
            _ = metrics.wait_for(|m| leading(m) != led || m.running_state.is_err()) => {}
            () = tokio::time::sleep(ROUND) => {}
        }
    }
}

/// One look at everything, and the first thing that is to be done.
async fn round(control: &Arc<Control>) -> Result<(), Error> {
    let metrics = control.raft().metrics().borrow().clone();
    let leading = metrics.current_leader == Some(metrics.id);
    control.contacts().set_leading(leading);
    let state = control.state();
    if !leading || state.identity().is_none() {
        return Ok(());
    }
    let membership = metrics.membership_config.membership().clone();
    let members: BTreeSet<NodeId> = membership.nodes().map(|(id, _)| NodeId(*id)).collect();
    let voters: BTreeSet<NodeId> = membership.voter_ids().map(NodeId).collect();
    let rows: BTreeSet<NodeId> = state.nodes().keys().copied().collect();

    let new: Vec<NodeId> = rows.difference(&members).copied().collect();
    if !new.is_empty() {
        let nodes: BTreeMap<u64, EmptyNode> = new.iter().map(|id| (id.0, EmptyNode {})).collect();
        return change(control.raft(), ChangeMembers::AddNodes(nodes)).await;
    }
    let gone = control.contacts().silent_for(
        Duration::from_millis(control.timings().replace_voter_after_ms),
        control.node(),
        rows.iter().copied(),
    );
    let desired = desired_voters(&state, &voters, &gone);
    let changed = desired != voters || membership.get_joint_config().len() > 1;
    if changed && level(&metrics, &desired, &voters, control.contacts(), control) {
        return set_voters(control.raft(), &desired).await;
    }
    let left: BTreeSet<u64> =
        members.difference(&rows).filter(|id| !voters.contains(id)).map(|id| id.0).collect();
    if !left.is_empty() {
        return change(control.raft(), ChangeMembers::RemoveNodes(left)).await;
    }
    note_roles(control, &state, &voters).await
}

/// Replaces the voters; who votes no more stays as a learner.
pub(crate) async fn set_voters(raft: &Raft, voters: &BTreeSet<NodeId>) -> Result<(), Error> {
    tracing::info!(?voters, "changing the voters");
    let ids = voters.iter().map(|id| id.0).collect();
    change(raft, ChangeMembers::ReplaceAllVoters(ids)).await
}

async fn change(raft: &Raft, members: ChangeMembers<u64, EmptyNode>) -> Result<(), Error> {
    match tokio::time::timeout(CHANGE, raft.change_membership(members, true)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Error::Members { reason: error.to_string() }),
        Err(_) => Err(Error::Members { reason: "no majority agreed in time".to_owned() }),
    }
}

/// Whether those who are to begin to vote have nearly all of the log, and answer.
fn level(
    metrics: &Metrics,
    desired: &BTreeSet<NodeId>,
    voters: &BTreeSet<NodeId>,
    contacts: &Contacts,
    control: &Control,
) -> bool {
    let last = metrics.last_log_index.unwrap_or(0);
    let replication = metrics.replication.as_ref();
    desired.difference(voters).filter(|id| **id != control.node()).all(|id| {
        let matched = replication.and_then(|all| all.get(&id.0)).copied().flatten();
        let near = matched.is_some_and(|matched| matched.index + LEVEL >= last);
        let answers =
            contacts.silence(*id).is_some_and(|silence| silence < control.timings().gone_after());
        near && answers
    })
}

/// Notes the roles in the table, for everyone to see.
async fn note_roles(
    control: &Arc<Control>,
    state: &ClusterState,
    voters: &BTreeSet<NodeId>,
) -> Result<(), Error> {
    for node in state.nodes().values() {
        let role = if voters.contains(&node.id) { Role::Voter } else { Role::Learner };
        if node.role != role {
            let command = Command::SetRole { node: node.id, role };
            control.propose(Actor::system(control.node()), command).await?;
        }
    }
    Ok(())
}
