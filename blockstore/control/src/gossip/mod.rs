//! Gossip: hints that may be stale, and decide nothing that must be right.
//!
//! ```text
//!   publish(hints) ──> chitchat ──> SealedUdp: sealed, in pieces ~~~~> the other nodes
//!   peers() <───────────┘
//! ```
//!
//! A node that was restarted shows as a second generation (its [`Boot`]); the highest is the node.
//! Whoever reads must look the node up in the table of the configuration: a node that was removed
//! is remembered here for a while.
#![allow(clippy::disallowed_methods)] // A shell: it gives the time to the pure parts.

mod codec;
mod hint;
pub(crate) mod sealed;
mod socket;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, ProtocolVersion,
    spawn_chitchat,
};
use mooring_config::{Boot, ClusterId, GossipKey};
use mooring_terms::{ErrorKind, NodeId};
use parking_lot::{Mutex, RwLock};

pub use hint::{NodeHints, PoolHint, ResyncHint};
use sealed::Ring;
use socket::{Counters, SealedUdp};

/// How a node's gossip is started.
#[derive(Clone, Debug)]
pub struct GossipOptions {
    /// The node.
    pub node: NodeId,
    /// Its start.
    pub boot: Boot,
    /// The cluster.
    pub cluster: ClusterId,
    /// Where to listen (UDP).
    pub listen: SocketAddr,
    /// Where others find this node; `None` for where it listens.
    pub advertise: Option<SocketAddr>,
    /// Other nodes, to begin with.
    pub peers: Vec<SocketAddr>,
    /// Between two rounds.
    pub interval: Duration,
}

/// Gossip can't be started.
#[derive(Debug, thiserror::Error)]
#[error("gossip can't be started on UDP {listen}: {reason}")]
pub struct GossipError {
    /// Where it was to listen.
    pub listen: SocketAddr,
    /// What the system says.
    pub reason: String,
}

impl GossipError {
    /// What the caller must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Unavailable
    }
}

/// Another node, as gossip has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its latest start.
    pub boot: Boot,
    /// Whether it was heard of lately. A hint: only Raft's leader finds a node gone.
    pub alive: bool,
    /// What it says about itself.
    pub hints: NodeHints,
}

/// What went over the wire since the start; datagrams, but for `received`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GossipCounters {
    /// Sent.
    pub sent: u64,
    /// Messages that arrived whole.
    pub received: u64,
    /// Dropped: their seal doesn't fit.
    pub forged: u64,
    /// Dropped: sealed with a key that isn't in the ring.
    pub unknown_key: u64,
    /// Dropped: can't be read.
    pub malformed: u64,
}

/// One node's gossip. It ends when this is dropped.
pub struct Gossip {
    handle: ChitchatHandle,
    ring: Arc<RwLock<Ring>>,
    counters: Arc<Counters>,
    published: tokio::sync::Mutex<BTreeMap<String, String>>,
    peers: Mutex<HashSet<SocketAddr>>,
}

impl Gossip {
    /// Starts gossip with the keys of the configuration, the one in use last.
    ///
    /// # Errors
    /// [`GossipError`] if the address can't be listened on.
    pub async fn start(options: GossipOptions, keys: &[GossipKey]) -> Result<Self, GossipError> {
        let mut ring = Ring::new();
        ring.set(keys, Instant::now());
        let ring = Arc::new(RwLock::new(ring));
        let counters = Arc::new(Counters::default());
        let transport = SealedUdp { ring: Arc::clone(&ring), counters: Arc::clone(&counters) };
        let advertise = options.advertise.unwrap_or(options.listen);
        let id = ChitchatId::new(options.node.to_string(), options.boot.0, advertise);
        let config = ChitchatConfig {
            chitchat_id: id,
            cluster_id: options.cluster.to_string(),
            gossip_interval: options.interval,
            listen_addr: options.listen,
            seed_nodes: options.peers.iter().map(ToString::to_string).collect(),
            failure_detector_config: FailureDetectorConfig {
                initial_interval: options.interval * 2,
                dead_node_grace_period: Duration::from_secs(10 * 60),
                ..FailureDetectorConfig::default()
            },
            marked_for_deletion_grace_period: Duration::from_secs(60),
            catchup_callback: None,
            extra_liveness_predicate: None,
            // The first version of this software already reads compressed digests.
            protocol_version: ProtocolVersion::V1,
        };
        let handle = spawn_chitchat(config, Vec::new(), &transport).await.map_err(|error| {
            GossipError { listen: options.listen, reason: format!("{error:#}") }
        })?;
        Ok(Self {
            handle,
            ring,
            counters,
            published: tokio::sync::Mutex::default(),
            peers: Mutex::new(options.peers.into_iter().collect()),
        })
    }

    /// Takes new keys, the one in use last. The one before is accepted for 30 s more.
    pub fn set_keys(&self, keys: &[GossipKey]) {
        self.ring.write().set(keys, Instant::now());
    }

    /// Greets the nodes that it didn't know of. Call it as the table of nodes changes, and now and
    /// then (a datagram may be lost).
    pub fn set_peers(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        let addresses: HashSet<SocketAddr> = addresses.into_iter().collect();
        for address in &addresses {
            // Fails only when gossip has ended.
            let _ = self.handle.gossip(*address);
        }
        *self.peers.lock() = addresses;
    }

    /// Says this about this node from now on, and nothing of what it said before.
    pub async fn publish(&self, hints: &NodeHints) {
        let pairs = hints.to_pairs();
        let mut published = self.published.lock().await;
        if *published == pairs {
            return;
        }
        let before = std::mem::take(&mut *published);
        self.handle
            .with_chitchat(|chitchat| {
                let state = chitchat.self_node_state();
                for (key, value) in &pairs {
                    if before.get(key) != Some(value) {
                        state.set(key, value);
                    }
                }
                for key in before.keys().filter(|key| !pairs.contains_key(*key)) {
                    state.delete(key);
                }
            })
            .await;
        *published = pairs;
    }

    /// All nodes that it knows of, this one among them, each in its latest generation.
    pub async fn peers(&self) -> BTreeMap<NodeId, Peer> {
        self.handle
            .with_chitchat(|chitchat| {
                let live: HashSet<ChitchatId> = chitchat.live_nodes().cloned().collect();
                let own = chitchat.self_chitchat_id().clone();
                let mut peers: BTreeMap<NodeId, Peer> = BTreeMap::new();
                for (id, state) in chitchat.node_states() {
                    let Ok(node) = id.node_id.parse().map(NodeId) else { continue };
                    let boot = Boot(id.generation_id);
                    if peers.get(&node).is_some_and(|known| known.boot >= boot) {
                        continue;
                    }
                    let alive = *id == own || live.contains(id);
                    let hints = NodeHints::from_pairs(state.key_values());
                    peers.insert(node, Peer { boot, alive, hints });
                }
                peers
            })
            .await
    }

    /// What went over the wire since the start.
    #[must_use]
    pub fn counters(&self) -> GossipCounters {
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        GossipCounters {
            sent: read(&self.counters.sent),
            received: read(&self.counters.received),
            forged: read(&self.counters.forged),
            unknown_key: read(&self.counters.unknown_key),
            malformed: read(&self.counters.malformed),
        }
    }
}

impl Drop for Gossip {
    fn drop(&mut self) {
        self.handle.abort();
    }
}
