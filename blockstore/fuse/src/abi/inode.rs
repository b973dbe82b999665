//! Attributes, names found, and what changes them.

use super::Frame;

wire! {
    /// A node's attributes.
    Attr = 88 {
        /// Number of the inode.
        ino: u64,
        /// Size in bytes.
        size: u64,
        /// Size in units of 512 bytes.
        blocks: u64,
        /// Access time, seconds.
        atime: u64,
        /// Modification time, seconds.
        mtime: u64,
        /// Change time, seconds.
        ctime: u64,
        /// Access time, nanoseconds.
        atime_nsec: u32,
        /// Modification time, nanoseconds.
        mtime_nsec: u32,
        /// Change time, nanoseconds.
        ctime_nsec: u32,
        /// Type and permissions.
        mode: u32,
        /// Links.
        nlink: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Device number of a device node.
        rdev: u32,
        /// Preferred I/O size in bytes.
        block_size: u32,
        /// Attribute flags.
        flags: u32,
    }

    /// The answer to LOOKUP; an [`Attr`] follows.
    EntryOut = 40 {
        /// The node found.
        node: u64,
        /// Tells apart what had the same number at other times.
        generation: u64,
        /// Seconds for which the name may be cached.
        entry_valid: u64,
        /// Seconds for which the attributes may be cached.
        attr_valid: u64,
        /// The same, nanoseconds.
        entry_valid_nsec: u32,
        /// The same, nanoseconds.
        attr_valid_nsec: u32,
    }

    /// The answer to GETATTR; an [`Attr`] follows.
    AttrOut = 16 {
        /// Seconds for which the attributes may be cached.
        attr_valid: u64,
        /// The same, nanoseconds.
        attr_valid_nsec: u32,
        /// Unused.
        dummy: u32,
    }

    /// SETATTR.
    SetattrIn = 88 {
        /// Which fields are set: [`super::setattr`].
        valid: u32,
        /// Unused.
        padding: u32,
        /// Open file, if any.
        fh: u64,
        /// New size.
        size: u64,
        /// Owner of locks.
        lock_owner: u64,
        /// New access time, seconds.
        atime: u64,
        /// New modification time, seconds.
        mtime: u64,
        /// New change time, seconds.
        ctime: u64,
        /// New access time, nanoseconds.
        atime_nsec: u32,
        /// New modification time, nanoseconds.
        mtime_nsec: u32,
        /// New change time, nanoseconds.
        ctime_nsec: u32,
        /// New permissions.
        mode: u32,
        /// Unused.
        unused4: u32,
        /// New owner.
        uid: u32,
        /// New group.
        gid: u32,
        /// Unused.
        unused5: u32,
    }

    /// The answer to STATFS.
    Statfs = 80 {
        /// Size in units of `fragment_size`.
        blocks: u64,
        /// Free blocks.
        blocks_free: u64,
        /// Free blocks for everyone.
        blocks_available: u64,
        /// Inodes.
        files: u64,
        /// Free inodes.
        files_free: u64,
        /// Preferred I/O size in bytes.
        block_size: u32,
        /// Longest name in bytes.
        name_length: u32,
        /// Unit of the block counts in bytes.
        fragment_size: u32,
        /// Unused.
        padding: u32,
        /// Unused.
        spare0: u64,
        /// Unused.
        spare1: u64,
        /// Unused.
        spare2: u64,
    }

    /// GETATTR.
    GetattrIn = 16 {
        /// Whether `fh` is set (bit 0).
        flags: u32,
        /// Unused.
        dummy: u32,
        /// Open file.
        fh: u64,
    }

    /// STATX.
    StatxIn = 24 {
        /// Whether `fh` is set (bit 0).
        getattr_flags: u32,
        /// Unused.
        reserved: u32,
        /// Open file.
        fh: u64,
        /// `AT_STATX_*` bits.
        flags: u32,
        /// `STATX_*` bits that are asked for.
        mask: u32,
    }

    /// The answer to STATX; a [`Statx`] follows.
    StatxOut = 32 {
        /// Seconds for which the attributes may be cached.
        attr_valid: u64,
        /// The same, nanoseconds.
        attr_valid_nsec: u32,
        /// Unused.
        flags: u32,
        /// Unused.
        spare0: u64,
        /// Unused.
        spare1: u64,
    }

    /// What STATX tells, up to the times.
    Statx = 64 {
        /// `STATX_*` bits of what is told.
        mask: u32,
        /// Preferred I/O size in bytes.
        block_size: u32,
        /// `STATX_ATTR_*` bits.
        attributes: u64,
        /// Links.
        nlink: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Type and permissions.
        mode: u16,
        /// Unused.
        spare: u16,
        /// Number of the inode.
        ino: u64,
        /// Size in bytes.
        size: u64,
        /// Size in units of 512 bytes.
        blocks: u64,
        /// Which attributes are supported.
        attributes_mask: u64,
    }

    /// One time of STATX: access, birth, change, modification follow [`Statx`] in this order.
    StatxTime = 16 {
        /// Seconds.
        seconds: i64,
        /// Nanoseconds.
        nanoseconds: u32,
        /// Unused.
        reserved: i32,
    }

    /// What follows the times of STATX.
    StatxTail = 128 {
        /// Major number of a device node.
        rdev_major: u32,
        /// Its minor number.
        rdev_minor: u32,
        /// Unused: the kernel fills in the file system's own.
        dev_major: u32,
        /// Unused, as above.
        dev_minor: u32,
        /// Unused.
        spare0: u64,
        /// Unused.
        spare1: u64,
        /// Unused.
        spare2: u64,
        /// Unused.
        spare3: u64,
        /// Unused.
        spare4: u64,
        /// Unused.
        spare5: u64,
        /// Unused.
        spare6: u64,
        /// Unused.
        spare7: u64,
        /// Unused.
        spare8: u64,
        /// Unused.
        spare9: u64,
        /// Unused.
        spare10: u64,
        /// Unused.
        spare11: u64,
        /// Unused.
        spare12: u64,
        /// Unused.
        spare13: u64,
    }

    /// SETXATTR as everybody sends it who didn't agree on the longer form; name and value follow.
    SetxattrIn = 8 {
        /// Bytes of the value.
        size: u32,
        /// `XATTR_CREATE`, `XATTR_REPLACE`.
        flags: u32,
    }

    /// GETXATTR and LISTXATTR; GETXATTR's name follows.
    GetxattrIn = 8 {
        /// Room for the answer in bytes; 0 asks for the size alone.
        size: u32,
        /// Unused.
        padding: u32,
    }

    /// The answer to GETXATTR and LISTXATTR where only the size was asked for.
    GetxattrOut = 8 {
        /// The size in bytes.
        size: u32,
        /// Unused.
        padding: u32,
    }

    /// ACCESS.
    AccessIn = 8 {
        /// `R_OK`, `W_OK`, `X_OK`.
        mask: u32,
        /// Unused.
        padding: u32,
    }

    /// FORGET.
    ForgetIn = 8 {
        /// How many lookups are forgotten.
        lookups: u64,
    }
}
