//! Slices: compare-and-set of their members, replicas placed and taken away, losses accepted.

use std::collections::BTreeSet;
use std::sync::Arc;

use mooring_terms::{AttachmentEpoch, Epoch, NodeId, SliceId, VolumeId};

use super::{ByReason, MAX_BATCH, What, list_name};
use crate::{
    Actor, Assignment, ChangeReason, ChangeRefused, ClusterState, Done, Loss, Member, NodeState,
    Refused, Removal, Response, SliceChange, SliceConfig,
};

impl ClusterState {
    /// A slice's configuration, to change.
    pub(super) fn slice_mut(&mut self, id: SliceId) -> Option<&mut SliceConfig> {
        self.volumes.get_mut(&id.volume)?.slices.get_mut(id.index.0 as usize).map(Arc::make_mut)
    }

    pub(super) fn change_slices(
        &mut self,
        by: &Actor,
        changes: &[SliceChange],
        gone: &BTreeSet<NodeId>,
    ) -> Response {
        check_batch(changes.len())?;
        let mut reasons = ByReason::new();
        let mut answers = Vec::with_capacity(changes.len());
        for change in changes {
            let answer = self.change_slice(change, gone);
            if answer.is_ok() {
                reasons.entry(change.reason).or_insert((0, change.slice)).0 += 1;
                if change.reason == ChangeReason::AllRestarted {
                    self.record(by, What::TailLost { slice: change.slice });
                }
            }
            answers.push(answer);
        }
        for (reason, (count, first)) in reasons {
            self.record(by, What::SlicesChanged { reason, count, first });
        }
        Ok(Done::Slices(answers))
    }

    fn change_slice(
        &mut self,
        change: &SliceChange,
        gone: &BTreeSet<NodeId>,
    ) -> Result<Epoch, ChangeRefused> {
        let not_found = ChangeRefused::NotFound(change.slice);
        let mut config = (**self.slice(change.slice).ok_or(not_found.clone())?).clone();
        if is_already(&config, change) {
            return Ok(config.epoch);
        }
        // A stale proposer learns that it is stale, not that it is no longer primary.
        if change.expected == config.epoch {
            config.check_entitled(change)?;
            config.check_needed(change, |pool| self.opened(pool), gone)?;
        }
        config.apply(change, |pool| self.opened(pool))?;
        let epoch = config.epoch;
        *self.slice_mut(change.slice).ok_or(not_found)? = config;
        Ok(epoch)
    }

    pub(super) fn assign_replicas(&mut self, by: &Actor, assignments: &[Assignment]) -> Response {
        check_batch(assignments.len())?;
        let answers: Vec<_> = assignments.iter().map(|one| self.assign_replica(one)).collect();
        if let Some((count, first)) = count_done(&answers, |i| assignments[i].slice) {
            self.record(by, What::ReplicasAssigned { count, first });
        }
        Ok(Done::Slices(answers))
    }

    fn assign_replica(&mut self, assignment: &Assignment) -> Result<Epoch, ChangeRefused> {
        let refused = ChangeRefused::TakesNone { pool: assignment.pool };
        let pool = self.pools.get(&assignment.pool).filter(|pool| pool.takes_replicas());
        let pool = pool.ok_or(refused.clone())?;
        if self.nodes.get(&pool.node).is_none_or(|node| node.state != NodeState::Active) {
            return Err(refused);
        }
        let member = Member { node: pool.node, pool: pool.id, incarnation: pool.incarnation };
        let not_found = ChangeRefused::NotFound(assignment.slice);
        let config = self.slice_mut(assignment.slice).ok_or(not_found)?;
        config.assign(member)?;
        Ok(config.epoch)
    }

    pub(super) fn remove_replicas(&mut self, by: &Actor, removals: &[Removal]) -> Response {
        check_batch(removals.len())?;
        let answers: Vec<_> = removals.iter().map(|one| self.remove_replica(one)).collect();
        if let Some((count, first)) = count_done(&answers, |i| removals[i].slice) {
            self.record(by, What::ReplicasRemoved { count, first });
        }
        Ok(Done::Slices(answers))
    }

    fn remove_replica(&mut self, removal: &Removal) -> Result<Epoch, ChangeRefused> {
        let not_found = ChangeRefused::NotFound(removal.slice);
        let config = self.slice(removal.slice).ok_or(not_found.clone())?;
        if config.epoch != removal.expected {
            let (expected, current) = (removal.expected, config.epoch);
            return Err(ChangeRefused::EpochChanged { expected, current });
        }
        config.check_remove(removal.node)?;
        let config = self.slice_mut(removal.slice).ok_or(not_found)?;
        config.remove(removal.node)?;
        Ok(config.epoch)
    }

