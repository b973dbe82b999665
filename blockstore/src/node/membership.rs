//! Getting into a cluster: the first node makes it, the others show a token at the door.
//!
//! ```text
//!   new node ── token's secret, certificate request, name ──> door of any node
//!            <── not here, ask these ──                        (it is no voter)
//!            <── certificate, number, table of nodes ──        (a voter: token checked by Raft)
//! ```
//!
//! The CA's key is in the configuration, wrapped; what unwraps it is on voters only, who get it from
//! each other. Showing the same token twice with the same key gives the same membership.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Weak;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use mooring_config::{
    Actor, Admission, ClusterId, Command, Done, Genesis, NEWEST_VERSION, NewNode, Role, TokenHash,
    WrappedKey,
};
use mooring_control::rpc::Rpc;
use mooring_control::{Control, Timings};
use mooring_terms::NodeId;
use mooring_transport::{
    CertificateAuthority, Fingerprint, Identity, JoinHandler, Token, join as door, unwrap, wrap,
};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::{Node, NodeError};
use crate::admission::Peer;
use crate::node_store::{Membership, NodeStore};

/// How long a certificate is good for, by the dates on it; nodes renew theirs long before.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// What the CA's key is wrapped for.
const PURPOSE: &[u8] = b"mooring-ca-key";
/// How many doors a newcomer is sent on to.
const DOORS: usize = 3;

/// What a node says of itself when it enters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMember {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// What is said at the door. Version history: 1.
#[derive(Serialize, Deserialize)]
struct Knock {
    version: u8,
    secret: Vec<u8>,
    /// PKCS#10, DER.
    request: Vec<u8>,
    member: NewMember,
    /// The newest cluster version that the node can write.
    writes: u32,
}

/// What is answered.
#[derive(Serialize, Deserialize)]
enum Welcome {
    Admitted(Box<Admitted>),
    Elsewhere(Vec<SocketAddr>),
    Refused { reason: String, passes: bool },
}

#[derive(Serialize, Deserialize)]
struct Admitted {
    cluster: [u8; 16],
    node: NodeId,
    certificate: Vec<u8>,
    authority: Vec<u8>,
    peers: Vec<Peer>,
}

/// Makes a cluster of this node alone, and remembers that.
///
/// # Errors
/// [`NodeError`].
pub async fn create(
    store: &NodeStore,
    data: &Path,
    member: NewMember,
    timings: Timings,
) -> Result<(), NodeError> {
    let node = NodeId(1);
    let ca = CertificateAuthority::create()?;
    let key = store.key()?;
    let addresses = [member.listen.ip()];
    let certificate = ca.sign(
        &key.request()?,
        node,
        &addresses,
        SystemTime::UNIX_EPOCH + since_1970(),
        CERTIFICATE_LIFE,
    )?;
    let identity = Identity::new(key, certificate, ca.certificate().to_vec())?;
    let unwraps = crate::random::key();
    let ca_key = wrap(&unwraps, PURPOSE, &ca.key_bytes())?;
    let cluster = crate::random::id();
    let genesis = Genesis {
        cluster: ClusterId(cluster),
        name: hex::encode(&cluster[..4]),
        ca_certificate: ca.certificate().to_vec(),
        ca_key: WrappedKey(ca_key),
        gossip_key: crate::random::key(),
        version: NEWEST_VERSION,
        first: new_node(&member, identity.fingerprint()),
    };
    store.set_ca_unwrap(&unwraps)?;
    let boot = store.next_boot()?;
    let rpc = Rpc::new(node, std::sync::Arc::new(NoWire), Handle::current());
    let options = mooring_control::Options { node, boot, store: data.join("raft.redb"), timings };
    let control = Control::start(options, rpc).await?;
    let created =
        control.create(Actor { node: Some(node), name: "root".to_owned() }, genesis).await;
    control.shutdown().await?;
    created?;
    let membership = Membership { cluster, node, peers: Vec::new() };
    store.set_membership(&membership, &identity)?;
    Ok(())
}

