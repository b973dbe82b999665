//! The cluster's beginning, and its nodes: admitted by a token, started, labelled, drained, removed.

use std::net::SocketAddr;
use std::sync::Arc;

use mooring_terms::{NodeId, VolumeId};

use super::{check_label, check_name, list_name};
use crate::{
    Actor, Admission, Boot, ClusterState, ClusterVersion, Done, Genesis, GossipKey, Identity,
    NewNode, Node, NodeState, Refused, Response, Role, What,
};

impl ClusterState {
    pub(super) fn create(&mut self, by: &Actor, genesis: &Genesis) -> Response {
        if let Some(identity) = &self.identity {
            return Err(Refused::AlreadyCreated { name: identity.name.clone() });
        }
        check_name(&genesis.name)?;
        self.version = genesis.version;
        self.next_node = 1;
        self.check_new_node(&genesis.first)?;
        self.identity = Some(Identity {
            cluster: genesis.cluster,
            name: genesis.name.clone(),
            ca_certificate: genesis.ca_certificate.clone(),
            created: self.now,
        });
        self.ca_key = genesis.ca_key.clone();
        self.gossip_keys = vec![GossipKey { id: 1, bytes: genesis.gossip_key }];
        self.next_pool = 1;
        self.next_volume = 1;
        self.next_event = 1;
        self.record(by, What::ClusterCreated { name: genesis.name.clone() });
        let node = self.add_node(by, &genesis.first, Role::Voter);
        Ok(Done::Node(node))
    }

    pub(super) fn admit_node(&mut self, by: &Actor, admission: &Admission) -> Response {
        let new = &admission.node;
        // A node that asks again, because the answer was lost, is the node it is.
        if let Some(known) = self.nodes.values().find(|node| node.fingerprint == new.fingerprint) {
            return Ok(Done::Node(known.id));
        }
        let now = self.now;
        let usable = self
            .join_tokens
            .get(&admission.token)
            .is_some_and(|token| token.uses_left > 0 && token.expires > now);
        if !usable {
            return Err(Refused::TokenUseless);
        }
        self.check_new_node(new)?;
        if let Some(token) = self.join_tokens.get_mut(&admission.token) {
            token.uses_left -= 1;
        }
        self.join_tokens.retain(|_, token| token.uses_left > 0 && token.expires > now);
        Ok(Done::Node(self.add_node(by, new, Role::Learner)))
    }

    fn check_new_node(&self, new: &NewNode) -> Result<(), Refused> {
        check_name(&new.name)?;
        for (key, value) in &new.labels {
            check_label(key, Some(value))?;
        }
        if let Some(holder) = self.node_by_name(&new.name) {
            return Err(Refused::NodeNameTaken { name: new.name.clone(), holder: holder.id });
        }
        self.check_version(new.version)
    }

    fn check_version(&self, supported: ClusterVersion) -> Result<(), Refused> {
        if supported < self.version {
            return Err(Refused::VersionTooOld { supported, cluster: self.version });
        }
        Ok(())
    }

    fn add_node(&mut self, by: &Actor, new: &NewNode, role: Role) -> NodeId {
        let id = NodeId(self.next_node);
        self.next_node += 1;
        let node = Node {
            id,
            name: new.name.clone(),
            addresses: new.addresses.clone(),
            fingerprint: new.fingerprint,
            labels: new.labels.clone(),
            role,
            boot: Boot::default(),
            version: new.version,
            state: NodeState::Active,
            admitted: self.now,
        };
        self.nodes.insert(id, Arc::new(node));
        self.record(by, What::NodeAdmitted { node: id, name: new.name.clone() });
        id
    }

