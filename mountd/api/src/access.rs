//! Who may use the API over the network, and what for.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::cluster::Secret;
use crate::name::TokenName;
use crate::span::Span;
use crate::timestamp::Timestamp;

/// What a user of the API may do; each includes those before it. Whoever can open the daemon's
/// socket on its machine may do everything.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Rights {
    /// See everything but secrets.
    Read,
    /// Change what can be changed without force.
    Operate,
    /// Everything: take over attachments, remove what is in use, accept losses, use a node's
    /// directories and disks, and let others in.
    Force,
}

impl Rights {
    /// What it lets one do, as the end of "it needs the right to".
    #[must_use]
    pub fn explained(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Force => "force",
        }
    }
}

/// A token of the API, as it is listed: an item of `GET /v1/tokens`. Its secret is kept nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccessToken {
    /// The name under which its user appears in events.
    pub name: TokenName,
    /// What it may do.
    pub rights: Rights,
    /// When it ends; never, if none.
    pub expires_at: Option<Timestamp>,
    /// Whether that is over.
    pub expired: bool,
}

/// Body of `POST /v1/tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAccessToken {
    /// The name under which its user appears in events.
    pub name: TokenName,
    /// What it may do.
    #[serde(default = "CreateAccessToken::default_rights")]
    pub rights: Rights,
    /// How long it can be used; none for ever.
    #[serde(default = "CreateAccessToken::default_ttl")]
    pub ttl: Option<Span>,
}

impl CreateAccessToken {
    fn default_rights() -> Rights {
        Rights::Read
    }

    fn default_ttl() -> Option<Span> {
        Some(Span::from_seconds(90 * 86_400))
    }
}

/// A token just made. Shown once: the cluster keeps only its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewAccessToken {
    /// What goes into `Authorization: Bearer`.
    pub token: Secret,
    /// The same as it is listed.
    #[serde(flatten)]
    pub listed: AccessToken,
}
