//! What a seed means: the cluster, its options, the workload and the faults.

use std::time::Duration;

use mooring_config::{
    Admission, Assignment, Boot, Class, ClusterId, Command as ConfigCommand, Done, Filesystem,
    Fingerprint, Genesis, NEWEST_VERSION, NewNode, TokenHash, UnixMillis, VolumeRequest,
    VolumeSpec, WrappedKey,
};
use mooring_replication::Options;
use mooring_terms::{Incarnation, NodeId, PoolId, Time, VolumeId};

use super::node::Node;
use super::prng::Prng;
use super::store::ModelPool;
use super::time::Clock;
use super::{Happening, Sim};

pub use super::faults::FaultKind;

/// Bytes of every pool: more than a run can fill; full pools are a fault of their own.
pub const POOL_BYTES: u64 = 64 << 20;

/// Blocks in each slice: the smallest volume has one.
pub const SLICE_BLOCKS: u64 = 256;

/// Segments of an engine's pool.
const ROOMY: u64 = 28;
const SMALL: u64 = 18;

/// What the replicas lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// Ordered maps.
    Model,
    /// The real engine on its memory disk, in pools with room.
    Engine,
    /// The same in pools so small that reclaim is always at work and segments are written over and
    /// over.
    SmallEngine,
}

impl StoreKind {
    /// Whether it is the real engine.
    #[must_use]
    pub fn is_engine(self) -> bool {
        self != Self::Model
    }
}

/// One volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumePlan {
    /// How many slices.
    pub slices: u32,
    /// How many replicas of each.
    pub replicas: u32,
}

/// All that a seed decides before the run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// How many nodes.
    pub nodes: u32,
    /// The volumes.
    pub volumes: Vec<VolumePlan>,
    /// What the replicas lie in.
    pub store: StoreKind,
    /// What the cores are set to.
    pub options: Options,
    /// Bytes of acknowledged writes that a client keeps.
    pub keep_bytes: u64,
    /// Each node's clock runs fast by so many parts per million.
    pub drift_ppm: Vec<i64>,
    /// After one of so many appends to a small pool, a copy of it loses its power, and what would be
    /// found is compared.
    pub crash_every: u64,
    /// The most blocks of one operation.
    pub most_blocks: u64,
    /// How many operations clients ask for while faults come.
    pub operations: u32,
    /// The faults, and when each begins.
    pub faults: Vec<(Time, FaultKind)>,
    /// When everything is healed.
    pub healed: Time,
}

impl Plan {
    /// The plan that `seed` names.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let mut prng = Prng::new(seed ^ 0x706c_616e);
        let nodes = u32::try_from(prng.within(3..6)).expect("few");
        let volumes = volumes(&mut prng);
        let mut options = options(&mut prng);
        let drift = i64::try_from(prng.within(0..3)).expect("few") * 5_000;
        let drift_ppm = (0..nodes)
            .map(|_| {
                if drift == 0 {
                    0
                } else {
                    i64::try_from(prng.next() % 20_001).expect("few") - 10_000
                }
            })
            .collect();
        let store = match seed % 8 {
            3 => StoreKind::Engine,
            7 => StoreKind::SmallEngine,
            _ => StoreKind::Model,
        };
        if store.is_engine() {
            // Its pools are small, so that segments are used again: windows must fit into them.
            options.copy_window_bytes = options.copy_window_bytes.min(64 << 10);
            options.credit_step_bytes = options.credit_step_bytes.min(64 << 10);
            options.credit_idle_bytes = options.credit_idle_bytes.min(64 << 10);
        }
        if store == StoreKind::SmallEngine {
            // What is only set aside must leave room for reclaim.
            options.copy_window_bytes = options.copy_window_bytes.min(32 << 10);
            options.credit_step_bytes = options.credit_step_bytes.min(32 << 10);
            options.credit_idle_bytes = options.credit_idle_bytes.min(32 << 10);
        }
        let mut faults = super::faults::draw(&mut prng, nodes, options.grace);
        if store == StoreKind::SmallEngine {
            for (_, kind) in faults.iter_mut().skip(2).step_by(4) {
                *kind = FaultKind::CutInReclaim;
            }
        }
        let last = faults.last().map_or(Time::ZERO, |(at, _)| *at);
        Self {
            seed,
            nodes,
            volumes,
            store,
            keep_bytes: match prng.within(0..3) {
                2 if seed.is_multiple_of(3) => 16 << 10,
                2 => 8 << 10,
                _ => 64 << 20,
            },
            options,
            drift_ppm,
            crash_every: 32,
            // Records of one size lie in a segment where others of its earlier lives did.
            most_blocks: if store == StoreKind::SmallEngine && seed & 8 != 0 { 1 } else { 4 },
            // Enough to fill a small pool several times.
            operations: if store == StoreKind::SmallEngine { 800 } else { 320 },
            faults,
            healed: last + Duration::from_secs(2),
        }
    }

    /// A quiet cluster of three nodes, one volume of one slice with three replicas: the stage for
    /// a scenario.
    #[must_use]
    pub fn quiet(seed: u64, nodes: u32, volume: VolumePlan) -> Self {
        Self {
            seed,
            nodes,
            volumes: vec![volume],
            store: StoreKind::Model,
            options: Options { restart_wait: Duration::from_secs(6), ..Options::default() },
            keep_bytes: 64 << 20,
            drift_ppm: vec![0; nodes as usize],
            crash_every: 32,
            most_blocks: 4,
            operations: 0,
            faults: Vec::new(),
            healed: Time::ZERO,
        }
    }

    /// The nodes' numbers.
    #[must_use]
    pub fn node_ids(&self) -> Vec<NodeId> {
        (1..=u64::from(self.nodes)).map(NodeId).collect()
    }

    /// The number of the volume at `index`.
    #[must_use]
    pub fn volume_id(&self, index: usize) -> VolumeId {
        VolumeId(index as u64 + 1)
    }
}

