//! What every transport must do: one suite, run against each implementation.
#![allow(clippy::disallowed_methods)] // Real threads: real time.
#![allow(clippy::unwrap_used)] // In a test a panic is the report.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mooring_terms::NodeId;
use mooring_transport::{Channel, Handler, Message, SendError, StreamId, Transport};

use crate::support::{Event, LONG, Recorder, is_connected, send_patiently};

pub const ONE: NodeId = NodeId(1);
pub const TWO: NodeId = NodeId(2);
pub const THREE: NodeId = NodeId(3);

/// A few connected endpoints of one kind of transport.
pub trait Cluster {
    /// Nodes 1, 2, ... with the given handlers, and a window of so many bytes.
    fn start(window: usize, handlers: Vec<Arc<dyn Handler>>) -> Self;
    /// A node's transport.
    fn transport(&self, node: NodeId) -> &dyn Transport;
    /// A node's transport, to keep.
    fn shared(&self, node: NodeId) -> Arc<dyn Transport>;
    /// Two nodes no longer reach each other.
    fn cut(&self, one: NodeId, other: NodeId);
    /// They do again.
    fn heal(&self, one: NodeId, other: NodeId);
    /// Bytes that may be under way beside the window (buffers of the kernel).
    fn slack() -> usize;
}

const WINDOW: usize = 64 << 20;

fn recorders(count: usize) -> Vec<Arc<Recorder>> {
    (0..count).map(|_| Recorder::new()).collect()
}

fn start<C: Cluster>(window: usize, recorders: &[Arc<Recorder>]) -> C {
    C::start(window, recorders.iter().map(|r| Arc::clone(r) as Arc<dyn Handler>).collect())
}

fn numbered(number: u64, length: usize) -> Message {
    let payload = Bytes::from(vec![number as u8; length]);
    Message::with_payload(number.to_le_bytes().to_vec(), vec![payload])
}

fn number_of(message: &Message) -> u64 {
    u64::from_le_bytes(message.header[..8].try_into().unwrap())
}

/// Messages of all shapes arrive complete and in order.
pub fn messages_arrive_in_order<C: Cluster>() {
    let r = recorders(2);
    let cluster: C = start(WINDOW, &r);
    cluster.transport(ONE).connect(TWO, Channel::Data);
    r[0].wait_connected(TWO, Channel::Data);
    let large: Bytes = (0..(3 << 20)).map(|i: u32| ((i * 7) >> 3) as u8).collect::<Vec<_>>().into();
    let mut sent = Vec::new();
    for i in 0..600_usize {
        let payload = match i % 6 {
            0 => vec![],
            1 => vec![Bytes::new(), large.slice(i..i + 1), Bytes::new()],
            2 => vec![large.slice(i..i + 4096)],
            3 => (0..40).map(|k| large.slice(i + k..i + k * 100)).collect(),
            4 => vec![large.slice(i..i + 17), large.slice(0..8192), large.slice(5..5000)],
            _ if i % 60 == 5 => vec![large.slice(i..i + (1 << 20))],
            _ => (0..255).map(|k| large.slice(k..k + 3)).collect(),
        };
        sent.push(Message::with_payload(i.to_le_bytes().to_vec(), payload));
    }
    sent.push(Message::default());
    sent.push(Message::with_payload(vec![1], vec![Bytes::from(vec![9; (16 << 20) - 1])]));
    for message in &sent {
        send_patiently(cluster.transport(ONE), TWO, Channel::Data, message);
    }
    r[1].wait_messages(ONE, Channel::Data, sent.len());
    let got: Vec<_> = r[1].messages(ONE, Channel::Data).into_iter().map(|(_, m)| m).collect();
    assert!(got == sent, "what arrived is not what was sent");
}

/// Several threads send at once: nothing is lost, and each thread's messages keep their order.
pub fn senders_do_not_disturb_each_other<C: Cluster>() {
    const EACH: u64 = 2_000;
    let r = recorders(2);
    let cluster: C = start(WINDOW, &r);
    cluster.transport(ONE).connect(TWO, Channel::Data);
    r[0].wait_connected(TWO, Channel::Data);
    thread::scope(|scope| {
        for sender in 0..4_u64 {
            let transport = cluster.shared(ONE);
            scope.spawn(move || {
                for i in 0..EACH {
                    let message = numbered(sender << 32 | i, (i % 5) as usize * 1000);
                    send_patiently(&*transport, TWO, Channel::Data, &message);
                }
            });
        }
    });
    r[1].wait_messages(ONE, Channel::Data, 4 * EACH as usize);
    let mut next = BTreeMap::<u64, u64>::new();
    for (_, message) in r[1].messages(ONE, Channel::Data) {
        let (sender, i) = (number_of(&message) >> 32, number_of(&message) & 0xffff_ffff);
        let expected = next.entry(sender).or_default();
        assert_eq!(i, *expected, "of sender {sender}");
        *expected += 1;
    }
    assert!(next.values().all(|&count| count == EACH), "{next:?}");
}

