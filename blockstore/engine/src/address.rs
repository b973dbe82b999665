//! Where bytes lie in a pool.

use std::fmt;

/// The number of a segment in its pool, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u32);

impl fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {}", self.0)
    }
}

/// The dense, pool-wide number of a record in the log; the first is 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogNumber(pub u64);

impl LogNumber {
    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Debug for LogNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log {}", self.0)
    }
}

impl fmt::Display for LogNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A byte's place: segment in the upper half, offset in bytes in the lower. The segment stays below
/// 2^28, which leaves the four top bits to [`crate::map::Packed`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Address(pub(crate) u64);

/// Segments are numbered below this.
pub(crate) const MAX_SEGMENTS: u32 = 1 << 28;

impl Address {
    /// The byte at `offset` of `segment`.
    pub(crate) fn new(segment: SegmentId, offset: u64) -> Self {
        debug_assert!(segment.0 < MAX_SEGMENTS && offset <= u64::from(u32::MAX));
        Self(u64::from(segment.0) << 32 | offset)
    }

    pub(crate) fn segment(self) -> SegmentId {
        SegmentId((self.0 >> 32) as u32)
    }

    pub(crate) fn offset(self) -> u64 {
        self.0 & 0xffff_ffff
    }

    /// The byte `bytes` further on in the same segment.
    pub(crate) fn plus(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:#x}", self.segment().0, self.offset())
    }
}

/// Hashes an address by one multiplication (Knuth 6.4): tables keyed by address are looked up for
/// every block of every leaf that a checkpoint merges, and nobody chooses addresses to collide.
#[derive(Default)]
pub(crate) struct AddressHasher(u64);

impl std::hash::Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

/// A map keyed by address.
pub(crate) type AddressMap<T> =
    std::collections::HashMap<Address, T, std::hash::BuildHasherDefault<AddressHasher>>;
