//! Names: made, moved, listed, forgotten, and told to the kernel to forget.

use super::Frame;

wire! {
    /// BATCH_FORGET; `count` times [`ForgetOne`] follows.
    BatchForgetIn = 8 {
        /// How many follow.
        count: u32,
        /// Unused.
        dummy: u32,
    }

    /// One of the nodes of a BATCH_FORGET.
    ForgetOne = 16 {
        /// The node.
        node: u64,
        /// How many lookups are forgotten.
        lookups: u64,
    }

    /// One name in the answer to READDIR; the name follows, padded to 8 bytes.
    Dirent = 24 {
        /// Number of the inode.
        ino: u64,
        /// Where the next name is.
        offset: u64,
        /// Bytes of the name.
        name_len: u32,
        /// `DT_*`.
        kind: u32,
    }

    /// MKNOD; the name follows.
    MknodIn = 16 {
        /// Type and permissions.
        mode: u32,
        /// Device number.
        rdev: u32,
        /// The caller's umask.
        umask: u32,
        /// Unused.
        padding: u32,
    }

    /// MKDIR; the name follows.
    MkdirIn = 8 {
        /// Permissions.
        mode: u32,
        /// The caller's umask.
        umask: u32,
    }

    /// RENAME; old and new name follow.
    RenameIn = 8 {
        /// Target's directory.
        directory: u64,
    }

    /// RENAME2; old and new name follow.
    Rename2In = 16 {
        /// Target's directory.
        directory: u64,
        /// `RENAME_*` flags.
        flags: u32,
        /// Unused.
        padding: u32,
    }

    /// LINK; the name follows.
    LinkIn = 8 {
        /// What gets another name.
        node: u64,
    }

    /// Notification: drop what is cached of an inode.
    InvalidateInode = 24 {
        /// The node.
        node: u64,
        /// First byte; negative: attributes only.
        offset: i64,
        /// How many bytes; 0 is all of them.
        length: i64,
    }

    /// Notification: drop a name; the name and a NUL follow.
    InvalidateEntry = 16 {
        /// The directory.
        parent: u64,
        /// Bytes of the name.
        name_len: u32,
        /// 1: only let it expire.
        flags: u32,
    }

    /// Notification: a name is gone for good; the name and a NUL follow.
    Deleted = 24 {
        /// The directory.
        parent: u64,
        /// What it named.
        child: u64,
        /// Bytes of the name.
        name_len: u32,
        /// Unused.
        padding: u32,
    }
}
