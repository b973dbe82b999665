//! What is to be done about slices whose replicas are lost, too few, too many or on their way out.
//!
//! ```text
//!   a member is    staying    its node answers, or hasn't been away for replace_after
//!                  leaving    its node or pool is drained
//!                  lost       its pool failed, or its node was away for too long
//!
//!   too few staying ──> Assign        enough of them in sync ──> Remove a lost, leaving or extra one
//!                                                          └──> HandOver first, if it is primary
//! ```
//!
//! Called by the Raft leader, now and then; what it proposes is checked again when it is applied.
//!
//! Invariants: nothing is taken away before enough staying replicas are in sync, except a joining
//! one on a failed pool; one in-sync member a slice and round.

use std::collections::{BTreeMap, BTreeSet};

use mooring_terms::{NodeId, SliceId};

use super::choose::{Choice, Inventory};
use super::{Hints, NoPlacement};
use crate::{
    Assignment, ClusterState, Command, MAX_BATCH, Member, NodeState, PoolState, Removal,
    SliceConfig, UnixMillis, Volume,
};

/// One thing to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Place a replica.
    Assign(Assignment),
    /// Take a replica away.
    Remove(Removal),
    /// Ask the primary to hand the slice over, since its own replica has to go.
    HandOver {
        /// The slice.
        slice: SliceId,
        /// The primary to ask.
        from: NodeId,
        /// Who is to be primary; in sync.
        to: NodeId,
    },
    /// Nothing can be done: for the status.
    Stuck {
        /// The slice.
        slice: SliceId,
        /// What is missing.
        reason: NoPlacement,
    },
}

/// How much repair there may be at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepairLimits {
    /// Things to be done a round.
    pub per_round: usize,
    /// Joining replicas a node, beyond which none is placed there.
    pub joining_per_node: usize,
}

impl Default for RepairLimits {
    fn default() -> Self {
        Self { per_round: 256, joining_per_node: 8 }
    }
}

impl Repair {
    /// The commands for all that goes through Raft, in batches.
    #[must_use]
    pub fn commands(repairs: &[Self]) -> Vec<Command> {
        let mut assignments = Vec::new();
        let mut removals = Vec::new();
        for repair in repairs {
            match repair {
                Self::Assign(assignment) => assignments.push(*assignment),
                Self::Remove(removal) => removals.push(*removal),
                Self::HandOver { .. } | Self::Stuck { .. } => {}
            }
        }
        let assign =
            assignments.chunks(MAX_BATCH).map(|some| Command::AssignReplicas(some.to_vec()));
        let remove = removals.chunks(MAX_BATCH).map(|some| Command::RemoveReplicas(some.to_vec()));
        assign.chain(remove).collect()
    }
}

/// What is to be done now. `lost_since` has the nodes that the leader has not heard from, and since
/// when.
#[must_use]
pub fn repair(
    state: &ClusterState,
    hints: &Hints,
    now: UnixMillis,
    lost_since: &BTreeMap<NodeId, UnixMillis>,
    limits: RepairLimits,
) -> Vec<Repair> {
    let mut hints = hints.clone();
    hints.gone.extend(lost_since.keys().copied());
    let mut round = Round {
        state,
        hints: &hints,
        now,
        lost_since,
        limits,
        inventory: None,
        joining: BTreeMap::new(),
        found: Vec::new(),
    };
    for (_, config) in state.slices() {
        for member in config.joining.iter().filter(|m| !hints.gone.contains(&m.node)) {
            *round.joining.entry(member.node).or_default() += 1;
        }
    }
    for (_, volume) in state.volumes().iter() {
        for (slice, config) in volume.slices() {
            if round.found.len() >= limits.per_round {
                return round.found;
            }
            round.slice(volume, slice, config);
        }
    }
    round.found
}

/// What is to become of a member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Lost,
    Leaving,
    Staying,
}

struct Round<'a> {
    state: &'a ClusterState,
    hints: &'a Hints,
    now: UnixMillis,
    lost_since: &'a BTreeMap<NodeId, UnixMillis>,
    limits: RepairLimits,
    /// Counted when the first replica is placed: mostly there is nothing to do.
    inventory: Option<Inventory>,
    joining: BTreeMap<NodeId, usize>,
    found: Vec<Repair>,
}