fn volumes(prng: &mut Prng) -> Vec<VolumePlan> {
    let replicas = |prng: &mut Prng| prng.pick(&[1, 2, 2, 3, 3, 3, 3, 3]).unwrap_or(3);
    if prng.percent(50) {
        let slices = u32::try_from(prng.within(2..5)).expect("few");
        return vec![VolumePlan { slices, replicas: replicas(prng) }];
    }
    let first = VolumePlan { slices: 2, replicas: replicas(prng) };
    let slices = u32::try_from(prng.within(1..3)).expect("few");
    vec![first, VolumePlan { slices, replicas: replicas(prng) }]
}

/// Windows so small that they are full now and then, times as a user would have them.
fn options(prng: &mut Prng) -> Options {
    let pick = |prng: &mut Prng, of: &[u64]| prng.pick(of).unwrap_or(1 << 20);
    let blocks = 4096;
    Options {
        restart_wait: prng.millis(3_000, 8_000),
        window_bytes: pick(prng, &[8 * blocks, 32 * blocks, 1 << 20]),
        queue_bytes: pick(prng, &[16 * blocks, 1 << 20]),
        copy_window_bytes: pick(prng, &[2 * blocks, 8 * blocks, 1 << 20]),
        copy_step_blocks: pick(prng, &[1, 2, 4]),
        unsynced_bytes: pick(prng, &[16 * blocks, 64 * blocks, 1 << 20]),
        credit_idle_bytes: pick(prng, &[0, 8 * blocks, 64 * blocks]),
        credit_step_bytes: pick(prng, &[8 * blocks, 64 * blocks]),
        credit_idle_after: prng.millis(200, 2_000),
        epochs_kept: usize::try_from(pick(prng, &[4, 16, 256])).expect("few"),
        ..Options::default()
    }
}

impl Sim {
    /// Founds the cluster: nodes, pools and volumes in Raft, daemons about to start.
    pub(super) fn found(&mut self) {
        for (i, id) in self.plan.node_ids().into_iter().enumerate() {
            let offset = self.prng.millis(0, 3_600_000);
            let clock = Clock::new(offset, self.plan.drift_ppm[i]);
            let pool: Box<dyn super::store::Pool> = match self.plan.store {
                StoreKind::Model => Box::new(ModelPool::default()),
                StoreKind::Engine => super::store::engine_pool(self.prng.next(), ROOMY, 0),
                StoreKind::SmallEngine => {
                    super::store::engine_pool(self.prng.next(), SMALL, self.plan.crash_every)
                }
            };
            let mut node = Node::new(id, PoolId(id.0), clock, pool, self.plan.options.clone());
            node.pool.open();
            node.boot = Boot(1);
            node.incarnation = Incarnation(self.prng.next());
            node.power = super::node::Power::Running;
            node.kept.push(node.incarnation);
            node.told = (true, true);
            self.nodes.insert(id, node);
        }
        self.admit();
        self.create_volumes();
        let newest = self.raft.newest();
        for id in self.plan.node_ids() {
            self.raft.learn(id, newest);
            let seen = self.raft.seen_by(id).clone();
            for (slice, config) in seen.slices() {
                if config.member(id).is_some() {
                    self.make_replica(id, slice, Some(config));
                }
            }
            self.queue.after(Duration::ZERO, Happening::Watch(id, 1));
        }
        self.queue.after(Duration::ZERO, Happening::RaftWatch);
        self.queue.after(Duration::from_millis(300), Happening::Attend);
        self.queue.after(Duration::from_secs(1), Happening::Probe);
        for (index, (at, _)) in self.plan.faults.iter().enumerate() {
            self.queue.at(*at, Happening::Fault(index));
        }
    }

