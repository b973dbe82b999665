//! The TLS configurations of a node, made anew when its certificate is renewed.

use std::sync::Arc;

use mooring_terms::NodeId;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use crate::admission::Admission;
use crate::fingerprint::Fingerprint;
use crate::identity::Identity;
use crate::tls::verify::{AdmittedNode, ApiClient, MeantNode, TokenCluster};

const ALPN_NODE: &[u8] = b"mooring/1";
const ALPN_JOIN: &[u8] = b"mooring-join/1";
const ALPN_LINK: &[u8] = b"mooring-link/1";
const ALPN_HTTP: &[u8] = b"http/1.1";

/// What a connection is for, from its ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Node,
    Link,
    Join,
    Http,
}

/// All that follows from this node's identity.
pub(crate) struct Configs {
    provider: Arc<CryptoProvider>,
    certified: Arc<SingleCertAndKey>,
    authority: CertificateDer<'static>,
    admission: Arc<dyn Admission>,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) node_server: Arc<ServerConfig>,
    pub(crate) link_server: Arc<ServerConfig>,
    pub(crate) join_server: Arc<ServerConfig>,
    pub(crate) http_server: Arc<ServerConfig>,
}

impl Purpose {
    /// What a client asks for; `None` if this port has nothing of the kind. A client that names
    /// no protocol is taken for an HTTP one, as plain HTTPS clients do.
    pub(crate) fn of(hello: &ClientHello<'_>) -> Option<Self> {
        let Some(mut protocols) = hello.alpn() else { return Some(Self::Http) };
        protocols.find_map(|protocol| match protocol {
            ALPN_NODE => Some(Self::Node),
            ALPN_LINK => Some(Self::Link),
            ALPN_JOIN => Some(Self::Join),
            ALPN_HTTP => Some(Self::Http),
            _ => None,
        })
    }
}

impl Configs {
    pub(crate) fn new(
        identity: &Identity,
        admission: Arc<dyn Admission>,
    ) -> Result<Self, rustls::Error> {
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let authority = identity.authority().clone();
        // The authority's certificate goes along for those who join: they know its fingerprint only.
        let chain = vec![identity.certificate().clone(), authority.clone()];
        let key =
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key().to_bytes().to_vec()));
        let key = CertifiedKey::from_der(chain, key, &provider)?;
        let certified = Arc::new(SingleCertAndKey::from(key));
        let node: Arc<dyn ClientCertVerifier> = Arc::new(AdmittedNode {
            authority: authority.clone(),
            admission: Arc::clone(&admission),
            algorithms,
        });
        let http: Arc<dyn ClientCertVerifier> =
            Arc::new(ApiClient { authority: authority.clone(), algorithms });
        let join = WebPkiClientVerifier::no_client_auth();
        let server = |verifier, protocol| server(&provider, &certified, verifier, protocol);
        Ok(Self {
            node_server: server(Arc::clone(&node), ALPN_NODE)?,
            link_server: server(node, ALPN_LINK)?,
            join_server: server(join, ALPN_JOIN)?,
            http_server: server(http, ALPN_HTTP)?,
            fingerprint: identity.fingerprint(),
            provider,
            certified,
            authority,
            admission,
        })
    }

    /// For dialling `meant` as a node.
    pub(crate) fn client(&self, meant: NodeId) -> Result<Arc<ClientConfig>, rustls::Error> {
        self.dialling(meant, ALPN_NODE)
    }

    /// For dialling `meant` as another process of a node.
    pub(crate) fn link_client(&self, meant: NodeId) -> Result<Arc<ClientConfig>, rustls::Error> {
        self.dialling(meant, ALPN_LINK)
    }

    fn dialling(&self, meant: NodeId, protocol: &[u8]) -> Result<Arc<ClientConfig>, rustls::Error> {
        let verifier = MeantNode {
            authority: self.authority.clone(),
            admission: Arc::clone(&self.admission),
            meant,
            algorithms: self.provider.signature_verification_algorithms,
        };
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::clone(&self.certified) as _);
        config.alpn_protocols = vec![protocol.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(Arc::new(config))
    }
}

/// For a node that has a token and nothing else.
pub(crate) fn join_client(authority: Fingerprint) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = provider();
    let algorithms: WebPkiSupportedAlgorithms = provider.signature_verification_algorithms;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TokenCluster { authority, algorithms }))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_JOIN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// A name for the TLS library, which insists on one; nobody checks it.
pub(crate) fn any_name() -> ServerName<'static> {
    ServerName::try_from("mooring").expect("a plain label is a DNS name")
}

fn server(
    provider: &Arc<CryptoProvider>,
    certified: &Arc<SingleCertAndKey>,
    verifier: Arc<dyn ClientCertVerifier>,
    protocol: &[u8],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(certified) as _);
    config.alpn_protocols = vec![protocol.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// AES-128 first: it is the fastest by a fifth, and no weaker link than P-256.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = default_provider();
    provider.cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}
