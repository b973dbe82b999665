//! Takes connections and finds out what they are for.
//!
//! ```text
//!   accept ──▶ permit? ──▶ client hello ──ALPN──▶ node stream   (endpoint/incoming.rs)
//!                │no          within 5 s       ├▶ link of another process  (link.rs)
//!                │                             ├▶ request to join
//!                ▼                │0xff        └▶ HTTP: handed to the API with its half-done handshake
//!              closed             └▶ ZeroMQ (zeromq/incoming.rs), or closed
//! ```
//! A stranger gets no further than this file: at most 64 connections at a time, 16 from one address,
//! 5 seconds each, one thread each.
#![allow(clippy::disallowed_methods)] // A shell: pauses when the system has no descriptors left.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustls::server::{Accepted, Acceptor};
use rustls::{ServerConnection, Stream};
use thiserror::Error;

use crate::assembler::Assembler;
use crate::endpoint::core::Core;
use crate::endpoint::incoming;
use crate::endpoint::permits::Permit;
use crate::endpoint::socket;
use crate::fingerprint::Fingerprint;
use crate::link::Link;
use crate::proto::{self, FrameError, Kind};
use crate::tls::config::Purpose;
use crate::tls::timed::Timed;
#[cfg(feature = "zeromq")]
use crate::zeromq;

