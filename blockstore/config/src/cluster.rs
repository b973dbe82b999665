//! The state of the cluster, as Raft holds it.
//!
//! ```text
//!   identity, version, keys, tokens
//!   nodes ──have──> pools <──lie in── replicas (members of slices)
//!   volumes ──have──> slices, attachment        names ──> volumes        events (a ring)
//! ```
//!
//! Everything large is shared between clones (see [`crate::Chunked`]): the shell publishes a clone
//! after each batch, readers keep it as long as they like, and [`crate::changes`] compares two.
//!
//! Invariants (`check_invariants`):
//! - every pool's node exists; every member's pool exists and is on the member's node;
//! - names and volumes agree one to one; ids in use are below the next ids;
//! - attachments are held by nodes that exist, with epochs no higher than the last granted;
//! - time and the cluster's version never go back.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use mooring_terms::{Incarnation, NodeId, PoolId, SliceId, VolumeId};
use serde::{Deserialize, Serialize};

use crate::{
    ApiToken, Chunked, ClusterId, Event, GossipKey, JoinToken, Node, Pool, SliceConfig, TokenHash,
    UnixMillis, Volume, VoterCount, WrappedKey,
};

/// A number for all that nodes write to each other and to their disks: no node writes anything
/// newer than the cluster's version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterVersion(pub u32);

impl ClusterVersion {
    /// From this version on, a replica that is brought level is told which blocks are lost.
    pub const LOST_BLOCKS: Self = Self(2);
    /// From this version on, the maps of pools say how many blocks hold data.
    pub const COUNTS: Self = Self(2);
    /// From this version on, there are shared volumes.
    pub const SHARED_VOLUMES: Self = Self(2);
}

/// The newest version that this software can write.
///
/// - 1: the first.
/// - 2: lost blocks, in messages of a join and in pools; counts in the maps of pools; shared volumes,
///   and what is said of sessions between clients and primaries.
pub const NEWEST_VERSION: ClusterVersion = ClusterVersion(2);

/// What a cluster is known by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its id.
    pub cluster: ClusterId,
    /// Its name, for people.
    pub name: String,
    /// The CA's certificate, DER.
    pub ca_certificate: Vec<u8>,
    /// When it began.
    pub created: UnixMillis,
}

/// The configuration of a cluster. Before the first command it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    pub(crate) identity: Option<Identity>,
    pub(crate) version: ClusterVersion,
    pub(crate) now: UnixMillis,
    pub(crate) voters: VoterCount,
    pub(crate) ca_key: WrappedKey,
    pub(crate) gossip_keys: Vec<GossipKey>,
    pub(crate) join_tokens: BTreeMap<TokenHash, JoinToken>,
    pub(crate) api_tokens: BTreeMap<TokenHash, ApiToken>,
    pub(crate) nodes: BTreeMap<NodeId, Arc<Node>>,
    pub(crate) pools: BTreeMap<PoolId, Arc<Pool>>,
    pub(crate) volumes: Chunked<VolumeId, Volume>,
    pub(crate) names: Chunked<String, VolumeId>,
    pub(crate) events: VecDeque<Arc<Event>>,
    pub(crate) next_node: u64,
    pub(crate) next_pool: u64,
    pub(crate) next_volume: u64,
    pub(crate) next_event: u64,
}

impl ClusterState {
    /// What the cluster is known by; `None` before it was created.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// What nodes may write.
    #[must_use]
    pub fn version(&self) -> ClusterVersion {
        self.version
    }

    /// The version that every node's software can write, where that is newer than the cluster's: then
    /// nothing older is left that would have to read it.
    #[must_use]
    pub fn version_to_raise(&self) -> Option<ClusterVersion> {
        let common = self.nodes.values().map(|node| node.version).min();
        common.filter(|version| *version > self.version)
    }

