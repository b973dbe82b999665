//! What the tests of this crate share: a handler that records, a table of nodes, a cluster over TLS.
#![allow(dead_code)] // Each test binary uses a part of it.
#![allow(clippy::disallowed_methods)] // Real threads and sockets: real time.
#![allow(clippy::unwrap_used)] // In a test a panic is the report.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mooring_terms::NodeId;
use mooring_transport::{
    Admission, CertificateAuthority, Channel, Endpoint, EndpointConfig, Fingerprint, Handler,
    Identity, Limits, Message, Services, StreamId, Transport, Unprotected,
};
use parking_lot::{Condvar, Mutex};

pub const LONG: Duration = Duration::from_secs(20);
pub const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// What a handler was told, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Connected(NodeId, Channel),
    Disconnected(NodeId, Channel),
    Message(NodeId, Channel, StreamId, Message),
    Closed(NodeId, Channel, StreamId),
}

/// Records events; can be told to hold messages of a channel until released.
#[derive(Default)]
pub struct Recorder {
    events: Mutex<Vec<Event>>,
    held: Mutex<BTreeSet<Channel>>,
    changed: Condvar,
    released: Condvar,
}

impl Recorder {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// From now on the handling of a message of `channel` takes until [`Self::release`].
    pub fn hold(&self, channel: Channel) {
        self.held.lock().insert(channel);
    }

    pub fn release(&self, channel: Channel) {
        self.held.lock().remove(&channel);
        self.released.notify_all();
    }

    pub fn events(&self) -> Vec<Event> {
        self.events.lock().clone()
    }

    /// Waits until the events satisfy `condition`; panics with them after a long time.
    pub fn wait(&self, what: &str, mut condition: impl FnMut(&[Event]) -> bool) {
        let deadline = Instant::now() + LONG;
        let mut events = self.events.lock();
        while !condition(&events) {
            if self.changed.wait_until(&mut events, deadline).timed_out() {
                let tail = &events[events.len().saturating_sub(20)..];
                panic!("waited in vain for {what}; the last events were {tail:?}");
            }
        }
    }

    pub fn wait_connected(&self, peer: NodeId, channel: Channel) {
        self.wait("a stream", |events| is_connected(events, peer, channel));
    }

    /// Messages from a peer on a channel.
    pub fn messages(&self, from: NodeId, on: Channel) -> Vec<(StreamId, Message)> {
        let pick = |event: &Event| match event {
            Event::Message(node, channel, stream, message) if (*node, *channel) == (from, on) => {
                Some((*stream, message.clone()))
            }
            _ => None,
        };
        self.events.lock().iter().filter_map(pick).collect()
    }

    pub fn wait_messages(&self, from: NodeId, channel: Channel, count: usize) {
        self.wait(&format!("{count} messages"), |events| {
            let of =
                |e: &&Event| matches!(e, Event::Message(n, c, ..) if (*n, *c) == (from, channel));
            events.iter().filter(of).count() >= count
        });
    }

    fn push(&self, event: Event) {
        self.events.lock().push(event);
        self.changed.notify_all();
    }
}

/// Whether the last report about the stream to `peer` is that it is up.
pub fn is_connected(events: &[Event], peer: NodeId, channel: Channel) -> bool {
    let last = events.iter().rev().find(|event| {
        matches!(event, Event::Connected(p, c) | Event::Disconnected(p, c) if (*p, *c) == (peer, channel))
    });
    matches!(last, Some(Event::Connected(..)))
}

impl Handler for Recorder {
    fn connected(&self, peer: NodeId, channel: Channel) {
        self.push(Event::Connected(peer, channel));
    }

    fn disconnected(&self, peer: NodeId, channel: Channel) {
        self.push(Event::Disconnected(peer, channel));
    }

    fn message(&self, from: NodeId, channel: Channel, stream: StreamId, message: Message) {
        let mut held = self.held.lock();
        while held.contains(&channel) {
            self.released.wait(&mut held);
        }
        drop(held);
        self.push(Event::Message(from, channel, stream, message));
    }

    fn incoming_closed(&self, from: NodeId, channel: Channel, stream: StreamId) {
        self.push(Event::Closed(from, channel, stream));
    }
}

/// A table of nodes, as one node sees it.
#[derive(Default)]
pub struct Table {
    rows: Mutex<BTreeMap<NodeId, (Fingerprint, SocketAddr)>>,
}

impl Table {
    pub fn insert(&self, node: NodeId, fingerprint: Fingerprint, address: SocketAddr) {
        self.rows.lock().insert(node, (fingerprint, address));
    }

    pub fn remove(&self, node: NodeId) -> (Fingerprint, SocketAddr) {
        self.rows.lock().remove(&node).expect("the node is in the table")
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

/// Shows logs when RUST_LOG asks for them.
pub fn show_logs() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    // Another test of the same process may have been first.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}

/// A node over TLS.
pub struct TlsNode {
    pub id: NodeId,
    pub fingerprint: Fingerprint,
    pub table: Arc<Table>,
    pub endpoint: Arc<Endpoint>,
}

pub fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub fn issue(authority: &CertificateAuthority, node: NodeId) -> Identity {
    authority.issue(node, &[], SystemTime::now(), YEAR).unwrap()
}

pub fn tls_node(identity: Identity, id: NodeId, limits: Limits) -> TlsNode {
    node(identity, id, limits, Unprotected::Refused)
}

pub fn node(identity: Identity, id: NodeId, limits: Limits, unprotected: Unprotected) -> TlsNode {
    let table = Arc::new(Table::default());
    let fingerprint = identity.fingerprint();
    let admission: Arc<dyn Admission> = Arc::clone(&table) as _;
    let config =
        EndpointConfig { node: id, listen: loopback(), identity, admission, limits, unprotected };
    let endpoint = Arc::new(Endpoint::bind(config).unwrap());
    TlsNode { id, fingerprint, table, endpoint }
}

impl TlsNode {
    pub fn start(&self, handler: Arc<dyn Handler>) {
        self.endpoint.start(Services { handler, join: None, http: None, links: None }).unwrap();
    }
}

/// Lists all nodes in the tables of all.
pub fn introduce(nodes: &[&TlsNode]) {
    for one in nodes {
        for other in nodes {
            one.table.insert(other.id, other.fingerprint, other.endpoint.local_addr());
        }
    }
}

/// Nodes 1 to n of one cluster that know each other.
pub fn tls_cluster(count: u64, window_bytes: usize) -> Vec<TlsNode> {
    cluster(count, window_bytes, Unprotected::Refused)
}

/// As [`tls_cluster`], with streams that are perhaps unprotected.
pub fn cluster(count: u64, window_bytes: usize, unprotected: Unprotected) -> Vec<TlsNode> {
    show_logs();
    let authority = CertificateAuthority::create().unwrap();
    let limits = Limits { window_bytes, ..Limits::default() };
    let node = |id| node(issue(&authority, NodeId(id)), NodeId(id), limits.clone(), unprotected);
    let nodes: Vec<_> = (1..=count).map(node).collect();
    introduce(&nodes.iter().collect::<Vec<_>>());
    nodes
}

/// Sends, waiting as long as the window is full.
pub fn send_patiently(transport: &dyn Transport, to: NodeId, channel: Channel, message: &Message) {
    use mooring_transport::SendError;
    let deadline = Instant::now() + LONG;
    loop {
        match transport.send(to, channel, message.clone()) {
            Ok(()) => return,
            Err(SendError::Full) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_micros(200));
            }
            Err(error) => panic!("send: {error}"),
        }
    }
}
