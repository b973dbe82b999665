//! Who is admitted, and whose certificate is renewed: the control plane's side of the cluster's own
//! certificate authority. TLS itself is the transport's.
//!
//! ```text
//!   new node ── token, request ──> any node ──(control.join)──> a voter: can it sign?
//!                                                 │ 1 the request is signed by its own key
//!                                                 │ 2 Raft: token good, name free -> a row, a number
//!                                                 │ 3 a certificate for that number
//!            <── certificate, authority, table ───┘
//!   node ── request ──(control.renew)──> a voter: the row's key? ──> a certificate
//!   voter without the wrapping key ──(control.wrapping_key)──> another voter
//! ```
//!
//! The authority's key is in Raft, wrapped; the wrapping key is with voters only, each of which keeps
//! it beside its identity, and passes from voter to voter over authenticated streams.
//!
//! Invariants: nothing is signed but for the key of a row of the table; a token is used up only by a
//! request that can be signed; a node that asks again gets the number it has.
#![allow(clippy::disallowed_methods)] // A shell: it dates certificates.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use mooring_config::{
    Actor, Admission, ClusterId, ClusterState, Command, Done, Fingerprint, Genesis, Labels,
    NEWEST_VERSION, NewNode, Refused, Role, TokenHash, WrappedKey,
};
use mooring_terms::{ErrorKind, NodeId};
use mooring_transport::{CertificateAuthority, Identity, NodeKey, TokenError};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::control::Control;
use crate::error::Error;
use crate::proto::{JOIN, RENEW, WRAPPING_KEY, decode, encode};
use crate::rpc::{Malformed, Service};

/// How long a certificate is good. Between listed nodes dates aren't checked: this is for others.
pub const CERTIFICATE_LIFE: Duration = Duration::from_secs(90 * 86_400);
/// What the CA's key is wrapped for.
const PURPOSE: &[u8] = b"mooring-ca-key";
/// How long a voter may take to sign.
const SIGN_LIMIT: Duration = Duration::from_secs(6);
/// How many rows of the table a new node is told; its Raft brings it the rest.
const ROWS: usize = 4_096;

/// The key that wraps the CA's key. Wiped when dropped.
pub type WrappingKey = Zeroizing<[u8; 32]>;

/// A request to join, as it travels: postcard, at most 64 KiB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The secret of the token.
    pub secret: [u8; 32],
    /// The name that the node wants.
    pub name: String,
    /// Where it will listen, best first.
    pub addresses: Vec<SocketAddr>,
    /// Its labels.
    pub labels: Labels,
    /// The newest cluster version it can write.
    pub version: mooring_config::ClusterVersion,
    /// A certificate request for its key (PKCS#10, DER).
    pub request: Vec<u8>,
}

/// What a node that was admitted is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    /// Its number.
    pub node: NodeId,
    /// Its certificate, DER.
    pub certificate: Vec<u8>,
    /// The authority's certificate, DER.
    pub authority: Vec<u8>,
    /// The cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub cluster_name: String,
    /// The other nodes: until its Raft knows better, these may talk to it.
    pub peers: Vec<PeerRow>,
}

/// A row of the table of nodes, as far as a new node needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRow {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    /// Its key.
    pub fingerprint: Fingerprint,
}

/// Why a node was not admitted, or its certificate not renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum NotSigned {
    /// The configuration refuses it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The request can't be read, or isn't signed by its own key.
    #[error("the request can't be read: is the software of the same version?")]
    Malformed,
    /// No voter with the CA's key answered, or Raft has no majority.
    #[error("the cluster can't sign now: no voter with its key answers; try again later")]
    Unavailable,
    /// The key is not the one of the node's row.
    #[error("this key is not in the cluster's table of nodes")]
    UnknownKey,
}

impl NotSigned {
    /// What the caller must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused(refused) => refused.kind(),
            Self::Malformed | Self::UnknownKey => ErrorKind::Invalid,
            Self::Unavailable => ErrorKind::Unavailable,
        }
    }
}