    /// The date of the latest command.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        self.now
    }

    /// How many voters there are to be.
    #[must_use]
    pub fn voter_count(&self) -> VoterCount {
        self.voters
    }

    /// The CA's key, wrapped.
    #[must_use]
    pub fn ca_key(&self) -> &WrappedKey {
        &self.ca_key
    }

    /// The gossip keys, the one in use last; at most two.
    #[must_use]
    pub fn gossip_keys(&self) -> &[GossipKey] {
        &self.gossip_keys
    }

    /// The join tokens.
    #[must_use]
    pub fn join_tokens(&self) -> &BTreeMap<TokenHash, JoinToken> {
        &self.join_tokens
    }

    /// The API tokens.
    #[must_use]
    pub fn api_tokens(&self) -> &BTreeMap<TokenHash, ApiToken> {
        &self.api_tokens
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &BTreeMap<NodeId, Arc<Node>> {
        &self.nodes
    }

    /// One node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    /// The node of that name.
    #[must_use]
    pub fn node_by_name(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes.values().find(|node| node.name == name)
    }

    /// A node's name, or its number if it has no row.
    #[must_use]
    pub fn node_name(&self, id: NodeId) -> String {
        self.nodes.get(&id).map_or_else(|| id.to_string(), |node| node.name.clone())
    }

    /// The pools.
    #[must_use]
    pub fn pools(&self) -> &BTreeMap<PoolId, Arc<Pool>> {
        &self.pools
    }

    /// One pool.
    #[must_use]
    pub fn pool(&self, id: PoolId) -> Option<&Arc<Pool>> {
        self.pools.get(&id)
    }

    /// The opening of a pool that counts; `None` when it has failed or is gone.
    #[must_use]
    pub fn opened(&self, pool: PoolId) -> Option<Incarnation> {
        self.pools.get(&pool).and_then(|pool| pool.opened())
    }

    /// How many nodes have a pool that takes replicas.
    #[must_use]
    pub fn nodes_with_pools(&self) -> u32 {
        let mut nodes: Vec<NodeId> = self
            .pools
            .values()
            .filter(|pool| pool.takes_replicas())
            .map(|pool| pool.node)
            .collect();
        nodes.sort_unstable();
        nodes.dedup();
        u32::try_from(nodes.len()).unwrap_or(u32::MAX)
    }

    /// The volumes, by number.
    #[must_use]
    pub fn volumes(&self) -> &Chunked<VolumeId, Volume> {
        &self.volumes
    }

    /// One volume.
    #[must_use]
    pub fn volume(&self, id: VolumeId) -> Option<&Arc<Volume>> {
        self.volumes.get(&id)
    }

    /// The volume of that name.
    #[must_use]
    pub fn volume_by_name(&self, name: &str) -> Option<&Arc<Volume>> {
        self.names.get(&name.to_owned()).and_then(|id| self.volumes.get(id))
    }

    /// One slice's configuration.
    #[must_use]
    pub fn slice(&self, id: SliceId) -> Option<&Arc<SliceConfig>> {
        self.volumes.get(&id.volume)?.slices.get(id.index.0 as usize)
    }

    /// Every slice of every volume.
    pub fn slices(&self) -> impl Iterator<Item = (SliceId, &Arc<SliceConfig>)> {
        self.volumes.iter().flat_map(|(_, volume)| volume.slices())
    }

    /// The latest events, oldest first.
    #[must_use]
    pub fn events(&self) -> &VecDeque<Arc<Event>> {
        &self.events
    }

    /// Panics if the state contradicts itself.
    ///
    /// # Panics
    /// Then.
    pub fn check_invariants(&self) {
        assert!(self.gossip_keys.len() <= 2, "the key in use and the one before");
        assert!(self.gossip_keys.is_sorted_by_key(|key| key.id), "keys in order of their ids");
        for (id, node) in &self.nodes {
            assert!(*id == node.id && id.0 < self.next_node, "{id:?} is in its place");
        }
        for (id, pool) in &self.pools {
            assert!(*id == pool.id && id.0 < self.next_pool, "{id:?} is in its place");
            assert!(self.nodes.contains_key(&pool.node), "the node of {id:?} exists");
        }
        assert_eq!(self.names.len(), self.volumes.len(), "one name a volume");
        for (id, volume) in self.volumes.iter() {
            assert!(*id == volume.id && id.0 < self.next_volume, "{id:?} is in its place");
            assert_eq!(self.names.get(&volume.name).map(|id| **id), Some(*id), "{id:?}'s name");
            self.check_volume(volume);
        }
    }

    fn check_volume(&self, volume: &Volume) {
        assert!(volume.spec.check().is_ok(), "{:?} could be created so", volume.name);
        assert_eq!(volume.slices.len() as u64, volume.spec.slice_count(), "all of {:?}", volume.id);
        for (id, slice) in volume.slices() {
            slice.check_invariants();
            assert_eq!(slice.min_in_sync, volume.spec.effective_min_in_sync(), "minimum of {id:?}");
            for member in slice.members() {
                let pool = self.pools.get(&member.pool);
                assert_eq!(pool.map(|p| p.node), Some(member.node), "{id:?} {member:?}");
            }
        }
        if let Some(attachment) = &volume.attachment {
            assert!(attachment.epoch <= volume.last_attachment, "{:?} was granted", volume.id);
            assert!(self.nodes.contains_key(&attachment.node), "the holder of {:?}", volume.id);
        }
    }
}

impl fmt::Display for ClusterVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for ClusterVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version{}", self.0)
    }
}
