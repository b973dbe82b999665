//! What every transport does: ordered, bounded messages to a peer, and a report when a stream breaks.
//!
//! ```text
//!   node 1                                        node 2
//!   connect(2, Data) ── dials ──────────────────▶
//!   connected(2, Data) ◀── stream accepted ──────
//!   send(2, Data, m) ── m1 m2 m3 ───────────────▶ message(1, Data, stream, m1), m2, m3
//!   disconnected(2, Data) ◀── broken ───────────▶ incoming_closed(1, Data, stream)
//! ```
//!
//! A stream carries messages one way only; what comes back comes on the peer's own stream. So a
//! reader and a writer never share a lock.
//!
//! Invariants:
//! - on one stream messages arrive in the order of `send`, none twice, none left out before the break;
//! - `connected` and `disconnected` of one (peer, channel) alternate, beginning with `connected`;
//! - `incoming_closed` of a stream comes after its last message and before the first message of
//!   the next stream of the same (peer, channel);
//! - what is queued to one peer never waits for another.
//!
//! A transport must not interpret messages, retry them on a new stream, or block in `send`.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use mooring_terms::NodeId;
use thiserror::Error;

/// What a message costs in a window beside its bytes, so that empty messages are bounded too.
pub(crate) const MESSAGE_COST: usize = 128;

/// Separate streams to one peer, so that what is urgent never waits behind what is long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// Records, reads and their answers.
    Data,
    /// Configuration: Raft and requests between daemons.
    Control,
    /// Beacons: small, frequent, and never behind anything else.
    Beacon,
}

/// A message: a header and any number of payload frames. Cheap to clone; payloads are never joined
/// or copied by the sender. On arrival a frame of 4 KiB or more begins at an address that is a
/// multiple of 4096 (with transports that lay out what they receive; the in-memory one hands over
/// the sender's own bytes).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The first frame: what the layer above encodes.
    pub header: Bytes,
    /// Further frames, in order; any of them may be empty.
    pub payload: Vec<Bytes>,
}

/// One stream from one peer. Within a `boot` (64 random bits, drawn when a process opens its transport) the
/// number grows with each stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Which run of the sender's process opened the stream.
    pub boot: u64,
    /// The number of the stream in that run.
    pub number: u64,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// The window in bytes to this peer and channel is used up; it empties as the peer reads.
    #[error("the window to this peer is full")]
    Full,
    /// There is no stream to this peer and channel now, or nobody asked for one.
    #[error("there is no stream to this peer")]
    Down,
    /// The message is longer, or has more frames, than any peer accepts.
    #[error("the message exceeds the limits of the transport")]
    TooLarge,
}

/// Sends messages to peers. See the module for what is promised.
pub trait Transport: Send + Sync {
    /// Writes a message, or queues it; never blocks on the network.
    ///
    /// A message handed over while [`Handler::disconnected`] and [`Handler::connected`] are on
    /// their way may be the first on the new stream.
    ///
    /// # Errors
    /// [`SendError`]; the message was then not taken.
    fn send(&self, to: NodeId, channel: Channel, message: Message) -> Result<(), SendError>;

    /// Wants a stream to this peer and channel: it is dialled, and again whenever it breaks, with
    /// a pause of 20 to 500 ms. Idempotent.
    fn connect(&self, to: NodeId, channel: Channel);

    /// No longer wants streams to this peer; those that exist are cut.
    fn disconnect(&self, to: NodeId);

    /// Cuts the stream to this peer and channel, if there is one, and dials again.
    fn break_stream(&self, to: NodeId, channel: Channel);

    /// Goes on, on other threads, with the incoming streams whose threads have been in one call of
    /// the [`Handler`] since this was last called. Only for threads on which
    /// [`crate::is_relieved`] is true.
    fn relieve(&self) {}
}

/// Takes what a transport reports. Called on the transport's threads, one for each stream; may call
/// the [`Transport`] from inside. A call that takes long delays that stream only, and not even that
/// where [`Transport::relieve`] helps: then the stream's next call begins before it has returned.
pub trait Handler: Send + Sync {
    /// The stream to `peer` is new: what was sent before may be lost; from here on everything
    /// arrives in order, or `disconnected` comes.
    fn connected(&self, peer: NodeId, channel: Channel);

    /// The stream to `peer` is gone; what was sent on it may or may not have arrived.
    fn disconnected(&self, peer: NodeId, channel: Channel);

    /// A message from `peer`, in order within `stream`. Once a message of a newer stream of that
    /// (peer, channel) was delivered, none of an older one is.
    fn message(&self, from: NodeId, channel: Channel, stream: StreamId, message: Message);

    /// Messages that have arrived together: takes one or more from the front of `ready` (not empty),
    /// without doing anything that may take long, and gives what is to be done about them. So a
    /// burst can be taken in as one.
    fn take<'a>(
        &'a self,
        from: NodeId,
        channel: Channel,
        stream: StreamId,
        ready: &mut VecDeque<Message>,
    ) -> Box<dyn FnOnce() + 'a> {
        let message = ready.pop_front();
        Box::new(move || {
            if let Some(message) = message {
                self.message(from, channel, stream, message);
            }
        })
    }

    /// `stream` is over: it gives no further message.
    fn incoming_closed(&self, from: NodeId, channel: Channel, stream: StreamId);
}

impl Message {
    /// A message without payload.
    #[must_use]
    pub fn new(header: impl Into<Bytes>) -> Self {
        Self { header: header.into(), payload: Vec::new() }
    }

    /// A message with payload frames.
    #[must_use]
    pub fn with_payload(header: impl Into<Bytes>, payload: Vec<Bytes>) -> Self {
        Self { header: header.into(), payload }
    }

    /// The bytes of all frames.
    #[must_use]
    pub fn len(&self) -> usize {
        self.header.len() + self.payload.iter().map(Bytes::len).sum::<usize>()
    }

    /// Whether every frame is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the message takes of a window, in bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.len() + MESSAGE_COST
    }
}

impl Channel {
    /// All channels.
    pub const ALL: [Self; 3] = [Self::Data, Self::Control, Self::Beacon];
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "data",
            Self::Control => "control",
            Self::Beacon => "beacon",
        })
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}.{}", self.boot >> 32, self.number)
    }
}
