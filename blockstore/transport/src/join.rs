//! Joining: one request to a node of the cluster, by a node that has a token and no certificate.
//!
//! ```text
//!   new node ── TLS, ALPN mooring-join/1 ──▶ any node     the server's authority is the token's
//!   request (<= 64 KiB: token's secret, certificate request, addresses) ──▶ JoinHandler
//!            ◀── answer (<= 1 MiB: certificate, authority, table of nodes)
//! ```
//! What is in request and answer is the control plane's business. The request travels only after
//! the server has proved that the authority named by the token signed its certificate; whether
//! that node is still in the table can't be known from outside, so a token is spent by its use.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::endpoint::dial;
use crate::error::Error;
use crate::proto::Kind;
use crate::tls::config::join_client;
use crate::token::Token;

/// The whole exchange, the cluster's work included.
const LIMIT: Duration = Duration::from_secs(10);

/// Sends `request` (at most 64 KiB) to the node at `address` and gives its answer. Blocks for
/// 10 s at most after the connection is made.
///
/// # Errors
/// [`Error::Connection`] and [`Error::TimedOut`] if nobody answers there, [`Error::Handshake`] if
/// it isn't a node of the cluster that the token is for, [`Error::Closed`] if it takes no requests
/// to join now, [`Error::Frame`] if the request is too long.
pub fn request(address: SocketAddr, token: &Token, request: &[u8]) -> Result<Bytes, Error> {
    let config = join_client(token.authority())?;
    dial::request(address, config, LIMIT, (Kind::JoinRequest, request), Kind::JoinResponse)
}
