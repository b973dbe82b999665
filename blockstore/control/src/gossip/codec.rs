//! chitchat's messages as bytes, and back.
//!
//! ```text
//!   envelope ──chitchat's own UDP socket──loopback──> our socket ──> bytes
//!   bytes ──our socket──loopback──> chitchat's own UDP socket ──> envelope
//! ```
//!
//! chitchat 0.13 lets others carry its messages, but keeps their encoding to itself: its own socket
//! is the only way to it. Each direction has a pair of sockets of its own on loopback. Ours is
//! connected and takes only what comes from chitchat's; chitchat's may be reached by any local
//! process, so what it receives counts only if it came from ours, whose address nobody can take.
//!
//! Loopback delivers within the call, so an answer that is late was never sent: the bytes were no
//! message. Then the pair is made anew, so that a late one can't be taken for the next.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use chitchat::ChitchatEnvelope;
use chitchat::transport::{Socket, Transport, UdpTransport};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::sealed::MAX_MESSAGE_BYTES;

/// Long for a busy machine, and still no harm if a peer of the cluster sends nonsense.
const LATE: Duration = Duration::from_millis(250);

/// One direction; a pair of sockets.
pub(super) struct Codec {
    theirs: Box<dyn Socket>,
    ours: UdpSocket,
    buffer: Vec<u8>,
}

impl Codec {
    pub(super) async fn open() -> anyhow::Result<Self> {
        let loopback: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let theirs = UdpTransport.open(loopback).await?;
        let ours = UdpSocket::bind(loopback).await.context("no socket on loopback")?;
        ours.connect(theirs.local_addr()?).await.context("no connection on loopback")?;
        Ok(Self { theirs, ours, buffer: vec![0; MAX_MESSAGE_BYTES] })
    }

    /// The bytes of a message; `None` if they got lost on the way.
    pub(super) async fn encode(
        &mut self,
        envelope: ChitchatEnvelope,
    ) -> anyhow::Result<Option<&[u8]>> {
        self.theirs.send(self.ours.local_addr()?, envelope).await?;
        match timeout(LATE, self.ours.recv(&mut self.buffer)).await {
            Ok(length) => Ok(Some(&self.buffer[..length?])),
            Err(_) => {
                *self = Self::open().await?;
                Ok(None)
            }
        }
    }

    /// The message that bytes are; `None` if they are none. Not to be cancelled.
    pub(super) async fn decode(
        &mut self,
        bytes: &[u8],
    ) -> anyhow::Result<Option<ChitchatEnvelope>> {
        self.ours.send(bytes).await?;
        let us = self.ours.local_addr()?;
        let theirs = &mut self.theirs;
        let answer = async {
            loop {
                let received = theirs.recv().await?;
                if received.from_addr == us {
                    return anyhow::Ok(received.envelope);
                }
            }
        };
        match timeout(LATE, answer).await {
            Ok(envelope) => envelope.map(Some),
            Err(_) => {
                *self = Self::open().await?;
                Ok(None)
            }
        }
    }
}
