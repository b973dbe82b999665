//! Why a command failed, and the exit code that says so.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use mooring_api::{ApiError, ClientError, ErrorKind, TaskId, VolumeName};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The daemon can't be asked, or says no.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A task ended with an error.
    #[error("task {task} failed: {error}")]
    Task {
        /// Which.
        task: TaskId,
        /// Its error.
        error: ApiError,
    },
    /// A task was called off.
    #[error("task {task} was called off")]
    Cancelled {
        /// Which.
        task: TaskId,
    },
    /// The file with the token can't be read.
    #[error("can't read the token from {}: {source}", path.display())]
    TokenFile {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file with the token has none.
    #[error("{} holds no token", path.display())]
    NoToken {
        /// Which.
        path: PathBuf,
    },
    /// The file with the authority's certificate can't be read.
    #[error("can't read the certificate in {}: {source}", path.display())]
    CaFile {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A path the daemon can't be told: JSON is text.
    #[error("{path:?} can't be used: it is not UTF-8, or there is no current directory")]
    Path {
        /// Which.
        path: PathBuf,
    },
    /// No pool of this node has that path.
    #[error("this node has no pool at {path}")]
    NoSuchPool {
        /// The path given.
        path: String,
    },
    /// An attachment without a device.
    #[error("{volume} is attached, and has no device yet")]
    NoDevice {
        /// Which.
        volume: VolumeName,
    },
    /// Mount options that can't be.
    #[error(transparent)]
    Options(#[from] crate::mount_options::OptionsError),
    /// A pool's file that can't be read.
    #[error("can't decode {}: {source}", path.display())]
    PoolFile {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The output can't be written.
    #[error("can't write the output: {0}")]
    Output(io::Error),
}

impl Failure {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Client(error) => error.kind(),
            Self::Task { error, .. } => error.kind,
            Self::NoSuchPool { .. } => ErrorKind::NotFound,
            Self::NoDevice { .. } => ErrorKind::Retry,
            Self::PoolFile { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                io::ErrorKind::InvalidInput => ErrorKind::Invalid,
                _ => ErrorKind::Fatal,
            },
            Self::TokenFile { .. }
            | Self::NoToken { .. }
            | Self::CaFile { .. }
            | Self::Path { .. }
            | Self::Options(_) => ErrorKind::Invalid,
            Self::Cancelled { .. } | Self::Output(_) => ErrorKind::Fatal,
        }
    }

    /// What to do, in a sentence; empty if the message says it all.
    pub fn hint(&self) -> String {
        match self {
            Self::Client(error) => error.hint(),
            Self::Task { error, .. } => error.hint.clone(),
            Self::TokenFile { .. } | Self::NoToken { .. } => {
                "make one on a node of the cluster: mountctl cluster token >FILE to join with, \
                 mountctl token create NAME >FILE for the API"
                    .to_owned()
            }
            Self::CaFile { .. } => {
                "get it on a node of the cluster: mountctl cluster ca >ca.pem".to_owned()
            }
            Self::NoSuchPool { .. } => "list them: mountctl pool ls".to_owned(),
            Self::NoDevice { .. } => "try again in a moment".to_owned(),
            Self::Path { .. } => "give an absolute path in UTF-8".to_owned(),
            Self::PoolFile { .. } => {
                "give a file of a pool's directory, or a part of a pool's device that was copied \
                 out of it (dd)"
                    .to_owned()
            }
            Self::Cancelled { .. } | Self::Options(_) | Self::Output(_) => String::new(),
        }
    }

    /// The exit code; the table is in `mountctl --help`.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind().exit_code())
    }

    /// The same as the API would say it, for `--json`.
    pub fn as_api_error(&self) -> ApiError {
        match self {
            Self::Client(ClientError::Api(error)) => error.clone(),
            other => ApiError::new(other.kind(), other.to_string()).hint(other.hint()),
        }
    }

    /// Whether the reader of our output went away (`mountctl volume ls | head`): nobody is left to
    /// tell.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}
