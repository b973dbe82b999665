//! The transport over TCP and TLS: one port, and the streams to and from all peers.
//!
//! ```text
//!                    ┌ accepting thread ─ handshakes ─ reader threads ──▶ Handler::message
//!   Endpoint ─ Core ─┤
//!                    └ one thread for each wanted (peer, channel) ──────▶ Handler::connected
//!        ▲                                  ▲
//!   send, on the caller's thread ───────────┘ when the socket is full
//! ```
//!
//! Invariants: those of [`crate::contract`]; nobody gets past the handshake who is not admitted;
//! whatever a peer sends, memory is bounded and nothing panics.

pub(crate) mod accept;
pub(crate) mod core;
pub(crate) mod dial;
pub(crate) mod incoming;
pub(crate) mod outgoing;
pub(crate) mod permits;
pub(crate) mod post;
pub(crate) mod socket;
pub(crate) mod streams;
pub(crate) mod writer;

use std::collections::hash_map::Entry;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use mooring_terms::NodeId;
use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use rustls::server::Accepted;
use tracing::{error, info};

use crate::admission::Admission;
use crate::contract::{Channel, Handler, Message, SendError, Transport};
use crate::endpoint::core::Core;
use crate::endpoint::outgoing::Outgoing;
use crate::endpoint::permits::Permits;
use crate::endpoint::streams::IncomingStreams;
use crate::error::Error;
use crate::identity::Identity;
use crate::link::LinkHandler;
use crate::rate::{JoinLimit, LogLimit};
use crate::tls::config::Configs;
use crate::unprotected::Unprotected;

/// What an endpoint needs to listen.
pub struct EndpointConfig {
    /// This node.
    pub node: NodeId,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// This node's key and certificate.
    pub identity: Identity,
    /// The table of nodes.
    pub admission: Arc<dyn Admission>,
    /// How much of everything.
    pub limits: Limits,
    /// What may go over ZeroMQ in place of TLS.
    pub unprotected: Unprotected,
}

/// How much an endpoint holds and how long it waits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes queued to one peer on one channel, and not yet with the kernel.
    pub window_bytes: usize,
    /// How long a handshake may take, hello and welcome included.
    pub handshake: Duration,
    /// Connections that have not yet shown who they are; a quarter of them from one address.
    pub unauthenticated: usize,
}

/// Who takes what arrives. A service that needs the endpoint to answer holds it weakly, or whoever
/// started it calls [`Endpoint::shutdown`]: an endpoint that its own services keep alive is never
/// dropped.
pub struct Services {
    /// Messages and the state of streams.
    pub handler: Arc<dyn Handler>,
    /// Requests to join; without it they are refused.
    pub join: Option<Arc<dyn JoinHandler>>,
    /// HTTP connections; without it they are refused.
    pub http: Option<Arc<dyn HttpHandler>>,
    /// Links of other processes of the cluster's nodes; without it they are refused.
    pub links: Option<Arc<dyn LinkHandler>>,
}

/// Answers requests to join the cluster.
pub trait JoinHandler: Send + Sync {
    /// Answers one request of at most 64 KiB with at most 1 MiB. The peer is *not* authenticated:
    /// the request itself must prove its right, by a token's secret. Called on a thread of the
    /// request's own; the peer waits for 10 s in all.
    fn join(&self, peer: SocketAddr, request: Bytes) -> Bytes;
}

/// Takes over the connections of HTTP clients.
pub trait HttpHandler: Send + Sync {
    /// A connection whose client hello was read, and no more: the API goes on with
    /// `tokio_rustls::server::StartHandshake::from_parts(accepted, stream)` and
    /// `into_stream(config)`, within a time limit of its own. `stream` is blocking.
    ///
    /// A client certificate is optional; if there is one, the cluster's authority signed it. That
    /// admits nobody: a removed node still has its certificate, so look its
    /// [`crate::Fingerprint::of_certificate`] up.
    fn accepted(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        accepted: Accepted,
        config: Arc<ServerConfig>,
    );
}

/// One node's end of all its streams. Shuts down when dropped.
pub struct Endpoint {
    core: Arc<Core>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { window_bytes: 64 << 20, handshake: Duration::from_secs(5), unauthenticated: 64 }
    }
}

