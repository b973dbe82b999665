//! The kernel's FUSE messages, field by field, as `include/uapi/linux/fuse.h` lays them out.
//!
//! All numbers are in the machine's own byte order. Every struct is declared with its size, which
//! is checked at compile time, and read and written field by field: no bytes are reinterpreted.
//!
//! Versions: the lowest spoken is 7.31 (Linux 5.4), the highest 7.45 (Linux 6.18). In between, what
//! matters here: 7.36 added `flags2` to INIT; resending came with flag bit 39 in Linux 6.9.

/// Declares a message part: its fields in order, and its size in bytes.
macro_rules! wire {
    ($($(#[$meta:meta])* $name:ident = $size:literal { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[repr(C)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }

        const _: () = assert!(size_of::<$name>() == $size);

        impl $name {
            /// Bytes on the wire.
            pub const SIZE: usize = $size;

            /// Reads it off the front of `bytes`; `None` if they are too few.
            #[must_use]
            pub fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
                let rest = bytes;
                $(let (raw, rest) = rest.split_first_chunk::<{ size_of::<$type>() }>()?;
                let $field = <$type>::from_ne_bytes(*raw);)*
                Some((Self { $($field,)* }, rest))
            }

            /// Appends it to `frame`.
            pub fn encode(&self, frame: &mut Frame) {
                $(frame.push(&self.$field.to_ne_bytes());)*
            }
        }
    )*};
}

/// A small message being put together, without an allocation.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    bytes: [u8; Frame::CAPACITY],
    length: usize,
}

impl Frame {
    /// The longest message that is put together here: a directory listing of three names.
    pub const CAPACITY: usize = 256;

    /// An empty frame.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: [0; Self::CAPACITY], length: 0 }
    }

    /// Appends bytes.
    ///
    /// # Panics
    /// If the message becomes longer than [`Frame::CAPACITY`]; all messages here have a fixed,
    /// shorter length.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    /// What was put together.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Default for Frame {
    fn default() -> Self {
        Self::new()
    }
}

wire! {
    /// What every request begins with.
    InHeader = 40 {
        /// Bytes of the whole request, this header included.
        len: u32,
        /// One of [`opcode`].
        opcode: u32,
        /// The request's number; see [`UNIQUE_RESEND`].
        unique: u64,
        /// The node it is about.
        node: u64,
        /// The caller's user.
        uid: u32,
        /// The caller's group.
        gid: u32,
        /// The caller.
        pid: u32,
        /// Length of the extensions at the request's end, in units of 8 bytes.
        extension_len: u16,
        /// Unused.
        padding: u16,
    }

    /// What every answer begins with.
    OutHeader = 16 {
        /// Bytes of the whole answer, this header included.
        len: u32,
        /// 0, or an errno with its sign turned; a notification's code where `unique` is 0.
        error: i32,
        /// The number of the request that is answered.
        unique: u64,
    }

    /// INIT up to 7.35; the rest follows in [`InitInTail`].
    InitIn = 16 {
        /// Major version, 7.
        major: u32,
        /// Minor version.
        minor: u32,
        /// Largest read-ahead in bytes.
        max_readahead: u32,
        /// [`init`] bits 0 to 31.
        flags: u32,
    }

    /// What 7.36 appended to INIT.
    InitInTail = 48 {
        /// [`init`] bits 32 to 63.
        flags2: u32,
        /// Unused.
        unused0: u32,
        /// Unused.
        unused1: u64,
        /// Unused.
        unused2: u64,
        /// Unused.
        unused3: u64,
        /// Unused.
        unused4: u64,
        /// Unused.
        unused5: u64,
    }

    /// The answer to INIT.
    InitOut = 64 {
        /// Major version, 7.
        major: u32,
        /// The lower of both sides' minor versions.
        minor: u32,
        /// Largest read-ahead in bytes.
        max_readahead: u32,
        /// [`init`] bits 0 to 31.
        flags: u32,
        /// How many asynchronous requests may be in flight.
        max_background: u16,
        /// From how many on the kernel calls the connection congested.
        congestion_threshold: u16,
        /// Largest write in bytes.
        max_write: u32,
        /// Granularity of times in nanoseconds.
        time_gran: u32,
        /// Largest request in pages.
        max_pages: u16,
        /// Unused (DAX).
        map_alignment: u16,
        /// [`init`] bits 32 to 63.
        flags2: u32,
        /// Unused here (stacking).
        max_stack_depth: u32,
        /// Seconds until the kernel aborts an unanswered connection; 0 is never, as we want it.
        request_timeout: u16,
        /// Unused.
        unused0: u16,
        /// Unused.
        unused1: u32,
        /// Unused.
        unused2: u32,
        /// Unused.
        unused3: u32,
        /// Unused.
        unused4: u32,
        /// Unused.
        unused5: u32,
    }

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
        /// Which fields are set: [`setattr`].
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

    /// The answer to OPEN and OPENDIR.
    OpenOut = 16 {
        /// What the kernel names the open file by.
        fh: u64,
        /// [`open`] bits.
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
}

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

/// Codes of notifications (in [`OutHeader::error`], with `unique` 0).
pub mod notify {
    /// Send again what was read from any descriptor of the connection and never answered.
    pub const RESEND: i32 = 7;
}

/// Requests.
#[allow(missing_docs)]
pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
}

/// What the two sides agree on in INIT.
pub mod init {
    /// Reads may be in flight together.
    pub const ASYNC_READ: u64 = 1 << 0;
    /// Writes longer than a page.
    pub const BIG_WRITES: u64 = 1 << 5;
    /// Direct I/O is asynchronous where its caller's is.
    pub const ASYNC_DIO: u64 = 1 << 15;
    /// `max_pages` is set.
    pub const MAX_PAGES: u64 = 1 << 22;
    /// `flags2` is set.
    pub const EXT: u64 = 1 << 30;
    /// The kernel knows [`super::notify::RESEND`].
    pub const HAS_RESEND: u64 = 1 << 39;
}

/// What OPEN's answer asks for.
pub mod open {
    /// No page cache: every read and write comes here.
    pub const DIRECT_IO: u32 = 1 << 0;
    /// Direct writes to the file may run side by side.
    pub const PARALLEL_DIRECT_WRITES: u32 = 1 << 6;
}

/// What SETATTR sets.
pub mod setattr {
    /// The size.
    pub const SIZE: u32 = 1 << 3;
}