/// Joins the cluster of the node at `address`, and remembers that.
///
/// # Errors
/// [`NodeError::JoinRefused`], [`NodeError::Transport`].
pub async fn join(
    store: &NodeStore,
    member: NewMember,
    address: &str,
    token: &Token,
) -> Result<(), NodeError> {
    let key = store.key()?;
    let knock = Knock {
        version: 1,
        secret: token.secret().to_vec(),
        request: key.request()?,
        member,
        writes: NEWEST_VERSION.0,
    };
    let knock = postcard::to_stdvec(&knock).expect("plain data encodes");
    let mut doors: Vec<SocketAddr> = address
        .to_socket_addrs()
        .map_err(|error| NodeError::JoinRefused { reason: format!("{address}: {error}") })?
        .collect();
    let mut tried = 0;
    while let Some(next) = doors.get(tried).copied() {
        tried += 1;
        let (token, body) = (token.clone(), knock.clone());
        let answer = tokio::task::spawn_blocking(move || door::request(next, &token, &body))
            .await
            .map_err(|_| NodeError::JoinRefused { reason: "asking failed".to_owned() })?;
        let answer = match answer {
            Ok(answer) => answer,
            Err(_) if tried < doors.len() => continue,
            Err(error) => return Err(error.into()),
        };
        match postcard::from_bytes(&answer) {
            Ok(Welcome::Admitted(admitted)) => {
                let identity = Identity::new(key, admitted.certificate, admitted.authority)?;
                let membership = Membership {
                    cluster: admitted.cluster,
                    node: admitted.node,
                    peers: admitted.peers,
                };
                store.set_membership(&membership, &identity)?;
                return Ok(());
            }
            Ok(Welcome::Elsewhere(others)) => {
                doors.extend(others.into_iter().take(DOORS));
                doors.truncate(4 * DOORS);
            }
            Ok(Welcome::Refused { reason, passes: false }) => {
                return Err(NodeError::JoinRefused { reason });
            }
            Ok(Welcome::Refused { reason, passes: true }) => {
                return Err(NodeError::JoinLater { reason });
            }
            Err(_) => {
                return Err(NodeError::JoinRefused {
                    reason: format!("{next} gave an answer that can't be read"),
                });
            }
        }
    }
    Err(NodeError::JoinLater { reason: "no voter of the cluster could be reached".to_owned() })
}

/// The door of a running node.
pub struct Door(pub Weak<Node>);

impl JoinHandler for Door {
    fn join(&self, peer: SocketAddr, request: Bytes) -> Bytes {
        let welcome = match (self.0.upgrade(), postcard::from_bytes::<Knock>(&request)) {
            (Some(node), Ok(knock)) if knock.version == 1 => node.welcome(peer, knock),
            _ => Welcome::Refused {
                reason: "the request can't be read: is the newcomer's software of another version?"
                    .to_owned(),
                passes: false,
            },
        };
        postcard::to_stdvec(&welcome).expect("plain data encodes").into()
    }
}

impl Node {
    /// Answers a newcomer. Called on a thread that may wait.
    fn welcome(&self, peer: SocketAddr, knock: Knock) -> Welcome {
        let Some(ca) = self.certificate_authority() else {
            return Welcome::Elsewhere(self.voters_addresses());
        };
        let node = match self.runtime.block_on(self.admit(&ca, &knock)) {
            Ok(node) => node,
            Err(error) => {
                let name = &knock.member.name;
                tracing::warn!(%peer, name, %error, "a node was not let in");
                let passes = matches!(
                    error.kind(),
                    mooring_terms::ErrorKind::Unavailable | mooring_terms::ErrorKind::Retry
                );
                return Welcome::Refused { reason: error.to_string(), passes };
            }
        };
        match self.sign(&ca, &knock, node) {
            Ok(certificate) => Welcome::Admitted(Box::new(Admitted {
                cluster: self.cluster,
                node,
                certificate,
                authority: ca.certificate().to_vec(),
                peers: self.peers(),
            })),
            Err(error) => Welcome::Refused { reason: error.to_string(), passes: false },
        }
    }

    async fn admit(&self, ca: &CertificateAuthority, knock: &Knock) -> Result<NodeId, NodeError> {
        let hash = mooring_transport::TokenHash::of_secret(&knock.secret)?;
        // Signed once for nobody: that checks the request, and tells whose key it is.
        let fingerprint = Fingerprint::of_certificate(&self.sign(ca, knock, NodeId(0))?)?;
        let node = NewNode {
            version: mooring_config::ClusterVersion(knock.writes),
            ..new_node(&knock.member, fingerprint)
        };
        let admission = Admission { token: TokenHash(*hash.as_bytes()), node };
        match self.propose_as_system(Command::AdmitNode(Box::new(admission))).await? {
            Done::Node(node) => Ok(node),
            _ => Err(NodeError::Unreadable(self.id)),
        }
    }

