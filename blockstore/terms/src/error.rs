//! What a caller must do about an error.

use std::fmt;

/// Every error of Mooring answers `kind()` with one of these: what its caller must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Try again: the cause passes by itself.
    Retry,
    /// Stop for good: a newer holder exists, and nothing this one sends will be taken.
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
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Retry => "retry",
            Self::Fenced => "fenced",
            Self::Invalid => "invalid",
            Self::NotFound => "not found",
            Self::NoSpace => "no space",
            Self::Corrupt => "corrupt",
            Self::Unavailable => "unavailable",
            Self::Fatal => "fatal",
        })
    }
}
