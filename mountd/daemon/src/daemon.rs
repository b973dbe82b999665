//! The daemon's life: start, membership, what it serves, and its end.
//!
//! ```text
//!   start ─> API answers ─┬─ belongs to a cluster ──────────────────────────> running
//!                         └─ doesn't ─ create / join (flag or API) ─────────────┘
//!   SIGTERM ─> the API ends, devices stay with the holder: their I/O waits for the next daemon
//! ```

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use blockstore::{Node, NodeError, NodeOptions, NodeStore, ReplicationOptions, Severity, Timings};
use mooring_api::{ApiError, ErrorKind};
use mooring_device::holder::{HolderClient, HolderError};
use mooring_device::nbd::kernel::KernelNbdHost;
use mooring_device::nbd::{NbdHost, NbdTcp};
use mooring_device::{DeviceHost, DeviceKind, LoopHost};
use mooring_transport::{HttpHandler, Token};
use parking_lot::RwLock;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;

use crate::api;
use crate::arguments::{Entry, Start};
use crate::attachments::{Attachments, blocking};
use crate::config::{Config, NbdConfig, PoolConfig};
use crate::device_hosts::DeviceHosts;
use crate::error::DaemonError;
use crate::holder_watch::{self, HolderWatch};
use crate::mounts::Mounts;
use crate::shared::{Coordinators, SharedMounts};
use crate::tasks::Tasks;

/// How long the node may take to stop.
const STOP_WAIT: Duration = Duration::from_secs(2);
/// Between two tries to join: the other node may not be up yet.
const JOIN_PAUSE: Duration = Duration::from_secs(1);

/// The daemon.
pub struct Daemon {
    config: Config,
    name: String,
    started_ms: u64,
    store: NodeStore,
    running: RwLock<Option<Arc<Running>>>,
    /// One create or join at a time.
    entering: Mutex<()>,
    tasks: Arc<Tasks>,
}

/// What there is once the node belongs to a cluster.
pub struct Running {
    /// The block store.
    pub node: Arc<Node>,
    /// The volumes attached here.
    pub attachments: Arc<Attachments>,
    /// And mounted.
    pub mounts: Arc<Mounts>,
    /// The coordinators of shared volumes that run here.
    pub coordinators: Arc<Coordinators>,
    /// Where NBD is spoken over TCP, if it is.
    pub nbd: Option<NbdTcp>,
}

/// Why the daemon can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its own facts.
    #[error(transparent)]
    Store(#[from] blockstore::NodeStoreError),
    /// The API's socket.
    #[error("can't listen on {}: {source}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The holder process.
    #[error(transparent)]
    Holder(#[from] HolderError),
    /// Everything else.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The system has no thread left.
    #[error("can't start a thread: {0}")]
    Thread(std::io::Error),
    /// Signals can't be waited for.
    #[error("can't wait for signals: {0}")]
    Signals(std::io::Error),
}

/// Runs the daemon until it is told to end.
///
/// # Errors
/// [`StartError`].
pub async fn run(config: Config, start: Start) -> Result<(), StartError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
    let store = NodeStore::open(&config.data)?;
    let daemon = Arc::new(Daemon {
        name: start.name,
        started_ms: blockstore::unix_ms(),
        store,
        running: RwLock::new(None),
        entering: Mutex::new(()),
        tasks: Arc::new(Tasks::default()),
        config,
    });
    let socket = daemon.config.api_socket();
    let listener = api::listen(&socket)
        .map_err(|source| StartError::Socket { path: socket.clone(), source })?;
    let serving = tokio::spawn(api::serve(Arc::clone(&daemon), listener));
    tracing::info!(socket = %socket.display(), listen = %daemon.config.listen, "mountd answers");
    let entering = tokio::spawn(Arc::clone(&daemon).enter(start.entry));
    let told_to_end = async {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("told to end"),
            _ = interrupt.recv() => tracing::info!("interrupted"),
        }
    };
    let work = async {
        if daemon.store.membership()?.is_some() {
            daemon.start_node().await?;
        }
        // Telling systemd is best effort: there may be none.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        std::future::pending::<Result<(), StartError>>().await
    };
    // Opening pools and devices may take long, and whoever says that it is to end is heard meanwhile.
    tokio::select! {
        () = told_to_end => {}
        ended = work => ended?,
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    entering.abort();
    serving.abort();
    let running = daemon.running.write().take();
    if let Some(running) = running
        && tokio::time::timeout(STOP_WAIT, running.node.stop()).await.is_err()
    {
        tracing::warn!("a part of the node does not end; the process does");
    }
    let _ = std::fs::remove_file(&socket);
    Ok(())
}

impl Daemon {
    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The node's name, as it calls itself.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When it started, in milliseconds since 1970.
    #[must_use]
    pub fn started_ms(&self) -> u64 {
        self.started_ms
    }

    /// Work that goes on after its request was answered.
    #[must_use]
    pub fn tasks(&self) -> &Arc<Tasks> {
        &self.tasks
    }

