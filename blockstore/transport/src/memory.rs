//! The in-memory twin of the transport: a network inside one process, for tests and benchmarks.
//!
//! ```text
//!   MemoryNetwork ─ endpoint(1) ─ link (1 ▶ 2, Data) ─ sender's thread: connected, disconnected
//!        │                                            └ delivery thread: message, incoming_closed
//!        └ cut(1, 2), heal(1, 2)
//! ```
//! It keeps the promises of [`crate::contract`] with queues in place of sockets. A message's bytes
//! count in the window until its handler has returned.
#![allow(clippy::disallowed_methods)] // A shell: pauses between streams, on real threads.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::Duration;

use mooring_terms::NodeId;
use parking_lot::{Condvar, Mutex};

use crate::contract::{Channel, Handler, Message, SendError, StreamId, Transport};
use crate::proto;

/// The pause before a stream is made again.
const PAUSE: Duration = Duration::from_millis(20);

/// A network in memory. Cheap to clone.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    state: Arc<Mutex<NetworkState>>,
}

#[derive(Default)]
struct NetworkState {
    handlers: HashMap<NodeId, Arc<dyn Handler>>,
    /// Pairs that don't reach each other, the lower node first.
    cut: BTreeSet<(NodeId, NodeId)>,
    links: Vec<Weak<Link>>,
    streams: u64,
}

/// One node's end of all its streams. Its streams end when it is dropped.
pub struct MemoryEndpoint {
    network: MemoryNetwork,
    node: NodeId,
    window: usize,
    handler: OnceLock<Arc<dyn Handler>>,
    links: Mutex<HashMap<(NodeId, Channel), Arc<Link>>>,
}

/// What goes from one node to another on one channel.
struct Link {
    from: NodeId,
    to: NodeId,
    channel: Channel,
    window: usize,
    state: Mutex<LinkState>,
    changed: Condvar,
}

#[derive(Default)]
struct LinkState {
    wanted: bool,
    /// Whether a thread serves the link.
    served: bool,
    /// The stream that is up, and that senders write to.
    up: Option<StreamId>,
    /// Whether the stream is to be cut.
    broken: bool,
    queue: VecDeque<Message>,
    bytes: usize,
}

impl MemoryNetwork {
    /// A network without nodes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A node's endpoint, with a window of so many bytes for each peer and channel. Nothing reaches
    /// it before it is started.
    #[must_use]
    pub fn endpoint(&self, node: NodeId, window: usize) -> Arc<MemoryEndpoint> {
        Arc::new(MemoryEndpoint {
            network: self.clone(),
            node,
            window,
            handler: OnceLock::new(),
            links: Mutex::default(),
        })
    }

    /// Cuts the two nodes off from each other, both ways.
    pub fn cut(&self, one: NodeId, other: NodeId) {
        self.change(|state| {
            state.cut.insert(pair(one, other));
        });
    }

    /// Undoes [`Self::cut`].
    pub fn heal(&self, one: NodeId, other: NodeId) {
        self.change(|state| {
            state.cut.remove(&pair(one, other));
        });
    }

    /// Changes the network and lets every link look again.
    fn change(&self, change: impl FnOnce(&mut NetworkState)) {
        let links: Vec<_> = {
            let mut state = self.state.lock();
            change(&mut state);
            state.links.retain(|link| link.strong_count() > 0);
            state.links.iter().filter_map(Weak::upgrade).collect()
        };
        for link in links {
            // Whoever is about to wait has looked at the network under this lock.
            let _state = link.state.lock();
            link.changed.notify_all();
        }
    }

    /// The handler at the other end, if it is reached.
    fn path(&self, from: NodeId, to: NodeId) -> Option<Arc<dyn Handler>> {
        let state = self.state.lock();
        if state.cut.contains(&pair(from, to)) {
            return None;
        }
        state.handlers.get(&to).cloned()
    }

    fn next_stream(&self) -> StreamId {
        let mut state = self.state.lock();
        state.streams += 1;
        StreamId { boot: 1, number: state.streams }
    }
}

fn pair(one: NodeId, other: NodeId) -> (NodeId, NodeId) {
    (one.min(other), one.max(other))
}

impl MemoryEndpoint {
    /// Begins to report to `handler`, once.
    pub fn start(&self, handler: Arc<dyn Handler>) {
        if self.handler.set(Arc::clone(&handler)).is_ok() {
            self.network.change(|state| {
                state.handlers.insert(self.node, handler);
            });
        }
        for link in self.links.lock().values() {
            self.serve(link);
        }
    }

