//! The one error of the API, and what it becomes in HTTP and on the command line.
//!
//! | kind          | HTTP | exit | the caller should                                              |
//! |---------------|------|------|----------------------------------------------------------------|
//! | `retry`       | 503  | 5    | send the same again in a moment                                |
//! | `unavailable` | 503  | 5    | bring back what is missing: a node, a quorum, a disk           |
//! | `invalid`     | 400  | 2    | correct the request                                            |
//! | `denied`      | 403  | 8    | use a credential that may do this                              |
//! | `not-found`   | 404  | 3    | name something that exists                                     |
//! | `exists`      | 409  | 4    | choose another name, or ask for what is there                  |
//! | `in-use`      | 409  | 4    | end the use, or force                                          |
//! | `fenced`      | 409  | 4    | stop: a newer holder exists                                    |
//! | `no-space`    | 507  | 6    | free space or add a pool                                       |
//! | `corrupt`     | 500  | 7    | restore the data: no good copy was at hand                     |
//! | `fatal`       | 500  | 1    | read the daemon's log; restart it                              |
//!
//! The body of every answer that is not a success is an [`ApiError`], whoever made it.

use std::collections::BTreeMap;
use std::fmt;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the caller should do about an error: the words every part of Mooring uses, and three that
/// only the API needs (`denied`, `exists`, `in-use`).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// Try again: the cause passes by itself.
    Retry,
    /// Stop for good: a newer holder exists.
    Fenced,
    /// The request is wrong as it stands.
    Invalid,
    /// What it names does not exist.
    NotFound,
    /// There is no space; freeing some helps.
    NoSpace,
    /// Data failed its checksum and no good copy was at hand.
    Corrupt,
    /// Something needed (a node, a quorum, a disk) is not there now; it may come back.
    Unavailable,
    /// The component has stopped and must be opened anew.
    Fatal,
    /// The credential may not do this, or there is none.
    Denied,
    /// It exists already, and differs from what is asked for.
    Exists,
    /// Somebody uses it. Where force would do it, the hint says so.
    InUse,
}

impl ErrorKind {
    /// Every kind, in the order of their declaration.
    pub const ALL: [Self; 11] = [
        Self::Retry,
        Self::Fenced,
        Self::Invalid,
        Self::NotFound,
        Self::NoSpace,
        Self::Corrupt,
        Self::Unavailable,
        Self::Fatal,
        Self::Denied,
        Self::Exists,
        Self::InUse,
    ];

    /// The HTTP status of an answer with such an error.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Fenced | Self::Exists | Self::InUse => StatusCode::CONFLICT,
            Self::Corrupt | Self::Fatal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Retry | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        }
    }

    /// The exit code of a command that ends with such an error.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Fatal => 1,
            Self::Invalid => 2,
            Self::NotFound => 3,
            Self::Fenced | Self::Exists | Self::InUse => 4,
            Self::Retry | Self::Unavailable => 5,
            Self::NoSpace => 6,
            Self::Corrupt => 7,
            Self::Denied => 8,
        }
    }
}

impl fmt::Display for ErrorKind {
    /// The word that stands in JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Retry => "retry",
            Self::Fenced => "fenced",
            Self::Invalid => "invalid",
            Self::NotFound => "not-found",
            Self::NoSpace => "no-space",
            Self::Corrupt => "corrupt",
            Self::Unavailable => "unavailable",
            Self::Fatal => "fatal",
            Self::Denied => "denied",
            Self::Exists => "exists",
            Self::InUse => "in-use",
        })
    }
}

/// Why a request was not done, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What the caller should do, for programs.
    pub kind: ErrorKind,
    /// What went wrong, in one sentence that names what it is about.
    pub message: String,
    /// What to do, in one sentence, naming the command where there is one. Empty if the message
    /// says it all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// Facts for programs by name, such as `node`, `volume`, `epoch`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

impl ApiError {
    /// An error without hint and details.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: String::new(), details: BTreeMap::new() }
    }

    /// The same, with what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same, with one more fact.
    #[must_use]
    pub fn detail(mut self, name: impl Into<String>, value: impl fmt::Display) -> Self {
        self.details.insert(name.into(), value.to_string());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_every_other_part() {
        use mooring_terms::ErrorKind as Terms;
        for (ours, theirs) in [
            (ErrorKind::Retry, Terms::Retry),
            (ErrorKind::Fenced, Terms::Fenced),
            (ErrorKind::Invalid, Terms::Invalid),
            (ErrorKind::NotFound, Terms::NotFound),
            (ErrorKind::NoSpace, Terms::NoSpace),
            (ErrorKind::Corrupt, Terms::Corrupt),
            (ErrorKind::Unavailable, Terms::Unavailable),
            (ErrorKind::Fatal, Terms::Fatal),
        ] {
            assert_eq!(ours.to_string(), theirs.to_string().replace(' ', "-"));
        }
    }

    #[test]
    fn a_kind_is_shown_as_it_stands_in_json() {
        for kind in ErrorKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.to_string());
            assert!(!kind.status().is_success());
            assert_ne!(kind.exit_code(), 0);
        }
    }

    #[test]
    fn an_error_needs_kind_and_message_only() {
        let json = r#"{"kind":"in-use","message":"db is attached to beta"}"#;
        let error: ApiError = serde_json::from_str(json).unwrap();
        assert_eq!(error, ApiError::new(ErrorKind::InUse, "db is attached to beta"));
        assert_eq!(serde_json::to_string(&error).unwrap(), json);
        let full = error.hint("unmount it there").detail("node", "beta");
        let back = serde_json::from_str(&serde_json::to_string(&full).unwrap()).unwrap();
        assert_eq!(full, back);
    }
}
