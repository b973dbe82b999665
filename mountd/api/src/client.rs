//! The client: one connection a request, one method a route.
//!
//! ```text
//!   client.volume(&name) ──> connect ──> send ──> Volume... or ClientError
//!                            \________ within the route's patience ________/
//! ```
//!
//! A connection costs some tens of microseconds on a unix socket; keeping one would cost an error
//! at the first request after each restart of the daemon.
//!
//! Invariants: every request ends, by its answer or by its time limit; nothing is sent twice (the
//! caller knows what is idempotent); a dropped request closes its connection.

mod calls;
mod endpoint;
mod error;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::error::ApiError;
use crate::routes::Route;

pub use endpoint::Endpoint;
pub use error::ClientError;

/// The largest body taken: 100,000 volumes with all that is listed about each fit.
const ANSWER_LIMIT: usize = 128 << 20;

/// A way to ask one daemon. Cheap to clone; holds no connection. Needs a tokio runtime.
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: Endpoint,
    timeout: Option<Duration>,
}

/// An answer as it came.
struct Answer {
    status: StatusCode,
    body: Bytes,
}

/// A request before it is sent.
struct Call<'a> {
    route: &'a Route,
    target: String,
    body: Bytes,
    /// How long the daemon may wait before it answers, beside the route's patience.
    extra_wait: Duration,
}

impl<'a> Call<'a> {
    fn new(route: &'a Route, names: &[&str]) -> Self {
        let target = route.fill(names);
        Self { route, target, body: Bytes::new(), extra_wait: Duration::ZERO }
    }

    /// Appends the fields of `query`, a flat struct, behind a `?`.
    fn query(mut self, query: &impl Serialize) -> Self {
        let value = serde_json::to_value(query).expect("a query has only plain fields");
        let fields = value.as_object().expect("a query is a struct");
        let mut separator = '?';
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            self.target.push(separator);
            self.target.push_str(name);
            self.target.push('=');
            push_escaped(&mut self.target, &text);
            separator = '&';
        }
        self
    }

    fn body(mut self, body: &impl Serialize) -> Self {
        self.body = serde_json::to_vec(body).expect("a body's maps have text for keys").into();
        self
    }

    /// Method and path, as errors name it.
    fn name(&self) -> String {
        let path = self.target.split('?').next().unwrap_or_default();
        format!("{} {path}", self.route.method)
    }

    fn request(&self, endpoint: &Endpoint) -> Request<Full<Bytes>> {
        let mut request = Request::builder()
            .method(self.route.method.clone())
            .uri(&self.target)
            .header(HOST, "mountd")
            .header(CONNECTION, "close")
            .header(USER_AGENT, concat!("mooring/", env!("CARGO_PKG_VERSION")));
        if !self.body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(token) = endpoint.token() {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.reveal()));
        }
        request.body(Full::new(self.body.clone())).expect("names and queries are escaped")
    }
}

/// Appends `text` with everything escaped that means something in a query.
fn push_escaped(target: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                target.push(char::from(byte));
            }
            _ => target.push_str(&format!("%{byte:02X}")),
        }
    }
}

