//! Every byte of a shared volume, but for file data. All numbers are little-endian, save in keys,
//! which are big-endian so that they sort. Decoders check every length before they use it and never
//! panic.
//!
//! ```text
//!   block 0        superblock: where everything is; written once
//!   block 1 ..     journal: a ring of batches, each on whole blocks, in slice 0
//!   data first ..  data, as far as the capacity goes; grows with the volume
//!   tree first ..  the metadata tree, far above (the space between is never written)
//!
//! superblock, 4,096 bytes
//!   0  magic "MOORSHFS"    8  format u32      12 zeros u32      16 file system tag u64
//!   24 blocks in a slice u64                  32 journal first u64      40 journal blocks u64
//!   48 data first u64      56 tree first u64  64 zeros          4092 crc u32 over bytes 0..4092
//!
//! journal batch: header of 64 bytes, body, zeros up to a whole block
//!   0  magic "MOORJRNL"    8  format u32      12 body bytes u32 16 journal number u64
//!   24 file system tag u64 32 attachment epoch u64              40 records u32
//!   44 crc u32 of the body 48 header crc of the batch before u32       52 zeros
//!   60 crc u32 over bytes 0..60
//!   body: records, one after the other
//!
//! record: the changes of one operation, which are applied together
//!   0  format u8           1  row changes u32    5  data claims u32
//!   row change: key length u16 | key | 1 u8, value length u32, value   (put)
//!                                    | 0 u8                            (delete)
//!   data claim: inode u64, file block u64, address u64, count u32,
//!               oldest version: epoch u32, sequence u64, newest version: epoch u32, sequence u64,
//!                                    | 0 u8                            (otherwise a hole)
//!                                    | 1 u8, from u16                  (otherwise zeros from there)
//!                                    | 2 u8, length u16, bytes         (otherwise these bytes)
//! ```
//! A *data claim* says which versions the blocks of a file got before the record was; and what those
//! are to be that are older, after a power cut.
//!
//! Keys stand in [`Key`], the values of each kind of row in the types named there. Every value
//! begins with a byte for its format, so that rows can be read by newer programs and be rewritten
//! one by one.

mod codec;
mod inode;
mod journal;
mod key;
mod rows;
mod superblock;

pub use inode::{InodeFlags, InodeRow};
pub use journal::{
    Batch, BatchHeader, DataClaim, JournalError, Otherwise, Record, Versions, batch_blocks,
};
pub use key::{Key, KeyRange};
pub use rows::{
    CountRow, EntryRow, ExtentRow, ExtentState, PlaceRow, ReplyRow, SessionRow, StateRow,
};
pub use superblock::{Superblock, SuperblockError};

/// Up to this many bytes a file lies in the tree, beside its inode, and needs no block of its own.
/// It is charged one nevertheless, so that it can always grow out of the tree.
pub const INLINE_BYTES: usize = mooring_terms::BLOCK_SIZE;

/// The most bytes in a symlink's target, as Linux has it (`PATH_MAX` with its NUL).
pub const TARGET_MAX: usize = 4095;

/// The most bytes in the value of an extended attribute.
pub const XATTR_VALUE_MAX: usize = 65_536;

/// The most bytes in the name of an extended attribute.
pub const XATTR_NAME_MAX: usize = 255;

/// The most bytes of a file: what a signed 64-bit offset can name, in whole blocks.
pub const FILE_SIZE_MAX: u64 = (i64::MAX as u64) & !(mooring_terms::BLOCK_SIZE as u64 - 1);

/// The most blocks in one extent (1 GiB), so that counts fit anywhere and no extent is unwieldy.
pub const EXTENT_BLOCKS_MAX: u64 = 1 << 18;

/// The format of everything, in this version of the program.
pub const FORMAT: u32 = 1;

#[cfg(test)]
mod tests;
