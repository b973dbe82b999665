//! What can be done: a system call on a host.

use std::fmt;

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the flag of its name")]
pub struct How {
    pub read: bool,
    pub write: bool,
    pub append: bool,
    pub create: bool,
    pub exclusive: bool,
    pub truncate: bool,
    pub sync: bool,
}

/// What `fallocate` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Blocks, and the size if they reach behind it.
    Allocate,
    /// Blocks; the size stays.
    AllocateKeep,
    /// A hole.
    Punch,
    /// Zeros.
    Zero,
}

/// What `renameat2` does with a name that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the flag of its name")]
pub enum Moves {
    Replace,
    NoReplace,
    Exchange,
}

/// A system call. Files that are open have numbers; paths begin in the root of what is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the call of its name")]
pub enum Call {
    Open {
        file: u32,
        path: String,
        how: How,
    },
    Close {
        file: u32,
    },
    Read {
        file: u32,
        offset: u64,
        length: u64,
    },
    /// `fill` says which bytes.
    Write {
        file: u32,
        offset: u64,
        length: u64,
        fill: u64,
    },
    Append {
        file: u32,
        length: u64,
        fill: u64,
    },
    Ftruncate {
        file: u32,
        size: u64,
    },
    Fallocate {
        file: u32,
        space: Space,
        offset: u64,
        length: u64,
    },
    Fsync {
        file: u32,
        data: bool,
    },
    Fstat {
        file: u32,
    },
    /// Through a mapping that is made at its first use and stays as long as the file is open.
    MapRead {
        file: u32,
        offset: u64,
        length: u64,
    },
    /// With the msync behind it: before that others need not see it.
    MapWrite {
        file: u32,
        offset: u64,
        length: u64,
        fill: u64,
    },
    Seek {
        file: u32,
        offset: u64,
        hole: bool,
    },
    CopyRange {
        from: u32,
        at: u64,
        to: u32,
        offset: u64,
        length: u64,
    },
    Flock {
        file: u32,
        exclusive: bool,
    },
    FlockFree {
        file: u32,
    },
    /// Of an open file (F_OFD_SETLK); `None` frees.
    RangeLock {
        file: u32,
        first: u64,
        length: u64,
        exclusive: Option<bool>,
    },
    Truncate {
        path: String,
        size: u64,
    },
    Mkdir {
        path: String,
        mode: u32,
    },
    Mkfifo {
        path: String,
        mode: u32,
    },
    Symlink {
        target: String,
        path: String,
    },
    Link {
        from: String,
        to: String,
    },
    Unlink {
        path: String,
    },
    Rmdir {
        path: String,
    },
    Rename {
        from: String,
        to: String,
        moves: Moves,
    },
    Chmod {
        path: String,
        mode: u32,
    },
    Chown {
        path: String,
        uid: u32,
        gid: u32,
    },
    /// Nanoseconds since 1970; `None` leaves it.
    Times {
        path: String,
        atime: Option<i64>,
        mtime: Option<i64>,
    },
    SetXattr {
        path: String,
        name: String,
        value: Vec<u8>,
    },
    GetXattr {
        path: String,
        name: String,
    },
    RemoveXattr {
        path: String,
        name: String,
    },
    ListXattr {
        path: String,
    },
    Stat {
        path: String,
        follow: bool,
    },
    Readlink {
        path: String,
    },
    List {
        path: String,
    },
    /// open, read, close.
    ReadFile {
        path: String,
    },
    /// Nothing happens for a while: contention is forgotten, buffers are written back.
    Pause {
        milliseconds: u64,
    },
}

/// A call on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Which, from 0 on.
    pub host: usize,
    /// What.
    pub call: Call,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host {}: {:?}", self.host, self.call)
    }
}

/// The bytes that `fill` names.
pub(crate) fn bytes(fill: u64, length: u64) -> Vec<u8> {
    // Of a period that is no part of a block, so that a misplaced piece shows; never zero.
    (0..length).map(|i| ((fill.wrapping_mul(31) + i * 7 + i / 253) % 255) as u8 + 1).collect()
}
