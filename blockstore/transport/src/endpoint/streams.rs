//! Which incoming stream of a (peer, channel) counts: the newest, and it alone.
//!
//! ```text
//!   stream 1 running ── hello of stream 2 ──▶ 1 is cut ── 1 has ended ──▶ 2 is welcomed, runs
//! ```
//! A sender sends nothing before it is welcomed, and a stream is welcomed only after the one before
//! it has ended. That orders streams of one process as well as those of a process and its
//! successor, whatever the network delays.
//!
//! Invariants: at most one stream of a (peer, channel) runs; within one boot of the sender, numbers
//! of streams that run grow.

use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mooring_terms::NodeId;
use parking_lot::{Condvar, Mutex};

use crate::admission::Admission;
use crate::contract::{Channel, StreamId};
use crate::fingerprint::Fingerprint;
use crate::proto::Hello;

/// The incoming streams of an endpoint.
pub(crate) struct IncomingStreams {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    stopped: bool,
    slots: HashMap<(NodeId, Channel), Slot>,
}

/// The streams of one (peer, channel).
#[derive(Default)]
struct Slot {
    /// The last stream that was let in or waits.
    newest: Option<StreamId>,
    running: Option<Running>,
}

#[derive(Clone)]
struct Running {
    stream: StreamId,
    fingerprint: Fingerprint,
    socket: Arc<TcpStream>,
    cut: Arc<AtomicBool>,
}

/// The right to deliver messages; ends when dropped.
pub(crate) struct Turn {
    streams: Arc<IncomingStreams>,
    key: (NodeId, Channel),
    cut: Arc<AtomicBool>,
}

impl IncomingStreams {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), ended: Condvar::new() })
    }

    /// Makes the stream of `hello` the one that counts: cuts the one before and waits, until
    /// `deadline` at most, for its end. `None` if a newer stream came meanwhile, or came before.
    pub(crate) fn enter(
        self: &Arc<Self>,
        hello: &Hello,
        fingerprint: Fingerprint,
        socket: &Arc<TcpStream>,
        deadline: Instant,
    ) -> Option<Turn> {
        let key = (hello.node, hello.channel);
        let stream = hello.stream;
        let mut state = self.state.lock();
        let slot = state.slots.entry(key).or_default();
        let stale = |newest: StreamId| newest.boot == stream.boot && newest.number >= stream.number;
        if slot.newest.is_some_and(stale) {
            return None;
        }
        slot.newest = Some(stream);
        if let Some(running) = &slot.running {
            running.cut();
        }
        loop {
            let slot = state.slots.entry(key).or_default();
            if slot.newest != Some(stream) {
                return None;
            }
            if slot.running.is_none() {
                break;
            }
            if self.ended.wait_until(&mut state, deadline).timed_out() {
                return None;
            }
        }
        if state.stopped {
            return None;
        }
        let cut = Arc::new(AtomicBool::new(false));
        let socket = Arc::clone(socket);
        let running = Running { stream, fingerprint, socket, cut: Arc::clone(&cut) };
        state.slots.entry(key).or_default().running = Some(running);
        Some(Turn { streams: Arc::clone(self), key, cut })
    }

    /// Cuts the streams whose key is no longer that of their node; gives them.
    pub(crate) fn refresh(&self, admission: &dyn Admission) -> Vec<(NodeId, Channel, StreamId)> {
        let running = self.running();
        let mut cut = Vec::new();
        for ((node, channel), running) in running {
            if admission.node_of(&running.fingerprint) != Some(node) {
                running.cut();
                cut.push((node, channel, running.stream));
            }
        }
        cut
    }

    /// Cuts all streams and lets no further one in.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        for (_, running) in self.running() {
            running.cut();
        }
    }

    /// A copy, so that nobody is asked anything under the lock.
    fn running(&self) -> Vec<((NodeId, Channel), Running)> {
        let state = self.state.lock();
        let running = |(key, slot): (&_, &Slot)| Some((*key, slot.running.clone()?));
        state.slots.iter().filter_map(running).collect()
    }
}

impl Running {
    fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        // It may be gone already; then its reader knows.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl Turn {
    /// Whether nothing further may be delivered.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.streams.state.lock();
        if let Some(slot) = state.slots.get_mut(&self.key) {
            slot.running = None;
        }
        self.streams.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)] // Real threads: real time.

    use std::net::TcpListener;
    use std::thread;
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    fn socket() -> Arc<TcpStream> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap())
    }

    fn enter(
        streams: &Arc<IncomingStreams>,
        boot: u64,
        number: u64,
        limit: Duration,
    ) -> Option<Turn> {
        let stream = StreamId { boot, number };
        let hello = Hello { node: NodeId(1), channel: Channel::Data, stream };
        streams.enter(&hello, Fingerprint::from_bytes([0; 32]), &socket(), Instant::now() + limit)
    }

    #[test]
    fn a_newer_stream_cuts_the_older_and_waits_for_its_end() {
        let streams = IncomingStreams::new();
        let first = enter(&streams, 7, 1, LONG).unwrap();
        thread::scope(|scope| {
            let second = scope.spawn(|| enter(&streams, 7, 2, LONG).is_some());
            while !first.is_cut() {
                thread::yield_now();
            }
            assert!(!second.is_finished());
            drop(first);
            assert!(second.join().unwrap());
        });
    }

    #[test]
    fn an_older_stream_of_the_same_boot_is_refused_and_another_boot_is_not() {
        let streams = IncomingStreams::new();
        drop(enter(&streams, 7, 5, LONG).unwrap());
        assert!(enter(&streams, 7, 5, LONG).is_none());
        assert!(enter(&streams, 7, 4, LONG).is_none());
        assert!(enter(&streams, 3, 1, LONG).is_some());
    }

    #[test]
    fn a_stream_that_does_not_end_is_waited_for_only_so_long() {
        let streams = IncomingStreams::new();
        let _first = enter(&streams, 7, 1, LONG).unwrap();
        assert!(enter(&streams, 7, 2, Duration::from_millis(10)).is_none());
    }

    #[test]
    fn only_the_newest_of_those_that_wait_gets_in() {
        let streams = IncomingStreams::new();
        let first = enter(&streams, 7, 1, LONG).unwrap();
        thread::scope(|scope| {
            let second = scope.spawn(|| enter(&streams, 7, 2, LONG).is_some());
            while !first.is_cut() {
                thread::yield_now();
            }
            let third = scope.spawn(|| enter(&streams, 7, 3, LONG).is_some());
            let newest = || streams.state.lock().slots.values().next().unwrap().newest;
            while newest() != Some(StreamId { boot: 7, number: 3 }) {
                thread::yield_now();
            }
            drop(first);
            assert!(!second.join().unwrap());
            assert!(third.join().unwrap());
        });
    }

    #[test]
    fn nothing_is_let_in_after_the_stop() {
        let streams = IncomingStreams::new();
        let first = enter(&streams, 7, 1, LONG).unwrap();
        streams.stop();
        assert!(first.is_cut());
        drop(first);
        assert!(enter(&streams, 7, 2, LONG).is_none());
    }
}
