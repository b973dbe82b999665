//! Numbers that say what a message is, and single bits in it.

/// Versions of the protocol.
pub mod version {
    /// The only major version there is.
    pub const MAJOR: u32 = 7;
    /// The newest minor version that this module knows.
    pub const MINOR: u32 = 45;
    /// The oldest minor version that is served (Linux 5.4).
    pub const MINOR_MIN: u32 = 31;
}

/// Marks the `unique` of a request that was sent before, to a process that never answered it. The
/// answer must carry it too.
pub const UNIQUE_RESEND: u64 = 1 << 63;

/// Codes of notifications (in [`super::OutHeader::error`], with `unique` 0).
pub mod notify {
    /// Drop what is cached of an inode.
    pub const INVALIDATE_INODE: i32 = 2;
    /// Drop a name.
    pub const INVALIDATE_ENTRY: i32 = 3;
    /// A name is gone.
    pub const DELETE: i32 = 6;
    /// Send again what was read from any descriptor of the connection and never answered.
    pub const RESEND: i32 = 7;
    /// Let every cached name be looked up again (Linux 6.16).
    pub const INCREASE_EPOCH: i32 = 8;
}

/// Requests.
#[allow(missing_docs)]
pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const GETLK: u32 = 31;
    pub const SETLK: u32 = 32;
    pub const SETLKW: u32 = 33;
    pub const ACCESS: u32 = 34;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const IOCTL: u32 = 39;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const TMPFILE: u32 = 51;
    pub const STATX: u32 = 52;
}

/// What the two sides agree on in INIT.
pub mod init {
    /// Reads may be in flight together.
    pub const ASYNC_READ: u64 = 1 << 0;
    /// fcntl locks come here, instead of being the kernel's own.
    pub const POSIX_LOCKS: u64 = 1 << 1;
    /// `O_TRUNC` comes with OPEN, not as a SETATTR of its own.
    pub const ATOMIC_O_TRUNC: u64 = 1 << 3;
    /// Nodes without a name can be looked up, for NFS servers.
    pub const EXPORT_SUPPORT: u64 = 1 << 4;
    /// Writes longer than a page.
    pub const BIG_WRITES: u64 = 1 << 5;
    /// The umask is applied here, since default ACLs replace it.
    pub const DONT_MASK: u64 = 1 << 6;
    /// flock's locks come here.
    pub const FLOCK_LOCKS: u64 = 1 << 10;
    /// Cached data goes when size or modification time change.
    pub const AUTO_INVAL_DATA: u64 = 1 << 12;
    /// Listings may bring attributes.
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    /// The kernel asks for them only where they seem to be of use.
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    /// Direct I/O is asynchronous where its caller's is.
    pub const ASYNC_DIO: u64 = 1 << 15;
    /// Lookups and listings of one directory run side by side.
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    /// POSIX ACLs are kept here and checked by the kernel.
    pub const POSIX_ACL: u64 = 1 << 20;
    /// `max_pages` is set.
    pub const MAX_PAGES: u64 = 1 << 22;
    /// Targets of symbolic links may be cached.
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    /// Privilege bits are cleared here, and the kernel says when.
    pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    /// `flags2` is set.
    pub const EXT: u64 = 1 << 30;
    /// Files under direct I/O may be mapped (Linux 6.6).
    pub const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
    /// The kernel knows [`super::notify::RESEND`].
    pub const HAS_RESEND: u64 = 1 << 39;
}

/// What OPEN's answer asks for.
pub mod open {
    /// No page cache: every read and write comes here.
    pub const DIRECT_IO: u32 = 1 << 0;
    /// What is cached of the file stays.
    pub const KEEP_CACHE: u32 = 1 << 1;
    /// The listing may be cached.
    pub const CACHE_DIR: u32 = 1 << 3;
    /// No FLUSH when a descriptor is closed.
    pub const NOFLUSH: u32 = 1 << 5;
    /// Direct writes to the file may run side by side.
    pub const PARALLEL_DIRECT_WRITES: u32 = 1 << 6;
}

/// What SETATTR sets.
pub mod setattr {
    /// The permissions.
    pub const MODE: u32 = 1 << 0;
    /// The owner.
    pub const UID: u32 = 1 << 1;
    /// The group.
    pub const GID: u32 = 1 << 2;
    /// The size.
    pub const SIZE: u32 = 1 << 3;
    /// The access time.
    pub const ATIME: u32 = 1 << 4;
    /// The modification time.
    pub const MTIME: u32 = 1 << 5;
    /// `fh` is set.
    pub const FH: u32 = 1 << 6;
    /// The access time, to now.
    pub const ATIME_NOW: u32 = 1 << 7;
    /// The modification time, to now.
    pub const MTIME_NOW: u32 = 1 << 8;
    /// The change time.
    pub const CTIME: u32 = 1 << 10;
    /// Clear privilege bits: a size was set by somebody who may not keep them.
    pub const KILL_SUIDGID: u32 = 1 << 11;
}

/// What goes with RELEASE.
pub mod release {
    /// flock's locks of this open file end.
    pub const FLOCK_UNLOCK: u32 = 1 << 1;
}

/// What goes with a lock.
pub mod lock {
    /// It is flock's.
    pub const FLOCK: u32 = 1 << 0;
}

/// What goes with READ.
pub mod read {
    /// The owner of locks is named: a program reads past the page cache. Reads into pages, which no
    /// program waits for as its own, never have it.
    pub const LOCK_OWNER: u32 = 1 << 1;
}

/// What goes with WRITE.
pub mod write {
    /// It comes out of the page cache (a dirty mapped page): the caller is the kernel.
    pub const CACHE: u32 = 1 << 0;
    /// Clear privilege bits.
    pub const KILL_SUIDGID: u32 = 1 << 2;
}

/// What STATX tells.
pub mod statx {
    /// All that `stat` has.
    pub const BASIC_STATS: u32 = 0x7ff;
    /// When it was made.
    pub const BTIME: u32 = 0x800;
}
