//! Properties: **no failover without cause**: a replica leaves an in-sync set, or a primary is
//! succeeded, only where something was done to one of the nodes concerned; and **no loss without
//! need**: *all restarted* is declared only where no in-sync replica is there as it was.

use std::collections::BTreeMap;

use mooring_config::{
    ChangeReason, ClusterState, Command as ConfigCommand, Done, Response, SliceChange, SliceConfig,
};
use mooring_terms::{Incarnation, NodeId, Time};

use super::{Checked, violated};
use crate::sim::faults::Active;

/// Looks at a command that Raft has answered. `alive` has the opening that runs on each node that
/// runs undisturbed.
///
/// # Errors
/// A violation.
pub fn check(
    now: Time,
    command: &ConfigCommand,
    answer: &Response,
    (before, after): (&ClusterState, &ClusterState),
    faults: &Active,
    alive: &BTreeMap<NodeId, Incarnation>,
) -> Checked {
    let (ConfigCommand::ChangeSlices(changes), Ok(Done::Slices(results))) = (command, answer)
    else {
        return Ok(());
    };
    for (change, _) in changes.iter().zip(results).filter(|(_, result)| result.is_ok()) {
        let (Some(before), Some(after)) = (before.slice(change.slice), after.slice(change.slice))
        else {
            continue;
        };
        if before == after {
            continue;
        }
        needed(change, before, alive)?;
        caused(now, change, before, after, faults)?;
    }
    Ok(())
}

fn needed(
    change: &SliceChange,
    before: &SliceConfig,
    alive: &BTreeMap<NodeId, Incarnation>,
) -> Checked {
    if change.reason != ChangeReason::AllRestarted {
        return Ok(());
    }
    let there = before.in_sync.iter().find(|member| {
        alive.get(&member.node).is_some_and(|incarnation| *incarnation == member.incarnation)
    });
    match there {
        None => Ok(()),
        Some(member) => {
            let text = format!("{:?}, but {member:?} is there as it was", change);
            violated("no loss without need", text)
        }
    }
}

fn caused(
    now: Time,
    change: &SliceChange,
    before: &SliceConfig,
    after: &SliceConfig,
    faults: &Active,
) -> Checked {
    let failover = matches!(
        change.reason,
        ChangeReason::SecondaryLost | ChangeReason::PrimaryLost | ChangeReason::PrimaryResigned
    );
    let lost = before.in_sync.iter().filter(|m| after.in_sync_member(m.node).is_none());
    let mut concerned: Vec<NodeId> = lost.map(|member| member.node).collect();
    if concerned.is_empty() && before.primary == after.primary {
        // A new epoch alone: it settles a proposal whose outcome is unknown.
        return Ok(());
    }
    concerned.extend([change.by, before.primary]);
    if failover && !concerned.iter().any(|node| faults.excuses(*node, now)) {
        let text = format!("{change:?} from {before:?}: nothing was done to {concerned:?}");
        return violated("no failover without cause", text);
    }
    Ok(())
}
