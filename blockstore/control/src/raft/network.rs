//! openraft's network, over our requests.

use std::io;
use std::iter::repeat;
use std::sync::Arc;
use std::time::Duration;

use mooring_terms::NodeId;
use openraft::EmptyNode;
use openraft::error::{
    InstallSnapshotError, NetworkError, PayloadTooLarge, RPCError, RaftError, RemoteError,
    Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::TypeConfig;
use crate::proto::{APPEND, SNAPSHOT, SnapshotRefused, Stopped, VOTE, decode, encode};
use crate::rpc::{MAX_BODY_BYTES, Rpc, RpcError};

/// Between tries to reach a node that is away.
const PAUSE: Duration = Duration::from_millis(150);

/// Makes the ways to other nodes.
pub(crate) struct Network {
    pub(crate) rpc: Arc<Rpc>,
}

/// The way to one node.
pub(crate) struct Peer {
    rpc: Arc<Rpc>,
    target: NodeId,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _node: &EmptyNode) -> Peer {
        Peer { rpc: Arc::clone(&self.rpc), target: NodeId(target) }
    }
}

impl Peer {
    async fn ask<T, R, E>(
        &self,
        service: &str,
        request: &T,
        option: &RPCOption,
    ) -> Result<R, RPCError<u64, EmptyNode, RaftError<u64, E>>>
    where
        T: Serialize + Sync,
        R: DeserializeOwned,
        E: std::error::Error,
    {
        let body = encode(request);
        match self.rpc.call(self.target, service, body, option.hard_ttl()).await {
            Ok(body) => decode(&body).map_err(|error| NetworkError::new(&error).into()),
            // Both make openraft pause; a broken connection is tried again at once.
            Err(error @ RpcError::Broken(_)) => Err(NetworkError::new(&error).into()),
            Err(error) => Err(Unreachable::new(&error).into()),
        }
    }
}

/// Raft on the other side has stopped: as good as unreachable.
fn stopped<E: std::error::Error>() -> RPCError<u64, EmptyNode, RaftError<u64, E>> {
    Unreachable::new(&io::Error::other(Stopped)).into()
}

impl RaftNetwork<TypeConfig> for Peer {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, EmptyNode, RaftError<u64>>> {
        let body = encode(&request);
        if body.len() > MAX_BODY_BYTES {
            let half = (request.entries.len() as u64 / 2).max(1);
            return Err(PayloadTooLarge::new_entries_hint(half).into());
        }
        let answer: Result<_, Stopped> = self.ask(APPEND, &request, &option).await?;
        answer.map_err(|Stopped| stopped())
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<
        InstallSnapshotResponse<u64>,
        RPCError<u64, EmptyNode, RaftError<u64, InstallSnapshotError>>,
    > {
        let answer: Result<_, SnapshotRefused> = self.ask(SNAPSHOT, &request, &option).await?;
        answer.map_err(|refused| match refused {
            SnapshotRefused::Stopped => stopped(),
            SnapshotRefused::Mismatch(error) => {
                RemoteError::new(self.target.0, RaftError::APIError(error)).into()
            }
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, EmptyNode, RaftError<u64>>> {
        let answer: Result<_, Stopped> = self.ask(VOTE, &request, &option).await?;
        answer.map_err(|Stopped| stopped())
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(repeat(PAUSE))
    }
}