    pub(super) fn node_started(
        &mut self,
        by: &Actor,
        id: NodeId,
        boot: Boot,
        addresses: &[SocketAddr],
        version: ClusterVersion,
        still_held: &[VolumeId],
    ) -> Response {
        self.check_version(version)?;
        let node = self.nodes.get_mut(&id).ok_or(Refused::NoNode(id))?;
        if boot < node.boot {
            return Err(Refused::EarlierBoot { node: id, claimed: boot, current: node.boot });
        }
        let again = boot == node.boot;
        let node = Arc::make_mut(node);
        node.boot = boot;
        node.version = version;
        node.addresses = addresses.to_vec();
        if again {
            return Ok(Done::Started { released: Vec::new() });
        }
        let held: Vec<VolumeId> = self.attached_to(id);
        let (kept, released): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|volume| still_held.contains(volume));
        for id in kept {
            if let Some(attachment) =
                self.volumes.get_mut(&id).and_then(|volume| volume.attachment.as_mut())
            {
                attachment.boot = boot;
            }
        }
        for id in &released {
            if let Some(volume) = self.volumes.get_mut(id) {
                volume.attachment = None;
            }
        }
        self.record(by, What::NodeStarted { node: id, released: released.clone() });
        Ok(Done::Started { released })
    }

    pub(super) fn label_node(
        &mut self,
        by: &Actor,
        id: NodeId,
        labels: &[(String, Option<String>)],
    ) -> Response {
        for (key, value) in labels {
            check_label(key, value.as_deref())?;
        }
        let node = Arc::make_mut(self.nodes.get_mut(&id).ok_or(Refused::NoNode(id))?);
        for (key, value) in labels {
            match value {
                Some(value) => node.labels.insert(key.clone(), value.clone()),
                None => node.labels.remove(key),
            };
        }
        self.record(by, What::NodeLabelled { node: id });
        Ok(Done::Ok)
    }

    pub(super) fn set_role(&mut self, id: NodeId, role: Role) -> Response {
        let node = self.nodes.get_mut(&id).ok_or(Refused::NoNode(id))?;
        if node.role != role {
            Arc::make_mut(node).role = role;
        }
        Ok(Done::Ok)
    }

    pub(super) fn drain_node(&mut self, by: &Actor, id: NodeId, drain: bool) -> Response {
        let node = self.nodes.get_mut(&id).ok_or(Refused::NoNode(id))?;
        let state = if drain { NodeState::Draining } else { NodeState::Active };
        if node.state != state {
            Arc::make_mut(node).state = state;
            self.record(by, What::NodeDrain { node: id, drain });
        }
        Ok(Done::Ok)
    }

    pub(super) fn remove_node(
        &mut self,
        by: &Actor,
        id: NodeId,
        gone: bool,
        force: bool,
        gossip_key: [u8; 32],
    ) -> Response {
        let name = self.nodes.get(&id).ok_or(Refused::NoNode(id))?.name.clone();
        if self.nodes.len() == 1 {
            return Err(Refused::LastNode);
        }
        let attached = self.attached_to(id);
        let may_lose_them = gone || force;
        if !attached.is_empty() && !may_lose_them {
            let mut volumes = Vec::new();
            for volume in attached.iter().filter_map(|id| self.volumes.get(id)) {
                list_name(&mut volumes, &volume.name);
            }
            return Err(Refused::NodeHasAttachments { node: name, volumes });
        }
        let held = self.replicas_where(|member| member.node == id);
        if !held.is_empty() && !force {
            let volumes = self.names_of(&held);
            return Err(Refused::NodeHoldsReplicas {
                node: name,
                replicas: held.len() as u64,
                volumes,
            });
        }
        self.take_away(&held, &name)?;
        for volume in attached {
            if let Some(volume) = self.volumes.get_mut(&volume) {
                volume.attachment = None;
            }
        }
        for volume in self.volumes_naming(id) {
            if let Some(volume) = self.volumes.get_mut(&volume) {
                volume.spec.nodes.retain(|node| *node != id);
            }
        }
        self.pools.retain(|_, pool| pool.node != id);
        self.nodes.remove(&id);
        self.add_gossip_key(gossip_key);
        self.record(by, What::NodeRemoved { node: id, name });
        Ok(Done::Ok)
    }

    pub(super) fn raise_version(&mut self, by: &Actor, wanted: ClusterVersion) -> Response {
        if wanted < self.version {
            return Err(Refused::VersionGoesBack { current: self.version });
        }
        if let Some(node) = self.nodes.values().find(|node| node.version < wanted) {
            let (node, supported) = (node.name.clone(), node.version);
            return Err(Refused::NodeTooOld { wanted, node, supported });
        }
        if wanted > self.version {
            self.version = wanted;
            self.record(by, What::VersionRaised { version: wanted });
        }
        Ok(Done::Ok)
    }

    /// The volumes that `node` has attached.
    fn attached_to(&self, node: NodeId) -> Vec<VolumeId> {
        let held = |volume: &crate::Volume| volume.attachment.is_some_and(|a| a.node == node);
        self.volumes.iter().filter(|(_, volume)| held(volume)).map(|(id, _)| *id).collect()
    }

    /// The volumes whose specification names `node`.
    fn volumes_naming(&self, node: NodeId) -> Vec<VolumeId> {
        self.volumes
            .iter()
            .filter(|(_, volume)| volume.spec.nodes.contains(&node))
            .map(|(id, _)| *id)
            .collect()
    }
}
