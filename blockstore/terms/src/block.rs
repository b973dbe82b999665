//! Blocks, ranges of blocks, and data with its checksums.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::BlockIndex;

/// Bytes in a block: the unit of addressing, checksums and versions.
pub const BLOCK_SIZE: usize = 4096;

/// The crc32c of a block of zeros.
pub const ZERO_BLOCK_CRC: u32 = 0x98f9_4189;

/// crc32c (Castagnoli) of `bytes`: the checksum of every block from the client to the disk and back.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    // A fuzzer never finds a checksum; what lies behind them is what it is to try.
    if cfg!(fuzzing) {
        return 0;
    }
    crc_fast::crc32_iscsi(bytes)
}

/// `count` blocks of a slice from `first` on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockRange {
    /// The first block.
    pub first: BlockIndex,
    /// How many blocks.
    pub count: u64,
}

impl BlockRange {
    /// `count` blocks from `first` on.
    #[must_use]
    pub fn new(first: BlockIndex, count: u64) -> Self {
        Self { first, count }
    }

    /// The first block behind the range.
    #[must_use]
    pub fn end(&self) -> BlockIndex {
        BlockIndex(self.first.0.saturating_add(self.count))
    }

    /// Whether the two ranges share a block.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first < other.end() && other.first < self.end()
    }

    /// Whether `block` lies in the range.
    #[must_use]
    pub fn contains(&self, block: BlockIndex) -> bool {
        self.first <= block && block < self.end()
    }

    /// The length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.count.saturating_mul(BLOCK_SIZE as u64)
    }
}

impl fmt::Debug for BlockRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}+{}]", self.first.0, self.count)
    }
}

/// What makes bytes and checksums unfit to be [`Data`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataError {
    /// The length is no multiple of the block size.
    Length,
    /// There is not exactly one checksum a block.
    ChecksumCount,
}

/// Whole blocks with one crc32c each, computed where the data entered the system. Cheap to clone:
/// bytes and checksums are shared, never copied.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawData", into = "RawData")]
pub struct Data {
    bytes: Bytes,
    crcs: Arc<[u32]>,
}

/// The form in which [`Data`] is encoded; checked on the way in.
#[derive(Serialize, Deserialize)]
struct RawData {
    bytes: Bytes,
    crcs: Vec<u32>,
}

impl Data {
    /// Takes bytes that enter the system here, and computes their checksums.
    ///
    /// # Panics
    /// If the length is no multiple of [`BLOCK_SIZE`]; callers cut requests into blocks first.
    #[must_use]
    pub fn checksummed(bytes: Bytes) -> Self {
        assert!(bytes.len().is_multiple_of(BLOCK_SIZE), "data is not whole blocks");
        let crcs = bytes.chunks_exact(BLOCK_SIZE).map(crc32c).collect();
        Self { bytes, crcs }
    }

    /// Takes bytes with the checksums they came with, unverified: see [`Data::first_corrupt`].
    ///
    /// # Errors
    /// [`DataError`] if lengths and counts don't fit each other.
    pub fn from_parts(bytes: Bytes, crcs: Arc<[u32]>) -> Result<Self, DataError> {
        if !bytes.len().is_multiple_of(BLOCK_SIZE) {
            return Err(DataError::Length);
        }
        if bytes.len() / BLOCK_SIZE != crcs.len() {
            return Err(DataError::ChecksumCount);
        }
        Ok(Self { bytes, crcs })
    }

    /// The bytes of all blocks.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// One crc32c a block.
    #[must_use]
    pub fn crcs(&self) -> &[u32] {
        &self.crcs
    }

    /// How many blocks.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.crcs.len() as u64
    }

    /// The bytes of block `i` of this data.
    #[must_use]
    pub fn block(&self, i: usize) -> &[u8] {
        &self.bytes[i * BLOCK_SIZE..(i + 1) * BLOCK_SIZE]
    }

    /// `count` blocks from block `first` of this data on, sharing its bytes.
    #[must_use]
    pub fn slice(&self, first: usize, count: usize) -> Self {
        Self {
            bytes: self.bytes.slice(first * BLOCK_SIZE..(first + count) * BLOCK_SIZE),
            crcs: self.crcs[first..first + count].into(),
        }
    }

    /// The index of the first block that doesn't match its checksum.
    #[must_use]
    pub fn first_corrupt(&self) -> Option<usize> {
        (0..self.crcs.len()).find(|&i| crc32c(self.block(i)) != self.crcs[i])
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Data({} blocks)", self.crcs.len())
    }
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "the data is not whole blocks",
            Self::ChecksumCount => "the data has not one checksum a block",
        })
    }
}

impl std::error::Error for DataError {}

impl TryFrom<RawData> for Data {
    type Error = DataError;

    fn try_from(raw: RawData) -> Result<Self, DataError> {
        Self::from_parts(raw.bytes, raw.crcs.into())
    }
}

impl From<Data> for RawData {
    fn from(data: Data) -> Self {
        Self { bytes: data.bytes, crcs: data.crcs.to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_block_crc_is_the_crc_of_zeros() {
        assert_eq!(crc32c(&[0; BLOCK_SIZE]), ZERO_BLOCK_CRC);
    }

    #[test]
    fn crc32c_has_the_published_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn data_of_uneven_length_or_checksum_count_is_refused() {
        let odd = Bytes::from_static(&[0; BLOCK_SIZE + 1]);
        assert_eq!(Data::from_parts(odd, [0].into()), Err(DataError::Length));
        let even = Bytes::from_static(&[0; BLOCK_SIZE]);
        assert_eq!(Data::from_parts(even, [0, 0].into()), Err(DataError::ChecksumCount));
    }

    #[test]
    fn a_flipped_bit_is_found() {
        let mut bytes = vec![7; 3 * BLOCK_SIZE];
        let crcs = Data::checksummed(Bytes::from(bytes.clone())).crcs().into();
        bytes[2 * BLOCK_SIZE] ^= 1;
        let data = Data::from_parts(Bytes::from(bytes), crcs).expect("lengths fit");
        assert_eq!(data.first_corrupt(), Some(2));
    }
}
