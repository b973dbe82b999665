//! Where a daemon is reached.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::cluster::Secret;

/// Where a daemon is reached, and with what credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Its unix socket; the kernel says who we are.
    Unix(PathBuf),
    /// HTTP over plain TCP, to this very machine: a tunnel, or a proxy that adds TLS. A token is
    /// never sent in the clear to another machine.
    Tcp {
        /// `IP:PORT` or `HOST:PORT`.
        address: String,
        /// Sent as `Authorization: Bearer`.
        token: Option<Secret>,
    },
}

impl Endpoint {
    /// The endpoint that `text` names: `tcp://HOST:PORT`, `unix:///PATH`, or a path.
    #[must_use]
    pub fn parse(text: &str, token: Option<Secret>) -> Self {
        match text.strip_prefix("tcp://") {
            Some(address) => Self::Tcp { address: address.to_owned(), token },
            None => Self::Unix(PathBuf::from(text.strip_prefix("unix://").unwrap_or(text))),
        }
    }

    /// The token to send.
    pub(super) fn token(&self) -> Option<&Secret> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp { token, .. } => token.as_ref(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp { address, .. } => write!(f, "tcp://{address}"),
        }
    }
}

/// The addresses behind `address`. With `secret`, only those of this machine.
///
/// # Errors
/// If it can't be resolved, or no address is left.
pub(super) async fn resolve(address: &str, secret: bool) -> std::io::Result<Vec<SocketAddr>> {
    let all = tokio::net::lookup_host(address).await?;
    let fit: Vec<_> = all.filter(|address| !secret || address.ip().is_loopback()).collect();
    if fit.is_empty() {
        let why =
            "a token is sent in the clear only to this machine: use its unix socket, or a tunnel";
        return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, why));
    }
    Ok(fit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_addresses_are_told_apart() {
        let token = Some(Secret::new("t"));
        let unix = Endpoint::Unix("/run/x.sock".into());
        assert_eq!(Endpoint::parse("/run/x.sock", token.clone()), unix);
        assert_eq!(Endpoint::parse("unix:///run/x.sock", None), unix);
        let tcp = Endpoint::parse("tcp://127.0.0.1:7700", token.clone());
        assert_eq!(tcp, Endpoint::Tcp { address: "127.0.0.1:7700".into(), token });
        assert_eq!(format!("{tcp} {tcp:?}").matches("\"t\"").count(), 0);
    }

    #[tokio::test]
    async fn a_token_stays_on_this_machine() {
        assert!(resolve("192.0.2.1:7700", true).await.is_err());
        assert!(resolve("192.0.2.1:7700", false).await.is_ok());
        assert!(resolve("127.0.0.1:7700", true).await.is_ok());
    }
}
