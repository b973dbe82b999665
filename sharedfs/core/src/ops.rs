//! The operations of the file system on inodes, entries and attributes, as methods of
//! [`crate::Transaction`], one file a subject. (Those on a file's contents are in [`crate::file`].)
//!
//! Each checks everything first, in the order in which Linux does, so that a program gets the errno
//! that a local file system gives it. What an operation does to dates, link counts and privileges
//! stands with it.
//!
//! Work that has no bound (freeing a large file) is done in steps: [`Progress::More`] says to apply
//! what was done and to ask again. What is visible between two steps is a state that the caller
//! could have asked for.

mod access;
mod directory;
mod format_volume;
mod link;
mod make;
mod readdir;
mod remove;
mod rename;
mod session;
mod setattr;
mod statfs;
mod xattr;

pub use format_volume::{FormatOptions, format_volume};
pub use make::{Make, NUMBERS_MAX, New, Opened};
pub use readdir::{DirectoryEntry, DirectoryPage};
pub use remove::Removed;
pub use rename::RenameMode;
pub use setattr::{SetAttributes, SetTime};
pub use statfs::Statistics;
pub use xattr::{XattrMode, privilege_xattr};

/// Whether an operation is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// It is.
    Done,
    /// Some of it is: apply that, and ask again.
    More,
}

/// The most rows that a step of unbounded work touches.
pub const STEP_ROWS: usize = 1024;

/// The most links an inode can have.
pub const LINKS_MAX: u32 = 1 << 31;
