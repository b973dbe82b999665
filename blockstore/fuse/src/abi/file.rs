//! Open files: reading, writing, locking.

use super::Frame;

wire! {
    /// The answer to OPEN and OPENDIR.
    OpenOut = 16 {
        /// What the kernel names the open file by.
        fh: u64,
        /// [`super::open`] bits.
        open_flags: u32,
        /// Unused here (passthrough).
        backing_id: i32,
    }

    /// READ and READDIR.
    ReadIn = 40 {
        /// Open file.
        fh: u64,
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes.
        size: u32,
        /// Flags of the read.
        read_flags: u32,
        /// Owner of locks.
        lock_owner: u64,
        /// Flags of the open file.
        flags: u32,
        /// Unused.
        padding: u32,
    }

    /// WRITE; `size` bytes follow.
    WriteIn = 40 {
        /// Open file.
        fh: u64,
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes.
        size: u32,
        /// Flags of the write.
        write_flags: u32,
        /// Owner of locks.
        lock_owner: u64,
        /// Flags of the open file.
        flags: u32,
        /// Unused.
        padding: u32,
    }

    /// The answer to WRITE.
    WriteOut = 8 {
        /// Bytes written.
        size: u32,
        /// Unused.
        padding: u32,
    }

    /// FALLOCATE.
    FallocateIn = 32 {
        /// Open file.
        fh: u64,
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes.
        length: u64,
        /// `FALLOC_FL_*` bits.
        mode: u32,
        /// Unused.
        padding: u32,
    }

    /// INTERRUPT.
    InterruptIn = 8 {
        /// The request whose caller has a signal pending.
        unique: u64,
    }

    /// OPEN and OPENDIR.
    OpenIn = 8 {
        /// `O_*` flags.
        flags: u32,
        /// Whether privilege bits are to be cleared (bit 0).
        open_flags: u32,
    }

    /// CREATE and TMPFILE; the name follows.
    CreateIn = 16 {
        /// `O_*` flags.
        flags: u32,
        /// Type and permissions.
        mode: u32,
        /// The caller's umask.
        umask: u32,
        /// As in [`OpenIn`].
        open_flags: u32,
    }

    /// RELEASE and RELEASEDIR.
    ReleaseIn = 24 {
        /// Open file.
        fh: u64,
        /// `O_*` flags.
        flags: u32,
        /// [`super::release`] bits.
        release_flags: u32,
        /// Owner of locks.
        lock_owner: u64,
    }

    /// FLUSH.
    FlushIn = 24 {
        /// Open file.
        fh: u64,
        /// Unused.
        unused: u32,
        /// Unused.
        padding: u32,
        /// Owner of locks.
        lock_owner: u64,
    }

    /// FSYNC and FSYNCDIR.
    FsyncIn = 16 {
        /// Open file.
        fh: u64,
        /// Whether only data is asked for (bit 0).
        flags: u32,
        /// Unused.
        padding: u32,
    }

    /// GETLK, SETLK and SETLKW.
    LockIn = 48 {
        /// Open file.
        fh: u64,
        /// Whose lock.
        owner: u64,
        /// First byte.
        start: u64,
        /// Last byte; `i64::MAX` is the end.
        end: u64,
        /// `F_RDLCK`, `F_WRLCK`, `F_UNLCK`.
        kind: u32,
        /// The caller.
        pid: u32,
        /// Whether it is flock's (bit 0).
        flags: u32,
        /// Unused.
        padding: u32,
    }

    /// The answer to GETLK.
    LockOut = 24 {
        /// First byte.
        start: u64,
        /// Last byte.
        end: u64,
        /// `F_RDLCK`, `F_WRLCK`, `F_UNLCK`.
        kind: u32,
        /// Who holds it.
        pid: u32,
    }

    /// LSEEK.
    LseekIn = 24 {
        /// Open file.
        fh: u64,
        /// Offset in bytes.
        offset: u64,
        /// `SEEK_DATA` or `SEEK_HOLE`.
        whence: u32,
        /// Unused.
        padding: u32,
    }

    /// The answer to LSEEK.
    LseekOut = 8 {
        /// Offset in bytes.
        offset: u64,
    }

    /// COPY_FILE_RANGE; the header's node is the source.
    CopyFileRangeIn = 56 {
        /// Open source.
        fh_in: u64,
        /// Offset there.
        offset_in: u64,
        /// Target's node.
        node_out: u64,
        /// Open target.
        fh_out: u64,
        /// Offset there.
        offset_out: u64,
        /// Bytes.
        length: u64,
        /// Flags; none are known.
        flags: u64,
    }
}
