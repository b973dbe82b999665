//! A cluster for the tests of this crate.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use mooring_config::{Member, SliceChange, SliceConfig};
use mooring_device::BlockIo;
use mooring_engine::{FormatOptions, MemoryDisk, OpenOptions, Pool as Engine};
use mooring_replication::{
    ClientId, ClientOptions, ClientRole, Event, Opened, Options, ProposalId, ProposalOutcome,
    Replica, VolumeClient,
};
use mooring_terms::{
    AttachmentEpoch, BLOCK_SIZE, Epoch, Incarnation, NodeId, PoolId, SliceId, SliceIndex, VolumeId,
};
use mooring_transport::{
    Admission, CertificateAuthority, Endpoint, EndpointConfig, Fingerprint, Handler, Limits,
    LinkHandler, Message, Services, Transport,
};
use parking_lot::Mutex;

use crate::admission::Peer;
use crate::data_plane::{ConfigPort, DataPlane};
use crate::disk_watch::WatchedDisk;
use crate::event_log::EventLog;
use crate::pool::{Pool, PoolWatch};
use crate::remote::CoordinatorVolume;
use crate::remote::proto::{Told, VolumeTold};
use crate::slice::Slice;
use crate::volume::{Attachment, Volume, VolumeParts};

/// The only slice of a volume.
pub fn slice(volume: u64) -> SliceId {
    SliceId { volume: VolumeId(volume), index: SliceIndex(0) }
}

/// Pool `number` of a node.
pub fn pool_id(node: u64, number: u64) -> PoolId {
    PoolId(node * 10 + number)
}

/// Blocks in each volume.
const VOLUME_BLOCKS: u64 = 1 << 20;

fn incarnation(pool: PoolId) -> Incarnation {
    Incarnation(pool.0)
}

/// What Raft would hold, and the thread that applies changes to it.
pub struct Table {
    jobs: mpsc::Sender<Job>,
    configs: Mutex<BTreeMap<SliceId, SliceConfig>>,
    holders: Mutex<BTreeMap<VolumeId, (NodeId, AttachmentEpoch)>>,
    rows: Mutex<BTreeMap<NodeId, (Fingerprint, SocketAddr)>>,
    /// Blocks in each slice of the volumes that have several.
    cut: Mutex<BTreeMap<VolumeId, u64>>,
    nodes: Mutex<Vec<Weak<RigNode>>>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Table {
    fn new() -> Arc<Self> {
        let (jobs, next) = mpsc::channel::<Job>();
        thread::spawn(move || next.into_iter().for_each(|job| job()));
        Arc::new(Self {
            jobs,
            configs: Mutex::default(),
            holders: Mutex::default(),
            rows: Mutex::default(),
            cut: Mutex::default(),
            nodes: Mutex::default(),
        })
    }

    fn slice_blocks(&self, volume: VolumeId) -> u64 {
        self.cut.lock().get(&volume).copied().unwrap_or(1 << 30)
    }

    fn slices(&self, volume: VolumeId) -> Vec<(SliceId, SliceConfig)> {
        let configs = self.configs.lock();
        let own = configs.iter().filter(|(slice, _)| slice.volume == volume);
        own.map(|(slice, config)| (*slice, config.clone())).collect()
    }

    fn later(&self, job: impl FnOnce() + Send + 'static) {
        let _ = self.jobs.send(Box::new(job));
    }
}

impl Admission for Table {
    fn node_of(&self, fingerprint: &Fingerprint) -> Option<NodeId> {
        self.rows.lock().iter().find(|(_, row)| row.0 == *fingerprint).map(|(&node, _)| node)
    }

    fn fingerprint_of(&self, node: NodeId) -> Option<Fingerprint> {
        self.rows.lock().get(&node).map(|row| row.0)
    }

