//! The daemon's API: HTTP and JSON, the routes of `mooring_api::routes`, on a unix socket, and over
//! the network where the configuration says so (`door`).
//!
//! Handlers translate: a request into what the daemon is to do, what came of it into the API's types.
//! They hold no state. On whose behalf they act is in [`caller::Caller`].

mod caller;
mod cluster;
mod devices;
mod diagnosis;
mod door;
mod lookup;
mod metrics;
mod nodes;
pub mod pools;
mod reading;
mod shared;
mod status;
mod stuck;
mod tokens;
mod views;
mod volumes;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::handler::Handler;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use axum::{Extension, Json, Router};
use mooring_api::{ApiError, ErrorKind, Route, routes};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;

use crate::daemon::Daemon;
use crate::error::DaemonError;
use caller::Caller;

pub use door::Door;

/// The largest request body.
const BODY_MAX: usize = 1 << 20;

/// How long a body may take to arrive.
const BODY_WAIT: Duration = Duration::from_secs(30);

/// What a handler answers with.
pub type Answer<T> = Result<Json<T>, Failure>;

/// An error on its way out: the body is an [`ApiError`], the status is that of its kind.
pub struct Failure(ApiError);

impl<E: Into<ApiError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.kind.status().as_u16())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.0)).into_response()
    }
}

/// A JSON body, whose faults are API errors.
pub struct Body<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Failure> {
        let invalid = |what: String| ApiError::new(ErrorKind::Invalid, what);
        let read = axum::body::to_bytes(request.into_body(), BODY_MAX);
        let bytes = tokio::time::timeout(BODY_WAIT, read)
            .await
            .map_err(|_| invalid("the request's body takes too long to arrive".to_owned()))?
            .map_err(|error| invalid(format!("the request's body can't be read: {error}")))?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            ApiError::new(ErrorKind::Invalid, format!("the request's body is malformed: {error}"))
                .into()
        })
    }
}

/// Query parameters, whose faults are API errors.
pub struct Query<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        axum::extract::Query::try_from_uri(&parts.uri).map(|query| Self(query.0)).map_err(|error| {
            ApiError::new(
                ErrorKind::Invalid,
                format!("the query is malformed: {}", error.body_text()),
            )
            .into()
        })
    }
}

/// Makes the socket, for root alone. One that a dead daemon left is replaced; one that answers is
/// not.
///
/// # Errors
/// What the system says; `AddrInUse` if a daemon answers on it.
pub fn listen(socket: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = socket.parent() {
        std::fs::create_dir_all(directory)?;
    }
    if std::os::unix::net::UnixStream::connect(socket).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another mountd answers there"));
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until the task is aborted.
pub async fn serve(daemon: Arc<Daemon>, listener: UnixListener) {
    // Whoever can open the socket is root on this machine.
    let router = router(daemon).layer(Extension(Caller::root()));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the API has stopped");
    }
}

fn router(daemon: Arc<Daemon>) -> Router {
    let router = Router::new();
    let router = add(router, &routes::STATUS, status::status);
    let router = add(router, &routes::METRICS, metrics::metrics);
    let router = add(router, &routes::OPENAPI, openapi);
    let router = add(router, &routes::EVENTS, status::events);
    let router = add(router, &routes::TASKS, status::tasks);
    let router = add(router, &routes::TASK, status::task);
    let router = add(router, &routes::CLUSTER, cluster::membership);
    let router = add(router, &routes::CLUSTER_CREATE, cluster::create);
    let router = add(router, &routes::CLUSTER_TOKEN, cluster::token);
    let router = add(router, &routes::CLUSTER_JOIN, cluster::join);
    let router = add(router, &routes::CLUSTER_VOTERS, cluster::voters);
    let router = add(router, &routes::TOKENS, tokens::list);
    let router = add(router, &routes::TOKEN_CREATE, tokens::create);
    let router = add(router, &routes::TOKEN_REVOKE, tokens::revoke);
    let router = add(router, &routes::NODES, nodes::list);
    let router = add(router, &routes::NODE, nodes::inspect);
    let router = add(router, &routes::NODE_CHANGE, nodes::change);
    let router = add(router, &routes::NODE_DRAIN, nodes::drain);
    let router = add(router, &routes::NODE_UNDRAIN, nodes::undrain);
    let router = add(router, &routes::NODE_REMOVE, nodes::remove);
    let router = add(router, &routes::POOLS, pools::list);
    let router = add(router, &routes::POOL, pools::inspect);
    let router = add(router, &routes::POOL_ADD, pools::create);
    let router = add(router, &routes::POOL_REMOVE, pools::remove);
    let router = add(router, &routes::VOLUMES, volumes::list);
    let router = add(router, &routes::VOLUME, volumes::inspect);
    let router = add(router, &routes::VOLUME_CREATE, volumes::create);
    let router = add(router, &routes::VOLUME_CHANGE, volumes::change);
    let router = add(router, &routes::VOLUME_REMOVE, volumes::remove);
    let router = add(router, &routes::VOLUME_RESIZE, volumes::resize);
    let router = add(router, &routes::VOLUME_ACCEPT_LOSS, volumes::accept_loss);
    let router = add(router, &routes::VOLUME_RESYNC, volumes::resync);
    let router = add(router, &routes::VOLUME_CLIENTS, shared::clients);
    let router = add(router, &routes::VOLUME_EVICT, shared::evict);
    let router = add(router, &routes::VOLUME_CHECK, shared::check);
    let router = add(router, &routes::VOLUME_ATTACH, devices::attach);
    let router = add(router, &routes::VOLUME_DETACH, devices::detach);
    let router = add(router, &routes::MOUNTS, devices::mounts);
    let router = add(router, &routes::MOUNT, devices::mount);
    let router = add(router, &routes::UNMOUNT, devices::unmount);
    router
        .fallback(|| async {
            Failure(ApiError::new(ErrorKind::NotFound, "the API has no such route"))
        })
        .method_not_allowed_fallback(|| async {
            Failure(ApiError::new(ErrorKind::Invalid, "the route doesn't take that method"))
        })
        .with_state(daemon)
}

fn add<H, T>(router: Router<Arc<Daemon>>, route: &Route, handler: H) -> Router<Arc<Daemon>>
where
    H: Handler<T, Arc<Daemon>>,
    T: 'static,
{
    let method = MethodFilter::try_from(route.method.clone()).expect("a method that HTTP has");
    router.route(route.path, on(method, handler))
}

/// What this API takes and answers, for programs.
async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(mooring_api::openapi::document())
}

/// Parses a name out of a path.
fn named<T>(what: &'static str, text: &str) -> Result<T, DaemonError>
where
    T: std::str::FromStr,
{
    text.parse().map_err(|_| DaemonError::NotFound { what, name: text.to_owned() })
}

/// A 204.
fn done() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// JSON of a list, in the order given.
fn list_of<T: Serialize>(items: impl IntoIterator<Item = T>) -> Json<Vec<T>> {
    Json(items.into_iter().collect())
}
