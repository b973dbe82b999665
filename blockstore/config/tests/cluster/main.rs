//! The state machine from outside: what operators and nodes do, and what is refused.
#![allow(clippy::unwrap_used, clippy::new_without_default, missing_docs)] // Only a test uses it.

mod attachments;
mod changes;
mod machine;
mod members;
mod placement;
mod repair;
mod slices;
mod volumes;

use std::collections::BTreeMap;
use std::sync::Arc;

use mooring_config::{
    Actor, Admission, Boot, Class, ClusterId, ClusterState, ClusterVersion, Command, Done,
    Fingerprint, Genesis, Labels, Member, NEWEST_VERSION, NewNode, Refused, Response, SliceConfig,
    TokenHash, UnixMillis, Volume, VolumeRequest, WrappedKey, placement::Hints,
};
use mooring_terms::{Incarnation, NodeId, PoolId, SliceId, SliceIndex, VolumeId};

/// A cluster with a clock.
pub struct Cluster {
    pub state: ClusterState,
    pub now: u64,
    openings: u64,
}

pub const TOKEN: TokenHash = TokenHash([7; 32]);

impl Cluster {
    /// A cluster of one node, `n1`.
    pub fn new() -> Self {
        Self::at_version(NEWEST_VERSION)
    }

    /// As [`Cluster::new`], at this version of what is written.
    pub fn at_version(version: ClusterVersion) -> Self {
        let mut cluster = Self { state: ClusterState::default(), now: 1_000, openings: 0 };
        let genesis = Genesis {
            cluster: ClusterId([1; 16]),
            name: "test".to_owned(),
            ca_certificate: vec![1, 2, 3],
            ca_key: WrappedKey(vec![4, 5]),
            gossip_key: [9; 32],
            version,
            first: new_node("n1", 1, &[]),
        };
        cluster.must(Command::Create(Box::new(genesis)));
        let expires = UnixMillis(u64::MAX);
        cluster.must(Command::CreateJoinToken { hash: TOKEN, expires, uses: 10_000 });
        cluster
    }

    /// `count` nodes `n1`, `n2`..., each with one pool of 100 GiB, all started.
    pub fn of(count: u64) -> Self {
        let mut cluster = Self::new();
        cluster.pool(1, 100);
        for number in 2..=count {
            cluster.node(&format!("n{number}"), &[]);
            cluster.pool(number, 100);
        }
        for number in 1..=count {
            cluster.start(number, 1, &[]);
        }
        cluster
    }

    pub fn node(&mut self, name: &str, labels: &[(&str, &str)]) -> NodeId {
        let number = self.state.nodes().len() as u64 + 1;
        let node = new_node(name, number, labels);
        let admission = Admission { token: TOKEN, node };
        match self.must(Command::AdmitNode(Box::new(admission))) {
            Done::Node(id) => id,
            other => panic!("{other:?}"),
        }
    }

    /// Adds a pool of `gib` GiB to a node.
    pub fn pool(&mut self, node: u64, gib: u64) -> PoolId {
        self.classed_pool(node, gib, Class::Medium)
    }

    pub fn classed_pool(&mut self, node: u64, gib: u64, class: Class) -> PoolId {
        self.openings += 1;
        let command = Command::AddPool {
            node: NodeId(node),
            path: format!("/pool{}", self.openings),
            size: gib << 30,
            class,
            measured: true,
            incarnation: Incarnation(self.openings),
        };
        match self.must(command) {
            Done::Pool(id) => id,
            other => panic!("{other:?}"),
        }
    }

    /// Opens a pool anew; its new incarnation.
    pub fn reopen(&mut self, pool: PoolId) -> Incarnation {
        self.openings += 1;
        let incarnation = Incarnation(self.openings);
        let size = self.state.pool(pool).unwrap().size;
        self.must(Command::PoolOpened { pool, incarnation, size });
        incarnation
    }

    pub fn start(&mut self, node: u64, boot: u64, still_held: &[VolumeId]) -> Vec<VolumeId> {
        let command = Command::NodeStarted {
            node: NodeId(node),
            boot: Boot(boot),
            addresses: vec![],
            version: NEWEST_VERSION,
            still_held: still_held.to_vec(),
        };
        match self.must(command) {
            Done::Started { released } => released,
            other => panic!("{other:?}"),
        }
    }

    pub fn apply(&mut self, command: Command) -> Response {
        self.now += 1;
        let before = self.state.clone();
        let by = Actor { node: None, name: "tester".to_owned() };
        let answer = self.state.apply(UnixMillis(self.now), &by, &command);
        self.state.check_invariants();
        if answer.is_err() {
            let changes = mooring_config::changes::between(&before, &self.state);
            assert_eq!(changes, [], "a refusal changes nothing");
        }
        answer
    }

    pub fn must(&mut self, command: Command) -> Done {
        let name = command.name();
        self.apply(command).unwrap_or_else(|refused| panic!("{name}: {refused}"))
    }

    pub fn refused(&mut self, command: Command) -> Refused {
        let name = command.name();
        self.apply(command).err().unwrap_or_else(|| panic!("{name} should be refused"))
    }

    pub fn plan(&self, name: &str, request: &VolumeRequest) -> Result<Command, Refused> {
        mooring_config::placement::plan_create(&self.state, &Hints::default(), name, request)
    }

    /// Creates a volume with default settings but these replicas.
    pub fn volume(&mut self, name: &str, replicas: u32) -> VolumeId {
        let replicas = Some(replicas);
        self.volume_of(name, &VolumeRequest { replicas, ..VolumeRequest::default() })
    }

    pub fn volume_of(&mut self, name: &str, request: &VolumeRequest) -> VolumeId {
        let command = self.plan(name, request).unwrap_or_else(|refused| panic!("{refused}"));
        match self.must(command) {
            Done::Volume { volume, .. } => volume,
            other => panic!("{other:?}"),
        }
    }

    pub fn get(&self, volume: VolumeId) -> Arc<Volume> {
        Arc::clone(self.state.volume(volume).unwrap())
    }

    /// The only slice of a volume.
    pub fn slice(&self, volume: VolumeId) -> SliceConfig {
        (**self.state.slice(first_slice(volume)).unwrap()).clone()
    }

    /// The pool of a node that was made by [`Self::of`].
    pub fn pool_of(&self, node: NodeId) -> PoolId {
        self.state.pools().values().find(|pool| pool.node == node).unwrap().id
    }

    /// The member that a node would be with its pool's current opening.
    pub fn current(&self, member: &Member) -> Member {
        Member { incarnation: self.state.opened(member.pool).unwrap(), ..*member }
    }
}

pub fn first_slice(volume: VolumeId) -> SliceId {
    SliceId { volume, index: SliceIndex(0) }
}

pub fn new_node(name: &str, number: u64, labels: &[(&str, &str)]) -> NewNode {
    let labels: Labels = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect::<BTreeMap<_, _>>();
    let mut fingerprint = [0; 32];
    fingerprint[..8].copy_from_slice(&number.to_le_bytes());
    NewNode {
        name: name.to_owned(),
        addresses: vec![],
        fingerprint: Fingerprint(fingerprint),
        labels,
        version: NEWEST_VERSION,
    }
}
