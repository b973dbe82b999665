//! Volumes: created, grown, set, removed.

use std::sync::Arc;

use mooring_terms::{AttachmentEpoch, PoolId, VolumeId};

use super::{What, check_label, check_name};
use crate::{
    Actor, ClusterState, ClusterVersion, Done, Member, NodeState, Refused, Response, Setting,
    SliceConfig, Volume, VolumeRequest, VolumeSpec,
};

impl ClusterState {
    pub(super) fn create_volume(
        &mut self,
        by: &Actor,
        name: &str,
        request: &VolumeRequest,
        spec: &VolumeSpec,
        placement: &[Vec<PoolId>],
    ) -> Response {
        check_name(name)?;
        if let Some(volume) = self.volume_by_name(name) {
            return existing(volume, request);
        }
        spec.check()?;
        let needs = ClusterVersion::SHARED_VOLUMES;
        if spec.is_shared() && self.version < needs {
            return Err(Refused::NotYet { needs, cluster: self.version });
        }
        for (key, value) in &spec.labels {
            check_label(key, Some(value))?;
        }
        if placement.len() as u64 != spec.slice_count() {
            return Err(Refused::PlacementShape);
        }
        let slices = self.place(spec, placement)?;
        let id = VolumeId(self.next_volume);
        self.next_volume += 1;
        let volume = Volume {
            id,
            name: name.to_owned(),
            spec: spec.clone(),
            created: self.now,
            formatted: false,
            slices,
            attachment: None,
            last_attachment: AttachmentEpoch(0),
        };
        self.volumes.insert(id, volume);
        self.names.insert(name.to_owned(), id);
        self.record(by, What::VolumeCreated { volume: id, name: name.to_owned() });
        Ok(Done::Volume { volume: id, existed: false })
    }

    /// Checks that the pools chosen can still be had, and makes slices of them.
    fn place(
        &self,
        spec: &VolumeSpec,
        placement: &[Vec<PoolId>],
    ) -> Result<Vec<Arc<SliceConfig>>, Refused> {
        let mut slices = Vec::with_capacity(placement.len());
        for pools in placement {
            if pools.len() != spec.replicas as usize {
                return Err(Refused::PlacementShape);
            }
            let mut members: Vec<Member> = Vec::with_capacity(pools.len());
            for id in pools {
                let stale = Refused::PlacementStale { pool: *id };
                let pool = self.pools.get(id).filter(|pool| pool.takes_replicas());
                let pool = pool.ok_or(stale.clone())?;
                if self.nodes.get(&pool.node).is_none_or(|node| node.state != NodeState::Active) {
                    return Err(stale);
                }
                if members.iter().any(|member| member.node == pool.node) {
                    return Err(Refused::PlacementShape);
                }
                let incarnation = pool.incarnation;
                members.push(Member { node: pool.node, pool: *id, incarnation });
            }
            slices.push(Arc::new(SliceConfig::new(&members, spec.effective_min_in_sync())));
        }
        Ok(slices)
    }

    pub(super) fn remove_volume(&mut self, by: &Actor, id: VolumeId, force: bool) -> Response {
        let volume = self.volumes.get(&id).ok_or(Refused::NoVolume(id))?;
        // A shared volume has a coordinator even when nobody uses it.
        if let Some(attachment) = volume.attachment.filter(|_| !volume.spec.is_shared())
            && !force
        {
            let holder = self.node_name(attachment.node);
            return Err(Refused::Attached { name: volume.name.clone(), holder });
        }
        let name = volume.name.clone();
        self.names.remove(&name);
        self.volumes.remove(&id);
        self.record(by, What::VolumeRemoved { volume: id, name, forced: force });
        Ok(Done::Ok)
    }

    pub(super) fn resize_volume(
        &mut self,
        by: &Actor,
        id: VolumeId,
        size: u64,
        placement: &[Vec<PoolId>],
    ) -> Response {
        let volume = self.volumes.get(&id).ok_or(Refused::NoVolume(id))?;
        if size < volume.spec.size {
            let (name, current) = (volume.name.clone(), volume.spec.size);
            return Err(Refused::Shrinks { name, current, asked: size });
        }
        if size == volume.spec.size {
            return Ok(Done::Ok);
        }
        let spec = VolumeSpec { size, ..volume.spec.clone() };
        spec.check()?;
        if (volume.slices.len() + placement.len()) as u64 != spec.slice_count() {
            return Err(Refused::PlacementShape);
        }
        let added = self.place(&spec, placement)?;
        if let Some(volume) = self.volumes.get_mut(&id) {
            volume.spec = spec;
            volume.slices.extend(added);
        }
        self.record(by, What::VolumeResized { volume: id, size });
        Ok(Done::Ok)
    }

    pub(super) fn set_volume(
        &mut self,
        by: &Actor,
        id: VolumeId,
        settings: &[Setting],
    ) -> Response {
        let volume = self.volumes.get(&id).ok_or(Refused::NoVolume(id))?;
        for setting in settings {
            if let Setting::Label(key, value) = setting {
                check_label(key, value.as_deref())?;
            }
        }
        let spec = volume.spec.with(settings)?;
        if spec == volume.spec {
            return Ok(Done::Ok);
        }
        let min = spec.effective_min_in_sync();
        if let Some(volume) = self.volumes.get_mut(&id) {
            volume.spec = spec;
            for slice in volume.slices.iter_mut().filter(|slice| slice.min_in_sync != min) {
                Arc::make_mut(slice).min_in_sync = min;
            }
        }
        self.record(by, What::VolumeSet { volume: id });
        Ok(Done::Ok)
    }

    pub(super) fn volume_formatted(&mut self, id: VolumeId, epoch: AttachmentEpoch) -> Response {
        let volume = self.volumes.get(&id).ok_or(Refused::NoVolume(id))?;
        if volume.attachment.is_none_or(|attachment| attachment.epoch != epoch) {
            return Err(Refused::NotAttached { name: volume.name.clone() });
        }
        if let Some(volume) = self.volumes.get_mut(&id) {
            volume.formatted = true;
        }
        Ok(Done::Ok)
    }
}

/// The answer for a volume that is to be created and exists.
fn existing(volume: &Volume, request: &VolumeRequest) -> Response {
    let differences = request.differences(&volume.spec);
    if differences.is_empty() {
        return Ok(Done::Volume { volume: volume.id, existed: true });
    }
    Err(Refused::VolumeExists { name: volume.name.clone(), differences })
}
