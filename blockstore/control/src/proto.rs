//! What nodes say to each other about the configuration, in postcard, as bodies of [`crate::rpc`].
//!
//! ```text
//!   service            request              reply                           since version
//!   raft.append        AppendEntries        AppendEntries reply or Fatal    1
//!   raft.vote          Vote                 Vote reply or Fatal             1
//!   raft.snapshot      a piece of one       its reply, or Mismatch          1
//!   control.propose    Proposal             Outcome                         1
//!   control.read       -                    ReadAnswer                      1
//!   control.ping       -                    -                               1
//!   control.join       JoinRequest          Admitted or NotSigned           1
//!   control.renew      a certificate request (PKCS#10)   one or NotSigned    1
//!   control.wrapping_key   -                the key or NotSigned            1
//! ```

use bytes::Bytes;
use mooring_config::Response;
use mooring_terms::NodeId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::rpc::Malformed;

pub(crate) const APPEND: &str = "raft.append";
pub(crate) const VOTE: &str = "raft.vote";
pub(crate) const SNAPSHOT: &str = "raft.snapshot";
pub(crate) const PROPOSE: &str = "control.propose";
pub(crate) const READ: &str = "control.read";
pub(crate) const PING: &str = "control.ping";
pub(crate) const JOIN: &str = "control.join";
pub(crate) const RENEW: &str = "control.renew";
pub(crate) const WRAPPING_KEY: &str = "control.wrapping_key";

/// Raft on that node has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("Raft has stopped on that node")]
pub(crate) struct Stopped;

/// Why a piece of a snapshot was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SnapshotRefused {
    /// It is not the next piece.
    Mismatch(openraft::error::InstallSnapshotError),
    /// Raft has stopped there.
    Stopped,
}

/// What came of a proposal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// It was applied, by the entry of this index.
    Applied { index: u64, response: Response },
    /// It was not taken: that node doesn't lead. It may know who does.
    NotLeader { leader: Option<NodeId> },
    /// It was not taken: the leader has no majority.
    NoQuorum,
    /// It was not taken: the queue is full, or its time was over.
    Busy,
    /// It was taken, and what came of it is not known there.
    Uncertain,
}

/// The answer to a question for a linearizable read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ReadAnswer {
    /// A state of at least this index is current.
    Index(u64),
    /// That node doesn't lead. It may know who does.
    NotLeader { leader: Option<NodeId> },
    /// The leader has no majority.
    NoQuorum,
}

/// Encodes a body.
pub(crate) fn encode<T: Serialize>(value: &T) -> Bytes {
    postcard::to_stdvec(value).expect("plain data always encodes").into()
}

/// Decodes a body.
pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Malformed> {
    postcard::from_bytes(body).map_err(|_| Malformed)
}
