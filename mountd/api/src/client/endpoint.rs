//! Where a daemon is reached.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ClientError;
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
    /// The port of a node, over TLS.
    Tls {
        /// `IP:PORT` or `HOST:PORT`. The node's certificate must be for the address behind it.
        address: String,
        /// The certificates that may have signed the node's: its cluster's authority.
        authorities: Vec<CertificateDer<'static>>,
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

    /// The port of the node at `address`, whose cluster's authority is in `pem`.
    ///
    /// # Errors
    /// [`ClientError::NoAuthority`] if no certificate is in it.
    pub fn tls(address: &str, pem: &[u8], token: Option<Secret>) -> Result<Self, ClientError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        match found {
            Ok(authorities) if !authorities.is_empty() => {
                Ok(Self::Tls { address: address.to_owned(), authorities, token })
            }
            _ => Err(ClientError::NoAuthority),
        }
    }

    /// The token to send.
    pub(super) fn token(&self) -> Option<&Secret> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp { token, .. } | Self::Tls { token, .. } => token.as_ref(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp { address, .. } => write!(f, "tcp://{address}"),
            Self::Tls { address, .. } => write!(f, "https://{address}"),
        }
    }
}

/// Connects to a node's port, and makes sure that a node of that cluster answers.
///
/// # Errors
/// What the network says; [`std::io::ErrorKind::InvalidData`] if it is none.
pub(super) async fn connect_tls(
    address: &str,
    authorities: &[CertificateDer<'static>],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(std::io::Error::other)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(std::io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let addresses: Vec<_> = tokio::net::lookup_host(address).await?.collect();
    let stream = TcpStream::connect(addresses.as_slice()).await?;
    // A node's certificate names addresses, not host names.
    let name = ServerName::IpAddress(stream.peer_addr()?.ip().into());
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
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

    #[test]
    fn a_node_is_reached_only_with_an_authority_to_check_it() {
        for pem in [&b""[..], b"no certificate", b"-----BEGIN CERTIFICATE-----\n"] {
            let refused = Endpoint::tls("10.0.0.1:7700", pem, None);
            assert!(matches!(refused, Err(ClientError::NoAuthority)), "{refused:?}");
        }
    }

    #[tokio::test]
    async fn a_token_stays_on_this_machine() {
        assert!(resolve("192.0.2.1:7700", true).await.is_err());
        assert!(resolve("192.0.2.1:7700", false).await.is_ok());
        assert!(resolve("127.0.0.1:7700", true).await.is_ok());
    }
}
