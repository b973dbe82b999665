//! What ZeroMQ lets in and what not, and that nothing a peer says there brings the node down.
#![cfg(feature = "zeromq")]
#![allow(clippy::disallowed_methods)] // Real threads and sockets: real time.
#![allow(clippy::unwrap_used)] // In a test a panic is the report.

#[path = "../../../tests/fuzz/seeds.rs"]
mod seeds;
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mooring_terms::NodeId;
use mooring_transport::proto::Hello;
use mooring_transport::zeromq::guard::{Allowance, Guard};
use mooring_transport::{
    CertificateAuthority, Channel, Fingerprint, Limits, Message, StreamId, Transport, Unprotected,
};

use crate::support::{Event, LONG, Recorder, TlsNode, cluster, introduce, issue, node};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

/// Nodes 1 and 2 with the given rules, started.
fn pair(rules: [Unprotected; 2]) -> (Vec<TlsNode>, Vec<Arc<Recorder>>) {
    support::show_logs();
    let authority = CertificateAuthority::create().unwrap();
    let made = [ONE, TWO].into_iter().zip(rules);
    let nodes: Vec<_> =
        made.map(|(id, rule)| node(issue(&authority, id), id, Limits::default(), rule)).collect();
    introduce(&nodes.iter().collect::<Vec<_>>());
    let recorders: Vec<_> = nodes.iter().map(|_| Recorder::new()).collect();
    for (node, recorder) in nodes.iter().zip(&recorders) {
        node.start(Arc::clone(recorder) as _);
    }
    (nodes, recorders)
}

/// What a DEALER says first.
fn zmtp_handshake() -> Vec<u8> {
    let mut greeting = [0; 64];
    (greeting[0], greeting[9], greeting[10]) = (0xff, 0x7f, 3);
    greeting[12..16].copy_from_slice(b"NULL");
    let ready = b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06DEALER";
    assert_eq!(usize::from(ready[1]), ready.len() - 2);
    [&greeting[..], ready].concat()
}

/// Bytes of a ZeroMQ peer, written by hand.
struct Raw(TcpStream);

impl Raw {
    /// After ZMTP's handshake, as a DEALER.
    fn connect(node: &TlsNode) -> Self {
        let mut raw = Self::silent(node);
        raw.0.write_all(&zmtp_handshake()).unwrap();
        let mut theirs = [0; 64];
        raw.0.read_exact(&mut theirs).unwrap();
        raw.frame();
        raw
    }

    fn silent(node: &TlsNode) -> Self {
        let socket = TcpStream::connect(node.endpoint.local_addr()).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        Self(socket)
    }

    fn frame(&mut self) -> Vec<u8> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        let mut body = vec![0; head[1].into()];
        self.0.read_exact(&mut body).unwrap();
        body
    }

    fn send(&mut self, body: &[u8]) {
        let length = u8::try_from(body.len()).unwrap();
        self.0.write_all(&[&[0, length], body].concat()).unwrap();
    }

    fn greet(&mut self, node: NodeId, channel: Channel, from: Fingerprint, to: Fingerprint) {
        static STREAMS: AtomicU64 = AtomicU64::new(1);
        let number = STREAMS.fetch_add(1, Ordering::Relaxed);
        let hello = Hello { node, channel, stream: StreamId { boot: 3, number } };
        let keys = [&from.as_bytes()[..], to.as_bytes()].concat();
        self.send(&[&b"MOOR\x01"[..], &hello.encode(), &keys].concat());
    }

    /// Whether the node closes the connection instead of saying anything.
    fn ends(mut self) -> bool {
        let mut buffer = [0; 256];
        !matches!(self.0.read(&mut buffer), Ok(count) if count > 0)
    }
}

/// The node still takes messages.
fn assert_lives(nodes: &[TlsNode], recorders: &[Arc<Recorder>]) {
    nodes[0].endpoint.connect(TWO, Channel::Beacon);
    recorders[0].wait_connected(TWO, Channel::Beacon);
    nodes[0].endpoint.send(TWO, Channel::Beacon, Message::new(&b"alive?"[..])).unwrap();
    recorders[1].wait_messages(ONE, Channel::Beacon, 1);
}

#[test]
fn zeromq_is_refused_where_the_configuration_does_not_ask_for_it() {
    let (nodes, recorders) = pair([Unprotected::Data, Unprotected::Refused]);
    let mut raw = Raw::silent(&nodes[1]);
    raw.0.write_all(&[0xff; 64]).unwrap();
    assert!(raw.ends());
    nodes[0].endpoint.connect(TWO, Channel::Data);
    std::thread::sleep(Duration::from_millis(300));
    assert!(recorders[0].events().is_empty(), "{:?}", recorders[0].events());
    assert_lives(&nodes, &recorders);
}

#[test]
fn data_goes_over_zeromq_and_the_rest_stays_protected() {
    let (nodes, recorders) = pair([Unprotected::Data, Unprotected::Accepted]);
    for (i, to) in [(0, TWO), (1, ONE)] {
        for channel in Channel::ALL {
            nodes[i].endpoint.connect(to, channel);
            recorders[i].wait_connected(to, channel);
            nodes[i].endpoint.send(to, channel, Message::new(&b"x"[..])).unwrap();
            recorders[1 - i].wait_messages(NodeId(i as u64 + 1), channel, 1);
        }
    }
    // A control stream over ZeroMQ is turned away, however well it names its node.
    for (channel, welcome) in
        [(Channel::Control, false), (Channel::Beacon, false), (Channel::Data, true)]
    {
        let mut raw = Raw::connect(&nodes[1]);
        raw.greet(ONE, channel, nodes[0].fingerprint, nodes[1].fingerprint);
        assert_eq!(raw.ends(), !welcome, "{channel}");
    }
}