    fn address_of(&self, node: NodeId) -> Option<SocketAddr> {
        self.rows.lock().get(&node).map(|row| row.1)
    }
}

/// An open pool and the disk beneath it.
type OpenPool = (Arc<Pool>, Arc<MemoryDisk>);

/// One node.
pub struct RigNode {
    pub id: NodeId,
    pub plane: Arc<DataPlane>,
    pub pools: Mutex<BTreeMap<PoolId, OpenPool>>,
    table: Arc<Table>,
    endpoint: Arc<Endpoint>,
    identity: Vec<u8>,
    this: Weak<Self>,
}

impl ConfigPort for RigNode {
    fn propose(&self, id: SliceId, proposal: ProposalId, change: SliceChange) {
        let this = self.this.upgrade().unwrap();
        self.table.later(move || {
            let mut configs = this.table.configs.lock();
            let config = configs.get_mut(&id).unwrap();
            let result = config
                .check_entitled(&change)
                .and_then(|()| config.apply(&change, |pool| Some(incarnation(pool))));
            let config = config.clone();
            drop(configs);
            let outcome = match &result {
                Ok(()) => ProposalOutcome::Accepted(config.clone()),
                Err(refused) => ProposalOutcome::Refused(refused.clone(), config.clone()),
            };
            if let Some(slice) = this.plane.slice(id) {
                slice.deliver(Event::Proposed { id: proposal, outcome });
            }
            if result.is_ok() {
                for node in this.table.nodes.lock().iter().filter_map(Weak::upgrade) {
                    node.plane.configured(id, &config);
                }
            }
        });
    }

    fn query(&self, id: SliceId) {
        let this = self.this.upgrade().unwrap();
        self.table.later(move || {
            let config = this.table.configs.lock().get(&id).cloned();
            if let Some(config) = config {
                this.plane.configured(id, &config);
            }
        });
    }

    fn holder(&self, volume: VolumeId) -> Option<(NodeId, AttachmentEpoch)> {
        self.table.holders.lock().get(&volume).copied()
    }

    fn node_name(&self, node: NodeId) -> String {
        format!("{node}")
    }

    fn slice_name(&self, slice: SliceId) -> String {
        format!("{slice}")
    }

    fn tell(&self, volume: VolumeId, slices: &[SliceIndex]) -> Told {
        let peer = |(&node, (fingerprint, address)): (&NodeId, &(Fingerprint, SocketAddr))| Peer {
            node,
            fingerprint: *fingerprint.as_bytes(),
            address: *address,
        };
        let configs = self.table.configs.lock();
        let config =
            |&index: &SliceIndex| Some((index, configs.get(&SliceId { volume, index })?.clone()));
        Told {
            node: self.id,
            nodes: self.table.rows.lock().iter().map(peer).collect(),
            volume: Some(VolumeTold {
                id: volume,
                size: VOLUME_BLOCKS * BLOCK_SIZE as u64,
                slice_blocks: self.table.slice_blocks(volume),
                coordinator: self.holder(volume),
            }),
            slices: slices.iter().filter_map(config).collect(),
            identity: None,
        }
    }

    fn identity(&self) -> Option<Vec<u8>> {
        Some(self.identity.clone())
    }

    fn heard(&self, _from: NodeId) {}

    fn control(&self, _from: NodeId, _message: Message) {}

    fn control_broken(&self, _peer: NodeId) {}
}

impl PoolWatch for RigNode {
    fn pool_failed(&self, pool: PoolId, _incarnation: Incarnation, reason: String) {
        panic!("pool {pool} has failed: {reason}");
    }

    fn replica_failed(&self, pool: PoolId, slice: SliceId, reason: String) {
        panic!("slice {slice} in pool {pool} has failed: {reason}");
    }

    fn pool_busy(&self) {
        self.plane.beacons().pool_busy();
    }

