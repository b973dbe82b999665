//! One node of a cluster: its pools, its replicas, its volumes, and its part in the configuration.
//!
//! ```text
//!   start:  own facts ─> Raft ─> pools opened ─> streams ─> follow the configuration
//! ```
//!
//! Everything above uses this type and [`crate::Volume`], and nothing else of the block store.

mod config_events;
mod coordination;
mod error;
mod hand_over;
mod hints;
mod inquiry;
pub(crate) mod membership;
mod pools;
mod proposals;
mod reconcile;
mod repair;
#[cfg(test)]
mod tests;
mod volumes;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use mooring_config::{Actor, Boot, ClusterState, Command, Done, NEWEST_VERSION};
use mooring_control::certificates::Certificates;
use mooring_control::gossip::Gossip;
use mooring_control::rpc::{Rpc, Wire, WireDown};
use mooring_control::{Control, Timings};
use mooring_replication::Options as ReplicationOptions;
use mooring_terms::{NodeId, VolumeId};
use mooring_transport::{
    Channel, Endpoint, EndpointConfig, Handler, HttpHandler, Identity, Limits, Message, Services,
    Transport, Unprotected,
};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::admission::{AdmissionTable, Peer};
use crate::data_plane::{ConfigPort, DataPlane};
use crate::event_log::EventLog;
use crate::node_store::{Membership, NodeStore};
use crate::remote::Door;
use pools::Pools;
use proposals::Proposals;

pub use error::NodeError;
pub use inquiry::{JoinReport, NodeReport, OtherReport, PoolReport, SliceReport};
pub use membership::{NewMember, create, join};
pub use volumes::OpenVolume;

/// Between two tries of something that must be known to the cluster in the end.
const ANNOUNCE_PAUSE: Duration = Duration::from_millis(300);

/// How long the hand-over of primaries may take when the node stops.
const HAND_OVER_LIMIT: Duration = Duration::from_millis(1_000);

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where it keeps the configuration.
    pub data: PathBuf,
    /// Replication's times and windows.
    pub replication: ReplicationOptions,
    /// Raft's times.
    pub timings: Timings,
    /// Bytes of memory for each pool's map.
    pub pool_memory: usize,
    /// The volumes whose devices a holder process still serves.
    pub still_held: Vec<VolumeId>,
    /// What may go over ZeroMQ in place of TLS.
    pub unprotected: Unprotected,
}

/// One running node. Stops with [`Node::stop`].
pub struct Node {
    id: NodeId,
    cluster: [u8; 16],
    boot: Boot,
    options: NodeOptions,
    store: NodeStore,
    control: Arc<Control>,
    certificates: Arc<Certificates>,
    gossip: tokio::sync::OnceCell<Gossip>,
    rpc: Arc<Rpc>,
    endpoint: Arc<Endpoint>,
    plane: Arc<DataPlane>,
    pools: Pools,
    proposals: Proposals,
    events: Arc<EventLog>,
    current: Arc<ArcSwap<ClusterState>>,
    again: Notify,
    /// Where processes of this machine come in.
    door: Mutex<Option<Door>>,
    /// Who answers questions of those above.
    above: std::sync::OnceLock<Arc<inquiry::AnswerAbove>>,
    runtime: Handle,
    this: Weak<Self>,
}

/// The control channel as the RPC's wire.
struct ControlWire(Weak<Endpoint>);

impl Wire for ControlWire {
    fn send(&self, to: NodeId, frame: Bytes) -> Result<(), WireDown> {
        let endpoint = self.0.upgrade().ok_or(WireDown)?;
        endpoint.send(to, Channel::Control, Message::new(frame)).map_err(|_| WireDown)
    }
}

impl Node {
    /// Starts a node that belongs to a cluster. `http` takes HTTP connections on the node's port;
    /// without it they are refused.
    ///
    /// # Errors
    /// [`NodeError`]: its data can't be read, its port is taken.
    pub async fn start(
        options: NodeOptions,
        store: NodeStore,
        membership: Membership,
        identity: Identity,
        http: Option<Arc<dyn HttpHandler>>,
    ) -> Result<Arc<Self>, NodeError> {
        let boot = store.next_boot()?;
        let id = membership.node;
        let events = Arc::new(EventLog::default());
        let current = Arc::new(ArcSwap::from_pointee(ClusterState::default()));
        let endpoint = Arc::new(Endpoint::bind(EndpointConfig {
            node: id,
            listen: options.listen,
            identity,
            admission: Arc::new(AdmissionTable::new(Arc::clone(&current), &membership.peers)),
            // Slices bound what they have on the way; this is only to stop what would grow for ever.
            limits: Limits { window_bytes: 512 << 20, ..Limits::default() },
            unprotected: options.unprotected,
        })?);
        let rpc = Rpc::new(id, Arc::new(ControlWire(Arc::downgrade(&endpoint))), Handle::current());
        let control = Control::start(
            mooring_control::Options {
                node: id,
                boot,
                store: options.data.join("raft.redb"),
                timings: options.timings,
            },
            Arc::clone(&rpc),
        )
        .await?;
        current.store(control.state());
        let certificates = Certificates::start(Arc::clone(&control), store.ca_unwrap()?);
        let plane = DataPlane::new(id, &options.replication, Arc::clone(&events));
        let node = Arc::new_cyclic(|this| Self {
            id,
            cluster: membership.cluster,
            boot,
            options,
            store,
            control,
            certificates,
            gossip: tokio::sync::OnceCell::new(),
            rpc,
            endpoint,
            plane,
            pools: Pools::default(),
            proposals: Proposals::default(),
            events,
            current,
            again: Notify::new(),
            door: Mutex::default(),
            above: std::sync::OnceLock::new(),
            runtime: Handle::current(),
            this: this.clone(),
        });
        node.begin(&membership.peers, http).await?;
        Ok(node)
    }

