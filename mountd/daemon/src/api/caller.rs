//! On whose behalf a request is made, and what they may do.
//!
//! ```text
//!   unix socket ──────────────────────────────────> root: everything
//!   TLS ─┬─ certificate of a node in the table ───> that node: everything
//!        └─ Authorization: Bearer mooring-api-... ─> the token's name and rights
//! ```

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use mooring_api::{ApiError, ErrorKind, Rights, routes};
use mooring_config::{ClusterState, TokenHash, UnixMillis};
use mooring_transport::{Fingerprint, TokenHash as SecretHash};

use super::Failure;

/// What every token of the API begins with, so that nobody takes one for a token to join with.
pub const TOKEN_PREFIX: &str = "mooring-api-";

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    name: String,
    rights: Rights,
}

impl Caller {
    /// Whoever can open the daemon's socket.
    #[must_use]
    pub fn root() -> Self {
        Self { name: "root".to_owned(), rights: Rights::Force }
    }

    /// The name for events.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Force is a right of its own, whatever the route asks for.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`].
    pub fn may_force(&self, force: bool) -> Result<(), ApiError> {
        if force && self.rights < Rights::Force { Err(self.denied(Rights::Force)) } else { Ok(()) }
    }

    fn denied(&self, needed: Rights) -> ApiError {
        let (name, has, needs) = (&self.name, self.rights.explained(), needed.explained());
        ApiError::new(
            ErrorKind::Denied,
            format!("{name} may {has}; this needs the right to {needs}"),
        )
        .hint(format!(
            "use a token made with: mountctl token create NAME --rights {}",
            needed.explained()
        ))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        let nobody = || ApiError::new(ErrorKind::Denied, "nobody knows who asks");
        Ok(parts.extensions.get::<Self>().cloned().ok_or_else(nobody)?)
    }
}

/// What a caller over the network shows.
pub struct Credentials<'a> {
    /// The certificate of its TLS session (DER), which the cluster's authority signed.
    pub certificate: Option<&'a [u8]>,
    /// The headers of its request.
    pub headers: &'a HeaderMap,
}

/// Who asks for this over the network, if it is somebody who may.
///
/// # Errors
/// [`ErrorKind::Denied`]: no credential, one that is over, or one that doesn't go so far;
/// [`ErrorKind::NotFound`] if there is no such route.
pub fn admit(
    state: &ClusterState,
    now: UnixMillis,
    shown: &Credentials<'_>,
    (method, path): (&Method, &str),
) -> Result<Caller, ApiError> {
    let caller = identify(state, now, shown)?;
    let unknown = || ApiError::new(ErrorKind::NotFound, "the API has no such route");
    let route = routes::find(method, path).ok_or_else(unknown)?;
    if caller.rights < route.rights { Err(caller.denied(route.rights)) } else { Ok(caller) }
}

fn identify(
    state: &ClusterState,
    now: UnixMillis,
    shown: &Credentials<'_>,
) -> Result<Caller, ApiError> {
    let denied = |message: String| Err(ApiError::new(ErrorKind::Denied, message));
    let Some(header) = shown.headers.get(AUTHORIZATION) else {
        return match shown.certificate {
            Some(certificate) => node(state, certificate),
            None => {
                let none = "over the network the API needs a token";
                Err(ApiError::new(ErrorKind::Denied, none).hint(
                    "make one on a node (mountctl token create NAME >FILE), and give it with --token-file FILE",
                ))
            }
        };
    };
    let text = header.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
    let Some(text) = text.map(str::trim) else {
        return denied("the header Authorization must be: Bearer TOKEN".to_owned());
    };
    let Some(hash) = hash_of(text) else {
        return denied(format!("this is no token of the API: one begins with {TOKEN_PREFIX}"));
    };
    let Some(token) = state.api_tokens().get(&hash) else {
        return denied("the token is not known: it was ended, or is another cluster's".to_owned());
    };
    if token.expires.is_some_and(|expires| expires <= now) {
        return denied(format!("the token {} is over: make another one", token.name));
    }
    Ok(Caller { name: format!("token {}", token.name), rights: api_rights(token.rights) })
}

/// A node of the cluster: a removed one still has its certificate, so the table decides.
fn node(state: &ClusterState, certificate: &[u8]) -> Result<Caller, ApiError> {
    let fingerprint = Fingerprint::of_certificate(certificate).ok();
    let mut nodes = state.nodes().values();
    match nodes.find(|node| fingerprint.is_some_and(|f| f.as_bytes() == &node.fingerprint.0)) {
        Some(node) => Ok(Caller { name: format!("node {}", node.name), rights: Rights::Force }),
        None => {
            Err(ApiError::new(ErrorKind::Denied, "the certificate is of no node of this cluster"))
        }
    }
}

/// What the cluster keeps of a token; none if the text is no token.
#[must_use]
pub fn hash_of(token: &str) -> Option<TokenHash> {
    let secret = hex::decode(token.strip_prefix(TOKEN_PREFIX)?).ok()?;
    SecretHash::of_secret(&secret).ok().map(|hash| TokenHash(*hash.as_bytes()))
}

/// The API's word for rights.
#[must_use]
pub fn api_rights(rights: mooring_config::Rights) -> Rights {
    match rights {
        mooring_config::Rights::Read => Rights::Read,
        mooring_config::Rights::Operate => Rights::Operate,
        mooring_config::Rights::Force => Rights::Force,
    }
}

#[cfg(test)]
mod tests;