    fn pool_hangs(&self, pool: PoolId, hangs: bool) {
        let this = self.this.upgrade().unwrap();
        thread::spawn(move || {
            let pool = Arc::clone(&this.pools.lock()[&pool].0);
            if hangs {
                this.plane.resign_while_hung(&pool);
            } else {
                this.plane.go_on_after_hang(&pool, Duration::from_millis(1_800));
            }
        });
    }
}

impl RigNode {
    fn start(
        id: NodeId,
        pools: u64,
        authority: &CertificateAuthority,
        table: &Arc<Table>,
    ) -> Arc<Self> {
        let year = Duration::from_secs(365 * 86_400);
        let identity = authority.issue(id, &[], SystemTime::now(), year).unwrap();
        let fingerprint = identity.fingerprint();
        let own = identity.to_bytes().to_vec();
        let endpoint = Arc::new(
            Endpoint::bind(EndpointConfig {
                node: id,
                listen: SocketAddr::from(([127, 0, 0, 1], 0)),
                identity,
                admission: Arc::clone(table) as Arc<dyn Admission>,
                limits: Limits::default(),
                unprotected: mooring_transport::Unprotected::default(),
            })
            .unwrap(),
        );
        table.rows.lock().insert(id, (fingerprint, endpoint.local_addr()));
        let plane = DataPlane::new(id, &Options::default(), Arc::new(EventLog::default()));
        let node = Arc::new_cyclic(|this| Self {
            id,
            plane,
            pools: Mutex::default(),
            table: Arc::clone(table),
            endpoint,
            identity: own,
            this: this.clone(),
        });
        let config: Weak<dyn ConfigPort> = node.this.clone();
        node.plane.start(Arc::clone(&node.endpoint) as Arc<dyn Transport>, config);
        for number in 1..=pools {
            node.add_pool(pool_id(id.0, number));
        }
        table.nodes.lock().push(Arc::downgrade(&node));
        node
    }

    fn add_pool(&self, id: PoolId) {
        let disk = Arc::new(MemoryDisk::new(2 << 30));
        let format = FormatOptions { size_bytes: 1 << 30, segment_bytes: 16 << 20, tag: id.0 };
        Engine::format(&*disk, &format).unwrap();
        let (watched, movement) = WatchedDisk::new(Arc::clone(&disk) as _);
        let options = OpenOptions { opening: id.0, ..OpenOptions::default() };
        let (engine, _) = Engine::open(Arc::new(watched), options).unwrap();
        let watch: Weak<dyn PoolWatch> = self.this.clone();
        let pool = Pool::start(id, incarnation(id), PathBuf::new(), engine, movement, watch);
        self.plane.beacons().watch(&pool);
        self.pools.lock().insert(id, (pool, disk));
    }

    /// Holds a new replica in a pool.
    pub fn hold(&self, id: SliceId, pool: PoolId, config: &SliceConfig) {
        let pool = Arc::clone(&self.pools.lock()[&pool].0);
        pool.engine().create(id, Bytes::new()).unwrap();
        let info = pool.engine().replica(id).unwrap();
        let me = *config.member(self.id).unwrap();
        let opened =
            Opened { state: info.state, last: info.last, kept: Vec::new(), damaged: false };
        let replica = Replica::new(id, me, opened, None, Options::default()).unwrap();
        let slice = Slice::new(
            replica,
            id,
            pool,
            Arc::clone(self.plane.beacons()),
            Arc::clone(self.plane.slice_timers()),
            self.plane.slice_ports(),
        );
        self.plane.add_slice(slice, config.clone());
    }

    /// The node is gone, as after a power cut.
    pub fn kill(&self) {
        self.plane.stop();
        self.endpoint.shutdown();
    }

    /// Begins to use a volume here.
    pub fn open(&self, volume: u64, epoch: u64, client: u64) -> User {
        User(self.open_as(volume, epoch, client, ClientRole::Device))
    }

    /// Begins to coordinate a volume here.
    pub fn coordinate(&self, volume: u64, epoch: u64, client: u64) -> CoordinatorVolume {
        let volume = self.open_as(volume, epoch, client, ClientRole::Coordinator);
        CoordinatorVolume::new(volume, Arc::clone(&self.plane), Options::default().lease)
    }