impl Endpoint {
    /// Binds the port. Connections wait until [`Self::start`].
    ///
    /// # Errors
    /// [`Error::Bind`], [`Error::Tls`].
    pub fn bind(config: EndpointConfig) -> Result<Self, Error> {
        let bind = |source| Error::Bind { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let configs = Configs::new(&config.identity, Arc::clone(&config.admission))?;
        let mut boot = [0; 8];
        aws_lc_rs::rand::fill(&mut boot).map_err(|_| rustls::Error::FailedToGetRandomBytes)?;
        let core = Core {
            node: config.node,
            permits: Permits::new(config.limits.unauthenticated),
            limits: config.limits,
            unprotected: config.unprotected,
            admission: config.admission,
            configs: RwLock::new(Arc::new(configs)),
            services: OnceLock::new(),
            listener,
            address,
            outgoing: RwLock::default(),
            incoming: IncomingStreams::new(),
            joins: JoinLimit::new(),
            log: LogLimit::new(),
            boot: u64::from_le_bytes(boot),
            streams: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            threads: Mutex::default(),
            posts: Mutex::default(),
            links: Mutex::default(),
        };
        Ok(Self { core: Arc::new(core) })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.core.address
    }

    /// Begins to accept, and to report to `services`. Streams asked for before are dialled now.
    ///
    /// # Errors
    /// [`Error::AlreadyStarted`], [`Error::Resource`] without a thread.
    pub fn start(&self, services: Services) -> Result<(), Error> {
        let core = Arc::clone(&self.core);
        // The table's lock orders this against `connect`: a stream begins here or there.
        let table = self.core.outgoing.write();
        self.core.services.set(services).map_err(|_| Error::AlreadyStarted)?;
        self.core.spawn("mooring-accept", move || accept::run(&core)).map_err(Error::Resource)?;
        for (&(peer, channel), outgoing) in table.iter() {
            self.begin(peer, channel, outgoing).map_err(Error::Resource)?;
        }
        Ok(())
    }

    /// The table of nodes has changed: cuts every stream, either way, whose node is no longer in
    /// it under the same key.
    pub fn refresh(&self) {
        for (node, channel, stream) in self.core.incoming.refresh(self.core.admission()) {
            info!(%node, %channel, ?stream, "no longer admitted; incoming stream cut");
        }
        for link in self.core.links() {
            let listed = link.shown.and_then(|shown| self.core.admission().node_of(&shown));
            if listed != Some(link.peer()) {
                info!(node = %link.peer(), "no longer admitted; link cut");
                link.cut();
            }
        }
        // A copy, so that nobody is asked anything under the lock.
        let table: Vec<_> =
            self.core.outgoing.read().iter().map(|(&key, out)| (key, Arc::clone(out))).collect();
        for ((peer, channel), outgoing) in table {
            if !outgoing.refresh(self.core.admission()) {
                info!(%peer, %channel, "no longer admitted; stream cut");
            }
        }
    }

    /// Goes on with a renewed certificate: for new connections; those that are open stay.
    ///
    /// # Errors
    /// [`Error::WrongKey`] if it isn't for the same key, [`Error::Tls`].
    pub fn renew(&self, identity: &Identity) -> Result<(), Error> {
        let key = self.core.configs().fingerprint;
        if identity.fingerprint() != key {
            return Err(Error::WrongKey { certificate: identity.fingerprint(), key });
        }
        let configs = Configs::new(identity, Arc::clone(&self.core.admission))?;
        *self.core.configs.write() = Arc::new(configs);
        Ok(())
    }

    /// Cuts all streams, reports their ends and waits for the threads, but for the one it is
    /// called on.
    pub fn shutdown(&self) {
        self.core.stopping.store(true, Ordering::Release);
        // Wakes the accepting thread.
        let _ = rustix::net::shutdown(&self.core.listener, rustix::net::Shutdown::Both);
        self.core.incoming.stop();
        self.core.permits.cut();
        for link in self.core.links() {
            link.cut();
        }
        for outgoing in self.core.outgoing.read().values() {
            outgoing.cut();
        }
        loop {
            // Threads that ended may have begun others.
            let threads = std::mem::take(&mut *self.core.threads.lock());
            if threads.is_empty() {
                return;
            }
            for thread in threads {
                // A thread that panicked has reported it; the shutdown goes on.
                if thread.thread().id() != thread::current().id() {
                    let _ = thread.join();
                }
            }
        }
    }

    /// Starts the thread of a stream.
    fn begin(
        &self,
        peer: NodeId,
        channel: Channel,
        outgoing: &Arc<Outgoing>,
    ) -> std::io::Result<()> {
        let (core, outgoing) = (Arc::clone(&self.core), Arc::clone(outgoing));
        self.core
            .spawn(&format!("mooring-out-{peer}"), move || outgoing.run(&core))
            .inspect_err(|error| error!(%peer, %channel, %error, "no thread for a stream"))
    }
}

impl Transport for Endpoint {
    fn send(&self, to: NodeId, channel: Channel, message: Message) -> Result<(), SendError> {
        let outgoing = self.core.outgoing.read().get(&(to, channel)).cloned();
        outgoing.ok_or(SendError::Down)?.send(message)
    }

    fn connect(&self, to: NodeId, channel: Channel) {
        if self.core.is_stopping() {
            return;
        }
        let mut table = self.core.outgoing.write();
        match table.entry((to, channel)) {
            Entry::Occupied(entry) => entry.get().wanted.store(true, Ordering::Release),
            Entry::Vacant(entry) => {
                let made = Outgoing::new(to, channel, &self.core);
                let outgoing = match made {
                    Ok(outgoing) => outgoing,
                    Err(error) => {
                        error!(peer = %to, %channel, %error, "no descriptor for a stream");
                        return;
                    }
                };
                let started = self.core.services.get().is_some();
                if !started || self.begin(to, channel, &outgoing).is_ok() {
                    entry.insert(outgoing);
                }
            }
        }
    }

    fn disconnect(&self, to: NodeId) {
        let table = self.core.outgoing.write();
        for channel in Channel::ALL {
            if let Some(outgoing) = table.get(&(to, channel)) {
                outgoing.wanted.store(false, Ordering::Release);
                outgoing.cut();
            }
        }
    }

    fn break_stream(&self, to: NodeId, channel: Channel) {
        if let Some(outgoing) = self.core.outgoing.read().get(&(to, channel)) {
            outgoing.cut();
        }
    }

    fn relieve(&self) {
        incoming::relieve(&self.core);
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.shutdown();
    }
}