    pub(super) fn accept_loss(
        &mut self,
        by: &Actor,
        id: VolumeId,
        from: NodeId,
        gone: &BTreeSet<NodeId>,
        force: bool,
    ) -> Response {
        let volume = Arc::clone(self.volumes.get(&id).ok_or(Refused::NoVolume(id))?);
        let mut better = Vec::new();
        let mut losses = Vec::new();
        for (slice, config) in volume.slices() {
            for member in &config.in_sync {
                let there = member.node != from
                    && !gone.contains(&member.node)
                    && self.opened(member.pool).is_some();
                if there {
                    list_name(&mut better, &self.node_name(member.node));
                }
            }
            let mut after = (**config).clone();
            if after.accept_loss(from, |pool| self.opened(pool)).is_err() {
                let node = self.node_name(from);
                return Err(Refused::NoReplicaThere { name: volume.name.clone(), node });
            }
            losses.push((slice, config, after));
        }
        if !better.is_empty() && !force {
            return Err(Refused::NothingLost { name: volume.name.clone(), nodes: better });
        }
        let lost = losses.iter().any(|(_, _, after)| after.tail_lost == after.epoch);
        let mut answer = Vec::new();
        for (slice, before, after) in losses {
            answer.push(Loss { slice, before: (**before).clone(), epoch: after.epoch });
            if let Some(config) = self.slice_mut(slice) {
                *config = after;
            }
        }
        self.record(by, What::LossAccepted { volume: id, from });
        if lost {
            self.end_attachments(by, id);
        }
        Ok(Done::LossAccepted(answer))
    }

    /// Ends what was ever granted of the volume, for good. Its slices went back in time: the seals
    /// that fenced earlier holders may be gone, and what the last holder knows of its blocks is no
    /// longer so.
    fn end_attachments(&mut self, by: &Actor, id: VolumeId) {
        let Some(volume) = self.volumes.get_mut(&id) else { return };
        // Nobody is ever granted this one: who comes next is above it, and seals anew.
        let floor = AttachmentEpoch(volume.last_attachment.0 + 1);
        volume.last_attachment = floor;
        let held = volume.attachment.take();
        for config in &mut volume.slices {
            Arc::make_mut(config).seal = floor;
        }
        if let Some(held) = held {
            self.record(by, What::Detached { volume: id, node: held.node, forced: true });
        }
    }

    /// The replicas that `wanted` says, with their nodes.
    pub(super) fn replicas_where(
        &self,
        wanted: impl Fn(&Member) -> bool,
    ) -> Vec<(SliceId, NodeId)> {
        let mut found = Vec::new();
        for (id, config) in self.slices() {
            found.extend(config.members().filter(|m| wanted(m)).map(|member| (id, member.node)));
        }
        found
    }

    /// Some of the names of the replicas' volumes.
    pub(super) fn names_of(&self, replicas: &[(SliceId, NodeId)]) -> Vec<String> {
        let mut names = Vec::new();
        for (slice, _) in replicas {
            if let Some(volume) = self.volumes.get(&slice.volume) {
                list_name(&mut names, &volume.name);
            }
        }
        names
    }

    /// Takes all these replicas away, or none.
    pub(super) fn take_away(
        &mut self,
        replicas: &[(SliceId, NodeId)],
        holder: &str,
    ) -> Result<(), Refused> {
        let spared = |(slice, node): &&(SliceId, NodeId)| {
            self.slice(*slice).is_some_and(|config| config.check_remove(*node).is_err())
        };
        let stuck: Vec<_> = replicas.iter().filter(spared).copied().collect();
        if !stuck.is_empty() {
            let volumes = self.names_of(&stuck);
            return Err(Refused::CannotSpare { holder: holder.to_owned(), volumes });
        }
        for (slice, node) in replicas {
            if let Some(config) = self.slice_mut(*slice) {
                config.remove(*node)?;
            }
        }
        Ok(())
    }
}

/// Whether the change has been made: it was sent again because its answer was lost.
fn is_already(config: &SliceConfig, change: &SliceChange) -> bool {
    let mut in_sync = change.in_sync.clone();
    in_sync.sort_unstable();
    config.epoch == change.expected.next()
        && config.primary == change.primary
        && config.in_sync == in_sync
        && (config.tail_lost == config.epoch) == (change.reason == ChangeReason::AllRestarted)
}

fn check_batch(count: usize) -> Result<(), Refused> {
    if count > MAX_BATCH {
        return Err(Refused::BatchTooLarge { count: count as u64, max: MAX_BATCH as u64 });
    }
    Ok(())
}

/// How many succeeded, and the slice of the first that did.
fn count_done(
    answers: &[Result<Epoch, ChangeRefused>],
    slice: impl Fn(usize) -> SliceId,
) -> Option<(u32, SliceId)> {
    let first = answers.iter().position(Result::is_ok)?;
    let count = answers.iter().filter(|answer| answer.is_ok()).count();
    Some((u32::try_from(count).unwrap_or(u32::MAX), slice(first)))
}
