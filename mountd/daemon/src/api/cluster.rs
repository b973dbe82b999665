//! Making a cluster, and letting nodes in.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mooring_api::{
    ApiError, CreateToken, JoinCluster, Membership, Secret, SetVoters, Timestamp, Token,
    VoterTarget,
};
use mooring_config::{Command, TokenHash, UnixMillis, VoterCount};

use super::caller::Caller;
use super::{Answer, Body, views};
use crate::daemon::Daemon;
use crate::error::{DaemonError, InvalidRequest};

/// How long a change of the voters is waited for, and how often it is looked at.
const VOTERS_WAIT: Duration = Duration::from_secs(30);
const VOTERS_LOOK: Duration = Duration::from_millis(100);

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
    caller: Caller,
    Body(request): Body<CreateToken>,
) -> Answer<Token> {
    let running = daemon.running()?;
    if request.ttl.ms() == 0 || request.uses == 0 {
        return Err(DaemonError::Invalid(InvalidRequest::UselessToken).into());
    }
    let token = running.node.new_token().map_err(DaemonError::Node)?;
    let expires = UnixMillis(blockstore::unix_ms()).plus(request.ttl.ms());
    let command = Command::CreateJoinToken {
        hash: TokenHash(*token.hash().as_bytes()),
        expires,
        uses: request.uses,
    };
    running.node.propose(caller.name(), command).await.map_err(DaemonError::Node)?;
    Ok(Json(Token {
        token: Secret::new(token.reveal().as_str()),
        expires_at: Timestamp(expires.0),
        uses: request.uses,
        address: daemon.config().listen.to_string(),
    }))
}

pub async fn voters(
    State(daemon): State<Arc<Daemon>>,
    caller: Caller,
    Body(request): Body<SetVoters>,
) -> Answer<Membership> {
    let running = daemon.running()?;
    let nodes = running.node.state().nodes().len();
    let (count, wanted) = match request.voters {
        VoterTarget::Auto => (VoterCount::Auto, if nodes >= 3 { 3 } else { 1 }),
        VoterTarget::One => (VoterCount::One, 1),
        VoterTarget::Three if nodes < 3 => {
            return Err(DaemonError::Invalid(InvalidRequest::TooFewToVote { nodes }).into());
        }
        VoterTarget::Three => (VoterCount::Three, 3),
    };
    let changed = running.node.state().voter_count() != count;
    let command = Command::SetVoters(count);
    running.node.propose(caller.name(), command).await.map_err(DaemonError::Node)?;
    // The leader changes them one after the other, each once it has the log.
    let settled = tokio::time::timeout(VOTERS_WAIT, async {
        loop {
            let status = running.node.control().status();
            if status.voters.len() == wanted && !status.changing {
                return;
            }
            tokio::time::sleep(VOTERS_LOOK).await;
        }
    });
    if settled.await.is_err() {
        return Err(DaemonError::VotersUnsettled { wanted }.into());
    }
    Ok(Json(member(&daemon, changed)?))
}

fn member(daemon: &Daemon, changed: bool) -> Result<Membership, ApiError> {
    let running = daemon
        .running()
        .map_err(|error| ApiError::new(mooring_api::ErrorKind::NotFound, error.to_string()))?;
    let state = running.node.state();
    let voters = running.node.control().status().voters;
    let authority = state.identity().map(|identity| pem(&identity.ca_certificate));
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
        ca_certificate: authority.unwrap_or_default(),
        voters: voters.iter().map(|id| views::name(&state.node_name(*id))).collect(),
    })
}

/// A certificate as text.
fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
