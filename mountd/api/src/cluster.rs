//! Making a cluster, and getting into it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::name::NodeName;
use crate::span::Span;
use crate::timestamp::Timestamp;

/// A node's membership, as `POST /v1/cluster/create`, `POST /v1/cluster/join` and
/// `GET /v1/cluster` answer it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Membership {
    /// The cluster's id.
    pub cluster: String,
    /// This node's name in it.
    pub node: NodeName,
    /// This node's number in it.
    pub node_id: u64,
    /// Whether this very request changed something; false if the node belonged already.
    pub changed: bool,
    /// The fingerprint of the cluster's own certificate authority: SHA-256, hex.
    pub ca_fingerprint: String,
    /// That authority's certificate, PEM: what clients over the network check nodes against.
    pub ca_certificate: String,
    /// The nodes that vote on the configuration.
    pub voters: Vec<NodeName>,
}

/// How many nodes are to vote on the configuration.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
pub enum VoterTarget {
    /// Three if there are three nodes, else one.
    #[serde(rename = "auto")]
    Auto,
    /// One: if it is lost, nothing can be changed and nothing fails over.
    #[serde(rename = "1")]
    One,
    /// Three: any one of them may be lost.
    #[serde(rename = "3")]
    Three,
}

/// Body of `PUT /v1/cluster/voters`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetVoters {
    /// How many.
    pub voters: VoterTarget,
}

/// Body of `POST /v1/cluster/token`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// How long it can be used.
    #[serde(default = "CreateToken::default_ttl")]
    pub ttl: Span,
    /// How many nodes can join with it.
    #[serde(default = "CreateToken::default_uses")]
    pub uses: u32,
}

impl CreateToken {
    fn default_ttl() -> Span {
        Span::from_seconds(3_600)
    }

    fn default_uses() -> u32 {
        1
    }
}

impl Default for CreateToken {
    fn default() -> Self {
        Self { ttl: Self::default_ttl(), uses: Self::default_uses() }
    }
}

/// A token's text. Never shown by `{:?}`, so that it gets into no log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct Secret(String);

impl Secret {
    /// Takes a token's text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The token's text, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A token with which nodes can join. Shown once: the cluster keeps only its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// What `cluster join --token` takes.
    pub token: Secret,
    /// When it ends.
    pub expires_at: Timestamp,
    /// How many nodes can join with it.
    pub uses: u32,
    /// Where a node that is to join can reach this one, `IP:PORT`.
    pub address: String,
}

/// Body of `POST /v1/cluster/join`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinCluster {
    /// A node that belongs to the cluster, `IP:PORT` or `HOST:PORT`.
    pub address: String,
    /// A token made there.
    pub token: Secret,
}
