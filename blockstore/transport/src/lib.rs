//! The transport between nodes: identity, the cluster's certificate authority, mutual TLS, and
//! ordered streams of messages.
//!
//! ```text
//!   layer above      send, connect, break_stream          connected, disconnected, message
//!                          │                                            ▲
//!   contract         Transport (trait)                            Handler (trait)
//!                          │                                            │
//!                ┌─────────┴──────────┐                                 │
//!   memory: one process          endpoint: one TCP port, blocking threads
//!                                     │       └ zeromq: the same port, unprotected, if it is asked for
//!   frames       proto (heads, limits) · assembler (pieces ─▶ aligned frames)
//!   who          admission (table of nodes) · tls (verifiers) · identity · authority · token · join
//! ```
//!
//! A node has one outgoing stream for each (peer, [`Channel`]) and one incoming; a stream carries
//! messages one way. Sending writes on the caller's thread when the socket is idle; reading calls
//! the [`Handler`] on the stream's thread. There is no runtime and no queue in between.
//!
//! Invariants:
//! - nobody gets past the handshake whose key is not in the table of nodes ([`Admission`]) or whose
//!   certificate the cluster's authority did not sign; dates are not looked at. The exception is what
//!   [`Unprotected`] lets in;
//! - on a stream messages arrive in order, once; a break is reported; an older stream never speaks
//!   after a newer one;
//! - `send` never waits for a peer; what is queued is bounded in bytes;
//! - every length is checked before anything is allocated for it.
//!
//! The crate must not interpret messages, know volumes or slices, or decide who is admitted.

pub mod assembler;
pub mod contract;
pub mod endpoint;
pub mod join;
pub mod link;
pub mod memory;
pub mod proto;

mod admission;
mod authority;
mod error;
mod fingerprint;
mod identity;
mod rate;
mod tls;
mod token;
mod unprotected;
#[cfg(feature = "zeromq")]
pub mod zeromq;

pub use admission::Admission;
pub use authority::{CertificateAuthority, unwrap, wrap};
pub use contract::{Channel, Handler, Message, SendError, StreamId, Transport};
pub use endpoint::post::is_relieved;
pub use endpoint::{Endpoint, EndpointConfig, HttpHandler, JoinHandler, Limits, Services};
pub use error::Error;
pub use fingerprint::Fingerprint;
pub use identity::{Identity, NodeKey};
pub use link::{Dialler, Link, LinkHandler};
pub use memory::{MemoryEndpoint, MemoryNetwork};
pub use token::{Token, TokenError, TokenHash};
pub use unprotected::Unprotected;
