//! Tokens of the API: made, listed, ended. Their secrets are shown once and kept nowhere.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use mooring_api::{
    AccessToken, CreateAccessToken, NewAccessToken, Rights, Secret, Timestamp, TokenName,
};
use mooring_config::{ApiToken, Command, UnixMillis};

use super::caller::{Caller, TOKEN_PREFIX, api_rights, hash_of};
use super::{Answer, Body, Failure, done, list_of, named};
use crate::daemon::Daemon;
use crate::error::{DaemonError, InvalidRequest};

pub async fn list(State(daemon): State<Arc<Daemon>>) -> Answer<Vec<AccessToken>> {
    let running = daemon.running()?;
    let state = running.node.state();
    let mut tokens: Vec<AccessToken> = state.api_tokens().values().map(listed).collect();
    tokens.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list_of(tokens))
}

pub async fn create(
    State(daemon): State<Arc<Daemon>>,
    caller: Caller,
    Body(asked): Body<CreateAccessToken>,
) -> Answer<NewAccessToken> {
    let running = daemon.running()?;
    if asked.ttl.is_some_and(|ttl| ttl.ms() == 0) {
        return Err(DaemonError::Invalid(InvalidRequest::UselessToken).into());
    }
    let secret: [u8; 32] = rand::random();
    let token = format!("{TOKEN_PREFIX}{}", hex::encode(secret));
    let hash = hash_of(&token).ok_or(DaemonError::UnexpectedAnswer)?;
    let now = UnixMillis(blockstore::unix_ms());
    let made = ApiToken {
        name: asked.name.to_string(),
        rights: match asked.rights {
            Rights::Read => mooring_config::Rights::Read,
            Rights::Operate => mooring_config::Rights::Operate,
            Rights::Force => mooring_config::Rights::Force,
        },
        expires: asked.ttl.map(|ttl| now.plus(ttl.ms())),
    };
    let command = Command::CreateApiToken {
        hash,
        name: made.name.clone(),
        rights: made.rights,
        expires: made.expires,
    };
    running.node.propose(caller.name(), command).await.map_err(DaemonError::Node)?;
    Ok(Json(NewAccessToken { token: Secret::new(token), listed: listed(&made) }))
}

pub async fn revoke(
    State(daemon): State<Arc<Daemon>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Failure> {
    let running = daemon.running()?;
    let name: TokenName = named("token", &name)?;
    let command = Command::RevokeApiToken { name: name.to_string() };
    running.node.propose(caller.name(), command).await.map_err(DaemonError::Node)?;
    Ok(done())
}

fn listed(token: &ApiToken) -> AccessToken {
    let now = UnixMillis(blockstore::unix_ms());
    AccessToken {
        name: TokenName::new(token.name.as_str())
            .or_else(|_| TokenName::new("unnamed"))
            .expect("a valid name"),
        rights: api_rights(token.rights),
        expires_at: token.expires.map(|expires| Timestamp(expires.0)),
        expired: token.expires.is_some_and(|expires| expires <= now),
    }
}