/// What the first node of a cluster begins with.
pub struct Beginning {
    /// For [`Control::create`].
    pub genesis: Genesis,
    /// The node's identity, to be kept.
    pub identity: Identity,
    /// To be kept beside the identity, readable by nobody else.
    pub wrapping_key: WrappingKey,
}

/// Makes the certificate authority of a new cluster, and the identity of its first node.
///
/// # Errors
/// If there is no randomness, or a key can't be made.
pub fn begin(
    cluster_name: String,
    name: String,
    addresses: Vec<SocketAddr>,
    labels: Labels,
) -> Result<Beginning, mooring_transport::Error> {
    let ca = CertificateAuthority::create()?;
    let ips: Vec<IpAddr> = addresses.iter().map(SocketAddr::ip).collect();
    let identity = ca.issue(NodeId(1), &ips, SystemTime::now(), CERTIFICATE_LIFE)?;
    let wrapping_key = Zeroizing::new(random::<32>()?);
    let wrapped = mooring_transport::wrap(&wrapping_key, PURPOSE, &ca.key_bytes())?;
    let genesis = Genesis {
        cluster: ClusterId(random()?),
        name: cluster_name,
        ca_certificate: ca.certificate().to_vec(),
        ca_key: WrappedKey(wrapped),
        gossip_key: random()?,
        version: NEWEST_VERSION,
        first: NewNode {
            name,
            addresses,
            fingerprint: Fingerprint(*identity.fingerprint().as_bytes()),
            labels,
            version: NEWEST_VERSION,
        },
    };
    Ok(Beginning { genesis, identity, wrapping_key })
}

/// A fresh key for the gossip ring: what [`Command::RemoveNode`] and rotation carry.
///
/// # Errors
/// If there is no randomness.
pub fn new_gossip_key() -> Result<[u8; 32], mooring_transport::Error> {
    random()
}

/// One node's part in signing: every node takes requests, voters sign.
pub struct Certificates {
    control: Arc<Control>,
    wrapping_key: RwLock<Option<WrappingKey>>,
}

impl Certificates {
    /// Begins to serve other nodes' requests. `wrapping_key` is what this node has kept, if it is or
    /// was a voter.
    #[must_use]
    pub fn start(control: Arc<Control>, wrapping_key: Option<WrappingKey>) -> Arc<Self> {
        let rpc = Arc::clone(control.rpc());
        let this = Arc::new(Self { control, wrapping_key: RwLock::new(wrapping_key) });
        rpc.serve(JOIN, Arc::new(JoinService(Arc::clone(&this))));
        rpc.serve(RENEW, Arc::new(RenewService(Arc::clone(&this))));
        rpc.serve(WRAPPING_KEY, Arc::new(WrappingKeyService(Arc::clone(&this))));
        this
    }

    /// Answers a request to join that came to this node from outside ([`JoinRequest`]); the answer
    /// is `Result<Admitted, NotSigned>`, both in postcard. Nothing is known about whoever sent it.
    pub async fn join(&self, request: &[u8]) -> Bytes {
        let Ok(request) = decode::<JoinRequest>(request) else {
            return encode::<Result<Admitted, NotSigned>>(&Err(NotSigned::Malformed));
        };
        encode(&self.admit(&request).await)
    }

    /// Reads the answer to a request to join.
    ///
    /// # Errors
    /// [`NotSigned`].
    pub fn read_join_answer(answer: &[u8]) -> Result<Admitted, NotSigned> {
        decode::<Result<Admitted, NotSigned>>(answer).map_err(|Malformed| NotSigned::Malformed)?
    }

    /// Encodes a request to join.
    #[must_use]
    pub fn join_request(request: &JoinRequest) -> Bytes {
        encode(request)
    }

    async fn admit(&self, request: &JoinRequest) -> Result<Admitted, NotSigned> {
        if self.authority().is_some() {
            return self.admit_here(request).await;
        }
        self.ask_voters(JOIN, encode(request)).await
    }

