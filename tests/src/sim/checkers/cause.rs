//! Properties: **no failover without cause**: a replica leaves an in-sync set, or a primary is
//! succeeded, only where something was done to one of the nodes concerned; and **no loss without
//! need**: *all restarted* is declared only where no in-sync replica is there as it was.

use std::collections::BTreeMap;

use mooring_config::{
    ChangeReason, ClusterState, Command as ConfigCommand, Done, Member, Response, SliceChange,
    SliceConfig,
};
use mooring_terms::{Epoch, Incarnation, NodeId, SliceId, Time};

use super::{Checked, violated};
use crate::sim::faults::Active;

/// When each change was first asked for: while Raft has no leader, it is so in vain.
#[derive(Debug, Default)]
pub struct Asked {
    first: BTreeMap<(SliceId, Epoch, NodeId), Time>,
    /// When whoever took over from whom began to ask for it.
    take_overs: BTreeMap<(SliceId, NodeId, NodeId), Time>,
}

impl Asked {
    /// A replica proposes a change.
    pub fn proposed(&mut self, now: Time, change: &SliceChange) {
        self.first.entry(key(change)).or_insert(now);
    }
}

fn key(change: &SliceChange) -> (SliceId, Epoch, NodeId) {
    (change.slice, change.expected, change.by)
}

/// The pools' openings that run.
#[derive(Debug)]
pub struct Openings {
    /// On all nodes.
    pub all: BTreeMap<NodeId, Incarnation>,
    /// On those that run undisturbed.
    pub well: BTreeMap<NodeId, Incarnation>,
}

/// Looks at a command that Raft has answered.
///
/// # Errors
/// A violation.
pub fn check(
    asked: &mut Asked,
    command: &ConfigCommand,
    answer: &Response,
    (before, after): (&ClusterState, &ClusterState),
    faults: &Active,
    openings: &Openings,
) -> Checked {
    let (ConfigCommand::ChangeSlices { changes, .. }, Ok(Done::Slices(results))) =
        (command, answer)
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
        needed(change, before, &openings.well)?;
        let first = asked.first.get(&key(change)).copied().unwrap_or_default();
        if change.reason == ChangeReason::PrimaryLost {
            asked.take_overs.insert((change.slice, change.by, before.primary), first);
        }
        // Whoever was restarted has to be brought level, however long ago that was.
        let restarted =
            |member: &Member| openings.all.get(&member.node) != Some(&member.incarnation);
        let left = |member: &&Member| after.in_sync_member(member.node).is_none();
        if before.in_sync.iter().filter(left).any(restarted) {
            continue;
        }
        caused(first, change, before, after, faults)?;
    }
    Ok(())
}

/// A node has taken over from another that turns out to be alive.
///
/// # Errors
/// A violation.
pub fn false_take_over(
    asked: &Asked,
    slice: SliceId,
    (by, from): (NodeId, NodeId),
    faults: &Active,
) -> Checked {
    let asked = asked.take_overs.get(&(slice, by, from)).copied().unwrap_or_default();
    if faults.excuses(by, asked) || faults.excuses(from, asked) {
        return Ok(());
    }
    let text =
        format!("{by:?} took over from {from:?}, which is alive: nothing was done to either");
    violated("no failover without cause", text)
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
    asked: Time,
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
    if failover && !concerned.iter().any(|node| faults.excuses(*node, asked)) {
        let text = format!("{change:?} from {before:?}: nothing was done to {concerned:?}");
        return violated("no failover without cause", text);
    }
    Ok(())
}