/// The first byte of ZeroMQ's greeting. TLS begins with 0x16, so that one port serves both.
const ZEROMQ: u8 = 0xff;
/// The whole of a request to join, but for the cluster's own work on it.
const JOIN_LIMIT: Duration = Duration::from_secs(10);
/// The longest first message of a client that is listened to.
const MAX_CLIENT_HELLO: usize = 16 << 10;
/// The pause after the system refused a connection or a thread.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// What is answered to HTTP without TLS.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n\
Connection: close\r\nContent-Length: 62\r\n\r\n\
{\"kind\":\"invalid\",\"message\":\"this port speaks TLS: use https\"}";

/// Why a connection was closed before it was anything.
#[derive(Debug, Error)]
pub(crate) enum AcceptError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    #[error("bad frame: {0}")]
    Frame(#[from] FrameError),
    #[error("it asks for no protocol that is served here")]
    Protocol,
    #[error("it speaks HTTP without TLS")]
    Plaintext,
    #[error("it closed the connection before it said what it wants")]
    Closed,
    #[error("too many unauthenticated connections")]
    TooMany,
    #[error("too many requests to join from this address")]
    TooManyJoins,
    #[error("this node takes no {0}")]
    NotServed(&'static str),
    #[error("it speaks ZeroMQ, which the configuration of this node refuses")]
    Unprotected,
    #[cfg(feature = "zeromq")]
    #[error("{0}")]
    ZeroMq(#[from] zeromq::incoming::Refusal),
}

/// The body of the accepting thread.
pub(crate) fn run(core: &Arc<Core>) {
    loop {
        let accepted = core.listener.accept();
        if core.is_stopping() {
            return;
        }
        match accepted {
            Ok((socket, peer)) => admit(core, socket, peer),
            Err(error) => {
                core.log_refusal(core.address, &error);
                std::thread::sleep(EXHAUSTED_PAUSE);
            }
        }
    }
}

/// Gives a new connection its thread, if there is room.
fn admit(core: &Arc<Core>, socket: TcpStream, peer: SocketAddr) {
    let permit = match core.permits.take(peer.ip(), &socket) {
        Ok(Some(permit)) => permit,
        Ok(None) => return core.log_refusal(peer, &AcceptError::TooMany),
        Err(error) => return core.log_refusal(peer, &error),
    };
    let shared = Arc::clone(core);
    let spawned = core.spawn("mooring-in", move || {
        if let Err(error) = serve(&shared, socket, peer, permit) {
            shared.log_refusal(peer, &error);
        }
    });
    if let Err(error) = spawned {
        core.log_refusal(peer, &error);
        std::thread::sleep(EXHAUSTED_PAUSE);
    }
}

fn serve(
    core: &Arc<Core>,
    socket: TcpStream,
    peer: SocketAddr,
    permit: Permit,
) -> Result<(), AcceptError> {
    let deadline = Instant::now() + core.limits().handshake;
    let mut timed = Timed::until(&socket, deadline);
    if timed.peek()? == Some(ZEROMQ) {
        #[cfg(feature = "zeromq")]
        return unprotected(core, socket, peer, permit, deadline);
        #[cfg(not(feature = "zeromq"))]
        return Err(AcceptError::Unprotected);
    }
    let (received, accepted) = first_message(&mut timed)?;
    let hello = accepted.client_hello();
    match Purpose::of(&hello).ok_or(AcceptError::Protocol)? {
        Purpose::Node => {
            drop(accepted);
            incoming::run(core, socket, peer, &received, permit, deadline)
        }
        Purpose::Link => link(core, socket, permit, accepted, deadline),
        Purpose::Join => join(core, &socket, peer, accepted),
        Purpose::Http => {
            let Some(http) = &core.services().http else {
                return Err(AcceptError::NotServed("HTTP"));
            };
            socket.set_read_timeout(None)?;
            socket.set_write_timeout(None)?;
            drop(permit);
            http.accepted(socket, peer, accepted, Arc::clone(&core.configs().http_server));
            Ok(())
        }
    }
}

/// A connection that begins as ZeroMQ does.
#[cfg(feature = "zeromq")]
fn unprotected(
    core: &Arc<Core>,
    socket: TcpStream,
    peer: SocketAddr,
    permit: Permit,
    deadline: Instant,
) -> Result<(), AcceptError> {
    if !core.unprotected.accepts_any() {
        return Err(AcceptError::Unprotected);
    }
    zeromq::incoming::run(core, socket, peer, permit, deadline)
}

/// Reads the client's first message; gives its bytes too, for whoever begins anew.
fn first_message(io: &mut Timed<'_>) -> Result<(Vec<u8>, Accepted), AcceptError> {
    let mut acceptor = Acceptor::default();
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = io.read(&mut buffer)?;
        if count == 0 {
            return Err(AcceptError::Closed);
        }
        received.extend_from_slice(&buffer[..count]);
        if is_plain_http(&received) {
            // The refusal is what gets reported.
            let _ = io.write_all(PLAIN_HTTP);
            return Err(AcceptError::Plaintext);
        }
        if received.len() > MAX_CLIENT_HELLO {
            return Err(AcceptError::Protocol);
        }
        let mut input = &buffer[..count];
        while !input.is_empty() {
            if acceptor.read_tls(&mut input)? == 0 {
                return Err(AcceptError::Protocol);
            }
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok((received, accepted)),
            Ok(None) => {}
            Err((error, mut alert)) => {
                // The refusal is what gets reported.
                let _ = alert.write_all(io);
                return Err(error.into());
            }
        }
    }
}

/// Whether somebody begins to speak HTTP. No TLS record begins with a letter.
fn is_plain_http(received: &[u8]) -> bool {
    ["GET ", "PUT ", "POST", "HEAD", "DELE", "PATC", "OPTI"]
        .iter()
        .any(|method| received.starts_with(method.as_bytes()))
}

/// Serves a link until it ends.
fn link(
    core: &Arc<Core>,
    socket: TcpStream,
    permit: Permit,
    accepted: Accepted,
    deadline: Instant,
) -> Result<(), AcceptError> {
    let Some(handler) = &core.services().links else {
        return Err(AcceptError::NotServed("links"));
    };
    socket::prepare(&socket)?;
    let mut timed = Timed::until(&socket, deadline);
    let mut tls = match accepted.into_connection(Arc::clone(&core.configs().link_server)) {
        Ok(tls) => tls,
        Err((error, mut alert)) => {
            // The refusal is what gets reported.
            let _ = alert.write_all(&mut timed);
            return Err(error.into());
        }
    };
    while tls.is_handshaking() {
        tls.complete_io(&mut timed)?;
    }
    let shown = tls.peer_certificates().and_then(|chain| chain.first());
    let shown = shown.and_then(|der| Fingerprint::of_certificate(der).ok());
    let admitted = |shown| core.admission().node_of(&shown);
    let Some((shown, node)) = shown.and_then(|shown| Some((shown, admitted(shown)?))) else {
        return Err(AcceptError::NotServed("links of processes whose node is not listed"));
    };
    drop(permit);
    let link = Link::over_tls(socket, tls.into(), node, shown, core.limits().window_bytes)?;
    core.add_link(&link);
    // A refresh before this point did not see the link.
    if admitted(shown) != Some(node) || core.is_stopping() {
        return Ok(());
    }
    link.run(&**handler);
    Ok(())
}

/// Serves one request to join.
fn join(
    core: &Arc<Core>,
    socket: &TcpStream,
    peer: SocketAddr,
    accepted: Accepted,
) -> Result<(), AcceptError> {
    let Some(handler) = &core.services().join else {
        return Err(AcceptError::NotServed("requests to join"));
    };
    if !core.joins.allow(peer.ip()) {
        return Err(AcceptError::TooManyJoins);
    }
    let mut timed = Timed::new(socket, JOIN_LIMIT);
    let config = Arc::clone(&core.configs().join_server);
    let mut tls = match accepted.into_connection(config) {
        Ok(tls) => tls,
        Err((error, mut alert)) => {
            // The refusal is what gets reported.
            let _ = alert.write_all(&mut timed);
            return Err(error.into());
        }
    };
    let request = read_request(&mut tls, &mut timed)?;
    let answer = handler.join(peer, request);
    let frame = proto::encode_single(Kind::JoinResponse, &answer)?;
    // The cluster's work on the request isn't the peer's fault: it has the time to read anew.
    let mut timed = Timed::new(socket, JOIN_LIMIT);
    Stream::new(&mut tls, &mut timed).write_all(&frame)?;
    tls.send_close_notify();
    while tls.wants_write() {
        tls.write_tls(&mut timed)?;
    }
    Ok(())
}

fn read_request(tls: &mut ServerConnection, io: &mut Timed<'_>) -> Result<Bytes, AcceptError> {
    let mut stream = Stream::new(tls, io);
    let mut assembler = Assembler::new(Kind::JoinRequest);
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(AcceptError::Closed);
        }
        if let Some(parts) = assembler.feed(&mut &buffer[..count])? {
            return parts.into_iter().next().ok_or(AcceptError::Closed);
        }
    }
}