    async fn admit_here(&self, request: &JoinRequest) -> Result<Admitted, NotSigned> {
        let ca = self.authority().ok_or(NotSigned::Unavailable)?;
        // For nobody: shows that the request is good, and whose key it is for.
        let trial = sign(&ca, &request.request, NodeId(0), &[])?;
        let key = mooring_transport::Fingerprint::of_certificate(&trial)
            .map_err(|_| NotSigned::Malformed)?;
        let hash = mooring_transport::TokenHash::of_secret(&request.secret)
            .map_err(|_| NotSigned::Malformed)?;
        self.check_right(TokenHash(*hash.as_bytes()), Fingerprint(*key.as_bytes())).await?;
        let node = NewNode {
            name: request.name.clone(),
            addresses: request.addresses.clone(),
            fingerprint: Fingerprint(*key.as_bytes()),
            labels: request.labels.clone(),
            version: request.version,
        };
        let admission = Admission { token: TokenHash(*hash.as_bytes()), node };
        let by = Actor::system(self.control.node());
        let command = Command::AdmitNode(Box::new(admission));
        let node = match self.control.propose(by, command).await {
            Ok(Done::Node(node)) => node,
            Err(Error::Refused(refused)) => return Err(NotSigned::Refused(refused)),
            Ok(_) | Err(_) => return Err(NotSigned::Unavailable),
        };
        let certificate = sign(&ca, &request.request, node, &request.addresses)?;
        let state = self.control.state();
        let identity = state.identity().ok_or(NotSigned::Unavailable)?;
        Ok(Admitted {
            node,
            certificate,
            authority: identity.ca_certificate.clone(),
            cluster: identity.cluster,
            cluster_name: identity.name.clone(),
            peers: peers(&state, node),
        })
    }

    /// Refuses whoever has neither a token that is known nor a row, without an entry in Raft's log:
    /// strangers don't write there. The rest is checked where the entry is applied.
    async fn check_right(&self, token: TokenHash, key: Fingerprint) -> Result<(), NotSigned> {
        let knows = |state: &ClusterState| {
            state.join_tokens().contains_key(&token)
                || state.nodes().values().any(|node| node.fingerprint == key)
        };
        if knows(&self.control.state()) {
            return Ok(());
        }
        // The token may be newer than what was applied here.
        match self.control.read_linearizable().await {
            Ok(state) if knows(&state) => Ok(()),
            Ok(_) => Err(NotSigned::Refused(Refused::TokenUseless)),
            Err(_) => Err(NotSigned::Unavailable),
        }
    }

    /// A new certificate for this node's key.
    ///
    /// # Errors
    /// [`NotSigned`].
    pub async fn renew(&self, identity: &Identity) -> Result<Identity, NotSigned> {
        let request = identity.key().request().map_err(|_| NotSigned::Malformed)?;
        let certificate: Vec<u8> = if self.authority().is_some() {
            self.sign_again(self.control.node(), &request)?
        } else {
            self.ask_voters(RENEW, Bytes::from(request)).await?
        };
        identity.renewed(certificate).map_err(|_| NotSigned::UnknownKey)
    }

    fn sign_again(&self, node: NodeId, request: &[u8]) -> Result<Vec<u8>, NotSigned> {
        let ca = self.authority().ok_or(NotSigned::Unavailable)?;
        let state = self.control.state();
        let row = state.node(node).ok_or(NotSigned::UnknownKey)?;
        let certificate = sign(&ca, request, node, &row.addresses)?;
        let key = mooring_transport::Fingerprint::of_certificate(&certificate);
        match key {
            Ok(key) if *key.as_bytes() == row.fingerprint.0 => Ok(certificate),
            _ => Err(NotSigned::UnknownKey),
        }
    }

    /// Makes sure that this node has the wrapping key if it votes: asks the other voters for it.
    /// Call it when this node's role changes, and keep what [`Self::wrapping_key`] then gives.
    ///
    /// # Errors
    /// [`NotSigned::Unavailable`] if no voter gave it.
    pub async fn obtain_wrapping_key(&self) -> Result<(), NotSigned> {
        let state = self.control.state();
        let votes = |node| state.node(node).is_some_and(|row| row.role == Role::Voter);
        if self.authority().is_some() || !votes(self.control.node()) {
            return Ok(());
        }
        let key: [u8; 32] = self.ask_voters(WRAPPING_KEY, Bytes::new()).await?;
        *self.wrapping_key.write() = Some(Zeroizing::new(key));
        self.authority().map(|_| ()).ok_or(NotSigned::Unavailable)
    }

