//! The API over the network: on the node's one port, over TLS.
//!
//! ```text
//!   Endpoint ── client hello: HTTP ──> seat? ── handshake ── head of the request ── admit ──> router
//!                                       │no      5 s          10 s, 64 KiB            │no
//!                                       ▼                                             ▼
//!                                     closed                              an ApiError, and a log line
//! ```
//! A stranger takes a seat until it is admitted or gone: there are few of them, and of one address
//! fewer still. One request a connection.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mooring_api::{ApiError, ErrorKind};
use mooring_config::UnixMillis;
use mooring_transport::HttpHandler;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::Accepted;
use tokio::runtime::Handle;
use tokio_rustls::server::StartHandshake;
use tower::Service;

use super::Failure;
use super::caller::{Caller, Credentials, admit};
use crate::daemon::Daemon;

/// How long a handshake may take, and then the head of the request.
const HANDSHAKE: Duration = Duration::from_secs(5);
const HEAD: Duration = Duration::from_secs(10);
/// How large a head may be.
const HEAD_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 64;
/// Connections of strangers at a time, and of one address.
const SEATS: usize = 64;
const SEATS_EACH: usize = 16;
/// Lines about refusals in the log, in so long a time.
const LINES: u32 = 20;
const LINES_PER: Duration = Duration::from_secs(60);

/// Where HTTP connections come in.
pub struct Door {
    daemon: Weak<Daemon>,
    router: Router,
    runtime: Handle,
    seats: Arc<Seats>,
    log: Arc<Log>,
}

impl Door {
    /// The door of a daemon, to be given to its endpoint.
    #[must_use]
    pub fn new(daemon: &Arc<Daemon>) -> Self {
        Self {
            daemon: Arc::downgrade(daemon),
            router: super::router(Arc::clone(daemon)),
            runtime: Handle::current(),
            seats: Arc::default(),
            log: Arc::default(),
        }
    }
}

impl HttpHandler for Door {
    fn accepted(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        accepted: Accepted,
        config: Arc<ServerConfig>,
    ) {
        let Some(seat) = Seats::take(&self.seats, peer.ip()) else {
            return self.log.refused(peer, "too many connections that nobody has vouched for");
        };
        let (daemon, router) = (self.daemon.clone(), self.router.clone());
        let log = Arc::clone(&self.log);
        self.runtime.spawn(async move {
            let visit = Visit { daemon, router, peer, log: Arc::clone(&log) };
            if let Err(error) = visit.serve(stream, accepted, config, seat).await {
                log.refused(peer, &error);
            }
        });
    }
}

/// One connection.
struct Visit {
    daemon: Weak<Daemon>,
    router: Router,
    peer: SocketAddr,
    log: Arc<Log>,
}

impl Visit {
    async fn serve(
        self,
        stream: TcpStream,
        accepted: Accepted,
        config: Arc<ServerConfig>,
        seat: Seat,
    ) -> Result<(), String> {
        let ready = |stream: TcpStream| {
            stream.set_nonblocking(true)?;
            tokio::net::TcpStream::from_std(stream)
        };
        let stream = ready(stream).map_err(|error| error.to_string())?;
        let handshake = StartHandshake::from_parts(accepted, stream).into_stream(config);
        let tls = tokio::time::timeout(HANDSHAKE, handshake)
            .await
            .map_err(|_| "its handshake takes too long".to_owned())?
            .map_err(|error| error.to_string())?;
        let certificate =
            tls.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
        let visit = Arc::new(self);
        let seat = Mutex::new(Some(seat));
        let service = service_fn(|request: Request<Incoming>| {
            let outcome = visit.admit(certificate.as_deref(), &request);
            if outcome.is_ok() {
                // Whoever was let in takes no stranger's place.
                seat.lock().take();
            }
            let visit = Arc::clone(&visit);
            async move { Ok::<Response, Infallible>(visit.answer(outcome, request).await) }
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(HEAD_MAX)
            .max_headers(HEADERS_MAX)
            .keep_alive(false)
            .serve_connection(TokioIo::new(tls), service)
            .await
            .map_err(|error| error.to_string())
    }

    fn admit(
        &self,
        certificate: Option<&[u8]>,
        request: &Request<Incoming>,
    ) -> Result<Caller, ApiError> {
        let over = || ApiError::new(ErrorKind::Unavailable, "the daemon is about to end");
        let daemon = self.daemon.upgrade().ok_or_else(over)?;
        let state = daemon.running()?.node.state();
        let shown = Credentials { certificate, headers: request.headers() };
        let now = UnixMillis(blockstore::unix_ms()).max(state.now());
        admit(&state, now, &shown, (request.method(), request.uri().path()))
    }

    async fn answer(
        &self,
        admitted: Result<Caller, ApiError>,
        mut request: Request<Incoming>,
    ) -> Response {
        match admitted {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                let mut router = self.router.clone();
                match router.call(request.map(Body::new)).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
            Err(error) => {
                self.log.refused(self.peer, &error.message);
                Failure::from(error).into_response()
            }
        }
    }
}

/// Places for those whom nobody knows yet.
#[derive(Default)]
struct Seats {
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// One place; free again when it is dropped.
struct Seat {
    seats: Arc<Seats>,
    address: IpAddr,
}

impl Seats {
    fn take(seats: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        let mut taken = seats.taken.lock();
        if taken.values().sum::<usize>() >= SEATS
            || taken.get(&address).is_some_and(|count| *count >= SEATS_EACH)
        {
            return None;
        }
        *taken.entry(address).or_default() += 1;
        Some(Seat { seats: Arc::clone(seats), address })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock();
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

/// Lines about refusals: strangers can't fill a disk with them.
struct Log(Mutex<Lines>);

struct Lines {
    since: Instant,
    written: u32,
    suppressed: u64,
}

impl Default for Log {
    fn default() -> Self {
        Self(Mutex::new(Lines { since: Instant::now(), written: 0, suppressed: 0 }))
    }
}

impl Log {
    fn refused(&self, peer: SocketAddr, why: &str) {
        let mut lines = self.0.lock();
        if lines.since.elapsed() >= LINES_PER {
            if lines.suppressed > 0 {
                tracing::warn!(more = lines.suppressed, "API: more was refused");
            }
            *lines = Lines { since: Instant::now(), written: 0, suppressed: 0 };
        }
        if lines.written >= LINES {
            lines.suppressed += 1;
            return;
        }
        lines.written += 1;
        drop(lines);
        tracing::warn!(%peer, why, "API: refused");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_takes_not_all_seats_and_a_seat_comes_free() {
        let seats = Arc::new(Seats::default());
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let mut held: Vec<Seat> = Vec::new();
        for from in 1..=4 {
            let mut own: Vec<Seat> =
                (0..SEATS).map_while(|_| Seats::take(&seats, address(from))).collect();
            assert_eq!(own.len(), SEATS_EACH);
            held.append(&mut own);
        }
        assert!(Seats::take(&seats, address(5)).is_none(), "all are taken");
        held.pop();
        assert!(Seats::take(&seats, address(5)).is_some());
        held.clear();
        assert!(seats.taken.lock().is_empty());
    }
}
