//! What the transport itself costs: 4 KiB requests and small answers between two endpoints over TLS on loopback
//! (or over ZeroMQ, or in memory),
//! at queue depth 1 and 32, and large messages one way.
//!
//! `cargo run --release -p mooring-transport --features zeromq --example pingpong [-- SECONDS [memory|zeromq]]`
#![allow(clippy::disallowed_methods)] // A measurement: real time.
#![allow(clippy::unwrap_used)] // A measurement that fails may panic.

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mooring_terms::NodeId;
use mooring_transport::{
    Channel, Handler, MemoryNetwork, Message, StreamId, Transport, Unprotected,
};
use parking_lot::Mutex;

use crate::support::{Recorder, cluster, send_patiently};

const CLIENT: NodeId = NodeId(1);
const SERVER: NodeId = NodeId(2);

/// The serving side: a small answer to every request, from the reader's thread.
#[derive(Default)]
struct Server {
    transport: OnceLock<Arc<dyn Transport>>,
}

/// The asking side: keeps `depth` requests under way, a new one for every answer, from the reader's thread.
struct Client {
    transport: OnceLock<Arc<dyn Transport>>,
    request: Message,
    state: Mutex<State>,
    done: Sender<Vec<Duration>>,
}

#[derive(Default)]
struct State {
    sent: std::collections::VecDeque<Instant>,
    latencies: Vec<Duration>,
    until: Option<Instant>,
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

    fn message(&self, from: NodeId, channel: Channel, _: StreamId, _: Message) {
        let now = Instant::now();
        {
            let mut state = self.state.lock();
            let Some(sent) = state.sent.pop_front() else { return };
            state.latencies.push(now - sent);
            if state.until.is_none_or(|until| now >= until) {
                if state.sent.is_empty() {
                    let _ = self.done.send(std::mem::take(&mut state.latencies));
                }
                return;
            }
            state.sent.push_back(now);
        }
        self.transport.get().unwrap().send(from, channel, self.request.clone()).unwrap();
    }
}

fn run(client: &Client, done: &Receiver<Vec<Duration>>, depth: usize, time: Duration) {
    for (measured, time) in [(false, time / 4), (true, time)] {
        let began = Instant::now();
        client.state.lock().until = Some(began + time);
        for _ in 0..depth {
            client.state.lock().sent.push_back(Instant::now());
            let transport = client.transport.get().unwrap();
            transport.send(SERVER, Channel::Data, client.request.clone()).unwrap();
        }
        let mut latencies = done.recv().unwrap();
        let elapsed = began.elapsed().as_secs_f64();
        latencies.sort_unstable();
        let at =
            |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize].as_nanos() as f64 / 1e3;
        if measured {
            println!(
                "4 KiB request, 32 B answer, depth {depth:>3}: p50 {:>6.1} us  p99 {:>7.1} us  {:>9.0} per s",
                at(0.5),
                at(0.99),
                latencies.len() as f64 / elapsed
            );
        }
    }
}

fn pingpong(
    one: Arc<dyn Transport>,
    two: Arc<dyn Transport>,
    start: impl FnOnce(Arc<dyn Handler>, Arc<dyn Handler>),
    time: Duration,
) {
    let (done, finished) = channel();
    let payload = Bytes::from(vec![7; 4096]);
    let client = Arc::new(Client {
        transport: OnceLock::new(),
        request: Message::with_payload(vec![1; 64], vec![payload]),
        state: Mutex::default(),
        done,
    });
    let server = Arc::new(Server::default());
    client.transport.set(Arc::clone(&one)).ok().unwrap();
    server.transport.set(Arc::clone(&two)).ok().unwrap();
    start(Arc::clone(&client) as _, server);
    one.connect(SERVER, Channel::Data);
    two.connect(CLIENT, Channel::Data);
    // Both ways up: nobody else listens to the reports here.
    while one.send(SERVER, Channel::Data, Message::new(vec![0; 32])).is_err()
        || two.send(CLIENT, Channel::Data, Message::new(vec![0; 32])).is_err()
    {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(50));
    for depth in [1, 4, 32] {
        run(&client, &finished, depth, time);
    }
}

fn bulk(time: Duration, unprotected: Unprotected) {
    let nodes = cluster(2, 64 << 20, unprotected);
    let recorders = [Recorder::new(), Recorder::new()];
    struct Count(Mutex<u64>);
    impl Handler for Count {
        fn connected(&self, _: NodeId, _: Channel) {}
        fn disconnected(&self, _: NodeId, _: Channel) {}
        fn incoming_closed(&self, _: NodeId, _: Channel, _: StreamId) {}
        fn message(&self, _: NodeId, _: Channel, _: StreamId, message: Message) {
            *self.0.lock() += message.len() as u64;
        }
    }
    let count = Arc::new(Count(Mutex::new(0)));
    nodes[0].start(Arc::clone(&recorders[0]) as _);
    nodes[1].start(Arc::clone(&count) as _);
    nodes[0].endpoint.connect(SERVER, Channel::Data);
    recorders[0].wait_connected(SERVER, Channel::Data);
    let message = Message::with_payload(vec![1; 64], vec![Bytes::from(vec![7; 1 << 20])]);
    let began = Instant::now();
    while began.elapsed() < time {
        send_patiently(&*nodes[0].endpoint, SERVER, Channel::Data, &message);
    }
    let bytes = *count.0.lock();
    println!(
        "1 MiB messages one way: {:.0} MiB/s",
        bytes as f64 / 1048576.0 / began.elapsed().as_secs_f64()
    );
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(2.0);
    let time = Duration::from_secs_f64(seconds);
    let over = arguments.next();
    if over.as_deref() == Some("memory") {
        let network = MemoryNetwork::new();
        let (one, two) = (network.endpoint(CLIENT, 64 << 20), network.endpoint(SERVER, 64 << 20));
        let start = |client, server| {
            one.start(client);
            two.start(server);
        };
        pingpong(Arc::clone(&one) as _, Arc::clone(&two) as _, start, time);
        return;
    }
    let unprotected = match over.as_deref() {
        #[cfg(feature = "zeromq")]
        Some("zeromq") => Unprotected::Everything,
        _ => Unprotected::Refused,
    };
    {
        let nodes = cluster(2, 64 << 20, unprotected);
        let start = |client, server| {
            nodes[0].start(client);
            nodes[1].start(server);
        };
        let (one, two) = (Arc::clone(&nodes[0].endpoint), Arc::clone(&nodes[1].endpoint));
        pingpong(one as _, two as _, start, time);
    }
    bulk(time, unprotected);
}