/// A peer that doesn't read fills the window; the window empties when it reads.
pub fn a_full_window_says_so_and_recovers<C: Cluster>() {
    let window = 4 << 20;
    let r = recorders(2);
    let cluster: C = start(window, &r);
    cluster.transport(ONE).connect(TWO, Channel::Data);
    r[0].wait_connected(TWO, Channel::Data);
    r[1].hold(Channel::Data);
    let mut accepted = 0_u64;
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut full_since: Option<Instant> = None;
    // Full for a while: what fits into the kernel has gone there.
    while full_since.is_none_or(|at| at.elapsed() < Duration::from_millis(200)) {
        assert!(Instant::now() < deadline, "never full after {accepted} messages");
        match cluster.transport(ONE).send(TWO, Channel::Data, numbered(accepted, 64 << 10)) {
            Ok(()) => (accepted, full_since) = (accepted + 1, None),
            Err(SendError::Full) => {
                full_since.get_or_insert_with(Instant::now);
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    }
    let bytes = accepted as usize * (64 << 10);
    assert!(bytes >= window / 2, "full after {bytes} bytes");
    assert!(bytes <= window + C::slack(), "{bytes} bytes were taken");
    r[1].release(Channel::Data);
    for extra in 0..100 {
        send_patiently(cluster.transport(ONE), TWO, Channel::Data, &numbered(accepted + extra, 10));
    }
    r[1].wait_messages(ONE, Channel::Data, accepted as usize + 100);
    let numbers: Vec<_> =
        r[1].messages(ONE, Channel::Data).iter().map(|(_, m)| number_of(m)).collect();
    assert_eq!(numbers, (0..accepted + 100).collect::<Vec<_>>());
}

/// Streams are broken again and again under load: within a stream nothing is missing, and after a
/// message of a newer stream none of an older one comes.
pub fn broken_streams_never_reorder<C: Cluster>() {
    let r = recorders(2);
    let cluster: C = start(WINDOW, &r);
    let transport = cluster.transport(ONE);
    transport.connect(TWO, Channel::Data);
    let mut number = 0;
    for round in 0..12 {
        r[0].wait_connected(TWO, Channel::Data);
        for _ in 0..200 {
            let message = numbered(number, if number % 10 == 0 { 100_000 } else { 50 });
            match transport.send(TWO, Channel::Data, message) {
                Ok(()) => number += 1,
                Err(SendError::Down) => break,
                Err(error) => panic!("{error}"),
            }
        }
        transport.break_stream(TWO, Channel::Data);
        let downs = round + 1;
        r[0].wait("a break", |events| {
            events.iter().filter(|e| matches!(e, Event::Disconnected(..))).count() >= downs
        });
    }
    r[0].wait_connected(TWO, Channel::Data);
    transport.send(TWO, Channel::Data, numbered(u64::MAX, 0)).unwrap();
    r[1].wait(
        "the last message",
        |events| matches!(events.last(), Some(Event::Message(.., m)) if number_of(m) == u64::MAX),
    );
    check_streams(&r[1].events());
    check_reports(&r[0].events(), TWO);
}

/// Messages of a stream lie between its first and its close, dense and in order; streams don't mix.
fn check_streams(events: &[Event]) {
    let mut closed: Vec<StreamId> = Vec::new();
    let mut current: Option<StreamId> = None;
    let mut last: Option<u64> = None;
    for event in events {
        match event {
            Event::Message(.., stream, message) => {
                assert!(!closed.contains(stream), "a message of {stream:?} after its close");
                if current != Some(*stream) {
                    assert!(current.is_none(), "{stream:?} began before {current:?} was closed");
                    (current, last) = (Some(*stream), None);
                }
                let number = number_of(message);
                if number != u64::MAX {
                    assert!(last.is_none_or(|l| number == l + 1), "{number} after {last:?}");
                    last = Some(number);
                }
            }
            Event::Closed(.., stream) => {
                closed.push(*stream);
                if current == Some(*stream) {
                    current = None;
                }
            }
            _ => {}
        }
    }
}

/// `connected` and `disconnected` alternate, beginning with `connected`.
fn check_reports(events: &[Event], peer: NodeId) {
    let mut up = false;
    for event in events {
        match event {
            Event::Connected(node, _) if *node == peer => {
                assert!(!up, "connected twice");
                up = true;
            }
            Event::Disconnected(node, _) if *node == peer => {
                assert!(up, "disconnected without a stream");
                up = false;
            }
            _ => {}
        }
    }
}

/// A peer that is stuck or cut off is no trouble to the others, nor one channel to another.
pub fn a_stuck_peer_blocks_nobody<C: Cluster>() {
    let r = recorders(3);
    let cluster: C = start(1 << 20, &r);
    let transport = cluster.transport(ONE);
    for (peer, channel) in [
        (TWO, Channel::Data),
        (TWO, Channel::Beacon),
        (THREE, Channel::Data),
        (THREE, Channel::Control),
    ] {
        transport.connect(peer, channel);
        r[0].wait_connected(peer, channel);
    }
    r[1].hold(Channel::Data);
    while transport.send(TWO, Channel::Data, numbered(0, 256 << 10)) != Err(SendError::Full) {}
    let began = Instant::now();
    assert_eq!(transport.send(TWO, Channel::Data, numbered(0, 1 << 20)), Err(SendError::Full));
    for i in 0..100 {
        send_patiently(transport, THREE, Channel::Data, &numbered(i, 4096));
        send_patiently(transport, TWO, Channel::Beacon, &numbered(i, 10));
    }
    r[2].wait_messages(ONE, Channel::Data, 100);
    r[1].wait_messages(ONE, Channel::Beacon, 100);
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    cluster.cut(ONE, TWO);
    r[0].wait("the cut", |events| !is_connected(events, TWO, Channel::Data));
    assert_eq!(transport.send(TWO, Channel::Data, numbered(0, 0)), Err(SendError::Down));
    for i in 0..100 {
        send_patiently(transport, THREE, Channel::Control, &numbered(i, 4096));
    }
    r[2].wait_messages(ONE, Channel::Control, 100);
    assert!(is_connected(&r[0].events(), THREE, Channel::Data));
    r[1].release(Channel::Data);
}

/// After a cut both sides are told; after it heals the stream comes back by itself.
pub fn a_cut_is_reported_and_heals<C: Cluster>() {
    let r = recorders(2);
    let cluster: C = start(WINDOW, &r);
    let transport = cluster.transport(ONE);
    transport.connect(TWO, Channel::Control);
    r[0].wait_connected(TWO, Channel::Control);
    transport.send(TWO, Channel::Control, numbered(1, 0)).unwrap();
    r[1].wait_messages(ONE, Channel::Control, 1);
    cluster.cut(ONE, TWO);
    r[0].wait("disconnected", |events| !is_connected(events, TWO, Channel::Control));
    r[1].wait("closed", |events| matches!(events.last(), Some(Event::Closed(..))));
    assert_eq!(transport.send(TWO, Channel::Control, numbered(2, 0)), Err(SendError::Down));
    thread::sleep(Duration::from_millis(100));
    assert!(!is_connected(&r[0].events(), TWO, Channel::Control));
    cluster.heal(ONE, TWO);
    r[0].wait_connected(TWO, Channel::Control);
    transport.send(TWO, Channel::Control, numbered(3, 0)).unwrap();
    r[1].wait_messages(ONE, Channel::Control, 2);
    check_reports(&r[0].events(), TWO);
}

/// What can't be sent is an error, and nothing is kept of it.
pub fn what_cannot_be_sent_is_refused<C: Cluster>() {
    let r = recorders(2);
    let cluster: C = start(WINDOW, &r);
    let transport = cluster.transport(ONE);
    let hello = || Message::new(&b"hello"[..]);
    assert_eq!(transport.send(NodeId(99), Channel::Data, hello()), Err(SendError::Down));
    assert_eq!(transport.send(TWO, Channel::Data, hello()), Err(SendError::Down));
    transport.connect(NodeId(99), Channel::Data);
    transport.break_stream(NodeId(98), Channel::Data);
    transport.disconnect(NodeId(98));
    transport.connect(TWO, Channel::Data);
    r[0].wait_connected(TWO, Channel::Data);
    assert_eq!(transport.send(NodeId(99), Channel::Data, hello()), Err(SendError::Down));
    assert_eq!(transport.send(TWO, Channel::Beacon, hello()), Err(SendError::Down));
    let long = Message::new(vec![0; (16 << 20) + 1]);
    assert_eq!(transport.send(TWO, Channel::Data, long), Err(SendError::TooLarge));
    let many = Message::with_payload(vec![], vec![Bytes::new(); 256]);
    assert_eq!(transport.send(TWO, Channel::Data, many), Err(SendError::TooLarge));
    transport.send(TWO, Channel::Data, hello()).unwrap();
    r[1].wait_messages(ONE, Channel::Data, 1);
    assert_eq!(r[1].messages(ONE, Channel::Data).len(), 1);
}

/// A peer that is no longer wanted is left alone until it is wanted again.
pub fn disconnect_ends_the_streams<C: Cluster>() {
    let r = recorders(2);
    let cluster: C = start(WINDOW, &r);
    let transport = cluster.transport(ONE);
    for channel in [Channel::Data, Channel::Beacon] {
        transport.connect(TWO, channel);
        transport.connect(TWO, channel);
        r[0].wait_connected(TWO, channel);
    }
    transport.disconnect(TWO);
    r[0].wait("both gone", |events| {
        !is_connected(events, TWO, Channel::Data) && !is_connected(events, TWO, Channel::Beacon)
    });
    assert_eq!(transport.send(TWO, Channel::Data, numbered(0, 0)), Err(SendError::Down));
    thread::sleep(Duration::from_millis(150));
    assert!(!is_connected(&r[0].events(), TWO, Channel::Data));
    transport.connect(TWO, Channel::Data);
    r[0].wait_connected(TWO, Channel::Data);
    // At once: the thread of the stream may be on its way out.
    transport.disconnect(TWO);
    transport.connect(TWO, Channel::Data);
    // What still goes into the stream that ends is lost with it.
    let began = Instant::now();
    while r[1].messages(ONE, Channel::Data).is_empty() {
        assert!(began.elapsed() < LONG, "no stream again");
        let _ = transport.send(TWO, Channel::Data, numbered(7, 0));
        thread::sleep(Duration::from_millis(10));
    }
}

/// Answers every message from within the handler.
struct Echo {
    transport: OnceLock<Arc<dyn Transport>>,
}

impl Handler for Echo {
    fn connected(&self, _: NodeId, _: Channel) {}
    fn disconnected(&self, _: NodeId, _: Channel) {}
    fn incoming_closed(&self, _: NodeId, _: Channel, _: StreamId) {}

    fn message(&self, from: NodeId, channel: Channel, _: StreamId, message: Message) {
        let transport = self.transport.get().unwrap();
        // The test waits for the answers it gets.
        let _ = transport.send(from, channel, message);
    }
}

/// A handler may send; requests and answers cross without waiting for each other.
pub fn handlers_may_send<C: Cluster>() {
    let recorder = Recorder::new();
    let echo = Arc::new(Echo { transport: OnceLock::new() });
    let cluster = C::start(WINDOW, vec![Arc::clone(&recorder) as _, Arc::clone(&echo) as _]);
    echo.transport.set(cluster.shared(TWO)).ok().unwrap();
    cluster.transport(ONE).connect(TWO, Channel::Data);
    cluster.transport(TWO).connect(ONE, Channel::Data);
    recorder.wait_connected(TWO, Channel::Data);
    // The echo's own stream may come up a little later.
    let echoed = |event: &Event| matches!(event, Event::Message(..));
    while !recorder.events().iter().any(echoed) {
        send_patiently(cluster.transport(ONE), TWO, Channel::Data, &numbered(u64::MAX, 0));
        thread::sleep(Duration::from_millis(5));
    }
    for i in 0..5_000 {
        send_patiently(cluster.transport(ONE), TWO, Channel::Data, &numbered(i, 4096));
    }
    let echoes = |events: &[Event]| {
        let number = |event: &Event| match event {
            Event::Message(.., message) => Some(number_of(message)),
            _ => None,
        };
        events.iter().filter_map(number).filter(|&n| n != u64::MAX).collect::<Vec<_>>()
    };
    recorder.wait("all echoes", |events| echoes(events).len() == 5_000);
    assert_eq!(echoes(&recorder.events()), (0..5_000).collect::<Vec<_>>());
}

/// Makes one test of each property for a kind of cluster.
#[macro_export]
macro_rules! conformance {
    ($cluster:ty: $($property:ident),* $(,)?) => {$(
        #[test]
        fn $property() {
            $crate::suite::$property::<$cluster>();
        }
    )*};
    ($cluster:ty) => {
        $crate::conformance! { $cluster:
            messages_arrive_in_order,
            senders_do_not_disturb_each_other,
            a_full_window_says_so_and_recovers,
            broken_streams_never_reorder,
            a_stuck_peer_blocks_nobody,
            a_cut_is_reported_and_heals,
            what_cannot_be_sent_is_refused,
            disconnect_ends_the_streams,
            handlers_may_send,
        }
    };
}