    fn open_as(&self, volume: u64, epoch: u64, client: u64, role: ClientRole) -> Arc<Volume> {
        let id = VolumeId(volume);
        let (client, epoch) = (ClientId(client), AttachmentEpoch(epoch));
        let slice_blocks = self.table.slice_blocks(id);
        let options = ClientOptions::new(client, id, epoch, VOLUME_BLOCKS, slice_blocks);
        let options = ClientOptions { role, ..options };
        let parts = VolumeParts {
            id,
            client,
            epoch,
            read_only: false,
            size_bytes: VOLUME_BLOCKS * BLOCK_SIZE as u64,
            slice_blocks,
            io_timeout: None,
            first_stream: 1 << 32,
            core: VolumeClient::new(options),
        };
        let timers = Arc::clone(self.plane.volume_timers());
        let volume = Volume::new(parts, timers, self.plane.volume_ports());
        self.plane.add_volume(Arc::clone(&volume));
        for (slice, config) in self.table.slices(id) {
            volume.configured(slice.index, config);
        }
        volume
    }
}

/// Whoever uses a volume.
#[derive(Clone)]
pub struct User(pub Arc<Volume>);

impl User {
    /// Whether I/O is served, after `patience` at the most.
    pub fn serves_within(&self, patience: Duration) -> bool {
        self.becomes(patience, |state| *state == Attachment::Serving)
    }

