//! What travels on the data channel between two nodes: the messages of replicas, the requests of
//! clients and the replies to them.
//!
//! Version history
//! - 1: replica, request, reply, client, fresh, gone.
//! - link (kind 6): on links alone, since cluster version 2.
//!
//! ```text
//!   transport header: version (1 byte) | kind (1 byte)
//!   first frame:      the message's own header
//!   further frames:   its data, one a run
//! ```

use std::sync::Arc;

use bytes::Bytes;
use mooring_replication::{ClientId, Message, ReplyMessage, RequestMessage, StreamId, WireError};
use mooring_terms::{NodeId, VolumeId};
use mooring_transport::{self as transport, Link};
use serde::{Deserialize, Serialize};

use crate::remote::proto::LinkMessage;

/// The version of the envelope.
const VERSION: u8 = 1;

/// A message on the data channel.
#[derive(Clone, Debug)]
pub enum Envelope {
    /// From one replica of a slice to another.
    Replica(Message),
    /// From a client to a primary.
    Request(RequestMessage),
    /// From a primary to a client.
    Reply(ReplyMessage),
    /// A client introduces itself: first on every stream, before its requests.
    Client(ClientHello),
    /// First on every stream: what the sender sent on the one before may be lost, answers too.
    Fresh,
    /// A client of the sender's is no more.
    Gone(ClientId),
    /// What processes beside the daemons and daemons say to each other; the bytes are a letter's.
    Link(LinkMessage, Bytes),
}

/// Where a client is, and its answers go.
#[derive(Clone)]
pub enum Home {
    /// The daemon of this node.
    Node(NodeId),
    /// The process at the other end.
    Link(Arc<Link>),
}

impl Home {
    /// The node that it acts for.
    #[must_use]
    pub fn node(&self) -> NodeId {
        match self {
            Self::Node(node) => *node,
            Self::Link(link) => link.peer(),
        }
    }
}

impl PartialEq for Home {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Node(one), Self::Node(other)) => one == other,
            (Self::Link(one), Self::Link(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

/// A client's introduction: requests that it sent on lower streams, and that wait, are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientHello {
    /// The client.
    pub client: ClientId,
    /// Its stream to this node.
    pub stream: StreamId,
    /// The volume that it is a client of.
    pub volume: VolumeId,
}

/// Why an envelope can't be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The envelope's version or kind is unknown.
    #[error("unknown kind of message on the data channel")]
    Unknown,
    /// What is in it can't be decoded.
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl Envelope {
    /// The message for the transport. Data is shared, not copied.
    #[must_use]
    pub fn encode(self) -> transport::Message {
        let (kind, (header, data)): (&'static [u8], (Bytes, Vec<Bytes>)) = match self {
            Self::Replica(message) => (&[VERSION, 0], message.encode()),
            Self::Request(request) => (&[VERSION, 1], request.encode()),
            Self::Reply(reply) => (&[VERSION, 2], reply.encode()),
            Self::Client(hello) => {
                let header = postcard::to_stdvec(&hello).expect("plain numbers encode");
                (&[VERSION, 3], (header.into(), Vec::new()))
            }
            Self::Fresh => (&[VERSION, 4], (Bytes::new(), Vec::new())),
            Self::Gone(client) => {
                let header = postcard::to_stdvec(&client).expect("plain numbers encode");
                (&[VERSION, 5], (header.into(), Vec::new()))
            }
            Self::Link(message, letter) => (&[VERSION, 6], (message.encode(), vec![letter])),
        };
        let mut payload = Vec::with_capacity(1 + data.len());
        payload.push(header);
        payload.extend(data);
        transport::Message::with_payload(Bytes::from_static(kind), payload)
    }

    /// Whether a message is of a replica, a request or a reply, as nearly all are.
    #[must_use]
    pub fn is_plain(message: &transport::Message) -> bool {
        matches!(message.header.as_ref(), [VERSION, 0..=2])
    }

    /// Opens what a peer sent.
    ///
    /// # Errors
    /// [`EnvelopeError`]; the sender is not what it should be, and its stream is cut.
    pub fn decode(message: transport::Message) -> Result<Self, EnvelopeError> {
        let mut frames = message.payload.into_iter();
        let header = frames.next().ok_or(EnvelopeError::Unknown)?;
        let mut data: Vec<Bytes> = frames.collect();
        Ok(match message.header.as_ref() {
            [VERSION, 0] => Self::Replica(Message::decode(&header, data)?),
            [VERSION, 1] => Self::Request(RequestMessage::decode(&header, data)?),
            [VERSION, 2] => Self::Reply(ReplyMessage::decode(&header, data)?),
            [VERSION, 3] => Self::Client(
                postcard::from_bytes(&header)
                    .map_err(|_| EnvelopeError::Wire(WireError::Header))?,
            ),
            [VERSION, 4] => Self::Fresh,
            [VERSION, 5] => Self::Gone(
                postcard::from_bytes(&header)
                    .map_err(|_| EnvelopeError::Wire(WireError::Header))?,
            ),
            [VERSION, 6] => {
                let message = LinkMessage::decode(&header);
                let message = message.ok_or(EnvelopeError::Wire(WireError::Header))?;
                Self::Link(message, data.pop().unwrap_or_default())
            }
            _ => return Err(EnvelopeError::Unknown),
        })
    }
}
