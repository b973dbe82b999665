//! The kernel's FUSE messages, field by field, as `include/uapi/linux/fuse.h` lays them out.
//!
//! All numbers are in the machine's own byte order. Every struct is declared with its size, which
//! is checked at compile time, and read and written field by field: no bytes are reinterpreted.
//!
//! Versions: the lowest spoken is 7.31 (Linux 5.4), the highest 7.45 (Linux 6.18). In between, what
//! matters here: 7.33 brought HANDLE_KILLPRIV_V2, 7.36 added `flags2` to INIT, 7.39 STATX and
//! DIRECT_IO_ALLOW_MMAP (Linux 6.6), 7.40 resending (Linux 6.9).

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

mod codes;
mod directory;
mod file;
mod header;
mod inode;

pub use codes::{
    UNIQUE_RESEND, init, lock, notify, opcode, open, read, release, setattr, statx, version, write,
};
pub use directory::{
    BatchForgetIn, Deleted, Dirent, ForgetOne, InvalidateEntry, InvalidateInode, LinkIn, MkdirIn,
    MknodIn, Rename2In, RenameIn,
};
pub use file::{
    CopyFileRangeIn, CreateIn, FallocateIn, FlushIn, FsyncIn, InterruptIn, LockIn, LockOut,
    LseekIn, LseekOut, OpenIn, OpenOut, ReadIn, ReleaseIn, WriteIn, WriteOut,
};
pub use header::{InHeader, InitIn, InitInTail, InitOut, OutHeader};
pub use inode::{
    AccessIn, Attr, AttrOut, EntryOut, ForgetIn, GetattrIn, GetxattrIn, GetxattrOut, SetattrIn,
    SetxattrIn, Statfs, Statx, StatxIn, StatxOut, StatxTail, StatxTime,
};

/// A small message being put together, without an allocation.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    bytes: [u8; Frame::CAPACITY],
    length: usize,
}

impl Frame {
    /// The longest message that is put together here: the answer to STATX.
    pub const CAPACITY: usize = 320;

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
