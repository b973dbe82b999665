//! Requests and replies between nodes, over whatever carries messages.
//!
//! ```text
//!   call(to, service, body) ──frame──> Wire::send ~~~~> incoming(from, frame) ──> Service::call
//!        ^                                                                             │
//!        └──── incoming(from, frame) <~~~~ Wire::send <──frame (same number) ──────────┘
//! ```
//!
//! A frame is `version (1) | kind (1) | number (8, little-endian) | ...`; a request goes on with the
//! length of the service's name (1), the name, and the body; a reply with a status (1) and the body.
//!
//! Invariants: a call ends within its timeout; at most [`OUTSTANDING`] calls to a peer, and as many
//! from it, are under way, not counting Raft's own, which must never wait behind others; whoever
//! asks is known from the wire, never from the body; an answer for which there is no way yet is kept
//! for a second.
//!
//! It must not retry, keep order between calls, or look into bodies.

mod memory;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use mooring_terms::{ErrorKind, NodeId};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

pub use memory::MemoryNetwork;

/// How many calls there may be at once to one peer, and from one.
pub const OUTSTANDING: usize = 256;
/// The largest body, in bytes.
pub const MAX_BODY_BYTES: usize = 12 << 20;
/// The first byte of each frame.
const VERSION: u8 = 1;
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const HEADER_BYTES: usize = 10;
const MAX_NAME_BYTES: usize = 64;
/// Between two tries to send an answer for which there is no way yet.
const ANSWER_PAUSE: Duration = Duration::from_millis(20);
/// For how long: about as long as anybody waits for one.
const ANSWER_TRIES: u32 = 50;

/// What carries frames to other nodes: a method of the transport, or the in-memory twin. What comes
/// back is given to [`Rpc::incoming`].
pub trait Wire: Send + Sync {
    /// Takes a frame for `to`, without blocking; frames to one node stay in order or get lost.
    ///
    /// # Errors
    /// [`WireDown`] if it was not taken.
    fn send(&self, to: NodeId, frame: Bytes) -> Result<(), WireDown>;
}

/// There is no way to the node now, or its window is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no way to this node now")]
pub struct WireDown;

/// What answers requests of one name.
#[async_trait]
pub trait Service: Send + Sync {
    /// Answers a request of node `from`.
    ///
    /// # Errors
    /// [`Malformed`] if the body is not what this service expects.
    async fn call(&self, from: NodeId, body: Bytes) -> Result<Bytes, Malformed>;
}

/// A body that can't be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request can't be decoded")]
pub struct Malformed;

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// The request was never sent.
    #[error("there is no connection to node {0}")]
    Down(NodeId),
    /// The connection broke after the request was sent.
    #[error("the connection to node {0} broke before it answered")]
    Broken(NodeId),
    /// No answer in time.
    #[error("node {0} did not answer in time")]
    Timeout(NodeId),
    /// Too many calls at once, here or there; this one was not handled.
    #[error("too many requests to node {0} at once")]
    Busy(NodeId),
    /// The body is too large to be sent.
    #[error("a request of {bytes} bytes is too large")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The node knows no such service.
    #[error("node {0} does not know this request: is its software older?")]
    NoService(NodeId),
    /// The node could not decode the request.
    #[error("node {0} could not read the request")]
    Malformed(NodeId),
}

impl RpcError {
    /// What the caller must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Down(_) | Self::Broken(_) | Self::Timeout(_) => ErrorKind::Unavailable,
            Self::Busy(_) => ErrorKind::Retry,
            Self::TooLarge { .. } | Self::NoService(_) | Self::Malformed(_) => ErrorKind::Invalid,
        }
    }

    /// Whether the request may have been handled, though there is no answer.
    #[must_use]
    pub fn may_have_been_handled(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::Timeout(_))
    }
}

/// Statuses of replies.
const OK: u8 = 0;
const BUSY: u8 = 1;
const NO_SERVICE: u8 = 2;
const MALFORMED: u8 = 3;

/// A call that waits for its reply.
struct Pending {
    to: NodeId,
    reply: oneshot::Sender<Result<Bytes, RpcError>>,
}

/// How many calls are under way with one peer.
#[derive(Default)]
struct Load {
    to: AtomicUsize,
    from: AtomicUsize,
}

/// Called with the sender of every frame that arrives.
type Heard = Box<dyn Fn(NodeId) + Send + Sync>;

