//! Clusters of real nodes in one process: real Raft, real stores, an in-memory network.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)] // These tests run in real time.

mod certificates;
mod failures;
mod gossip;
mod growth;
mod load;
mod proposals;
mod requests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mooring_config::{
    Actor, Admission, Boot, ClusterId, ClusterState, Command, Done, Fingerprint, Genesis,
    NEWEST_VERSION, NewNode, TokenHash, UnixMillis, WrappedKey,
};
use mooring_control::rpc::{MemoryNetwork, Rpc};
use mooring_control::{Control, Options, Status, Timings};
use mooring_terms::NodeId;
use tempfile::TempDir;
use tokio::runtime::Handle;

pub const TOKEN: TokenHash = TokenHash([7; 32]);

pub struct Node {
    pub control: Arc<Control>,
    pub rpc: Arc<Rpc>,
}

pub struct Cluster {
    pub network: Arc<MemoryNetwork>,
    pub nodes: BTreeMap<u64, Node>,
    boots: BTreeMap<u64, u64>,
    dir: TempDir,
    timings: Timings,
}

pub fn by() -> Actor {
    Actor { node: None, name: "test".to_owned() }
}

impl Cluster {
    /// A cluster of one.
    pub async fn new() -> Self {
        let genesis = Genesis {
            cluster: ClusterId([1; 16]),
            name: "test".to_owned(),
            ca_certificate: vec![1],
            ca_key: WrappedKey(vec![2]),
            gossip_key: [3; 32],
            version: NEWEST_VERSION,
            first: new_node(1),
        };
        let cluster = Self::begun_with(genesis).await;
        let expires = UnixMillis(u64::MAX);
        cluster.must(1, Command::CreateJoinToken { hash: TOKEN, expires, uses: 100 }).await;
        cluster
    }

    /// A cluster of one that begins with `genesis`.
    pub async fn begun_with(genesis: Genesis) -> Self {
        let mut cluster = Self {
            network: MemoryNetwork::new(),
            nodes: BTreeMap::new(),
            boots: BTreeMap::new(),
            dir: tempfile::tempdir().unwrap(),
            timings: Timings { propose_ms: 4_000, ..Timings::default() },
        };
        cluster.start(1).await;
        cluster.at(1).create(by(), genesis).await.unwrap();
        cluster
    }

    /// A cluster of `count` nodes, with its voters in place.
    pub async fn of(count: u64) -> Self {
        let mut cluster = Self::new().await;
        for number in 2..=count {
            cluster.join(number, 1).await;
        }
        let voters = if count >= 3 { 3 } else { 1 };
        cluster
            .until("the voters are in place", |c| {
                // While they are being changed, the first one is still needed for every decision.
                let settled = |status: Status| status.voters.len() == voters && !status.changing;
                c.nodes.values().all(|node| settled(node.control.status()))
            })
            .await;
        cluster
    }

    pub fn at(&self, node: u64) -> &Arc<Control> {
        &self.nodes[&node].control
    }

    /// Starts a node, for the first time or again.
    pub async fn start(&mut self, number: u64) {
        let rpc = Rpc::new(NodeId(number), self.network.wire(NodeId(number)), Handle::current());
        self.network.attach(&rpc);
        let boot = self.boots.entry(number).or_default();
        *boot += 1;
        let options = Options {
            node: NodeId(number),
            boot: Boot(*boot),
            store: self.store(number),
            timings: self.timings,
        };
        let control = Control::start(options, Arc::clone(&rpc)).await.unwrap();
        self.nodes.insert(number, Node { control, rpc });
    }

    pub fn store(&self, number: u64) -> PathBuf {
        self.dir.path().join(format!("node{number}.redb"))
    }

    /// Stops a node as `kill -9` does: what its store had not written by now is gone.
    pub async fn kill(&mut self, number: u64) {
        let (path, copy) = (self.store(number), self.store(number).with_extension("copy"));
        std::fs::copy(&path, &copy).unwrap();
        self.stop(number).await;
        std::fs::rename(copy, path).unwrap();
    }

    /// Admits a node through `through`, and starts it.
    pub async fn join(&mut self, number: u64, through: u64) {
        let admission = Admission { token: TOKEN, node: new_node(number) };
        let done = self.must(through, Command::AdmitNode(Box::new(admission))).await;
        assert_eq!(done, Done::Node(NodeId(number)));
        self.start(number).await;
    }

    /// Stops a node; nothing of it answers any more.
    pub async fn stop(&mut self, number: u64) {
        let node = self.nodes.remove(&number).unwrap();
        node.control.shutdown().await.unwrap();
    }

    pub async fn must(&self, node: u64, command: Command) -> Done {
        let name = command.name();
        let done = self.at(node).propose(by(), command).await;
        done.unwrap_or_else(|error| panic!("{name} at node {node}: {error}"))
    }

    pub async fn label(&self, node: u64, key: &str, value: &str) {
        let labels = vec![(key.to_owned(), Some(value.to_owned()))];
        self.must(node, Command::LabelNode { node: NodeId(1), labels }).await;
    }

    /// Waits until it is so, up to 10 s; how long it took.
    pub async fn until(&self, what: &str, so: impl Fn(&Self) -> bool) -> Duration {
        let started = Instant::now();
        while !so(self) {
            assert!(started.elapsed() < Duration::from_secs(10), "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        started.elapsed()
    }

    pub fn leader(&self) -> Option<u64> {
        let leads = |node: &Node| {
            node.control.is_leader() && node.control.status().has_quorum == Some(true)
        };
        self.nodes.iter().find(|(_, node)| leads(node)).map(|(number, _)| *number)
    }

    /// Every node has the same state.
    pub async fn settled(&self) {
        self.until("all nodes agree", |c| {
            let states: Vec<Arc<ClusterState>> =
                c.nodes.values().map(|node| node.control.state()).collect();
            states.windows(2).all(|pair| pair[0] == pair[1])
        })
        .await;
    }
}

pub fn label_of(control: &Control, key: &str) -> Option<String> {
    control.state().node(NodeId(1)).and_then(|node| node.label(key).map(ToOwned::to_owned))
}

pub fn new_node(number: u64) -> NewNode {
    let mut fingerprint = [0; 32];
    fingerprint[..8].copy_from_slice(&number.to_le_bytes());
    NewNode {
        name: format!("n{number}"),
        addresses: vec![],
        fingerprint: Fingerprint(fingerprint),
        labels: BTreeMap::new(),
        version: NEWEST_VERSION,
    }
}