#[test]
fn a_header_that_announces_too_much_closes_its_connection_only() {
    let (nodes, recorders) = pair([Unprotected::Everything; 2]);
    for length in [1 << 24 | 1, 1_u64 << 40, 1 << 62] {
        let header = [&[2_u8][..], &length.to_be_bytes()].concat();
        // Before the peer is believed, and after.
        let mut early = Raw::connect(&nodes[1]);
        early.0.write_all(&header).unwrap();
        assert!(early.ends());
        let mut late = Raw::connect(&nodes[1]);
        late.greet(ONE, Channel::Data, nodes[0].fingerprint, nodes[1].fingerprint);
        late.frame();
        late.0.write_all(&header).unwrap();
        assert!(late.ends());
    }
    let mut long = Raw::connect(&nodes[1]);
    // Allowed for messages; not for who has not said who it is.
    long.0.write_all(&[&[2_u8][..], &70_000_u64.to_be_bytes()].concat()).unwrap();
    assert!(long.ends());
    assert_lives(&nodes, &recorders);
}

#[test]
fn who_names_no_listed_node_or_means_another_is_refused() {
    let (nodes, recorders) = pair([Unprotected::Everything; 2]);
    let (one, two) = (nodes[0].fingerprint, nodes[1].fingerprint);
    let stranger = Fingerprint::from_bytes([7; 32]);
    for (node, from, to) in
        [(ONE, stranger, two), (TWO, one, two), (ONE, one, stranger), (ONE, one, one)]
    {
        let mut raw = Raw::connect(&nodes[1]);
        raw.greet(node, Channel::Data, from, to);
        assert!(raw.ends());
    }
    let mut garbage = Raw::connect(&nodes[1]);
    garbage.send(b"hello");
    assert!(garbage.ends());
    assert!(recorders[1].events().is_empty(), "{:?}", recorders[1].events());
}

#[test]
fn a_removed_node_is_cut_and_stays_out() {
    let nodes = cluster(2, 1 << 20, Unprotected::Everything);
    let recorders: Vec<_> = nodes.iter().map(|_| Recorder::new()).collect();
    for (node, recorder) in nodes.iter().zip(&recorders) {
        node.start(Arc::clone(recorder) as _);
    }
    nodes[0].endpoint.connect(TWO, Channel::Data);
    recorders[0].wait_connected(TWO, Channel::Data);
    nodes[0].endpoint.send(TWO, Channel::Data, Message::new(&b"x"[..])).unwrap();
    recorders[1].wait_messages(ONE, Channel::Data, 1);
    nodes[1].table.remove(ONE);
    nodes[1].endpoint.refresh();
    recorders[1].wait("the end", |events| matches!(events.last(), Some(Event::Closed(..))));
    let mut raw = Raw::connect(&nodes[1]);
    raw.greet(ONE, Channel::Data, nodes[0].fingerprint, nodes[1].fingerprint);
    assert!(raw.ends());
}

#[test]
fn payloads_arrive_aligned() {
    let (nodes, recorders) = pair([Unprotected::Everything; 2]);
    nodes[0].endpoint.connect(TWO, Channel::Data);
    recorders[0].wait_connected(TWO, Channel::Data);
    let payload =
        vec![Bytes::from(vec![1; 5]), Bytes::from(vec![2; 8192]), Bytes::from(vec![3; 4096])];
    let message = Message::with_payload(&b"head"[..], payload);
    nodes[0].endpoint.send(TWO, Channel::Data, message.clone()).unwrap();
    recorders[1].wait_messages(ONE, Channel::Data, 1);
    let (_, got) = recorders[1].messages(ONE, Channel::Data).remove(0);
    assert_eq!(got, message);
    assert!(got.payload[1..].iter().all(|frame| (frame.as_ptr() as usize).is_multiple_of(4096)));
}

#[test]
fn the_fuzzers_seeds_are_what_is_sent() {
    let payload = vec![Bytes::from(vec![2; 4096]), Bytes::new(), Bytes::from(vec![3; 7])];
    let message = Message::with_payload(&b"header"[..], payload);
    let joined = mooring_transport::assembler::encode_joined(&message);
    seeds::check("transport", "message", &[&[200][..], &joined].concat());
    let stream = StreamId { boot: 3, number: 4 };
    let hello = Hello { node: ONE, channel: Channel::Control, stream };
    seeds::check("transport", "hello", &[&[1][..], &hello.encode()].concat());
    let long = [&[2_u8][..], &300_u64.to_be_bytes(), &[9; 300]].concat();
    let bytes = [&zmtp_handshake()[..], b"\x01\x03abc", &long].concat();
    let mut guard = Guard::new();
    guard.inspect(&bytes, Allowance::MESSAGE).unwrap();
    seeds::check("zmtp", "messages", &[&[30][..], &bytes].concat());
}
