//! Making a cluster, and letting nodes in.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use mooring_api::{ApiError, CreateToken, JoinCluster, Membership, Secret, Timestamp, Token};
use mooring_config::{Command, Role, TokenHash, UnixMillis};

use super::{Answer, Body, SOCKET_USER, views};
use crate::daemon::Daemon;
use crate::error::DaemonError;

pub async fn membership(State(daemon): State<Arc<Daemon>>) -> Answer<Membership> {
    Ok(Json(member(&daemon, false)?))
}

pub async fn create(State(daemon): State<Arc<Daemon>>) -> Answer<Membership> {
    let changed = daemon.create().await?;
    Ok(Json(member(&daemon, changed)?))
}

pub async fn join(
    State(daemon): State<Arc<Daemon>>,
    Body(request): Body<JoinCluster>,
) -> Answer<Membership> {
    let changed = daemon.join(&request.address, request.token.reveal()).await?;
    Ok(Json(member(&daemon, changed)?))
}

pub async fn token(
    State(daemon): State<Arc<Daemon>>,
    Body(request): Body<CreateToken>,
) -> Answer<Token> {
    let running = daemon.running()?;
    let token = running.node.new_token().map_err(DaemonError::Node)?;
    let expires = UnixMillis(blockstore::unix_ms()).plus(request.ttl.ms());
    let command = Command::CreateJoinToken {
        hash: TokenHash(*token.hash().as_bytes()),
        expires,
        uses: request.uses,
    };
    running.node.propose(SOCKET_USER, command).await.map_err(DaemonError::Node)?;
    Ok(Json(Token {
        token: Secret::new(token.reveal().as_str()),
        expires_at: Timestamp(expires.0),
        uses: request.uses,
        address: daemon.config().listen.to_string(),
    }))
}

fn member(daemon: &Daemon, changed: bool) -> Result<Membership, ApiError> {
    let running = daemon
        .running()
        .map_err(|error| ApiError::new(mooring_api::ErrorKind::NotFound, error.to_string()))?;
    let state = running.node.state();
    let voters = state.nodes().values().filter(|node| node.role == Role::Voter);
    Ok(Membership {
        cluster: hex::encode(running.node.cluster()),
        node: views::name(daemon.name()),
        node_id: running.node.id().0,
        changed,
        ca_fingerprint: running
            .node
            .authority_fingerprint()
            .map(|fingerprint| fingerprint.to_string())
            .unwrap_or_default(),
        voters: voters.map(|node| views::name(&node.name)).collect(),
    })
}