    /// Whether the attachment's state becomes what `wanted` says, in that time.
    pub fn becomes(&self, patience: Duration, wanted: impl Fn(&Attachment) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        while !wanted(&self.0.state().borrow()) {
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Begins to write a block; the answer comes later. A thread of its own, as a device has several.
    pub fn begin_write(&self, block: u64, byte: u8) -> mpsc::Receiver<bool> {
        let (done, answer) = mpsc::channel();
        let volume = Arc::clone(&self.0);
        thread::spawn(move || {
            let data = Bytes::from(vec![byte; BLOCK_SIZE]);
            let tell = Box::new(move |result: Result<(), _>| {
                let _ = done.send(result.is_ok());
            });
            volume.write(block * BLOCK_SIZE as u64, data, false, tell);
        });
        answer
    }

    /// Writes a block; says how long it took.
    pub fn write(&self, block: u64, byte: u8) -> Duration {
        let begun = Instant::now();
        let answer = self.begin_write(block, byte);
        let written = answer.recv_timeout(Duration::from_secs(20));
        assert_eq!(written, Ok(true), "block {block} of {}", self.0.id());
        begun.elapsed()
    }

    /// As [`User::write`], on this thread.
    pub fn write_here(&self, block: u64, byte: u8) -> Duration {
        let (done, answer) = mpsc::channel();
        let data = Bytes::from(vec![byte; BLOCK_SIZE]);
        let begun = Instant::now();
        let tell = Box::new(move |result: Result<(), _>| done.send(result.is_ok()).unwrap());
        self.0.write(block * BLOCK_SIZE as u64, data, false, tell);
        assert_eq!(answer.recv_timeout(Duration::from_secs(20)), Ok(true));
        begun.elapsed()
    }

    /// The first byte of a block.
    pub fn read(&self, block: u64) -> u8 {
        let (done, answer) = mpsc::channel();
        let tell = Box::new(move |result: Result<Vec<Bytes>, _>| {
            done.send(result.map(|pieces| pieces[0][0])).unwrap();
        });
        self.0.read(block * BLOCK_SIZE as u64, BLOCK_SIZE as u32, tell);
        answer.recv_timeout(Duration::from_secs(20)).unwrap().unwrap()
    }
}

/// A cluster of nodes with `pools` pools each.
pub struct Rig {
    pub nodes: Vec<Arc<RigNode>>,
    pub table: Arc<Table>,
}

impl Rig {
    pub fn new(nodes: u64, pools: u64) -> Self {
        let authority = CertificateAuthority::create().unwrap();
        let table = Table::new();
        let nodes: Vec<_> =
            (1..=nodes).map(|id| RigNode::start(NodeId(id), pools, &authority, &table)).collect();
        for node in &nodes {
            let handler: Arc<dyn Handler> = Arc::clone(&node.plane) as _;
            let links: Option<Arc<dyn LinkHandler>> = Some(Arc::clone(&node.plane) as _);
            let services = Services { handler, join: None, http: None, links };
            node.endpoint.start(services).unwrap();
            for other in nodes.iter().filter(|other| other.id != node.id) {
                node.plane.connect_peer(other.id);
            }
        }
        Self { nodes, table }
    }

    pub fn node(&self, id: u64) -> &Arc<RigNode> {
        &self.nodes[id as usize - 1]
    }

    /// Makes a volume with a replica in pool `number` of each node; node 1 is primary.
    pub fn make(&self, volume: u64, number: u64) {
        self.make_slice(slice(volume), number, 1);
    }

    /// Makes a volume of several slices, with these primaries. Each slice has a replica in pool
    /// `number` of each node.
    pub fn make_sliced(&self, volume: u64, number: u64, primaries: &[u64]) {
        let volume = VolumeId(volume);
        self.table.cut.lock().insert(volume, VOLUME_BLOCKS / primaries.len() as u64);
        for (index, &primary) in (0..).map(SliceIndex).zip(primaries) {
            self.make_slice(SliceId { volume, index }, number, primary);
        }
    }

    fn make_slice(&self, id: SliceId, number: u64, primary: u64) {
        let member = |node: &Arc<RigNode>| {
            let pool = pool_id(node.id.0, number);
            Member { node: node.id, pool, incarnation: incarnation(pool) }
        };
        let config = SliceConfig {
            epoch: Epoch(1),
            primary: NodeId(primary),
            in_sync: self.nodes.iter().map(member).collect(),
            joining: Vec::new(),
            min_in_sync: if self.nodes.len() > 2 { 2 } else { 1 },
            tail_lost: Epoch(0),
            seal: AttachmentEpoch(0),
        };
        self.table.configs.lock().insert(id, config.clone());
        for node in &self.nodes {
            node.hold(id, pool_id(node.id.0, number), &config);
        }
    }

    /// Has a slice's primary hand over to another node; returns when it has.
    pub fn hand_over(&self, id: SliceId, to: u64) {
        let end = Instant::now() + Duration::from_secs(10);
        while self.slice_config(id).primary != NodeId(to) {
            assert!(Instant::now() < end, "slice {id} is not handed over to {to}");
            let primary = self.slice_config(id).primary;
            if let Some(slice) = self.node(primary.0).plane.slice(id) {
                slice.deliver(Event::HandOver { to: NodeId(to) });
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The node is no longer listed.
    pub fn remove_row(&self, node: u64) {
        self.table.rows.lock().remove(&NodeId(node));
        for node in &self.nodes {
            node.endpoint.refresh();
        }
    }

    /// Node `node` is to use a volume under attachment `epoch`.
    pub fn grant(&self, volume: u64, node: u64, epoch: u64) {
        let held = (NodeId(node), AttachmentEpoch(epoch));
        self.table.holders.lock().insert(VolumeId(volume), held);
    }

    /// Grants a volume to a node, and uses it there.
    pub fn attach(&self, volume: u64, node: u64) -> User {
        self.grant(volume, node, 1);
        let user = self.node(node).open(volume, 1, volume * 100 + node);
        assert!(user.serves_within(Duration::from_secs(10)), "volume {volume} doesn't serve");
        user
    }

    pub fn config(&self, volume: u64) -> SliceConfig {
        self.slice_config(slice(volume))
    }

    pub fn slice_config(&self, id: SliceId) -> SliceConfig {
        self.table.configs.lock()[&id].clone()
    }

    /// Makes a node's disk hang, or go on.
    pub fn hang(&self, node: u64, number: u64, hung: bool) {
        self.node(node).pools.lock()[&pool_id(node, number)].1.hang(hung);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for node in &self.nodes {
            for (pool, disk) in node.pools.lock().values() {
                disk.hang(false);
                pool.stop();
            }
            node.plane.stop();
        }
        for node in &self.nodes {
            node.endpoint.shutdown();
        }
    }
}
