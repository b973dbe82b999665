//! Getting into a cluster: the first node makes it, the others show a token at the door.
//!
//! ```text
//!   new node ── token's secret, certificate request, name ──> door of any node ──> a voter signs
//!            <── certificate, number, table of nodes ──
//! ```
//!
//! Who is admitted and what is signed is decided by `mooring_control::certificates`; this keeps what
//! comes of it, and renews the node's certificate in time. Showing the same token twice with the
//! same key gives the same membership.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use mooring_config::{Actor, Command, NEWEST_VERSION};
use mooring_control::certificates::{self, Certificates, JoinRequest};
use mooring_control::rpc::{Rpc, Wire, WireDown};
use mooring_control::{Control, Timings};
use mooring_terms::NodeId;
use mooring_transport::{Fingerprint, Identity, JoinHandler, Token, join as door};
use tokio::runtime::Handle;

use super::{Node, NodeError};
use crate::admission::Peer;
use crate::node_store::{Membership, NodeStore};

/// The least time between two looks at whether this node votes.
const ROLE_LOOK: Duration = Duration::from_secs(2);
/// How often the certificate's age is looked at.
const RENEWAL_LOOK: Duration = Duration::from_secs(3_600);

/// What a node says of itself when it enters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMember {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
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
    let before = store.beginning()?;
    let boot = store.next_boot()?;
    let rpc = Rpc::new(node, Arc::new(NoWire), Handle::current());
    let options = mooring_control::Options { node, boot, store: data.join("raft.redb"), timings };
    let control = Control::start(options, rpc).await?;
    let created = create_or_find(store, &control, member, before).await;
    control.shutdown().await?;
    let (membership, identity) = created?;
    store.set_membership(&membership, &identity)?;
    Ok(())
}

/// Makes the cluster, unless an earlier daemon did and died before it could remember that.
pub(crate) async fn create_or_find(
    store: &NodeStore,
    control: &Control,
    member: NewMember,
    before: Option<(Membership, Identity)>,
) -> Result<(Membership, Identity), NodeError> {
    let node = NodeId(1);
    if let Some((membership, identity)) = before {
        // Only a leader knows what was committed, and a node alone elects itself.
        let state = match control.read_linearizable().await {
            Ok(state) => state,
            Err(_) => control.state(),
        };
        let made = state.identity().map(|identity| identity.cluster.0);
        if made == Some(membership.cluster) {
            return Ok((membership, identity));
        }
    }
    let cluster_name = format!("{}-cluster", member.name);
    let beginning =
        certificates::begin(cluster_name, member.name, vec![member.listen], member.labels)?;
    let cluster = beginning.genesis.cluster.0;
    let membership = Membership { cluster, node, peers: Vec::new() };
    store.set_ca_unwrap(&beginning.wrapping_key)?;
    store.set_beginning(&membership, &beginning.identity)?;
    let by = Actor { node: Some(node), name: "root".to_owned() };
    control.create(by, beginning.genesis).await?;
    Ok((membership, beginning.identity))
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
    let refused = |reason: String| NodeError::JoinRefused { reason };
    let request = Certificates::join_request(&JoinRequest {
        secret: *token.secret(),
        name: member.name,
        addresses: vec![member.listen],
        labels: member.labels,
        version: NEWEST_VERSION,
        request: key.request()?,
    });
    let target = address
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or_else(|| refused(format!("{address} is no address of a node: give IP:PORT")))?;
    let token = token.clone();
    let answer = tokio::task::spawn_blocking(move || door::request(target, &token, &request))
        .await
        .map_err(|_| refused("asking failed".to_owned()))??;
    let admitted = Certificates::read_join_answer(&answer).map_err(NodeError::NotSigned)?;
    let identity = Identity::new(key, admitted.certificate, admitted.authority)?;
    let peer = |row: &certificates::PeerRow| {
        Some(Peer {
            node: row.node,
            fingerprint: row.fingerprint.0,
            address: row.addresses.first().copied()?,
        })
    };
    let membership = Membership {
        cluster: admitted.cluster.0,
        node: admitted.node,
        peers: admitted.peers.iter().filter_map(peer).collect(),
    };
    store.set_membership(&membership, &identity)?;
    Ok(())
}

/// The door of a running node.
pub struct Door(pub Weak<Node>);

impl JoinHandler for Door {
    fn join(&self, peer: SocketAddr, request: Bytes) -> Bytes {
        let Some(node) = self.0.upgrade() else { return Bytes::new() };
        let answer = node.runtime.block_on(node.certificates.join(&request));
        match Certificates::read_join_answer(&answer) {
            Ok(admitted) => tracing::info!(%peer, node = %admitted.node, "a node was let in"),
            Err(error) => tracing::warn!(%peer, %error, "a node was not let in"),
        }
        answer
    }
}

impl Node {
    /// Keeps what a voter needs to sign, and the node's own certificate young, until it stops.
    pub(super) async fn keep_certificates(self: Arc<Self>) {
        let mut states = self.control.watch();
        let mut looked: Option<tokio::time::Instant> = None;
        loop {
            self.keep_ca_unwrap().await;
            if looked.is_some_and(|looked| looked.elapsed() < RENEWAL_LOOK) {
                // Woken by a change of the configuration: only the role matters.
            } else if let Err(error) = self.renew_if_due().await {
                tracing::warn!(%error, "the node's certificate was not renewed; trying again later");
            }
            looked.get_or_insert_with(tokio::time::Instant::now);
            if looked.is_some_and(|looked| looked.elapsed() >= RENEWAL_LOOK) {
                looked = None;
            }
            // At most one look a while, however often the configuration changes.
            tokio::time::sleep(ROLE_LOOK).await;
            let waited = tokio::time::timeout(RENEWAL_LOOK, states.changed()).await;
            if matches!(waited, Ok(Err(_))) {
                return;
            }
        }
    }

    async fn renew_if_due(&self) -> Result<(), NodeError> {
        let Some(identity) = self.store.identity()? else { return Ok(()) };
        if !identity.renewal_due(std::time::SystemTime::now())? {
            return Ok(());
        }
        let renewed = self.certificates.renew(&identity).await.map_err(NodeError::NotSigned)?;
        self.endpoint.renew(&renewed)?;
        self.store.set_identity(&renewed)?;
        tracing::info!("the node's certificate was renewed");
        Ok(())
    }

    /// Gets what unwraps the CA's key from another voter, if this node votes and doesn't have it.
    pub(super) async fn keep_ca_unwrap(&self) {
        if self.certificates.obtain_wrapping_key().await.is_err() {
            tracing::debug!("no other voter gave what unwraps the CA's key; asked again later");
        }
        if let Some(key) = self.certificates.wrapping_key()
            && let Err(error) = self.store.set_ca_unwrap(&key)
        {
            tracing::warn!(%error, "what unwraps the CA's key could not be kept");
        }
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

    /// Removes a node: deletes its row, which cuts its streams, and changes the gossip key.
    ///
    /// # Errors
    /// Refused while it holds replicas or attachments, unless `force`.
    pub async fn remove_node(&self, by: &str, node: NodeId, force: bool) -> Result<(), NodeError> {
        let gone = !self.is_alive(node).await;
        let gossip_key = certificates::new_gossip_key()?;
        self.propose(by, Command::RemoveNode { node, gone, force, gossip_key }).await?;
        Ok(())
    }
}

/// A wire to nobody, while the first node makes its cluster.
pub(crate) struct NoWire;

impl Wire for NoWire {
    fn send(&self, _to: NodeId, _frame: Bytes) -> Result<(), WireDown> {
        Err(WireDown)
    }
}