    fn decree(&mut self, command: ConfigCommand) -> Done {
        let name = self.raft.name(NodeId(1), Boot(0));
        let now = self.queue.now();
        let (answer, _) = self.raft.apply(now, name, command);
        answer.expect("the founding of a cluster is not refused")
    }

    fn admit(&mut self) {
        let new = |id: NodeId| NewNode {
            name: format!("node{}", id.0),
            addresses: Vec::new(),
            fingerprint: Fingerprint([u8::try_from(id.0).expect("few nodes"); 32]),
            labels: Default::default(),
            version: NEWEST_VERSION,
        };
        self.decree(ConfigCommand::Create(Box::new(Genesis {
            cluster: ClusterId([1; 16]),
            name: "sim".to_owned(),
            ca_certificate: Vec::new(),
            ca_key: WrappedKey::default(),
            gossip_key: [0; 32],
            version: NEWEST_VERSION,
            first: new(NodeId(1)),
        })));
        let token = TokenHash([7; 32]);
        let expires = UnixMillis(u64::MAX);
        self.decree(ConfigCommand::CreateJoinToken { hash: token, expires, uses: 100 });
        for id in self.plan.node_ids() {
            if id != NodeId(1) {
                let admission = Admission { token, node: new(id) };
                self.decree(ConfigCommand::AdmitNode(Box::new(admission)));
            }
            let incarnation = self.nodes[&id].incarnation;
            let pool = self.decree(ConfigCommand::AddPool {
                node: id,
                path: "/pool".to_owned(),
                size: POOL_BYTES,
                class: Class::High,
                measured: false,
                incarnation,
            });
            assert_eq!(pool, Done::Pool(PoolId(id.0)), "pools are numbered as nodes are");
            let boot = Boot(1);
            self.decree(ConfigCommand::NodeStarted {
                node: id,
                boot,
                addresses: Vec::new(),
                version: NEWEST_VERSION,
                still_held: Vec::new(),
            });
        }
    }

    fn create_volumes(&mut self) {
        let nodes = self.plan.node_ids();
        for (index, volume) in self.plan.volumes.clone().into_iter().enumerate() {
            let size = u64::from(volume.slices) * SLICE_BLOCKS * 4096;
            let spec = VolumeSpec {
                size,
                slice_blocks: SLICE_BLOCKS,
                replicas: volume.replicas,
                min_in_sync: None,
                fs: Filesystem::Raw,
                class: None,
                labels: Default::default(),
                nodes: Vec::new(),
                spread: None,
                gather: None,
                replace_after_ms: 600_000,
                io_timeout_ms: None,
            };
            let placement = (0..volume.slices as usize)
                .map(|slice| {
                    let first = index + slice;
                    let of = |i: usize| PoolId(nodes[(first + i) % nodes.len()].0);
                    (0..volume.replicas as usize).map(of).collect()
                })
                .collect();
            let created = self.decree(ConfigCommand::CreateVolume {
                name: format!("volume{index}"),
                request: Box::new(VolumeRequest { size: Some(size), ..VolumeRequest::default() }),
                spec: Box::new(spec),
                placement,
            });
            let expected = self.plan.volume_id(index);
            assert!(matches!(created, Done::Volume { volume, .. } if volume == expected));
        }
    }

    /// What takes a replica's place elsewhere.
    pub(super) fn assignment(slice: mooring_terms::SliceId, node: NodeId) -> Assignment {
        Assignment { slice, pool: PoolId(node.0) }
    }
}
