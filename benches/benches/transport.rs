//! Both transports between two nodes on loopback: 4 KiB one way, a small answer the other.
#![allow(clippy::disallowed_methods)] // A measurement: real time.
#![allow(clippy::unwrap_used)] // A measurement that fails may panic.
#![allow(missing_docs)] // What the macros of criterion make.

#[path = "../../blockstore/transport/tests/support/mod.rs"]
mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mooring_terms::NodeId;
use mooring_transport::{Channel, Handler, Message, StreamId, Transport, Unprotected};

use crate::support::{TlsNode, cluster};

const CLIENT: NodeId = NodeId(1);
const SERVER: NodeId = NodeId(2);

/// Gives a small answer to every request, from the thread that reads it.
#[derive(Default)]
struct Server {
    transport: OnceLock<Arc<dyn Transport>>,
}

/// Sends a request for every answer, from the thread that reads it, until none is left to be sent.
struct Client {
    transport: OnceLock<Arc<dyn Transport>>,
    request: Message,
    to_send: AtomicU64,
    to_come: AtomicU64,
    done: Sender<()>,
}

impl Handler for Server {
    fn connected(&self, _: NodeId, _: Channel) {}
    fn disconnected(&self, _: NodeId, _: Channel) {}
    fn incoming_closed(&self, _: NodeId, _: Channel, _: StreamId) {}

    fn message(&self, from: NodeId, channel: Channel, _: StreamId, message: Message) {
        let answer = Message::new(message.header.slice(..32.min(message.header.len())));
        let _ = self.transport.get().unwrap().send(from, channel, answer);
    }
}

impl Handler for Client {
    fn connected(&self, _: NodeId, _: Channel) {}
    fn disconnected(&self, _: NodeId, _: Channel) {}
    fn incoming_closed(&self, _: NodeId, _: Channel, _: StreamId) {}

    fn message(&self, _: NodeId, _: Channel, _: StreamId, _: Message) {
        let less = |count: &AtomicU64| {
            count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| count.checked_sub(1))
        };
        if less(&self.to_send).is_ok() {
            self.send();
        }
        if less(&self.to_come) == Ok(1) {
            let _ = self.done.send(());
        }
    }
}

impl Client {
    fn send(&self) {
        let transport = self.transport.get().unwrap();
        transport.send(SERVER, Channel::Data, self.request.clone()).unwrap();
    }

    /// So many requests, at most `depth` of them under way at once.
    fn exchange(&self, requests: u64, depth: u64, done: &Receiver<()>) -> Duration {
        let at_once = depth.min(requests);
        self.to_send.store(requests - at_once, Ordering::Release);
        self.to_come.store(requests, Ordering::Release);
        let began = Instant::now();
        (0..at_once).for_each(|_| self.send());
        done.recv_timeout(support::LONG).unwrap();
        began.elapsed()
    }
}

/// Two nodes with streams both ways.
fn connected(unprotected: Unprotected) -> (Vec<TlsNode>, Arc<Client>, Receiver<()>) {
    let nodes = cluster(2, 64 << 20, unprotected);
    let (done, told) = channel();
    let client = Arc::new(Client {
        transport: OnceLock::new(),
        request: Message::with_payload(vec![1; 64], vec![Bytes::from(vec![7; 4096])]),
        to_send: AtomicU64::new(0),
        to_come: AtomicU64::new(0),
        done,
    });
    let server = Arc::new(Server::default());
    let ends: Vec<Arc<dyn Transport>> =
        nodes.iter().map(|node| Arc::clone(&node.endpoint) as _).collect();
    let _ = client.transport.set(Arc::clone(&ends[0]));
    let _ = server.transport.set(Arc::clone(&ends[1]));
    nodes[0].start(Arc::clone(&client) as _);
    nodes[1].start(server);
    ends[0].connect(SERVER, Channel::Data);
    ends[1].connect(CLIENT, Channel::Data);
    while ends[1].send(CLIENT, Channel::Data, Message::new(vec![0; 32])).is_err() {
        thread::sleep(Duration::from_millis(5));
    }
    while ends[0].send(SERVER, Channel::Data, Message::new(vec![0; 32])).is_err() {
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(Duration::from_millis(200));
    (nodes, client, told)
}

fn transports(c: &mut Criterion) {
    for (name, unprotected) in [("tls", Unprotected::Refused), ("zeromq", Unprotected::Everything)]
    {
        let mut group = c.benchmark_group(name);
        let (_nodes, client, done) = connected(unprotected);
        group.throughput(Throughput::Elements(1));
        for depth in [1, 32] {
            group.bench_function(format!("4 KiB and an answer, depth {depth}"), |b| {
                b.iter_custom(|requests| client.exchange(requests, depth, &done));
            });
        }
        group.finish();
    }
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group!(name = all; config = short(); targets = transports);
criterion_main!(all);
