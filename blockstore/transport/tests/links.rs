//! Links: messages both ways over one connection, in order, until it is cut.
#![allow(clippy::disallowed_methods)] // Real threads and sockets: real time.
#![allow(clippy::unwrap_used)] // In a test a panic is the report.

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mooring_terms::NodeId;
use mooring_transport::{
    Admission, CertificateAuthority, Dialler, Endpoint, EndpointConfig, Fingerprint, Limits, Link,
    LinkHandler, Message, SendError, Services, Unprotected,
};
use parking_lot::{Mutex, RwLock};

/// Who is listed.
#[derive(Default)]
struct Table(RwLock<BTreeMap<NodeId, Fingerprint>>);

impl Admission for Table {
    fn node_of(&self, fingerprint: &Fingerprint) -> Option<NodeId> {
        let table = self.0.read();
        table.iter().find(|(_, own)| *own == fingerprint).map(|(&node, _)| node)
    }

    fn fingerprint_of(&self, node: NodeId) -> Option<Fingerprint> {
        self.0.read().get(&node).copied()
    }

    fn address_of(&self, _node: NodeId) -> Option<SocketAddr> {
        None
    }
}

/// Keeps what comes, and sends it back if it is the daemon's.
#[derive(Default)]
struct Taker {
    echoes: bool,
    links: Mutex<Vec<Arc<Link>>>,
    got: Mutex<Vec<Message>>,
    closed: Mutex<usize>,
}

impl LinkHandler for Taker {
    fn opened(&self, link: &Arc<Link>) {
        self.links.lock().push(Arc::clone(link));
    }

    fn messages(&self, link: &Arc<Link>, messages: Vec<Message>) {
        for message in messages {
            if self.echoes {
                link.send(message.clone()).expect("there is room");
            }
            self.got.lock().push(message);
        }
    }

    fn closed(&self, _link: &Arc<Link>) {
        *self.closed.lock() += 1;
    }
}

struct Daemon {
    endpoint: Arc<Endpoint>,
    table: Arc<Table>,
    taker: Arc<Taker>,
    dialler: Dialler,
}

const DAEMON: NodeId = NodeId(1);
const CLIENT: NodeId = NodeId(2);

fn daemon() -> Daemon {
    let authority = CertificateAuthority::create().unwrap();
    let (own, other) = (support::issue(&authority, DAEMON), support::issue(&authority, CLIENT));
    let table = Arc::new(Table::default());
    table.0.write().insert(DAEMON, own.fingerprint());
    table.0.write().insert(CLIENT, other.fingerprint());
    let admission: Arc<dyn Admission> = table.clone();
    let dialler =
        Dialler::new(&other, Arc::clone(&admission), Duration::from_secs(5), 1 << 20).unwrap();
    let endpoint = Endpoint::bind(EndpointConfig {
        node: DAEMON,
        listen: "127.0.0.1:0".parse().unwrap(),
        identity: own,
        admission,
        limits: Limits::default(),
        unprotected: Unprotected::Refused,
    })
    .unwrap();
    let taker = Arc::new(Taker { echoes: true, ..Taker::default() });
    let links: Arc<dyn LinkHandler> = taker.clone();
    let handler = support::Recorder::new();
    let services = Services { handler, join: None, http: None, links: Some(links) };
    endpoint.start(services).unwrap();
    Daemon { endpoint: Arc::new(endpoint), table, taker, dialler }
}

fn wait(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn run(link: &Arc<Link>) -> Arc<Taker> {
    let taker = Arc::new(Taker::default());
    let (link, own) = (Arc::clone(link), Arc::clone(&taker));
    thread::spawn(move || link.run(&*own));
    taker
}

fn exchange(link: &Arc<Link>) {
    let taker = run(link);
    let sent: Vec<Message> = (0..300_u32)
        .map(|i| {
            let payload = Bytes::from(vec![i as u8; (i as usize * 97) % 9_000]);
            Message::with_payload(i.to_le_bytes().to_vec(), vec![payload])
        })
        .collect();
    for message in &sent {
        while link.send(message.clone()) == Err(SendError::Full) {
            thread::sleep(Duration::from_millis(1));
        }
    }
    wait("all are back", || taker.got.lock().len() == sent.len());
    assert_eq!(*taker.got.lock(), sent);
    link.cut();
    wait("it is told", || *taker.closed.lock() == 1);
    assert_eq!(link.send(sent[0].clone()), Err(SendError::Down));
}

#[test]
fn messages_go_both_ways_in_order_over_tls() {
    let daemon = daemon();
    let link = daemon.dialler.dial(DAEMON, daemon.endpoint.local_addr()).unwrap();
    assert_eq!(link.peer(), DAEMON);
    exchange(&link);
    assert_eq!(daemon.taker.links.lock()[0].peer(), CLIENT);
    wait("the daemon is told", || *daemon.taker.closed.lock() == 1);
}

#[test]
fn messages_go_both_ways_in_order_over_a_unix_socket() {
    let (near, far) = UnixStream::pair().unwrap();
    let far = Link::over_unix(far, CLIENT, 1 << 20).unwrap();
    let echo = Arc::new(Taker { echoes: true, ..Taker::default() });
    let own = Arc::clone(&echo);
    thread::spawn(move || far.run(&*own));
    exchange(&Link::over_unix(near, DAEMON, 1 << 20).unwrap());
    wait("the other end is told", || *echo.closed.lock() == 1);
}

#[test]
fn who_is_not_listed_gets_no_link_and_loses_the_one_it_has() {
    let daemon = daemon();
    let address = daemon.endpoint.local_addr();
    let link = daemon.dialler.dial(DAEMON, address).unwrap();
    let taker = run(&link);
    link.send(Message::new("here")).unwrap();
    wait("it is there", || taker.got.lock().len() == 1);
    daemon.table.0.write().remove(&CLIENT);
    daemon.endpoint.refresh();
    wait("it is cut", || *taker.closed.lock() == 1);
    if let Ok(link) = daemon.dialler.dial(DAEMON, address) {
        // TLS 1.3 tells a client of its refusal only when it reads.
        let taker = run(&link);
        wait("it is refused", || *taker.closed.lock() == 1);
    }
    assert_eq!(daemon.taker.links.lock().len(), 1);
}

#[test]
fn a_reader_that_stops_costs_its_sender_a_window_and_no_more() {
    let (near, far) = UnixStream::pair().unwrap();
    let link = Link::over_unix(near, DAEMON, 256 << 10).unwrap();
    let _taker = run(&link);
    let piece = Message::with_payload("", vec![Bytes::from(vec![1; 32 << 10])]);
    let mut sent = 0;
    while link.send(piece.clone()).is_ok() {
        sent += 1;
        assert!(sent < 100, "nothing is bounded");
    }
    assert_eq!(link.send(piece), Err(SendError::Full));
    drop(far);
}