impl Round<'_> {
    fn slice(&mut self, volume: &Volume, slice: SliceId, config: &SliceConfig) {
        let wanted = volume.spec.replicas as usize;
        let staying = config.members().filter(|m| self.fate(volume, m) == Fate::Staying).count();
        if staying < wanted {
            let failed = config.joining.iter().find(|member| self.failed(member));
            // Its node may have another pool, and one node takes only one replica.
            if let Some(member) = failed
                && self.good_in_sync(volume, config) >= config.min_in_sync as usize
            {
                self.remove(slice, config, member.node);
                return;
            }
            self.assign(volume, slice, config, wanted - staying);
        } else if self.good_in_sync(volume, config) >= wanted {
            self.drop_one(volume, slice, config);
        }
    }

    fn assign(&mut self, volume: &Volume, slice: SliceId, config: &SliceConfig, count: usize) {
        let (state, hints) = (self.state, self.hints);
        let choice =
            Choice { state, hints, spec: &volume.spec, turn: volume.id.0, index: slice.index };
        // What stays is what the new replicas are to be spread from; no member's node takes another.
        let mut placed: Vec<NodeId> = config
            .members()
            .filter(|member| self.fate(volume, member) == Fate::Staying)
            .map(|member| member.node)
            .collect();
        let members = config.members().map(|member| member.node);
        let busy = self.joining.iter().filter(|(_, n)| **n >= self.limits.joining_per_node);
        let mut excluded: BTreeSet<NodeId> = members.collect();
        let free_of_members = excluded.clone();
        excluded.extend(busy.map(|(node, _)| *node));
        let inventory = self.inventory.get_or_insert_with(|| Inventory::of(state));
        for _ in 0..count {
            if let Some(member) = choice.take(inventory, &placed, &excluded) {
                placed.push(member.node);
                *self.joining.entry(member.node).or_default() += 1;
                self.found.push(Repair::Assign(Assignment { slice, pool: member.pool }));
            } else if choice.next(inventory, &placed, &free_of_members).is_none() {
                let reason = choice.missing(volume.spec.replicas);
                self.found.push(Repair::Stuck { slice, reason });
                return;
            } else {
                // Only busy nodes could take it: later.
                return;
            }
        }
    }

    /// Takes one replica away that is lost, leaving or too many.
    fn drop_one(&mut self, volume: &Volume, slice: SliceId, config: &SliceConfig) {
        let staying = config.members().filter(|m| self.fate(volume, m) == Fate::Staying).count();
        let extra = staying > volume.spec.replicas as usize;
        let attached = volume.attachment.map(|attachment| attachment.node);
        let candidate = config
            .members()
            .filter(|member| extra || self.fate(volume, member) != Fate::Staying)
            .min_by_key(|member| {
                let in_sync = config.in_sync_member(member.node).is_some();
                let named = volume.spec.nodes.contains(&member.node);
                let primary = member.node == config.primary;
                let here = Some(member.node) == attached;
                let crowd = usize::MAX - self.crowd(config, member.node);
                let fate = self.fate(volume, member);
                (fate, in_sync, named, primary, here, crowd, u64::MAX - member.node.0)
            })
            .copied();
        let Some(member) = candidate else { return };
        if member.node != config.primary {
            self.remove(slice, config, member.node);
            return;
        }
        let successor = config
            .in_sync
            .iter()
            .filter(|other| other.node != member.node && self.good(volume, other))
            .min_by_key(|other| (Some(other.node) != attached, other.node));
        if let Some(to) = successor
            && !self.hints.gone.contains(&member.node)
        {
            self.found.push(Repair::HandOver { slice, from: member.node, to: to.node });
        }
    }

    fn remove(&mut self, slice: SliceId, config: &SliceConfig, node: NodeId) {
        if config.check_remove(node).is_ok() {
            let expected = config.epoch;
            self.found.push(Repair::Remove(Removal { slice, expected, node }));
        }
    }

    fn fate(&self, volume: &Volume, member: &Member) -> Fate {
        let away = self.lost_since.get(&member.node).map_or(0, |since| self.now.since(*since));
        let lost_node =
            self.lost_since.contains_key(&member.node) && away >= volume.spec.replace_after_ms;
        if self.failed(member) || lost_node {
            return Fate::Lost;
        }
        let draining = self
            .state
            .node(member.node)
            .is_some_and(|node| node.state == NodeState::Draining)
            || self.state.pool(member.pool).is_some_and(|pool| pool.state == PoolState::Draining);
        if draining { Fate::Leaving } else { Fate::Staying }
    }

    fn failed(&self, member: &Member) -> bool {
        self.state.opened(member.pool).is_none()
    }

    /// Staying, and its node answers.
    fn good(&self, volume: &Volume, member: &Member) -> bool {
        self.fate(volume, member) == Fate::Staying && !self.hints.gone.contains(&member.node)
    }

    fn good_in_sync(&self, volume: &Volume, config: &SliceConfig) -> usize {
        config.in_sync.iter().filter(|member| self.good(volume, member)).count()
    }

    /// How many other members are in the node's zone.
    fn crowd(&self, config: &SliceConfig, node: NodeId) -> usize {
        let zone = |id| {
            let node = self.state.node(id)?;
            Some((node.label("region").map(str::to_owned), node.label("zone")?.to_owned()))
        };
        let Some(own) = zone(node) else { return 0 };
        config.members().filter(|m| m.node != node && zone(m.node).as_ref() == Some(&own)).count()
    }
}