    /// Starts the link's thread if it has none and this endpoint is started.
    fn serve(&self, link: &Arc<Link>) {
        let Some(handler) = self.handler.get().cloned() else { return };
        let mut state = link.state.lock();
        if state.wanted && !state.served {
            state.served = true;
            let (link, network) = (Arc::clone(link), self.network.clone());
            thread::spawn(move || link.run(&network, &*handler));
        }
    }
}

impl Transport for MemoryEndpoint {
    fn send(&self, to: NodeId, channel: Channel, message: Message) -> Result<(), SendError> {
        proto::check_size(&message)?;
        let link = self.links.lock().get(&(to, channel)).cloned().ok_or(SendError::Down)?;
        let cost = message.cost();
        let mut state = link.state.lock();
        if state.up.is_none() {
            return Err(SendError::Down);
        }
        if state.bytes > 0 && state.bytes + cost > link.window {
            return Err(SendError::Full);
        }
        state.bytes += cost;
        state.queue.push_back(message);
        link.changed.notify_all();
        Ok(())
    }

    fn connect(&self, to: NodeId, channel: Channel) {
        let link = match self.links.lock().entry((to, channel)) {
            Entry::Occupied(entry) => Arc::clone(entry.get()),
            Entry::Vacant(entry) => {
                let link = Arc::new(Link {
                    from: self.node,
                    to,
                    channel,
                    window: self.window,
                    state: Mutex::default(),
                    changed: Condvar::new(),
                });
                self.network.state.lock().links.push(Arc::downgrade(&link));
                Arc::clone(entry.insert(link))
            }
        };
        link.state.lock().wanted = true;
        self.serve(&link);
    }

    fn disconnect(&self, to: NodeId) {
        let links = self.links.lock();
        for link in Channel::ALL.iter().filter_map(|&channel| links.get(&(to, channel))) {
            link.state.lock().wanted = false;
            link.changed.notify_all();
        }
    }

    fn break_stream(&self, to: NodeId, channel: Channel) {
        if let Some(link) = self.links.lock().get(&(to, channel)) {
            link.state.lock().broken = true;
            link.changed.notify_all();
        }
    }
}

impl Drop for MemoryEndpoint {
    fn drop(&mut self) {
        for link in self.links.lock().values() {
            link.state.lock().wanted = false;
            link.changed.notify_all();
        }
        let node = self.node;
        self.network.change(|state| {
            state.handlers.remove(&node);
        });
    }
}

impl Link {
    /// The sender's thread: makes streams and reports them, until nobody wants the link.
    fn run(self: &Arc<Self>, network: &MemoryNetwork, sender: &dyn Handler) {
        while let Some(receiver) = self.wait_for_path(network) {
            let stream = network.next_stream();
            {
                let mut state = self.state.lock();
                state.broken = false;
                state.up = Some(stream);
            }
            let link = Arc::clone(self);
            let delivery = thread::spawn(move || link.deliver(stream, &*receiver));
            sender.connected(self.to, self.channel);
            self.wait_for_break(network);
            sender.disconnected(self.to, self.channel);
            // The next stream begins when this one has ended at the receiver too.
            if delivery.join().is_err() {
                break;
            }
            let mut state = self.state.lock();
            if state.wanted {
                self.changed.wait_for(&mut state, PAUSE);
            }
        }
    }

    /// The receiver's handler once it is reached; `None` when nobody wants the link, which then
    /// counts as not served.
    fn wait_for_path(&self, network: &MemoryNetwork) -> Option<Arc<dyn Handler>> {
        let mut state = self.state.lock();
        loop {
            if !state.wanted {
                state.served = false;
                return None;
            }
            let path = network.path(self.from, self.to);
            if path.is_some() {
                return path;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Until the stream is cut; what is queued is then dropped.
    fn wait_for_break(&self, network: &MemoryNetwork) {
        let mut state = self.state.lock();
        while state.wanted && !state.broken && network.path(self.from, self.to).is_some() {
            self.changed.wait(&mut state);
        }
        state.up = None;
        state.queue.clear();
        state.bytes = 0;
        self.changed.notify_all();
    }

    /// The receiver's thread of one stream.
    fn deliver(&self, stream: StreamId, receiver: &dyn Handler) {
        let mut state = self.state.lock();
        while state.up == Some(stream) {
            let Some(message) = state.queue.pop_front() else {
                self.changed.wait(&mut state);
                continue;
            };
            let cost = message.cost();
            drop(state);
            receiver.message(self.from, self.channel, stream, message);
            state = self.state.lock();
            if state.up == Some(stream) {
                state.bytes -= cost;
            }
        }
        drop(state);
        receiver.incoming_closed(self.from, self.channel, stream);
    }
}