    async fn begin(
        self: &Arc<Self>,
        first: &[Peer],
        http: Option<Arc<dyn HttpHandler>>,
    ) -> Result<(), NodeError> {
        self.serve_inquiries();
        let transport: Arc<dyn Transport> = self.endpoint.clone();
        let config: Weak<dyn ConfigPort> = self.this.clone();
        self.plane.start(transport, config);
        let handler: Arc<dyn Handler> = self.plane.clone();
        self.endpoint.start(Services {
            handler,
            join: Some(Arc::new(membership::Door(self.this.clone()))),
            http,
            links: Some(self.plane.clone()),
        })?;
        let listed: Vec<NodeId> = self.state().nodes().keys().copied().collect();
        let first = first.iter().map(|peer| peer.node);
        for peer in listed.into_iter().chain(first).filter(|peer| *peer != self.id) {
            self.plane.connect_peer(peer);
        }
        let node = Arc::clone(self);
        // Opening a pool reads its log.
        tokio::task::spawn_blocking(move || node.open_pools()).await.map_err(|_| {
            NodeError::Control(mooring_control::Error::Stopped {
                reason: "opening the pools failed".to_owned(),
            })
        })?;
        self.announce_until_known(Command::NodeStarted {
            node: self.id,
            boot: self.boot,
            addresses: vec![self.options.listen],
            version: NEWEST_VERSION,
            still_held: self.options.still_held.clone(),
        });
        tokio::spawn(Arc::clone(self).send_proposals());
        tokio::spawn(Arc::clone(self).follow());
        tokio::spawn(Arc::clone(self).repair());
        tokio::spawn(Arc::clone(self).keep_certificates());
        tokio::spawn(Arc::clone(self).gossip());
        Ok(())
    }

    /// Hands its primaries over, within a second, and stops everything. What waits stays
    /// unanswered: the next process goes on with it.
    pub async fn stop(&self) {
        self.hand_primaries_over().await;
        self.plane.stop();
        drop(self.door.lock().take());
        for open in self.pools.all() {
            open.pool.stop();
        }
        if let Err(error) = self.control.shutdown().await {
            tracing::warn!(%error, "Raft had stopped before");
        }
        self.endpoint.shutdown();
    }

    /// Its number in the cluster.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Its start.
    #[must_use]
    pub fn boot(&self) -> Boot {
        self.boot
    }

    /// The configuration as applied here.
    #[must_use]
    pub fn state(&self) -> Arc<ClusterState> {
        self.control.state()
    }

    /// The configuration as applied here, now and as it changes.
    #[must_use]
    pub fn watch(&self) -> tokio::sync::watch::Receiver<mooring_control::Published> {
        self.control.watch()
    }

    /// The control plane: who leads, who votes, who is silent.
    #[must_use]
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// What happened here.
    #[must_use]
    pub fn events(&self) -> &Arc<EventLog> {
        &self.events
    }

    /// Has a command applied on behalf of `by`, a user of the API.
    ///
    /// # Errors
    /// [`NodeError::Refused`], [`NodeError::Control`].
    pub async fn propose(&self, by: &str, command: Command) -> Result<Done, NodeError> {
        let actor = Actor { node: Some(self.id), name: by.to_owned() };
        Ok(self.control.propose(actor, command).await?)
    }

    /// Has a command applied that no user asked for.
    ///
    /// # Errors
    /// As [`Node::propose`].
    pub async fn propose_as_system(&self, command: Command) -> Result<Done, NodeError> {
        Ok(self.control.propose(Actor::system(self.id), command).await?)
    }

    /// Tells the cluster something that it must know in the end: again and again until it does, or
    /// refuses.
    fn announce_until_known(self: &Arc<Self>, command: Command) {
        let node = Arc::downgrade(self);
        self.runtime.spawn(async move { Self::announce(&node, command).await });
    }

    /// See [`Node::announce_until_known`]; returns when it is known, or refused.
    async fn announce(node: &Weak<Self>, command: Command) {
        while let Some(this) = node.upgrade() {
            match this.propose_as_system(command.clone()).await {
                Ok(_) => return,
                Err(NodeError::Refused(refused)) => {
                    tracing::warn!(command = command.name(), %refused, "an announcement was refused");
                    return;
                }
                Err(error) => {
                    tracing::debug!(command = command.name(), %error, "an announcement waits");
                }
            }
            drop(this);
            tokio::time::sleep(ANNOUNCE_PAUSE).await;
        }
    }
}
