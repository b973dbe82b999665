//! What admits: fingerprints of keys, tokens (hashed), the gossip key ring, the wrapped CA key.
//!
//! Nothing here is a secret in the clear but the gossip keys, which every node of the cluster needs;
//! secrets don't show in `Debug`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::UnixMillis;

/// Declares a 256-bit value that prints as hex.
macro_rules! digest {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

digest! {
    /// SHA-256 over a public key (SubjectPublicKeyInfo, DER): what a node is known by.
    Fingerprint
}
digest! {
    /// SHA-256 over a token's 256 random bits. The token itself is kept nowhere.
    TokenHash
}

/// A right to join the cluster, good for some time and some nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Useless from then on.
    pub expires: UnixMillis,
    /// How many more nodes it admits.
    pub uses_left: u32,
}

/// A bearer token of the HTTP API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiToken {
    /// The name under which its user appears in the events.
    pub name: String,
    /// What it may do.
    pub rights: Rights,
    /// Useless from then on; `None` if never.
    pub expires: Option<UnixMillis>,
}

/// What an API user may do; each right includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rights {
    /// See everything but secrets.
    Read,
    /// Change what can be changed without force.
    Operate,
    /// Take over attachments, remove what is in use, accept losses.
    Force,
}

/// One key of the gossip ring (AES-256-GCM).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipKey {
    /// Sent in the clear with each datagram. Ids only grow.
    pub id: u32,
    /// The key.
    pub bytes: [u8; 32],
}

impl fmt::Debug for GossipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GossipKey({})", self.id)
    }
}

/// The CA's private key, sealed with a key that only voters have. Opaque here.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WrappedKey(pub Vec<u8>);

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappedKey({} bytes)", self.0.len())
    }
}
