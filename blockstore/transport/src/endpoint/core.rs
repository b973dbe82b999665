//! What all threads of an endpoint share.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{self, JoinHandle};

use mooring_terms::NodeId;
use parking_lot::{Mutex, RwLock};
use tracing::warn;

use crate::admission::Admission;
use crate::contract::{Channel, Handler, StreamId};
use crate::endpoint::incoming::ReaderPost;
use crate::endpoint::outgoing::Outgoing;
use crate::endpoint::permits::Permits;
use crate::endpoint::streams::IncomingStreams;
use crate::endpoint::{Limits, Services};
use crate::link::Link;
use crate::rate::{JoinLimit, LogLimit};
use crate::tls::config::Configs;
use crate::unprotected::Unprotected;

/// The state of an endpoint.
pub(crate) struct Core {
    pub(crate) node: NodeId,
    pub(crate) limits: Limits,
    #[cfg_attr(
        not(feature = "zeromq"),
        allow(dead_code, reason = "nothing to ask where nothing else is spoken")
    )]
    pub(crate) unprotected: Unprotected,
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) configs: RwLock<Arc<Configs>>,
    pub(crate) services: OnceLock<Services>,
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
    pub(crate) outgoing: RwLock<HashMap<(NodeId, Channel), Arc<Outgoing>>>,
    pub(crate) incoming: Arc<IncomingStreams>,
    pub(crate) permits: Arc<Permits>,
    pub(crate) joins: JoinLimit,
    pub(crate) log: LogLimit,
    pub(crate) boot: u64,
    pub(crate) streams: AtomicU64,
    pub(crate) stopping: AtomicBool,
    pub(crate) threads: Mutex<Vec<JoinHandle<()>>>,
    /// Where threads of incoming streams can be relieved.
    pub(crate) posts: Mutex<Vec<Weak<ReaderPost>>>,
    pub(crate) links: Mutex<Vec<Weak<Link>>>,
}

impl Core {
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn admission(&self) -> &dyn Admission {
        &*self.admission
    }

    /// The TLS configurations as of now; a connection keeps those that it began with.
    pub(crate) fn configs(&self) -> Arc<Configs> {
        Arc::clone(&self.configs.read())
    }

    pub(crate) fn services(&self) -> &Services {
        self.services.get().expect("threads begin after the services are set")
    }

    pub(crate) fn handler(&self) -> &dyn Handler {
        &*self.services().handler
    }

    pub(crate) fn next_stream(&self) -> StreamId {
        let number = self.streams.fetch_add(1, Ordering::Relaxed) + 1;
        StreamId { boot: self.boot, number }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Logs that a connection was refused, unless that was said or there were too many of late.
    pub(crate) fn log_refusal(&self, peer: SocketAddr, reason: &dyn std::fmt::Display) {
        if let Some(suppressed) = self.log.allow(peer.ip(), reason) {
            warn!(%peer, %reason, suppressed, "connection refused");
        }
    }

    /// Whether the thread of `outgoing` is to end; then the stream is no longer in the table.
    pub(crate) fn retire(&self, outgoing: &Outgoing, peer: NodeId, channel: Channel) -> bool {
        if !self.is_stopping() && outgoing.wanted.load(Ordering::Acquire) {
            return false;
        }
        let mut table = self.outgoing.write();
        // Somebody may have asked for it again meanwhile.
        if !self.is_stopping() && outgoing.wanted.load(Ordering::Acquire) {
            return false;
        }
        table.remove(&(peer, channel));
        true
    }

    /// Remembers a link, to cut it when its node is no longer listed.
    pub(crate) fn add_link(&self, link: &Arc<Link>) {
        let mut links = self.links.lock();
        links.retain(|link| link.strong_count() > 0);
        links.push(Arc::downgrade(link));
    }

    /// The links that are up.
    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        self.links.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Runs `body` on a thread of its own, which the endpoint's shutdown waits for.
    pub(crate) fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(body)?;
        let mut threads = self.threads.lock();
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }
}
