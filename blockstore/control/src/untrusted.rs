//! What this crate decodes of what others sent, as functions of bytes alone, for fuzzing and for tests:
//! nothing else uses them. Whoever sends it belongs to the cluster, which doesn't make it right.

#![allow(clippy::disallowed_methods, reason = "a shell for tests: it says what time it is")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use mooring_config::{Machine, Proposal};
use mooring_terms::NodeId;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::certificates::{Admitted, JoinRequest, NotSigned};
use crate::gossip::NodeHints;
use crate::gossip::sealed::Assembly;
use crate::proto::{Outcome, ReadAnswer, SnapshotRefused, Stopped, decode, encode};
use crate::raft::TypeConfig;
use crate::rpc::{Malformed, Rpc, Service, Wire, WireDown};

/// A kind of body.
pub struct Body {
    /// For people.
    pub name: &'static str,
    /// Says whether bytes are such a body. One that is comes back from its encoding, or this panics.
    pub survives: fn(&[u8]) -> bool,
}

/// Every kind of body that goes over [`crate::rpc`], and the state that a snapshot is.
pub const BODIES: &[Body] = &[
    Body { name: "raft.append", survives: survives::<AppendEntriesRequest<TypeConfig>> },
    Body {
        name: "answer to raft.append",
        survives: survives::<Result<AppendEntriesResponse<u64>, Stopped>>,
    },
    Body { name: "raft.vote", survives: survives::<VoteRequest<u64>> },
    Body { name: "answer to raft.vote", survives: survives::<Result<VoteResponse<u64>, Stopped>> },
    Body { name: "raft.snapshot", survives: survives::<InstallSnapshotRequest<TypeConfig>> },
    Body { name: "refusal of raft.snapshot", survives: survives::<SnapshotRefused> },
    Body { name: "control.propose", survives: survives::<Proposal> },
    Body { name: "answer to control.propose", survives: survives::<Outcome> },
    Body { name: "answer to control.read", survives: survives::<ReadAnswer> },
    Body { name: "control.join", survives: survives::<JoinRequest> },
    Body { name: "answer to control.join", survives: survives::<Result<Admitted, NotSigned>> },
    Body { name: "a snapshot's state", survives: survives::<Machine> },
];

fn survives<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> bool {
    let Ok(value) = decode::<T>(bytes) else { return false };
    let encoded = encode(&value);
    let again = decode::<T>(&encoded).expect("what was encoded is decoded");
    assert_eq!(encode(&again), encoded, "not the same after being encoded");
    true
}

/// Frames of requests and replies as they come over a wire. Bytes: again and again a length (u16,
/// little-endian) and so many bytes.
pub fn frames(mut bytes: &[u8]) {
    struct Nowhere;
    impl Wire for Nowhere {
        fn send(&self, _to: NodeId, frame: Bytes) -> Result<(), WireDown> {
            assert!(frame.len() >= 11, "an answer without a status");
            Ok(())
        }
    }
    struct Echo;
    #[async_trait]
    impl Service for Echo {
        async fn call(&self, _from: NodeId, body: Bytes) -> Result<Bytes, Malformed> {
            Ok(body)
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime without threads");
    let rpc = Rpc::new(NodeId(1), Arc::new(Nowhere), runtime.handle().clone());
    rpc.serve("echo", Arc::new(Echo));
    runtime.block_on(async {
        // Whose answer the frames may hold: the first call has number 1.
        let call = rpc.call(NodeId(2), "echo", Bytes::new(), Duration::from_secs(1));
        let incoming = async {
            while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
                let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
                let (frame, rest) = rest.split_at(length);
                rpc.incoming(NodeId(2), Bytes::copy_from_slice(frame));
                bytes = rest;
            }
            tokio::task::yield_now().await;
            rpc.disconnected(NodeId(2));
        };
        let _ = tokio::join!(call, incoming);
    });
}

/// Pieces of gossip's messages as they come out of their seals, and hints. Bytes: who sends (u8), a
/// length (u16, little-endian), so many bytes; and again. A message that is whole is read as lines of
/// `key=value`.
pub fn pieces(mut bytes: &[u8]) {
    let (mut assembly, now) = (Assembly::default(), Instant::now());
    while let Some((&[sender, low, high], rest)) = bytes.split_first_chunk::<3>() {
        let length = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
        let (piece, rest) = rest.split_at(length);
        let from = SocketAddr::from(([10, 0, 0, sender], 7700));
        if let Ok(Some(message)) = assembly.take_piece(from, piece, now) {
            let text = String::from_utf8_lossy(&message);
            let _ = NodeHints::from_pairs(text.lines().filter_map(|line| line.split_once('=')));
        }
        bytes = rest;
    }
}

#[cfg(test)]
mod tests;