    /// What there is once the node belongs to a cluster.
    ///
    /// # Errors
    /// [`DaemonError::NoCluster`].
    pub fn running(&self) -> Result<Arc<Running>, DaemonError> {
        self.running.read().clone().ok_or(DaemonError::NoCluster)
    }

    /// Gets into a cluster as the flags say, if the node belongs to none.
    async fn enter(self: Arc<Self>, entry: Entry) {
        if !matches!(self.store.membership(), Ok(None)) {
            return;
        }
        match entry {
            Entry::Wait => {
                tracing::info!(
                    "this node belongs to no cluster: `mountctl cluster create` makes one, `mountctl cluster join` joins one"
                );
            }
            Entry::Create => {
                if let Err(error) = self.create().await {
                    tracing::error!(%error, "the cluster could not be created");
                }
            }
            Entry::Join { address, token_file } => loop {
                match self.join_with_file(&address, &token_file).await {
                    Ok(_) => return,
                    Err(error)
                        if matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Retry) =>
                    {
                        tracing::warn!(%error, %address, "the cluster can't be joined yet; trying again");
                        tokio::time::sleep(JOIN_PAUSE).await;
                    }
                    Err(error) => {
                        tracing::error!(%error, %address, "the cluster can't be joined");
                        return;
                    }
                }
            },
        }
    }

    async fn join_with_file(
        self: &Arc<Self>,
        address: &str,
        file: &std::path::Path,
    ) -> Result<bool, ApiError> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            let message = format!("can't read the token file {}: {error}", file.display());
            ApiError::new(ErrorKind::Invalid, message)
        })?;
        self.join(address, text.trim()).await
    }

    /// Makes a cluster of this node alone. Says whether it did: a node that belongs to one stays.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn create(self: &Arc<Self>) -> Result<bool, ApiError> {
        let _turn = self.entering.lock().await;
        if self.running.read().is_some() {
            return Ok(false);
        }
        let member = blockstore::NewMember {
            name: self.name.clone(),
            listen: self.config.listen,
            labels: self.config.labels.clone(),
        };
        let timings = self.timings();
        blockstore::create(&self.store, &self.config.data, member, timings)
            .await
            .map_err(|error| ApiError::from(DaemonError::Node(error)))?;
        self.start_node().await.map_err(start_failed)?;
        Ok(true)
    }

    /// Joins the cluster of the node at `address`. Says whether it did: a node that belongs to that
    /// cluster stays.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn join(self: &Arc<Self>, address: &str, token: &str) -> Result<bool, ApiError> {
        let _turn = self.entering.lock().await;
        let token: Token = token
            .parse()
            .map_err(|error| ApiError::from(DaemonError::Node(NodeError::Token(error))))?;
        if let Ok(running) = self.running() {
            if running.node.authority_fingerprint() == Some(token.authority()) {
                return Ok(false);
            }
            return Err(ApiError::new(
                ErrorKind::InUse,
                "this node belongs to another cluster: remove it there first (mountctl node rm), and empty its data directory",
            ));
        }
        let member = blockstore::NewMember {
            name: self.name.clone(),
            listen: self.config.listen,
            labels: self.config.labels.clone(),
        };
        blockstore::join(&self.store, member, address, &token)
            .await
            .map_err(|error| ApiError::from(DaemonError::Node(error)))?;
        self.start_node().await.map_err(start_failed)?;
        Ok(true)
    }

    fn timings(&self) -> Timings {
        let timing = &self.config.timing;
        Timings {
            heartbeat_ms: timing.heartbeat_ms,
            election_min_ms: timing.election_min_ms,
            election_max_ms: timing.election_max_ms,
            gone_after_ms: timing.grace_ms,
            ..Timings::default()
        }
    }

    /// Starts the node, takes back the devices that the holder kept, and adds the pools of the
    /// configuration.
    async fn start_node(self: &Arc<Self>) -> Result<(), StartError> {
        let Some(membership) = self.store.membership()? else { return Ok(()) };
        let Some(identity) = self.store.identity()? else { return Ok(()) };
        let (hosts, nbd, holder) = self.device_hosts().await?;
        let asked = hosts.clone();
        let held = blocking(move || asked.held()).await?.map_err(DaemonError::Device)?;
        let still_held = Attachments::volumes_of(&held);
        let timing = &self.config.timing;
        let options = NodeOptions {
            listen: self.config.listen,
            data: self.config.data.clone(),
            replication: ReplicationOptions {
                beacon: timing.beacon(),
                lease: timing.lease(),
                grace: timing.grace(),
                restart_wait: timing.restart_wait(),
                window_bytes: self.config.memory.window_mib << 20,
                ..ReplicationOptions::default()
            },
            timings: self.timings(),
            pool_memory: usize::try_from(self.config.memory.pool_mib << 20).unwrap_or(usize::MAX),
            still_held,
            unprotected: self.config.transport.unprotected(),
        };
        let door: Option<Arc<dyn HttpHandler>> =
            if self.config.api_tcp { Some(Arc::new(api::Door::new(self))) } else { None };
        let node = Node::start(options, self.store.clone(), membership, identity, door)
            .await
            .map_err(DaemonError::Node)?;
        let attachments = Attachments::new(Arc::clone(&node), hosts);
        let shared = SharedMounts::open(Arc::clone(&node), &self.config.run);
        let shared = shared.map_err(DaemonError::Door)?;
        let mounts = Mounts::new(Arc::clone(&node), Arc::clone(&attachments), shared);
        attachments.resume(held);
        HolderWatch::start(holder, Arc::clone(&attachments), Arc::clone(node.events()))
            .map_err(StartError::Thread)?;
        tokio::spawn(crate::mounts::follow_sizes(
            Arc::clone(&node),
            Arc::clone(&attachments),
            Arc::clone(&mounts),
        ));
        tokio::spawn(crate::mounts::follow_unmounts(Arc::clone(&mounts)));
        let nbd = self.listen_for_nbd(&node, &nbd);
        let coordinators = Coordinators::new(Arc::clone(&node), timing.lease());
        tokio::spawn(Arc::clone(&coordinators).follow());
        let (answering, processes) = (Arc::clone(&coordinators), Arc::clone(mounts.shared()));
        node.answer_above(Arc::new(move |question| answering.answer(question, &processes)));
        let (opened, door) = (Arc::clone(&node), self.config.run.join("links.sock"));
        blocking(move || opened.open_door(&door)).await?.map_err(DaemonError::Door)?;
        let running = Arc::new(Running { node, attachments, mounts, coordinators, nbd });
        *self.running.write() = Some(Arc::clone(&running));
        tokio::spawn(Arc::clone(self).add_pools(running));
        Ok(())
    }

    /// The places where devices are made, with a holder process that keeps them.
    async fn device_hosts(&self) -> Result<(DeviceHosts, NbdHost, Arc<HolderClient>), StartError> {
        let socket = self.config.run.join("holder.sock");
        let run = self.config.run.clone();
        let (files, sockets) = (self.config.run.join("devices"), self.config.run.join("nbd"));
        let holder = blocking(move || holder_watch::connect(&socket)).await??;
        blocking(move || {
            let loops = LoopHost::new(&files, Some(Arc::clone(&holder)))?;
            let nbd = NbdHost::new(&sockets, Some(Arc::clone(&holder)))?;
            let mut all: Vec<Arc<dyn DeviceHost>> = vec![Arc::new(loops), Arc::new(nbd.clone())];
            let mut missing = Vec::new();
            match KernelNbdHost::new(&run, Some(Arc::clone(&holder))) {
                Ok(kernel) => all.insert(0, Arc::new(kernel)),
                Err(error) => missing.push((DeviceKind::Nbd, error.to_string())),
            }
            Ok((DeviceHosts::new(all, missing, Arc::clone(&holder)), nbd, holder))
        })
        .await?
        .map_err(|error| DaemonError::Device(error).into())
    }

    /// Speaks NBD over TCP, if the configuration says so. A failure is an event: whoever can't be
    /// served there must not keep the node from serving the others.
    fn listen_for_nbd(&self, node: &Node, host: &NbdHost) -> Option<NbdTcp> {
        let address = self.config.nbd.address()?;
        match listen(&self.config.nbd, address, host) {
            Ok(listening) => {
                let protected = !self.config.nbd.plain;
                tracing::info!(address = %listening.address(), protected, "NBD over TCP");
                Some(listening)
            }
            Err(error) => {
                node.events().push(
                    Severity::Error,
                    "nbd-not-served",
                    format!("NBD is not served on {address}: {error}"),
                    blockstore::About::default(),
                );
                None
            }
        }
    }

    /// Adds the pools of the configuration that aren't in the cluster's yet.
    async fn add_pools(self: Arc<Self>, running: Arc<Running>) {
        for pool in self.config.pools.clone() {
            while let Err(error) = self.add_pool(&running, &pool).await {
                running.node.events().push(
                    Severity::Error,
                    "pool-not-added",
                    format!("the pool {} can't be added: {error}", pool.path.display()),
                    blockstore::About::default(),
                );
                if !matches!(
                    error.kind(),
                    mooring_terms::ErrorKind::Unavailable | mooring_terms::ErrorKind::Retry
                ) {
                    break;
                }
                tokio::time::sleep(JOIN_PAUSE).await;
            }
        }
    }

    async fn add_pool(
        self: &Arc<Self>,
        running: &Running,
        pool: &PoolConfig,
    ) -> Result<(), DaemonError> {
        let class = api::pools::class_of(pool)?;
        api::pools::add(self, running, "configuration", &pool.path, pool.size, class, false)
            .await
            .map(drop)
    }
}

fn listen(
    config: &NbdConfig,
    address: SocketAddr,
    host: &NbdHost,
) -> Result<NbdTcp, Box<dyn std::error::Error>> {
    let tls = if config.plain { None } else { Some(config.tls().load()?) };
    Ok(host.listen(address, tls)?)
}

fn start_failed(error: StartError) -> ApiError {
    match error {
        StartError::Daemon(error) => error.into(),
        other => ApiError::new(ErrorKind::Fatal, other.to_string()),
    }
}
