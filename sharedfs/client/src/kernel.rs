//! What the kernel asks a mount, and what it is answered, in our own words: a shell translates.

use std::time::Duration;

use bytes::Bytes;
use mooring_sharedfs_core::file::Seek;
use mooring_sharedfs_core::locks::{HeldLock, LockMode, LockRange, LockSpace};
use mooring_sharedfs_core::ops::{Make, RenameMode, SetAttributes, Statistics, XattrMode};
use mooring_sharedfs_core::{
    Access, Attributes, Caller, Cookie, FileType, FsError, Ino, Mode, Name,
};

/// The kernel's number of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelId(pub u64);

/// Something that was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandleId(pub u64);

/// A request of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRequest {
    /// Which.
    pub id: KernelId,
    /// For whom.
    pub caller: Caller,
    /// What.
    pub operation: KernelOperation,
}

/// What `fallocate` is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocateMode {
    /// Blocks before there is data.
    Allocate,
    /// A hole.
    Punch,
    /// Zeros, with blocks.
    Zero,
}

/// What is to happen to a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Set it, or fail.
    Set(LockMode),
    /// Set it, and wait for that.
    Wait(LockMode),
    /// Free it.
    Unlock,
}

/// What the kernel asks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the FUSE request of its name")]
pub enum KernelOperation {
    Lookup {
        dir: Ino,
        name: Name,
    },
    /// The kernel forgets `count` lookups. Not answered.
    Forget {
        ino: Ino,
        count: u64,
    },
    Getattr {
        ino: Ino,
    },
    Setattr {
        ino: Ino,
        set: SetAttributes,
    },
    Access {
        ino: Ino,
        access: Access,
    },
    Readlink {
        ino: Ino,
    },
    /// mknod, mkdir, symlink.
    Make {
        dir: Ino,
        name: Name,
        make: Make,
    },
    Unlink {
        dir: Ino,
        name: Name,
    },
    Rmdir {
        dir: Ino,
        name: Name,
    },
    Rename {
        from: (Ino, Name),
        to: (Ino, Name),
        mode: RenameMode,
    },
    Link {
        ino: Ino,
        dir: Ino,
        name: Name,
    },
    Open {
        ino: Ino,
        access: Access,
    },
    Create {
        dir: Ino,
        name: Name,
        modes: (Mode, Mode),
        exclusive: bool,
        access: Access,
    },
    /// `O_TMPFILE`: answered as [`KernelOperation::Create`] is.
    Tmpfile {
        dir: Ino,
        modes: (Mode, Mode),
        access: Access,
    },
    /// `cached`: into the kernel's page cache, where it may be mapped.
    Read {
        handle: HandleId,
        offset: u64,
        length: u64,
        cached: bool,
    },
    /// `cached`: the bytes come from the kernel's page cache (a mapping's dirty page), and nobody waits
    /// with the inode's lock. `sync`: answered when all is on media, as an fsync behind it would be
    /// (`O_SYNC`, `O_DSYNC`).
    Write {
        handle: HandleId,
        offset: u64,
        bytes: Bytes,
        append: bool,
        cached: bool,
        kill_privileges: bool,
        sync: bool,
    },
    /// close(2) of one descriptor; `owner` as fcntl locks name it.
    Flush {
        handle: HandleId,
        owner: u64,
    },
    Fsync {
        handle: HandleId,
    },
    /// The last descriptor is gone; `flock`: the owner of flocks that go with it.
    Release {
        handle: HandleId,
        flock: Option<u64>,
    },
    Opendir {
        dir: Ino,
    },
    Readdir {
        handle: HandleId,
        after: Cookie,
        limit: u32,
        plus: bool,
    },
    Statfs,
    Getxattr {
        ino: Ino,
        name: Vec<u8>,
    },
    Listxattr {
        ino: Ino,
    },
    Setxattr {
        ino: Ino,
        name: Vec<u8>,
        value: Vec<u8>,
        mode: XattrMode,
    },
    Removexattr {
        ino: Ino,
        name: Vec<u8>,
    },
    Lock {
        ino: Ino,
        space: LockSpace,
        owner: u64,
        kind: LockKind,
        range: LockRange,
        pid: u32,
    },
    Getlock {
        ino: Ino,
        space: LockSpace,
        owner: u64,
        mode: LockMode,
        range: LockRange,
    },
    Allocate {
        handle: HandleId,
        mode: AllocateMode,
        range: (u64, u64),
        keep_size: bool,
    },
    Seek {
        handle: HandleId,
        offset: u64,
        seek: Seek,
    },
}

/// An entry as the kernel caches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it names.
    pub attributes: Attributes,
    /// For how long the kernel may keep the name.
    pub entry_time: Duration,
    /// For how long it may keep the attributes.
    pub attr_time: Duration,
}

/// How a file is opened. Never with `FOPEN_NOFLUSH`: without FLUSH nobody says when a process closes a
/// file, which ends its fcntl locks, also those to read of who has it open for reading only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFlags {
    /// `FOPEN_DIRECT_IO`: past the page cache. (With `DIRECT_IO_ALLOW_MMAP`.)
    pub direct: bool,
    /// `FOPEN_KEEP_CACHE`: what the page cache has is good.
    pub keep_cache: bool,
}

/// An entry of a directory that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryItem {
    /// Reading goes on behind it.
    pub cookie: Cookie,
    /// Its name.
    pub name: Name,
    /// What it names.
    pub ino: Ino,
    /// The kind of that.
    pub file_type: FileType,
    /// All about it, where that was asked for.
    pub entry: Option<Entry>,
}

impl KernelReply {
    /// The same, and the kernel keeps nothing of it: it may be an old answer.
    pub(crate) fn not_to_be_kept(mut self) -> Self {
        match &mut self {
            Self::Entry(entry) | Self::Created(entry, ..) => {
                (entry.entry_time, entry.attr_time) = (Duration::ZERO, Duration::ZERO);
            }
            Self::NoEntry(time) | Self::Attributes(_, time) => *time = Duration::ZERO,
            Self::Directory(items) => {
                for entry in items.iter_mut().filter_map(|item| item.entry.as_mut()) {
                    (entry.entry_time, entry.attr_time) = (Duration::ZERO, Duration::ZERO);
                }
            }
            _ => {}
        }
        self
    }
}

/// What the kernel is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the FUSE reply of its name")]
pub enum KernelReply {
    Done,
    Entry(Entry),
    /// There is no such name, and the kernel may keep that for so long.
    NoEntry(Duration),
    Attributes(Attributes, Duration),
    Opened(HandleId, OpenFlags),
    /// A directory, and its parent for `..`; `.` and `..` are the shell's to add.
    OpenedDirectory(HandleId, Ino),
    Created(Entry, HandleId, OpenFlags),
    /// Of a file, in pieces that follow each other.
    Bytes(Vec<Bytes>),
    Written(u64),
    Directory(Vec<DirectoryItem>),
    Target(Vec<u8>),
    Value(Vec<u8>),
    Names(Vec<Vec<u8>>),
    Statistics(Statistics),
    Lock(Option<HeldLock>),
    Offset(u64),
    Error(FsError),
}