/// One node's end: calls others, and answers them. Its methods may be called from any thread.
pub struct Rpc {
    node: NodeId,
    wire: Arc<dyn Wire>,
    runtime: Handle,
    next: AtomicU64,
    pending: Mutex<HashMap<u64, Pending>>,
    services: RwLock<HashMap<&'static str, Arc<dyn Service>>>,
    load: Mutex<HashMap<NodeId, Arc<Load>>>,
    heard: RwLock<Option<Heard>>,
}

impl Rpc {
    /// The end of `node`, which sends through `wire` and answers on `runtime`.
    #[must_use]
    pub fn new(node: NodeId, wire: Arc<dyn Wire>, runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            node,
            wire,
            runtime,
            next: AtomicU64::new(1),
            pending: Mutex::new(HashMap::new()),
            services: RwLock::new(HashMap::new()),
            load: Mutex::new(HashMap::new()),
            heard: RwLock::new(None),
        })
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Answers requests named `name` by `service` from now on.
    ///
    /// # Panics
    /// If the name has more than 64 bytes.
    pub fn serve(&self, name: &'static str, service: Arc<dyn Service>) {
        assert!(name.len() <= MAX_NAME_BYTES, "a service's name fits its field");
        self.services.write().insert(name, service);
    }

    /// Tells `heard` of every node that a frame comes from.
    pub(crate) fn on_heard(&self, heard: impl Fn(NodeId) + Send + Sync + 'static) {
        *self.heard.write() = Some(Box::new(heard));
    }

    /// Asks `service` of node `to`, and waits for its answer up to `timeout`.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn call(
        &self,
        to: NodeId,
        service: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, RpcError> {
        if body.len() > MAX_BODY_BYTES {
            return Err(RpcError::TooLarge { bytes: body.len() });
        }
        let _guard =
            Counted::new(self.load(to), service, |load| &load.to).ok_or(RpcError::Busy(to))?;
        if to == self.node {
            let answer = self.dispatch(self.node, service.as_bytes(), body);
            return match tokio::time::timeout(timeout, answer).await {
                Ok((status, body)) => outcome(to, status, body),
                Err(_) => Err(RpcError::Timeout(to)),
            };
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.pending.lock().insert(number, Pending { to, reply: sender });
        let forget = Forget { rpc: self, number };
        let mut frame = BytesMut::with_capacity(HEADER_BYTES + 1 + service.len() + body.len());
        put_header(&mut frame, REQUEST, number);
        frame.put_u8(u8::try_from(service.len()).unwrap_or(u8::MAX));
        frame.put_slice(service.as_bytes());
        frame.put_slice(&body);
        self.wire.send(to, frame.freeze()).map_err(|WireDown| RpcError::Down(to))?;
        let answer = tokio::time::timeout(timeout, receiver).await;
        drop(forget);
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(RpcError::Broken(to)),
            Err(_) => Err(RpcError::Timeout(to)),
        }
    }

    /// Takes a frame that came from node `from`. Bad frames are dropped.
    pub fn incoming(self: &Arc<Self>, from: NodeId, frame: Bytes) {
        if frame.len() < HEADER_BYTES || frame[0] != VERSION {
            tracing::warn!(node = %from, "dropped a frame that can't be read");
            return;
        }
        if let Some(heard) = &*self.heard.read() {
            heard(from);
        }
        let number = u64::from_le_bytes(frame[2..10].try_into().expect("eight bytes are eight"));
        let rest = frame.slice(HEADER_BYTES..);
        match frame[1] {
            REQUEST => self.request(from, number, rest),
            REPLY => self.reply(from, number, &rest),
            kind => tracing::warn!(node = %from, kind, "dropped a frame of an unknown kind"),
        }
    }

    /// The connection to `peer` is gone: calls that wait for it end.
    pub fn disconnected(&self, peer: NodeId) {
        let mut pending = self.pending.lock();
        let lost: Vec<u64> =
            pending.iter().filter(|(_, call)| call.to == peer).map(|(number, _)| *number).collect();
        for number in lost {
            if let Some(call) = pending.remove(&number) {
                let _ = call.reply.send(Err(RpcError::Broken(peer)));
            }
        }
    }

    fn request(self: &Arc<Self>, from: NodeId, number: u64, rest: Bytes) {
        let Some((&length, _)) = rest.split_first() else { return };
        let length = usize::from(length);
        if length > MAX_NAME_BYTES || rest.len() < 1 + length {
            tracing::warn!(node = %from, "dropped a request that can't be read");
            return;
        }
        let name = rest.slice(1..=length);
        let body = rest.slice(1 + length..);
        let Some(guard) = Counted::new(self.load(from), text_of(&name), |load| &load.from) else {
            // Whoever asked will notice if this gets lost: it has a timeout.
            let _ = self.wire.send(from, answer(number, BUSY, &Bytes::new()));
            return;
        };
        let rpc = Arc::clone(self);
        self.runtime.spawn(async move {
            let (status, body) = rpc.dispatch(from, &name, body).await;
            let frame = answer(number, status, &body);
            let mut guard = Some(guard);
            for _ in 0..ANSWER_TRIES {
                // Before the answer: whoever gets it may ask again at once, and is to find room.
                drop(guard.take());
                if rpc.wire.send(from, frame.clone()).is_ok() {
                    return;
                }
                // Streams are one-way, and each side dials its own: the first request comes over one
                // that has just come up, while ours to whoever asked may not be there yet.
                guard = Counted::new(rpc.load(from), text_of(&name), |load| &load.from);
                if guard.is_none() {
                    return;
                }
                pause(ANSWER_PAUSE).await;
            }
        });
    }

    async fn dispatch(&self, from: NodeId, name: &[u8], body: Bytes) -> (u8, Bytes) {
        let name = text_of(name);
        let service = self.services.read().get(name).cloned();
        let Some(service) = service else {
            tracing::warn!(node = %from, service = name, "request for an unknown service");
            return (NO_SERVICE, Bytes::new());
        };
        match service.call(from, body).await {
            Ok(body) => (OK, body),
            Err(Malformed) => {
                tracing::warn!(node = %from, service = name, "request that can't be decoded");
                (MALFORMED, Bytes::new())
            }
        }
    }

    fn reply(&self, from: NodeId, number: u64, rest: &Bytes) {
        let Some((&status, _)) = rest.split_first() else { return };
        let call = {
            let mut pending = self.pending.lock();
            // Only the node that was asked may answer.
            match pending.get(&number) {
                Some(call) if call.to == from => pending.remove(&number),
                _ => None,
            }
        };
        if let Some(call) = call {
            let _ = call.reply.send(outcome(from, status, rest.slice(1..)));
        }
    }

    fn load(&self, peer: NodeId) -> Arc<Load> {
        Arc::clone(self.load.lock().entry(peer).or_default())
    }
}