impl Client {
    /// A client of the daemon at `endpoint`.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, timeout: None }
    }

    /// A client of the daemon behind this unix socket.
    #[must_use]
    pub fn unix(socket: impl Into<PathBuf>) -> Self {
        Self::new(Endpoint::Unix(socket.into()))
    }

    /// The same, waiting at most `timeout` for each answer, whatever the route's patience.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Where it asks.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends `call` and takes its answer for JSON.
    async fn fetch<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, ClientError> {
        let answer = self.send(&call).await?;
        serde_json::from_slice(&answer.body)
            .map_err(|source| ClientError::Garbled { request: call.name(), source })
    }

    /// Sends `call`, whose answer has no body.
    async fn order(&self, call: Call<'_>) -> Result<(), ClientError> {
        self.send(&call).await.map(|_| ())
    }

    /// Sends `call` and gives back a success; everything else becomes an error.
    async fn send(&self, call: &Call<'_>) -> Result<Answer, ClientError> {
        let limit = self.timeout.unwrap_or(call.route.patience) + call.extra_wait;
        let answer = tokio::time::timeout(limit, self.exchange(call))
            .await
            .map_err(|_| ClientError::Timeout { request: call.name(), after: limit.into() })??;
        if answer.status.is_success() {
            return Ok(answer);
        }
        Err(match serde_json::from_slice::<ApiError>(&answer.body) {
            Ok(error) => ClientError::Api(error),
            Err(_) => ClientError::NotMountd { request: call.name(), status: answer.status },
        })
    }

    async fn exchange(&self, call: &Call<'_>) -> Result<Answer, ClientError> {
        match &self.endpoint {
            Endpoint::Unix(socket) => {
                let stream = UnixStream::connect(socket).await;
                self.converse(stream.map_err(|error| unix_error(socket, error))?, call).await
            }
            Endpoint::Tcp { address, token } => {
                let failed =
                    |source| ClientError::Connect { endpoint: self.endpoint.to_string(), source };
                let addresses =
                    endpoint::resolve(address, token.is_some()).await.map_err(failed)?;
                let stream = TcpStream::connect(addresses.as_slice()).await.map_err(failed)?;
                self.converse(stream, call).await
            }
            Endpoint::Tls { address, authorities, .. } => {
                let stream = endpoint::connect_tls(address, authorities).await;
                self.converse(stream.map_err(|error| self.tls_error(error))?, call).await
            }
        }
    }

    fn tls_error(&self, source: io::Error) -> ClientError {
        let endpoint = self.endpoint.to_string();
        match source.kind() {
            io::ErrorKind::InvalidData => ClientError::Untrusted { endpoint, source },
            _ => ClientError::Connect { endpoint, source },
        }
    }

    /// Sends the request on a fresh connection, and reads the whole answer.
    async fn converse(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        call: &Call<'_>,
    ) -> Result<Answer, ClientError> {
        let broken = |source| ClientError::Broken { request: call.name(), source };
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let exchange = async {
            let answer = sender.send_request(call.request(&self.endpoint)).await.map_err(broken)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_LIMIT).collect().await;
            let body = body.map_err(|error| body_error(call, error))?.to_bytes();
            Ok(Answer { status, body })
        };
        tokio::pin!(exchange);
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            // The connection does the reading; when it ends, the exchange has all there will be.
            _ = connection => exchange.await,
        }
    }
}

/// What it means that a unix socket can't be connected to.
fn unix_error(socket: &std::path::Path, error: io::Error) -> ClientError {
    let socket = socket.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => ClientError::NotRunning { socket, why: "no socket" },
        io::ErrorKind::ConnectionRefused => {
            ClientError::NotRunning { socket, why: "nobody answers" }
        }
        io::ErrorKind::PermissionDenied => ClientError::SocketDenied { socket },
        _ => ClientError::Connect { endpoint: socket.display().to_string(), source: error },
    }
}

/// What it means that a body can't be read.
fn body_error(call: &Call<'_>, error: Box<dyn std::error::Error + Send + Sync>) -> ClientError {
    match error.downcast::<hyper::Error>() {
        Ok(source) => ClientError::Broken { request: call.name(), source: *source },
        Err(other) => {
            debug_assert!(other.is::<LengthLimitError>(), "a limited body has these two errors");
            ClientError::TooLarge { request: call.name(), limit: ANSWER_LIMIT }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::UnmountQuery;
    use crate::routes;

    #[test]
    fn queries_are_escaped() {
        let query = UnmountQuery { dir: Some("/mnt/a b&c=ü?".into()), ..Default::default() };
        let call = Call::new(&routes::UNMOUNT, &[]).query(&query);
        assert_eq!(call.target, "/v1/mounts?all=false&dir=/mnt/a%20b%26c%3D%C3%BC%3F&force=false");
        assert_eq!(call.name(), "DELETE /v1/mounts");
    }
}
