//! A new client: its handshake, within a time, and then its requests.
#![allow(clippy::disallowed_methods, reason = "the handshake has a deadline, in real time")]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rustix::event::Timespec;
use rustls::ServerConfig;

use super::connection::Connection;
use super::export::Export;
use super::handshake::{Agreed, Exports, Farewell, Handshake, Security, Step};
use super::link::{Link, Received};

/// How long a handshake may take. No honest one takes a second; a failover in the meantime holds up
/// none of it.
const HANDSHAKE: Duration = Duration::from_secs(20);

/// What a listener offers to its clients.
pub(super) trait Offer: Exports + Send + Sync {
    /// The export that a handshake ended with.
    fn open(&self, name: &str) -> Option<Arc<Export>>;
}

/// Greets a client, and serves it until it goes. `wake` ends the handshake when it can be read.
pub(super) fn receive(
    socket: OwnedFd,
    peer: &str,
    offer: &dyn Offer,
    tls: Option<Arc<ServerConfig>>,
    wake: &OwnedFd,
) -> io::Result<()> {
    let mut link = Link::new(socket)?;
    let mut input = BytesMut::new();
    let agreed = match greet(&mut link, &mut input, offer, tls, wake) {
        Ok(Ok(agreed)) => agreed,
        Ok(Err(Farewell::Aborted)) => {
            link.shut_down();
            return Ok(());
        }
        Ok(Err(farewell)) => {
            tracing::warn!(peer, %farewell, "an NBD client was refused");
            link.shut_down();
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let Some(export) = offer.open(&agreed.export) else {
        link.shut_down();
        return Ok(());
    };
    let connection = Connection::new(link, agreed, Arc::clone(&export), peer.to_owned())?;
    // Taken away since it was offered.
    let Some(number) = export.admit(&connection) else { return Ok(()) };
    tracing::info!(device = export.name(), peer, "an NBD client is served");
    connection.serve(input);
    export.dismiss(number);
    tracing::info!(device = export.name(), peer, "an NBD client has gone");
    Ok(())
}

fn greet(
    link: &mut Link,
    input: &mut BytesMut,
    offer: &dyn Offer,
    mut tls: Option<Arc<ServerConfig>>,
    wake: &OwnedFd,
) -> io::Result<Result<Agreed, Farewell>> {
    let deadline = Instant::now() + HANDSHAKE;
    let security = if tls.is_some() { Security::TlsRequired } else { Security::Plain };
    let mut out = Vec::new();
    let mut handshake = Handshake::begin(security, &mut out);
    loop {
        flush(link, &mut out, wake, deadline)?;
        match handshake.advance(input, offer, &mut out) {
            Step::Again => {}
            Step::Wait => await_bytes(link, input, wake, deadline)?,
            Step::StartTls => {
                flush(link, &mut out, wake, deadline)?;
                // What was sent ahead of TLS was not sent by whom TLS is about to prove.
                if !input.is_empty() {
                    return Ok(Err(Farewell::Nonsense));
                }
                let Some(config) = tls.take() else { return Ok(Err(Farewell::NoTls)) };
                link.start_tls(config)?;
                handshake.secured();
            }
            Step::Transmit(agreed) => {
                flush(link, &mut out, wake, deadline)?;
                return Ok(Ok(agreed));
            }
            Step::End(farewell) => {
                flush(link, &mut out, wake, deadline)?;
                return Ok(Err(farewell));
            }
        }
    }
}

fn await_bytes(
    link: &Link,
    input: &mut BytesMut,
    wake: &OwnedFd,
    deadline: Instant,
) -> io::Result<()> {
    loop {
        match link.receive(input, 0)? {
            Received::Bytes => return Ok(()),
            Received::Closed => return Err(io::ErrorKind::UnexpectedEof.into()),
            Received::Nothing => {}
        }
        // TLS may have an answer of its own to send first.
        let sending = !link.send(&mut VecDeque::new())?;
        wait(link, (true, sending), wake, deadline)?;
    }
}

fn flush(link: &Link, out: &mut Vec<u8>, wake: &OwnedFd, deadline: Instant) -> io::Result<()> {
    if out.is_empty() {
        return Ok(());
    }
    let mut queue = VecDeque::from([Bytes::from(std::mem::take(out))]);
    while !link.send(&mut queue)? {
        wait(link, (false, true), wake, deadline)?;
    }
    Ok(())
}

fn wait(link: &Link, what: (bool, bool), wake: &OwnedFd, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
    let ready = link.wait(what, wake.as_fd(), Some(&timeout))?;
    if ready.timed_out || ready.woken {
        return Err(io::ErrorKind::TimedOut.into());
    }
    if ready.gone && !what.0 {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    Ok(())
}