/// Removes a call that ended without an answer, also when its caller was cancelled.
struct Forget<'a> {
    rpc: &'a Rpc,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.rpc.pending.lock().remove(&self.number);
    }
}

/// One of the two directions.
type Which = fn(&Load) -> &AtomicUsize;

/// One call under way, counted until it is dropped.
struct Counted {
    load: Option<(Arc<Load>, Which)>,
}

impl Counted {
    /// Counts a call; `None` if there are too many. Raft's own calls are few and are not counted.
    fn new(load: Arc<Load>, service: &str, which: Which) -> Option<Self> {
        if service.starts_with("raft.") {
            return Some(Self { load: None });
        }
        let room = |count: usize| (count < OUTSTANDING).then_some(count + 1);
        which(&load).fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        Some(Self { load: Some((load, which)) })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some((load, which)) = &self.load {
            which(load).fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A service's name; one that is no text is nobody's.
fn text_of(name: &[u8]) -> &str {
    std::str::from_utf8(name).unwrap_or("")
}

#[allow(clippy::disallowed_methods)] // A shell: it waits for a stream to come up.
async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

/// The frame of an answer.
fn answer(number: u64, status: u8, body: &Bytes) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + 1 + body.len());
    put_header(&mut frame, REPLY, number);
    frame.put_u8(status);
    frame.put_slice(body);
    frame.freeze()
}

fn put_header(frame: &mut BytesMut, kind: u8, number: u64) {
    frame.put_u8(VERSION);
    frame.put_u8(kind);
    frame.put_u64_le(number);
}

fn outcome(from: NodeId, status: u8, body: Bytes) -> Result<Bytes, RpcError> {
    match status {
        OK => Ok(body),
        BUSY => Err(RpcError::Busy(from)),
        NO_SERVICE => Err(RpcError::NoService(from)),
        _ => Err(RpcError::Malformed(from)),
    }
}
