//! Numbers of the NBD protocol, as its protocol document (NetworkBlockDevice/nbd, doc/proto.md) has
//! them. All integers on the wire are big-endian.
//!
//! What is spoken: fixed newstyle with structured replies and the metadata context
//! `base:allocation`. Not spoken: oldstyle, extended headers, CACHE, RESIZE; they are refused as the
//! document says, and the client goes on without.

/// The largest READ or WRITE in bytes: what clients take for granted that aren't told.
pub const REQUEST_MAX: u32 = 32 << 20;

/// The largest option in bytes; longer ones are skipped and refused. A name may have 4096 bytes.
pub(super) const OPTION_MAX: u32 = 64 << 10;

/// The longest name and query in bytes.
pub(super) const STRING_MAX: u32 = 4096;

/// First and second word of the server's greeting; the second begins every option, too.
pub(super) const GREETING: u64 = 0x4e42_444d_4147_4943;
pub(super) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
pub(super) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

/// Flags of the greeting, and of the client's answer to it.
pub(super) mod greeting {
    pub(in crate::nbd) const FIXED_NEWSTYLE: u16 = 1;
    pub(in crate::nbd) const NO_ZEROES: u16 = 2;
}

/// Bytes of zeros after the answer to EXPORT_NAME, for clients that want them.
pub(super) const EXPORT_NAME_ZEROES: usize = 124;

/// Options.
pub(super) mod option {
    pub(in crate::nbd) const EXPORT_NAME: u32 = 1;
    pub(in crate::nbd) const ABORT: u32 = 2;
    pub(in crate::nbd) const LIST: u32 = 3;
    pub(in crate::nbd) const STARTTLS: u32 = 5;
    pub(in crate::nbd) const INFO: u32 = 6;
    pub(in crate::nbd) const GO: u32 = 7;
    pub(in crate::nbd) const STRUCTURED_REPLY: u32 = 8;
    pub(in crate::nbd) const LIST_META_CONTEXT: u32 = 9;
    pub(in crate::nbd) const SET_META_CONTEXT: u32 = 10;
}

/// Replies to options.
pub(super) mod reply {
    pub(in crate::nbd) const ACK: u32 = 1;
    pub(in crate::nbd) const SERVER: u32 = 2;
    pub(in crate::nbd) const INFO: u32 = 3;
    pub(in crate::nbd) const META_CONTEXT: u32 = 4;
    const ERROR: u32 = 1 << 31;
    pub(in crate::nbd) const ERR_UNSUP: u32 = ERROR | 1;
    pub(in crate::nbd) const ERR_POLICY: u32 = ERROR | 2;
    pub(in crate::nbd) const ERR_INVALID: u32 = ERROR | 3;
    pub(in crate::nbd) const ERR_TLS_REQD: u32 = ERROR | 5;
    pub(in crate::nbd) const ERR_UNKNOWN: u32 = ERROR | 6;
    pub(in crate::nbd) const ERR_TOO_BIG: u32 = ERROR | 9;
}

/// What INFO and GO can tell.
pub(super) mod info {
    pub(in crate::nbd) const EXPORT: u16 = 0;
    pub(in crate::nbd) const NAME: u16 = 1;
    pub(in crate::nbd) const DESCRIPTION: u16 = 2;
    pub(in crate::nbd) const BLOCK_SIZE: u16 = 3;
}

/// What an export can do.
pub(super) mod export {
    pub(in crate::nbd) const HAS_FLAGS: u16 = 1;
    pub(in crate::nbd) const READ_ONLY: u16 = 1 << 1;
    pub(in crate::nbd) const SEND_FLUSH: u16 = 1 << 2;
    pub(in crate::nbd) const SEND_FUA: u16 = 1 << 3;
    pub(in crate::nbd) const SEND_TRIM: u16 = 1 << 5;
    pub(in crate::nbd) const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub(in crate::nbd) const SEND_DF: u16 = 1 << 7;
    pub(in crate::nbd) const CAN_MULTI_CONN: u16 = 1 << 8;
    pub(in crate::nbd) const SEND_FAST_ZERO: u16 = 1 << 11;

    /// What every export of ours can do. One volume stands behind all connections, and nothing is cached
    /// before it: a flush on any of them covers what was answered on all (see `BlockIo::flush`).
    pub(in crate::nbd) const fn flags(read_only: bool) -> u16 {
        let always = HAS_FLAGS | SEND_FLUSH | CAN_MULTI_CONN;
        if read_only {
            return always | READ_ONLY;
        }
        always | SEND_FUA | SEND_TRIM | SEND_WRITE_ZEROES | SEND_FAST_ZERO
    }
}

pub(super) const REQUEST_MAGIC: u32 = 0x2560_9513;
pub(super) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
pub(super) const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Bytes of a request before its payload.
pub(super) const REQUEST_BYTES: usize = 28;

/// Commands.
pub(super) mod command {
    pub(in crate::nbd) const READ: u16 = 0;
    pub(in crate::nbd) const WRITE: u16 = 1;
    pub(in crate::nbd) const DISC: u16 = 2;
    pub(in crate::nbd) const FLUSH: u16 = 3;
    pub(in crate::nbd) const TRIM: u16 = 4;
    pub(in crate::nbd) const WRITE_ZEROES: u16 = 6;
    pub(in crate::nbd) const BLOCK_STATUS: u16 = 7;
}

/// Flags of a command.
pub(super) mod flag {
    pub(in crate::nbd) const FUA: u16 = 1;
    pub(in crate::nbd) const NO_HOLE: u16 = 1 << 1;
    pub(in crate::nbd) const DF: u16 = 1 << 2;
    pub(in crate::nbd) const REQ_ONE: u16 = 1 << 3;
    pub(in crate::nbd) const FAST_ZERO: u16 = 1 << 4;
}

/// Kinds of chunks of a structured reply, and the flag on the last one.
pub(super) mod chunk {
    pub(in crate::nbd) const DONE: u16 = 1;
    pub(in crate::nbd) const NONE: u16 = 0;
    pub(in crate::nbd) const OFFSET_DATA: u16 = 1;
    pub(in crate::nbd) const BLOCK_STATUS: u16 = 5;
    pub(in crate::nbd) const ERROR: u16 = 1 << 15 | 1;
}

/// The one metadata context, and the number it is given.
pub(super) const ALLOCATION: &str = "base:allocation";
pub(super) const ALLOCATION_ID: u32 = 1;

/// States of `base:allocation`.
pub(super) mod state {
    pub(in crate::nbd) const HOLE: u32 = 1;
    pub(in crate::nbd) const ZERO: u32 = 2;
}

/// Errors of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Errno {
    /// Not on a read-only export.
    Permission = 1,
    /// The volume failed.
    Io = 5,
    /// The request makes no sense.
    Invalid = 22,
    /// No space, or beyond the end.
    NoSpace = 28,
}
