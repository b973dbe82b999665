//! chitchat's transport: UDP, with every datagram sealed.
//!
//! ```text
//!   chitchat ── send ──> encode ──> seal, split ──> UDP
//!   chitchat <── recv ── queue <── [receiver task: UDP ──> open, assemble ──> decode]
//! ```
//! chitchat may give up a `recv` at any moment; a queue bears that, and the task is never cut short.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context;
use async_trait::async_trait;
use chitchat::ChitchatEnvelope;
use chitchat::transport::{RecvOutcome, SendOutcome, Socket, Transport};
use parking_lot::RwLock;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::codec::Codec;
use super::sealed::{Assembly, Dropped, Ring};

/// Longer than any datagram of ours: what is longer is cut, and its seal doesn't fit.
const BUFFER_BYTES: usize = 2_048;
/// How many messages may wait for chitchat; it is quick, and more are dropped.
const QUEUE: usize = 64;

/// What went through the socket.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) forged: AtomicU64,
    pub(super) unknown_key: AtomicU64,
    pub(super) malformed: AtomicU64,
}

/// Opens the socket.
pub(super) struct SealedUdp {
    pub(super) ring: Arc<RwLock<Ring>>,
    pub(super) counters: Arc<Counters>,
}

struct SealedSocket {
    socket: Arc<UdpSocket>,
    ring: Arc<RwLock<Ring>>,
    counters: Arc<Counters>,
    encoder: Codec,
    queue: mpsc::Receiver<RecvOutcome>,
    receiver: tokio::task::JoinHandle<()>,
}

struct Receiver {
    socket: Arc<UdpSocket>,
    ring: Arc<RwLock<Ring>>,
    counters: Arc<Counters>,
    decoder: Codec,
    queue: mpsc::Sender<RecvOutcome>,
}

#[async_trait]
impl Transport for SealedUdp {
    async fn open(&self, listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let socket = UdpSocket::bind(listen)
            .await
            .with_context(|| format!("can't listen on UDP {listen} for gossip"))?;
        let socket = Arc::new(socket);
        let (sender, queue) = mpsc::channel(QUEUE);
        let receiver = Receiver {
            socket: Arc::clone(&socket),
            ring: Arc::clone(&self.ring),
            counters: Arc::clone(&self.counters),
            decoder: Codec::open().await?,
            queue: sender,
        };
        Ok(Box::new(SealedSocket {
            socket,
            ring: Arc::clone(&self.ring),
            counters: Arc::clone(&self.counters),
            encoder: Codec::open().await?,
            queue,
            receiver: tokio::spawn(receiver.run()),
        }))
    }
}

#[async_trait]
impl Socket for SealedSocket {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    async fn send(
        &mut self,
        to: SocketAddr,
        envelope: ChitchatEnvelope,
    ) -> anyhow::Result<SendOutcome> {
        let message = self.encoder.encode(envelope).await?.unwrap_or_default();
        let datagrams = self.ring.read().split(message);
        let mut sent = 0;
        for datagram in datagrams {
            // A datagram that isn't sent is a datagram lost: gossip goes on.
            match self.socket.send_to(&datagram, to).await {
                Ok(bytes) => sent += bytes,
                Err(error) => {
                    tracing::debug!(%to, %error, "a gossip datagram was not sent");
                    break;
                }
            }
            self.counters.sent.fetch_add(1, Ordering::Relaxed);
        }
        Ok(SendOutcome { num_bytes_sent: sent })
    }

    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        self.queue.recv().await.context("the gossip socket is broken")
    }
}

impl Drop for SealedSocket {
    fn drop(&mut self) {
        self.receiver.abort();
    }
}

impl Receiver {
    async fn run(mut self) {
        let mut assembly = Assembly::default();
        let mut buffer = [0; BUFFER_BYTES];
        loop {
            let (length, from) = match self.socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) if passes(&error) => continue,
                Err(error) => {
                    tracing::error!(%error, "the gossip socket is broken");
                    return;
                }
            };
            let Some(message) = self.open(&mut assembly, from, &mut buffer[..length]) else {
                continue;
            };
            match self.decoder.decode(&message).await {
                Ok(Some(envelope)) => {
                    self.counters.received.fetch_add(1, Ordering::Relaxed);
                    let outcome = RecvOutcome {
                        from_addr: from,
                        envelope,
                        num_bytes_received: message.len(),
                    };
                    // Full: chitchat is behind, and what is dropped comes again in a later round.
                    let _ = self.queue.try_send(outcome);
                }
                Ok(None) => self.counters.count(Dropped::Malformed),
                Err(error) => {
                    tracing::error!(%error, "gossip can't be decoded any more");
                    return;
                }
            }
        }
    }

    #[allow(clippy::disallowed_methods)] // A shell: it gives the time to the pure part.
    fn open(
        &self,
        assembly: &mut Assembly,
        from: SocketAddr,
        datagram: &mut [u8],
    ) -> Option<Vec<u8>> {
        match assembly.take(&self.ring.read(), from, datagram, Instant::now()) {
            Ok(message) => message,
            Err(reason) => {
                self.counters.count(reason);
                tracing::debug!(%from, ?reason, "dropped a gossip datagram");
                None
            }
        }
    }
}

impl Counters {
    fn count(&self, reason: Dropped) {
        let counter = match reason {
            Dropped::Malformed => &self.malformed,
            Dropped::UnknownKey => &self.unknown_key,
            Dropped::Forged => &self.forged,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Errors of one datagram, not of the socket.
fn passes(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::OutOfMemory
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}
