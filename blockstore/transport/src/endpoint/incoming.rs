//! One incoming node stream: its handshake, its hello, and its messages until it ends.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use mooring_terms::NodeId;
use thiserror::Error;
use tracing::{debug, warn};

use crate::assembler::Assembler;
use crate::contract::Channel;
use crate::endpoint::accept::AcceptError;
use crate::endpoint::core::Core;
use crate::endpoint::permits::Permit;
use crate::endpoint::socket;
use crate::endpoint::streams::Turn;
use crate::fingerprint::Fingerprint;
use crate::proto::{self, FrameError, Hello, Kind};
use crate::tls::receive::{Receive, ReceiveError};
use crate::tls::timed::Timed;

/// Why a node whose certificate was believed is refused all the same.
#[derive(Debug, Error)]
enum HelloRefusal {
    #[error("it shows no certificate")]
    NoCertificate,
    #[error("its key was removed from the table of nodes")]
    Removed,
    #[error("it says that it is {said:?}, but its key is that of {is:?}")]
    WrongNode { said: NodeId, is: NodeId },
    #[error("a newer stream of {0:?} is there already, or the one before does not end")]
    Stale(NodeId),
}

/// A stream that may deliver.
struct Established {
    receive: Receive,
    hello: Hello,
    turn: Turn,
}

/// The first frame of a stream, as it arrives.
struct Greeting {
    assembler: Assembler,
    hello: Option<Hello>,
}

impl Greeting {
    fn new() -> Self {
        Self { assembler: Assembler::new(Kind::Hello), hello: None }
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), ReceiveError> {
        if self.hello.is_none()
            && let Some(parts) = self.assembler.feed(&mut bytes)?
        {
            let body = parts.first().map_or(&[][..], |part| part);
            self.hello = Some(Hello::decode(body)?);
        }
        // Whoever is not yet welcome has nothing to say after its hello.
        if bytes.is_empty() { Ok(()) } else { Err(FrameError::Hello.into()) }
    }
}

/// Serves the stream that begins with `received` until it ends.
pub(crate) fn run(
    core: &Arc<Core>,
    socket: TcpStream,
    peer: SocketAddr,
    received: &[u8],
    permit: Permit,
    deadline: Instant,
) -> Result<(), AcceptError> {
    let socket = Arc::new(socket);
    let established =
        establish(core, &socket, received, deadline).map_err(|error| match error {
            ReceiveError::Io(error) => AcceptError::Io(error),
            ReceiveError::Tls(error) => AcceptError::Tls(error),
            ReceiveError::Frame(error) => AcceptError::Frame(error),
            ReceiveError::Closed | ReceiveError::Cut => AcceptError::Closed,
        })?;
    drop(permit);
    socket.set_read_timeout(None)?;
    let Established { mut receive, hello, turn } = established;
    let reason = deliver(core, &socket, &mut receive, &hello, &turn);
    let (node, channel) = (hello.node, hello.channel);
    match reason {
        ReceiveError::Frame(error) => log_bad_frame(core, peer, node, channel, error),
        reason => debug!(%peer, %node, %channel, %reason, "incoming stream closed"),
    }
    core.handler().incoming_closed(node, channel, hello.stream);
    drop(turn);
    Ok(())
}

/// Handshake, hello, turn, welcome: all before the deadline.
fn establish(
    core: &Arc<Core>,
    socket: &Arc<TcpStream>,
    received: &[u8],
    deadline: Instant,
) -> Result<Established, ReceiveError> {
    let mut timed = Timed::until(socket, deadline);
    socket::prepare(socket)?;
    let mut receive = Receive::new(Arc::clone(&core.configs().node_server), received)?;
    let mut greeting = Greeting::new();
    receive.handshake(&mut timed, &mut |bytes| greeting.take(bytes))?;
    let refuse = |refusal| ReceiveError::Io(std::io::Error::other(refusal));
    let certificate =
        receive.peer_certificates().first().ok_or_else(|| refuse(HelloRefusal::NoCertificate))?;
    let fingerprint = Fingerprint::of_certificate(certificate).map_err(|_| ReceiveError::Closed)?;
    let admitted =
        || core.admission().node_of(&fingerprint).ok_or_else(|| refuse(HelloRefusal::Removed));
    let is = admitted()?;
    let hello = loop {
        match greeting.hello {
            Some(hello) => break hello,
            None => receive.receive(&mut timed, &mut |bytes| greeting.take(bytes))?,
        }
    };
    if hello.node != is {
        return Err(refuse(HelloRefusal::WrongNode { said: hello.node, is }));
    }
    let turn = core
        .incoming
        .enter(&hello, fingerprint, socket, deadline)
        .ok_or_else(|| refuse(HelloRefusal::Stale(is)))?;
    // A refresh before this point did not see the stream.
    if admitted()? != is {
        return Err(refuse(HelloRefusal::Removed));
    }
    let welcome = proto::encode_single(Kind::Welcome, &hello.encode())?;
    receive.send(&mut timed, &welcome)?;
    Ok(Established { receive, hello, turn })
}

/// Hands over messages until the stream ends; gives the reason.
fn deliver(
    core: &Core,
    socket: &Arc<TcpStream>,
    receive: &mut Receive,
    hello: &Hello,
    turn: &Turn,
) -> ReceiveError {
    let mut assembler = Assembler::new(Kind::Message);
    let handler = core.handler();
    let mut sink = |mut bytes: &[u8]| {
        while let Some(message) = assembler.feed_message(&mut bytes)? {
            if turn.is_cut() {
                return Err(ReceiveError::Cut);
            }
            handler.message(hello.node, hello.channel, hello.stream, message);
        }
        Ok(())
    };
    loop {
        if let Err(reason) = receive.receive(&mut &**socket, &mut sink) {
            return reason;
        }
    }
}

fn log_bad_frame(core: &Core, peer: SocketAddr, node: NodeId, channel: Channel, error: FrameError) {
    if let Some(suppressed) = core.log.allow(peer.ip(), &error) {
        warn!(%peer, %node, %channel, %error, suppressed, "bad frame; stream closed");
    }
}
