//! The errors of this crate.

use std::io;
use std::net::SocketAddr;

use mooring_terms::{ErrorKind, NodeId};
use thiserror::Error;

use crate::contract::SendError;
use crate::fingerprint::Fingerprint;
use crate::proto::FrameError;
use crate::token::TokenError;

/// What can go wrong when keys, certificates and connections are made. Received bytes and refused
/// peers never surface here: they are logged, and the connection is closed.
#[derive(Debug, Error)]
pub enum Error {
    /// The port can't be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A connection can't be made, or broke during its handshake.
    #[error("connection with {address} failed")]
    Connection {
        /// The other side.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// TLS with a peer failed: one of the two refused the other.
    #[error("TLS handshake with {address} failed: {source}")]
    Handshake {
        /// The other side.
        address: SocketAddr,
        /// Why.
        source: rustls::Error,
    },
    /// A connection did not get to its end within its time limit.
    #[error("{address} did not answer in time")]
    TimedOut {
        /// The other side.
        address: SocketAddr,
    },
    /// The peer closed the connection instead of answering.
    #[error("{address} closed the connection; it does not accept this node or this request")]
    Closed {
        /// The other side.
        address: SocketAddr,
    },
    /// The peer sent what is no frame.
    #[error("bad frame from {address}: {source}")]
    Frame {
        /// The other side.
        address: SocketAddr,
        /// What was wrong.
        source: FrameError,
    },
    /// The node has no address or key in the table of nodes.
    #[error("node {0} is not in the table of nodes")]
    UnknownNode(NodeId),
    /// TLS refuses the key or certificate of this node itself.
    #[error("TLS configuration: {0}")]
    Tls(#[from] rustls::Error),
    /// The operating system refuses a thread or a file descriptor.
    #[error("operating system resource")]
    Resource(#[source] io::Error),
    /// A key or certificate can't be made.
    #[error("making a key or certificate: {0}")]
    Generate(#[from] rcgen::Error),
    /// Stored bytes are no key.
    #[error("the bytes are not a P-256 key in PKCS#8")]
    MalformedKey,
    /// Bytes are no certificate.
    #[error("the bytes are not an X.509 certificate")]
    MalformedCertificate,
    /// Bytes are no request for a certificate, or for a kind of key that is not used here.
    #[error("the bytes are not a certificate request for a P-256 key")]
    MalformedRequest,
    /// Stored bytes are no identity or authority, or of an unknown version.
    #[error("the stored identity cannot be read")]
    MalformedIdentity,
    /// The text is no fingerprint.
    #[error("a fingerprint is 64 hexadecimal digits")]
    MalformedFingerprint,
    /// A certificate for another key.
    #[error("the certificate is for key {certificate:?}, not for this node's key {key:?}")]
    WrongKey {
        /// The fingerprint in the certificate.
        certificate: Fingerprint,
        /// The fingerprint of the key.
        key: Fingerprint,
    },
    /// A certificate that the given authority did not sign.
    #[error("the certificate was not signed by the cluster's authority {0:?}")]
    WrongAuthority(Fingerprint),
    /// Wrapped bytes don't open under the key: another key, or changed bytes.
    #[error("the wrapped key does not open: another wrapping key, or damaged")]
    Unwrap,
    /// The text is no join token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The endpoint was started before, or was shut down.
    #[error("the endpoint was already started")]
    AlreadyStarted,
}

impl Error {
    /// What the caller must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Connection { .. } | Self::TimedOut { .. } | Self::Resource(_) => {
                ErrorKind::Unavailable
            }
            Self::UnknownNode(_) => ErrorKind::NotFound,
            Self::Handshake { .. }
            | Self::Closed { .. }
            | Self::Frame { .. }
            | Self::MalformedKey
            | Self::MalformedCertificate
            | Self::MalformedRequest
            | Self::MalformedIdentity
            | Self::MalformedFingerprint
            | Self::WrongKey { .. }
            | Self::WrongAuthority(_)
            | Self::Unwrap
            | Self::Token(_)
            | Self::AlreadyStarted => ErrorKind::Invalid,
            Self::Bind { .. } | Self::Tls(_) | Self::Generate(_) => ErrorKind::Fatal,
        }
    }
}

impl SendError {
    /// What the caller must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Full => ErrorKind::Retry,
            Self::Down => ErrorKind::Unavailable,
            Self::TooLarge => ErrorKind::Invalid,
        }
    }
}