    /// The wrapping key, to be kept beside the identity, readable by nobody else.
    #[must_use]
    pub fn wrapping_key(&self) -> Option<WrappingKey> {
        self.wrapping_key.read().clone()
    }

    /// The authority, if this node can open its key.
    fn authority(&self) -> Option<CertificateAuthority> {
        let key = self.wrapping_key.read().clone()?;
        let state = self.control.state();
        let certificate = &state.identity()?.ca_certificate;
        let bytes = mooring_transport::unwrap(&key, PURPOSE, &state.ca_key().0).ok()?;
        CertificateAuthority::from_parts(certificate, &bytes).ok()
    }

    async fn ask_voters<T>(&self, service: &str, body: Bytes) -> Result<T, NotSigned>
    where
        T: serde::de::DeserializeOwned,
    {
        for voter in self.control.status().voters {
            if voter == self.control.node() {
                continue;
            }
            let answer = self.control.rpc().call(voter, service, body.clone(), SIGN_LIMIT).await;
            let Ok(answer) = answer else { continue };
            match decode::<Result<T, NotSigned>>(&answer) {
                Ok(Err(NotSigned::Unavailable)) | Err(Malformed) => {}
                Ok(answer) => return answer,
            }
        }
        Err(NotSigned::Unavailable)
    }
}

struct JoinService(Arc<Certificates>);

#[async_trait]
impl Service for JoinService {
    async fn call(&self, _from: NodeId, body: Bytes) -> Result<Bytes, Malformed> {
        Ok(encode(&self.0.admit_here(&decode(&body)?).await))
    }
}

struct RenewService(Arc<Certificates>);

#[async_trait]
impl Service for RenewService {
    async fn call(&self, from: NodeId, body: Bytes) -> Result<Bytes, Malformed> {
        Ok(encode(&self.0.sign_again(from, &body)))
    }
}

struct WrappingKeyService(Arc<Certificates>);

#[async_trait]
impl Service for WrappingKeyService {
    async fn call(&self, from: NodeId, _body: Bytes) -> Result<Bytes, Malformed> {
        let state = self.0.control.state();
        let votes = state.node(from).is_some_and(|row| row.role == Role::Voter);
        let key = self.0.wrapping_key.read().as_ref().map(|key| **key);
        let answer = match key {
            Some(key) if votes => Ok(key),
            _ => Err(NotSigned::Unavailable),
        };
        Ok(encode(&answer))
    }
}

fn sign(
    ca: &CertificateAuthority,
    request: &[u8],
    node: NodeId,
    addresses: &[SocketAddr],
) -> Result<Vec<u8>, NotSigned> {
    let ips: Vec<IpAddr> = addresses.iter().map(SocketAddr::ip).collect();
    ca.sign(request, node, &ips, SystemTime::now(), CERTIFICATE_LIFE)
        .map_err(|_| NotSigned::Malformed)
}

fn peers(state: &ClusterState, but: NodeId) -> Vec<PeerRow> {
    let rows = state.nodes().values().filter(|row| row.id != but).take(ROWS);
    rows.map(|row| PeerRow {
        node: row.id,
        name: row.name.clone(),
        addresses: row.addresses.clone(),
        fingerprint: row.fingerprint,
    })
    .collect()
}

/// The key pair and request of a node that is about to join.
///
/// # Errors
/// If a key can't be made.
pub fn new_key() -> Result<(NodeKey, Vec<u8>), mooring_transport::Error> {
    let key = NodeKey::generate()?;
    let request = key.request()?;
    Ok((key, request))
}

fn random<const N: usize>() -> Result<[u8; N], mooring_transport::Error> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| TokenError::Random)?;
    Ok(bytes)
}
