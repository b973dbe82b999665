//! What can go wrong with an operation, and the errno that a program sees.

use serde::{Deserialize, Serialize};

use mooring_terms::ErrorKind;

use crate::{BlockAddress, Ino, NameError};

/// The result of anything that reads the tree.
pub type Result<T> = std::result::Result<T, FsError>;

/// What a structure on the volume should have been and wasn't. Never a panic: the operation fails
/// with an I/O error that carries this, and an event names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Damage {
    /// A row of the tree can't be decoded; its key's kind.
    Row(u8),
    /// The row of the volume's counters is missing.
    NoState,
    /// An inode that an entry or an operation relies on is missing.
    NoInode(Ino),
    /// A directory's name rows and cookie rows disagree.
    Entries(Ino),
    /// An inode's link count can't be right.
    Links(Ino),
    /// A file's extents overlap, or can't be where they are.
    Extents(Ino),
    /// The symlink has no target.
    Target(Ino),
    /// A block is in two places, or in none.
    Space(BlockAddress),
    /// The counters don't agree with what they count.
    Counters,
    /// The store below the tree says that its own structure is damaged.
    Store,
    /// A block of data that no replica has whole.
    Block(BlockAddress),
}

/// Why an operation was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error, Serialize, Deserialize)]
pub enum FsError {
    /// No such entry or inode.
    #[error("no such file or directory")]
    NotFound,
    /// The inode that was named is gone.
    #[error("the file is gone")]
    Stale,
    /// The name is taken.
    #[error("it exists")]
    Exists,
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// A directory was not allowed.
    #[error("is a directory")]
    IsDirectory,
    /// The directory has entries.
    #[error("the directory is not empty")]
    NotEmpty,
    /// Mode bits or ACL refuse it.
    #[error("permission denied")]
    Access,
    /// Only the owner or a privileged caller may do that.
    #[error("operation not permitted")]
    NotPermitted,
    /// The arguments make no sense together.
    #[error("invalid argument")]
    Invalid,
    /// A name of more than 255 bytes.
    #[error("name too long")]
    NameTooLong,
    /// The inode has as many links as can be counted.
    #[error("too many links")]
    TooManyLinks,
    /// There is no space for it. `coming`: blocks are being freed, and waiting for them will help.
    #[error("no space")]
    NoSpace {
        /// Whether freed blocks wait in quarantine.
        coming: bool,
    },
    /// Behind the largest offset that a file can have.
    #[error("file too big")]
    TooBig,
    /// No such extended attribute, or no data behind the offset that was sought.
    #[error("no such attribute")]
    NoData,
    /// A seek behind the end of the file.
    #[error("no such offset")]
    NoOffset,
    /// The buffer that the caller offers is too small.
    #[error("result too large")]
    Range,
    /// An extended attribute larger than can be stored.
    #[error("value too large")]
    ValueTooBig,
    /// Not what this kind of inode, or this file system, can do.
    #[error("not supported")]
    NotSupported,
    /// A lock would close a cycle of waiting.
    #[error("deadlock avoided")]
    Deadlock,
    /// It would have to wait, and the caller doesn't want to.
    #[error("would block")]
    WouldBlock,
    /// The caller gave up waiting.
    #[error("interrupted")]
    Interrupted,
    /// The volume's structure is damaged.
    #[error("damaged: {0:?}")]
    Damaged(Damage),
    /// The volume doesn't answer (it is fenced, or an I/O failed for good).
    #[error("the volume is gone")]
    Unavailable,
    /// The mount holds as many locks as one may.
    #[error("too many locks")]
    NoLocks,
    /// What was written for it went with the power of all replicas.
    #[error("what was written is lost")]
    Lost,
}

impl From<NameError> for FsError {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Invalid => Self::Invalid,
            NameError::TooLong => Self::NameTooLong,
        }
    }
}

impl From<Damage> for FsError {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

impl FsError {
    /// What the caller must do about it.
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::NotFound | Self::Stale | Self::NoData | Self::NoOffset => ErrorKind::NotFound,
            Self::NoSpace { .. } => ErrorKind::NoSpace,
            Self::WouldBlock | Self::Interrupted => ErrorKind::Retry,
            Self::Damaged(_) => ErrorKind::Corrupt,
            Self::Unavailable | Self::Lost => ErrorKind::Fatal,
            _ => ErrorKind::Invalid,
        }
    }

    /// The number that a program finds in `errno`: Linux's, which are the same wherever Rust runs
    /// on it but for a few old machines.
    #[must_use]
    pub fn errno(self) -> i32 {
        match self {
            Self::NotPermitted => 1,    // EPERM
            Self::NotFound => 2,        // ENOENT
            Self::Interrupted => 4,     // EINTR
            Self::Damaged(_) => 5,      // EIO: what is damaged is in the event
            Self::Unavailable => 5,     // EIO
            Self::Lost => 5,            // EIO: as any write-back that failed
            Self::NoOffset => 6,        // ENXIO, as lseek(2) has it for SEEK_DATA
            Self::ValueTooBig => 7,     // E2BIG
            Self::WouldBlock => 11,     // EAGAIN
            Self::Access => 13,         // EACCES
            Self::Exists => 17,         // EEXIST
            Self::NotDirectory => 20,   // ENOTDIR
            Self::IsDirectory => 21,    // EISDIR
            Self::Invalid => 22,        // EINVAL
            Self::TooBig => 27,         // EFBIG
            Self::NoSpace { .. } => 28, // ENOSPC
            Self::TooManyLinks => 31,   // EMLINK
            Self::Range => 34,          // ERANGE
            Self::NoLocks => 37,        // ENOLCK
            Self::Deadlock => 35,       // EDEADLK
            Self::NameTooLong => 36,    // ENAMETOOLONG
            Self::NotEmpty => 39,       // ENOTEMPTY
            Self::NoData => 61,         // ENODATA
            Self::NotSupported => 95,   // EOPNOTSUPP
            Self::Stale => 116,         // ESTALE: the kernel looks the path up again
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_numbers_of_this_system() {
        let table = [
            (FsError::NotPermitted, libc::EPERM),
            (FsError::NotFound, libc::ENOENT),
            (FsError::Interrupted, libc::EINTR),
            (FsError::Damaged(Damage::NoState), libc::EIO),
            (FsError::Unavailable, libc::EIO),
            (FsError::Lost, libc::EIO),
            (FsError::NoOffset, libc::ENXIO),
            (FsError::ValueTooBig, libc::E2BIG),
            (FsError::WouldBlock, libc::EAGAIN),
            (FsError::Access, libc::EACCES),
            (FsError::Exists, libc::EEXIST),
            (FsError::NotDirectory, libc::ENOTDIR),
            (FsError::IsDirectory, libc::EISDIR),
            (FsError::Invalid, libc::EINVAL),
            (FsError::TooBig, libc::EFBIG),
            (FsError::NoSpace { coming: true }, libc::ENOSPC),
            (FsError::TooManyLinks, libc::EMLINK),
            (FsError::Range, libc::ERANGE),
            (FsError::NoLocks, libc::ENOLCK),
            (FsError::Deadlock, libc::EDEADLK),
            (FsError::NameTooLong, libc::ENAMETOOLONG),
            (FsError::NotEmpty, libc::ENOTEMPTY),
            (FsError::NoData, libc::ENODATA),
            (FsError::NotSupported, libc::EOPNOTSUPP),
            (FsError::Stale, libc::ESTALE),
        ];
        for (error, errno) in table {
            assert_eq!(error.errno(), errno, "{error:?}");
        }
    }
}
