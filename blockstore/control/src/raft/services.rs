//! What this node answers to the others about Raft.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mooring_config::Proposal;
use mooring_terms::NodeId;
use openraft::error::{CheckIsLeaderError, RaftError};

use super::Raft;
use super::batch::Batcher;
use crate::proto::{
    APPEND, Outcome, PING, PROPOSE, READ, ReadAnswer, SNAPSHOT, SnapshotRefused, Stopped, VOTE,
    decode, encode,
};
use crate::rpc::{Malformed, Rpc, Service};
use crate::timing::Timings;

/// Answers all of Raft's requests with `raft` from now on.
pub(crate) fn serve(rpc: &Rpc, raft: &Raft, batcher: &Arc<Batcher>, read: &ReadIndex) {
    let timings = read.timings;
    rpc.serve(APPEND, Arc::new(Append(raft.clone())));
    rpc.serve(VOTE, Arc::new(Vote(raft.clone())));
    rpc.serve(SNAPSHOT, Arc::new(Snapshot(raft.clone())));
    rpc.serve(PROPOSE, Arc::new(Propose { batcher: Arc::clone(batcher), timings }));
    rpc.serve(READ, Arc::new(read.clone()));
    rpc.serve(PING, Arc::new(Ping));
}

struct Append(Raft);

#[async_trait]
impl Service for Append {
    async fn call(&self, _from: NodeId, body: Bytes) -> Result<Bytes, Malformed> {
        let answer = self.0.append_entries(decode(&body)?).await.map_err(|_| Stopped);
        Ok(encode(&answer))
    }
}

struct Vote(Raft);

#[async_trait]
impl Service for Vote {
    async fn call(&self, _from: NodeId, body: Bytes) -> Result<Bytes, Malformed> {
        let answer = self.0.vote(decode(&body)?).await.map_err(|_| Stopped);
        Ok(encode(&answer))
    }
}

struct Snapshot(Raft);

#[async_trait]
impl Service for Snapshot {
    async fn call(&self, _from: NodeId, body: Bytes) -> Result<Bytes, Malformed> {
        let answer = self.0.install_snapshot(decode(&body)?).await.map_err(|error| match error {
            RaftError::APIError(error) => SnapshotRefused::Mismatch(error),
            RaftError::Fatal(_) => SnapshotRefused::Stopped,
        });
        Ok(encode(&answer))
    }
}

struct Propose {
    batcher: Arc<Batcher>,
    timings: Timings,
}

#[async_trait]
impl Service for Propose {
    async fn call(&self, from: NodeId, body: Bytes) -> Result<Bytes, Malformed> {
        let proposal: Proposal = decode(&body)?;
        let outcome = self.batcher.submit(from, proposal, self.timings.propose()).await;
        Ok(encode::<Outcome>(&outcome))
    }
}

/// Says, on the leader, from which index on a state is current.
#[derive(Clone)]
pub(crate) struct ReadIndex {
    pub(crate) raft: Raft,
    pub(crate) timings: Timings,
    /// The term in which this node led before it was started, if it did, and the last entry of its log
    /// then. openraft lets it lead on in that term, and takes the first entry of the term for enough:
    /// but whatever was in the log may have been committed, and answered, before the start, while the
    /// committed position on the disk lags behind.
    pub(crate) led: Option<(u64, u64)>,
}

#[async_trait]
impl Service for ReadIndex {
    async fn call(&self, _from: NodeId, _body: Bytes) -> Result<Bytes, Malformed> {
        Ok(encode(&self.ask().await))
    }
}

impl ReadIndex {
    /// The index that a linearizable read needs; asks a majority whether this node still leads.
    pub(crate) async fn ask(&self) -> ReadAnswer {
        let term = self.raft.metrics().borrow().current_term;
        // In a later term of its own the first entry is a new one.
        let least = self.led.filter(|(led, _)| term <= *led).map_or(0, |(_, last)| last);
        match read_index(&self.raft, self.timings).await {
            ReadAnswer::Index(index) => ReadAnswer::Index(index.max(least)),
            other => other,
        }
    }
}

async fn read_index(raft: &Raft, timings: Timings) -> ReadAnswer {
    let limit = timings.quorum_lost_after().max(Duration::from_millis(500));
    match tokio::time::timeout(limit, raft.get_read_log_id()).await {
        Ok(Ok((read, _))) => ReadAnswer::Index(read.map_or(0, |id| id.index)),
        Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward)))) => {
            ReadAnswer::NotLeader { leader: forward.leader_id.map(NodeId) }
        }
        Ok(Err(RaftError::Fatal(_))) => ReadAnswer::NotLeader { leader: None },
        Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) | Err(_) => {
            ReadAnswer::NoQuorum
        }
    }
}

struct Ping;

#[async_trait]
impl Service for Ping {
    async fn call(&self, _from: NodeId, _body: Bytes) -> Result<Bytes, Malformed> {
        Ok(Bytes::new())
    }
}
