//! What travels on the streams between nodes.

use mooring_replication::{
    BeaconMessage, ClientId, Message, MessageBody, ReplyMessage, RequestMessage, StreamId,
};

/// One message, of any plane.
#[derive(Clone, Debug)]
pub enum Packet {
    /// From replica to replica.
    Replica(Message),
    /// The handshake of a client's stream.
    Hello {
        /// The client.
        client: ClientId,
        /// The stream's number.
        stream: StreamId,
    },
    /// From a client to a primary.
    Request(RequestMessage),
    /// Back.
    Reply(ReplyMessage),
    /// From node to node.
    Beacon(BeaconMessage),
}

impl Packet {
    /// Its name in the table of coverage.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Replica(message) => body_name(&message.body),
            Self::Hello { .. } => "client hello",
            Self::Request(_) => "request",
            Self::Reply(_) => "reply",
            Self::Beacon(BeaconMessage::Beacon { .. }) => "beacon",
            Self::Beacon(BeaconMessage::Answer { .. }) => "beacon answer",
        }
    }
}

fn body_name(body: &MessageBody) -> &'static str {
    match body {
        MessageBody::Hello(_) => "hello",
        MessageBody::Newer(_) => "newer",
        MessageBody::Raise(_) => "raise",
        MessageBody::Promised(_) => "promised",
        MessageBody::Pull(_) => "pull",
        MessageBody::Pulled(_) => "pulled",
        MessageBody::Append(_) => "append",
        MessageBody::Ack(_) => "ack",
        MessageBody::Want(_) => "want",
        MessageBody::ReadBlocks(_) => "read blocks",
        MessageBody::BlocksRead(_) => "blocks read",
        MessageBody::JoinBegin(_) => "join begin",
        MessageBody::JoinReady(_) => "join ready",
        MessageBody::MissingWanted(_) => "missing wanted",
        MessageBody::Missing(_) => "missing",
        MessageBody::JoinFrom(_) => "join from",
        MessageBody::Copy(_) => "copy",
        MessageBody::Copied(_) => "copied",
        MessageBody::JoinFinish(_) => "join finish",
        MessageBody::JoinDone(_) => "join done",
        MessageBody::Failed => "failed",
    }
}
