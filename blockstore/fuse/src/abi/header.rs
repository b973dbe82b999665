//! What every message begins with, and the handshake.

use super::Frame;

wire! {
    /// What every request begins with.
    InHeader = 40 {
        /// Bytes of the whole request, this header included.
        len: u32,
        /// One of [`super::opcode`].
        opcode: u32,
        /// The request's number; see [`super::UNIQUE_RESEND`].
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
        /// [`super::init`] bits 0 to 31.
        flags: u32,
    }

    /// What 7.36 appended to INIT.
    InitInTail = 48 {
        /// [`super::init`] bits 32 to 63.
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
        /// [`super::init`] bits 0 to 31.
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
        /// [`super::init`] bits 32 to 63.
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
}
