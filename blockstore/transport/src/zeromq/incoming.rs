//! A stream from a peer over a ROUTER of its own: its greeting, and its messages until it ends.
#![allow(clippy::disallowed_methods)] // A shell: deadlines of real connections.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use thiserror::Error;
use tokio::task::JoinHandle;
use tracing::{debug, warn};
use zeromq::{RouterSocket, Socket, SocketRecv, SocketSend, ZmqError, ZmqMessage};

use crate::assembler::aligned;
use crate::contract::{Channel, Message};
use crate::endpoint::accept::AcceptError;
use crate::endpoint::core::Core;
use crate::endpoint::incoming::HelloRefusal;
use crate::endpoint::permits::Permit;
use crate::endpoint::socket;
use crate::endpoint::streams::Turn;
use crate::proto::Hello;
use crate::zeromq::carry::{Doorway, carry, runtime};
use crate::zeromq::credit::{Handled, SOON};
use crate::zeromq::greeting::Greeting;

/// Why a ZeroMQ connection is refused.
#[derive(Debug, Error)]
pub(crate) enum Refusal {
    #[error("ZeroMQ: {0}")]
    Protocol(#[from] ZmqError),
    #[error("ZeroMQ: malformed greeting")]
    Greeting,
    #[error("ZeroMQ: it means another node or cluster")]
    NotMeant,
    #[error("ZeroMQ: {0} streams come over TLS only")]
    Channel(Channel),
    #[error("ZeroMQ: {0}")]
    Hello(#[from] HelloRefusal),
}

/// A stream that may deliver.
struct Established {
    router: RouterSocket,
    /// The crate's name for its one peer, which goes before every frame to it.
    identity: Bytes,
    carried: JoinHandle<io::Error>,
    hello: Hello,
    turn: Turn,
}

/// Serves the connection until it ends.
pub(crate) fn run(
    core: &Arc<Core>,
    socket: TcpStream,
    peer: SocketAddr,
    permit: Permit,
    deadline: Instant,
) -> Result<(), AcceptError> {
    socket::prepare(&socket)?;
    let socket = Arc::new(socket);
    runtime()?.block_on(async {
        let established = establish(core, &socket, deadline);
        let mut stream = tokio::time::timeout_at(deadline.into(), established)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        drop(permit);
        let Hello { node, channel, stream: id } = stream.hello;
        warn_once(core, peer, &stream.hello);
        let reason = match deliver(core, &mut stream).await {
            Ok(()) => io::ErrorKind::ConnectionAborted.into(),
            Err(error) => error,
        };
        // The guard's refusals are the only errors that are not the system's.
        if reason.get_ref().is_some() {
            core.log_refusal(peer, &reason);
        }
        debug!(%peer, %node, %channel, %reason, "incoming ZeroMQ stream closed");
        core.handler().incoming_closed(node, channel, id);
        drop(stream.turn);
        Ok(())
    })
}

/// Both handshakes, the turn and the welcome.
async fn establish(
    core: &Arc<Core>,
    socket: &Arc<TcpStream>,
    deadline: Instant,
) -> Result<Established, AcceptError> {
    let doorway = Doorway::open()?;
    let endpoint = doorway.endpoint();
    let believed = Arc::new(AtomicBool::new(false));
    let mut carried = carry(socket, doorway, Arc::clone(&believed))?;
    let mut router = RouterSocket::new();
    let first = async {
        router.connect(&endpoint).await?;
        router.recv().await
    };
    let first = tokio::select! {
        first = first => first.map_err(Refusal::Protocol)?,
        end = &mut carried => return Err(end.unwrap_or_else(io::Error::from).into()),
    };
    let (identity, greeting) = parts(first).ok_or(Refusal::Greeting)?;
    let greeting = Greeting::decode(&greeting.header).ok_or(Refusal::Greeting)?;
    let turn = believe(core, &greeting, socket, deadline)?;
    believed.store(true, Ordering::Release);
    router.send(reply(&identity, greeting.encode())).await.map_err(Refusal::Protocol)?;
    Ok(Established { router, identity, carried, hello: greeting.hello, turn })
}

/// Takes the dialler at its word, as far as its word fits the table of nodes.
fn believe(
    core: &Arc<Core>,
    greeting: &Greeting,
    socket: &Arc<TcpStream>,
    deadline: Instant,
) -> Result<Turn, Refusal> {
    let hello = greeting.hello;
    if !core.unprotected.accepts(greeting.channel()) {
        return Err(Refusal::Channel(greeting.channel()));
    }
    if greeting.to != core.configs().fingerprint {
        return Err(Refusal::NotMeant);
    }
    let admitted = || core.admission().node_of(&greeting.from).ok_or(HelloRefusal::Removed);
    let is = admitted()?;
    if hello.node != is {
        return Err(HelloRefusal::WrongNode { said: hello.node, is }.into());
    }
    let turn = core
        .incoming
        .enter(&hello, greeting.from, socket, deadline)
        .ok_or(HelloRefusal::Stale(is))?;
    // A refresh before this point did not see the stream.
    if admitted()? != is {
        return Err(HelloRefusal::Removed.into());
    }
    Ok(turn)
}

/// Hands over messages, and tells how much was handled, until the stream is cut or ends.
async fn deliver(core: &Core, stream: &mut Established) -> io::Result<()> {
    let Established { router, identity, carried, hello, turn } = stream;
    let handler = core.handler();
    let mut handled = Handled::default();
    loop {
        let message = tokio::select! {
            biased;
            message = router.recv() => Some(message.map_err(io::Error::other)?),
            end = &mut *carried => return Err(end?),
            () = tokio::time::sleep(SOON), if handled.is_owed() => None,
        };
        let idle = message.is_none();
        if let Some(message) = message {
            let (_, message) = parts(message).ok_or(io::ErrorKind::InvalidData)?;
            if turn.is_cut() {
                return Ok(());
            }
            handled.add(message.cost());
            handler.message(hello.node, hello.channel, hello.stream, message);
        }
        if idle || handled.is_due() {
            let credit = reply(identity, handled.tell().to_vec());
            router.send(credit).await.map_err(io::Error::other)?;
        }
    }
}

/// The crate's name for the peer, and what it sent.
fn parts(message: ZmqMessage) -> Option<(Bytes, Message)> {
    let mut frames = message.into_vecdeque();
    let identity = frames.pop_front()?;
    let header = frames.pop_front()?;
    let mut all = aligned(std::iter::once(header).chain(frames).collect()).into_iter();
    let header = all.next()?;
    Some((identity, Message { header, payload: all.collect() }))
}

fn reply(identity: &Bytes, body: Vec<u8>) -> ZmqMessage {
    let mut message = ZmqMessage::from(identity.clone());
    message.push_back(body.into());
    message
}

fn warn_once(core: &Core, peer: SocketAddr, hello: &Hello) {
    let said = format!("unprotected {} stream of node {}", hello.channel, hello.node);
    if let Some(suppressed) = core.log.allow(peer.ip(), &said) {
        warn!(%peer, suppressed, "{said}: nobody has proved who it is");
    }
}