    fn sign(
        &self,
        ca: &CertificateAuthority,
        knock: &Knock,
        node: NodeId,
    ) -> Result<Vec<u8>, NodeError> {
        let now = SystemTime::UNIX_EPOCH + since_1970();
        let addresses = [knock.member.listen.ip()];
        Ok(ca.sign(&knock.request, node, &addresses, now, CERTIFICATE_LIFE)?)
    }

    /// The CA, on a node that has what unwraps its key.
    pub(super) fn certificate_authority(&self) -> Option<CertificateAuthority> {
        let unwraps = self.store.ca_unwrap().ok()??;
        let state = self.state();
        let key = unwrap(&unwraps, PURPOSE, &state.ca_key().0).ok()?;
        CertificateAuthority::from_parts(&state.identity()?.ca_certificate, &key).ok()
    }

    /// A new join token of this cluster.
    ///
    /// # Errors
    /// [`NodeError::Token`].
    pub fn new_token(&self) -> Result<Token, NodeError> {
        let authority = self.authority_fingerprint().ok_or(NodeError::Unreadable(self.id))?;
        Ok(Token::generate(authority)?)
    }

    /// The fingerprint of the cluster's CA.
    #[must_use]
    pub fn authority_fingerprint(&self) -> Option<Fingerprint> {
        Fingerprint::of_certificate(&self.state().identity()?.ca_certificate).ok()
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster(&self) -> [u8; 16] {
        self.cluster
    }

    fn voters_addresses(&self) -> Vec<SocketAddr> {
        let state = self.state();
        let voters = state.nodes().values().filter(|node| node.role == Role::Voter);
        voters.filter_map(|node| node.addresses.first().copied()).collect()
    }

    fn peers(&self) -> Vec<Peer> {
        let state = self.state();
        let peer = |node: &std::sync::Arc<mooring_config::Node>| {
            Some(Peer {
                node: node.id,
                fingerprint: node.fingerprint.0,
                address: node.addresses.first().copied()?,
            })
        };
        state.nodes().values().filter_map(peer).collect()
    }

    /// Removes a node: deletes its row, which cuts its streams, and changes the gossip key.
    ///
    /// # Errors
    /// Refused while it holds replicas or attachments, unless `force`.
    pub async fn remove_node(&self, by: &str, node: NodeId, force: bool) -> Result<(), NodeError> {
        let gone = !self.is_alive(node).await;
        let gossip_key = crate::random::key();
        self.propose(by, Command::RemoveNode { node, gone, force, gossip_key }).await?;
        Ok(())
    }
}

/// What unwraps the CA's key, as voters tell each other.
impl Node {
    /// Gets what unwraps the CA's key from another voter, if this node votes and doesn't have it.
    pub(super) async fn keep_ca_unwrap(&self) {
        let state = self.state();
        let votes = state.node(self.id).is_some_and(|node| node.role == Role::Voter);
        if !votes || !matches!(self.store.ca_unwrap(), Ok(None)) {
            return;
        }
        let voters = state.nodes().values().filter(|node| node.role == Role::Voter);
        for voter in voters.filter(|node| node.id != self.id) {
            if let Ok(Some(unwraps)) = self.ask(voter.id, &super::inquiry::CaUnwrap).await
                && unwrap(&unwraps, PURPOSE, &state.ca_key().0).is_ok()
            {
                if let Err(error) = self.store.set_ca_unwrap(&unwraps) {
                    tracing::warn!(%error, "what unwraps the CA's key could not be kept");
                }
                return;
            }
        }
    }
}

/// A wire to nobody, while the first node makes its cluster.
struct NoWire;

impl mooring_control::rpc::Wire for NoWire {
    fn send(&self, _to: NodeId, _frame: Bytes) -> Result<(), mooring_control::rpc::WireDown> {
        Err(mooring_control::rpc::WireDown)
    }
}

fn new_node(member: &NewMember, fingerprint: Fingerprint) -> NewNode {
    NewNode {
        name: member.name.clone(),
        addresses: vec![member.listen],
        fingerprint: mooring_config::Fingerprint(*fingerprint.as_bytes()),
        labels: member.labels.clone(),
        version: NEWEST_VERSION,
    }
}

fn since_1970() -> Duration {
    Duration::from_millis(crate::clock::unix_ms())
}
