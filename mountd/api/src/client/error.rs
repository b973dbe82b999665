//! Why a request got no answer, or not the one hoped for, and what to do about it.

use std::io;
use std::path::PathBuf;

use hyper::StatusCode;

use crate::error::{ApiError, ErrorKind};
use crate::span::Span;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No socket, or nobody behind it.
    #[error("mountd is not running on this machine ({why} at {})", socket.display())]
    NotRunning {
        /// Where it was looked for.
        socket: PathBuf,
        /// "no socket", or "nobody answers".
        why: &'static str,
    },
    /// The socket is there, and we may not use it.
    #[error("no permission to use mountd's socket {}", socket.display())]
    SocketDenied {
        /// Which.
        socket: PathBuf,
    },
    /// It can't be reached for another reason.
    #[error("can't reach mountd at {endpoint}: {source}")]
    Connect {
        /// Where it was looked for.
        endpoint: String,
        /// What the system says.
        source: io::Error,
    },
    /// What answers is no node of the cluster that was meant.
    #[error("what answers at {endpoint} can't be trusted: {source}")]
    Untrusted {
        /// Where it was looked for.
        endpoint: String,
        /// Why.
        source: io::Error,
    },
    /// A node over the network can be asked only with the certificate of its cluster's authority.
    #[error("there is no certificate to check the node against")]
    NoAuthority,
    /// No answer in time. What was asked for may still happen.
    #[error("mountd gave no answer to {request} within {after}")]
    Timeout {
        /// Method and path.
        request: String,
        /// How long was waited.
        after: Span,
    },
    /// The connection ended in the middle. What was asked for may still happen.
    #[error("the connection to mountd broke during {request}: {source}")]
    Broken {
        /// Method and path.
        request: String,
        /// What happened to it.
        source: hyper::Error,
    },
    /// What answered doesn't speak the API: a status that comes with no [`ApiError`].
    #[error("what answered {request} is not mountd, or one of another version: {status}")]
    NotMountd {
        /// Method and path.
        request: String,
        /// What came back.
        status: StatusCode,
    },
    /// A success whose body isn't what the API says.
    #[error("mountd's answer to {request} can't be understood: {source}")]
    Garbled {
        /// Method and path.
        request: String,
        /// Where it goes wrong.
        source: serde_json::Error,
    },
    /// The body is larger than any answer.
    #[error("mountd's answer to {request} is larger than {limit} bytes")]
    TooLarge {
        /// Method and path.
        request: String,
        /// The limit.
        limit: usize,
    },
    /// The daemon's own error.
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl ClientError {
    /// What the caller should do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotRunning { .. } | Self::Timeout { .. } => ErrorKind::Unavailable,
            Self::SocketDenied { .. } | Self::Untrusted { .. } => ErrorKind::Denied,
            Self::NoAuthority => ErrorKind::Invalid,
            Self::Connect { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                io::ErrorKind::InvalidInput => ErrorKind::Invalid,
                _ => ErrorKind::Unavailable,
            },
            // A daemon that is restarted in the middle looks like this.
            Self::Broken { .. } => ErrorKind::Retry,
            Self::NotMountd { .. } | Self::Garbled { .. } | Self::TooLarge { .. } => {
                ErrorKind::Fatal
            }
            Self::Api(error) => error.kind,
        }
    }

    /// What to do, in a sentence; empty if the message says it all.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NotRunning { .. } => "start it with: systemctl start mountd (or, by hand: \
                mountd run --listen IP:PORT); if its socket is elsewhere, give --socket or \
                MOORING_SOCKET"
                .to_owned(),
            Self::SocketDenied { .. } => "be root, or join the socket's group".to_owned(),
            Self::Connect { endpoint, .. } if endpoint.starts_with("https://") => {
                "is mountd running there, and does its configuration say api_tcp = true?".to_owned()
            }
            Self::Connect { .. } => String::new(),
            Self::Untrusted { .. } => {
                "is the address one that the node itself listens on, and the \
                certificate that of its cluster (on a node: mountctl cluster ca)?"
                    .to_owned()
            }
            Self::NoAuthority => "get it on a node of the cluster (mountctl cluster ca >ca.pem), \
                and give it with --ca or MOORING_CA"
                .to_owned(),
            Self::Timeout { .. } => "it may still be done: look with mountctl status, and at \
                the daemon's log (journalctl -u mountd); --timeout waits longer"
                .to_owned(),
            Self::Broken { .. } => "mountd was stopped or restarted: try again".to_owned(),
            Self::NotMountd { .. } | Self::Garbled { .. } | Self::TooLarge { .. } => {
                "compare the versions of mountctl and mountd (mountctl --version, mountd \
                --version), and look at what listens there"
                    .to_owned()
            }
            Self::Api(error) => error.hint.clone(),
        }
    }
}
