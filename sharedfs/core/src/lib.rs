//! The pure core of a shared volume: the format on the volume, the file system's operations on its
//! metadata tree, and what the coordinator decides about sessions, leases and locks.
//!
//! ```text
//!   request ──> ops ──reads──> Transaction ──reads──> Tree (ordered rows; redb or a map)
//!                │                  │
//!              reply             Changes: rows put and deleted, one record of the journal
//! ```
//!
//! Nothing here does I/O, knows the time, or draws a random number. An operation reads rows through
//! [`tree::Tree`], and what it does is the set of rows that it changes: [`tree::Changes`]. The
//! journal carries these changes and not the requests, so replaying is putting rows, which may be
//! done twice, and needs no operation to behave as it did when the record was written.
//!
//! File data is not in the tree (files of up to [`format::INLINE_BYTES`] aside). Whoever writes a
//! file (a client, or the coordinator for several writers at once) puts bytes into blocks that are
//! reserved for it, and then *commits* them: see [`mod@file`].
//!
//! Invariants, checked by [`check`] over a whole tree:
//! - every block of the data area is in exactly one place: a free run, a reservation, the
//!   quarantine, or one file's extent; the state's counters are the sums of these;
//! - every entry names an inode, and an inode's link count is the number of its entries (for
//!   directories, `.`, and `..` of those below, too); what has no entry is an orphan;
//! - an entry's name row and its cookie row name each other;
//! - an inode number is given once and never again, so no generation is needed.

mod acl;
mod attributes;
mod caller;
pub mod check;
pub mod coordinator;
mod error;
pub mod file;
pub mod format;
pub mod leases;
pub mod locks;
#[cfg(feature = "mutations")]
mod mutation;
mod name;
pub mod ops;
pub mod sessions;
mod space;
mod terms;
mod transaction;
pub mod tree;

pub use acl::{Acl, AclEntry, AclError, AclTag};
pub use attributes::{Attributes, Device, FileType, Mode, Timestamp};
pub use caller::{Access, Caller, Groups};
pub use error::{Damage, FsError, Result};
#[cfg(feature = "mutations")]
pub use mutation::Mutation;
pub use name::{NAME_MAX, Name, NameError};
pub use terms::{
    BlockAddress, Cookie, FileBlock, Ino, JournalNumber, QuarantineNumber, RequestNumber, Run,
    SessionId, SlotIndex,
};
pub use transaction::{Context, Outcome, Transaction};
