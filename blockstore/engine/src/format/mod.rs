//! Every byte that a pool writes. All numbers are little-endian; every structure has a magic or a
//! kind, and a crc32c.
//!
//! ```text
//! superblock, 4,096 bytes, written once
//!   0  magic "MOORPOOL"    8  format u32    12 segments u32   16 segment bytes u64
//!   24 pool tag u64        32 zeros         4092 crc u32 over bytes 0..4092
//!
//! checkpoint slot, 16,384 bytes
//!   0  magic "MOORCKPT"    8  format u32    12 chunks u32     16 checkpoint number u64
//!   24 pool tag u64        32 log number from which to roll forward u64
//!   40 its address u64     48 log number known durable u64    56 body bytes u64
//!   64 use of the segment at that address u32                 68 opening u32
//!   72 openings of the pool so far u64
//!   80 chunk refs of 16 bytes: address u64, length u32, crc u32
//!   16380 crc u32 over bytes 0..16380
//!
//! segment header, 64 bytes at offset 0 of each segment; records follow
//!   0  magic "MSEG"        4  format u32    8  pool tag u64   16 segment u32
//!   20 use u32             24 opening u32   28 successor u32  32 first log number u64
//!   40 successor's use u32 44 openings of the pool so far u64             52 zeros
//!   60 crc u32 over bytes 0..60
//!
//! record header, 72 bytes, at a multiple of 8; then meta, then data, then zeros up to 8
//!   0  magic "MREC"        4  kind u8       5  flags u8       6  zeros u16
//!   8  meta bytes u32      12 data bytes u32                  16 log number u64
//!   24 log number known durable u64         32 use u32        36 opening u32
//!   40 volume u64          48 slice u32     52 epoch u32      56 sequence u64
//!   64 segment u32         68 crc u32 over bytes 0..68 and the meta
//!   data is covered by the checksums in the meta, one a block
//! ```
//! The meta of each record kind stands in [`record`], map nodes in [`node`], the body of a
//! checkpoint in [`body`].

pub(crate) mod body;
pub(crate) mod node;
pub(crate) mod record;

use mooring_terms::crc32c;

use crate::address::Address;
use crate::{EngineError, LogNumber, Result, SegmentId};

/// The format that this program writes.
pub(crate) const FORMAT: u32 = 1;

pub(crate) const SUPERBLOCK_BYTES: usize = 4096;
pub(crate) const SUPERBLOCK_MAGIC: [u8; 8] = *b"MOORPOOL";
pub(crate) const SLOT_BYTES: usize = 16384;
pub(crate) const SLOT_MAGIC: [u8; 8] = *b"MOORCKPT";
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;
pub(crate) const SEGMENT_MAGIC: [u8; 4] = *b"MSEG";
pub(crate) const RECORD_HEADER_BYTES: usize = 72;
pub(crate) const RECORD_MAGIC: [u8; 4] = *b"MREC";
pub(crate) const RECORD_ALIGN: u64 = 8;

const SLOT_FIXED_BYTES: usize = 80;
const CHUNK_REF_BYTES: usize = 16;
/// The most chunks that a checkpoint's body can have.
pub(crate) const MAX_CHUNKS: usize = (SLOT_BYTES - 4 - SLOT_FIXED_BYTES) / CHUNK_REF_BYTES;

const _: () = assert!(RECORD_HEADER_BYTES.is_multiple_of(RECORD_ALIGN as usize));
const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(RECORD_ALIGN as usize));
const _: () = assert!(SLOT_FIXED_BYTES + MAX_CHUNKS * CHUNK_REF_BYTES + 4 <= SLOT_BYTES);

/// Appends little-endian numbers to a buffer.
pub(crate) trait Put {
    fn put_u8(&mut self, value: u8);
    fn put_u16(&mut self, value: u16);
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
    fn put_bytes(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }
    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Takes little-endian numbers off the front of a buffer; `None` at its end.
pub(crate) struct Take<'a>(pub(crate) &'a [u8]);

impl<'a> Take<'a> {
    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(front)
    }
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.bytes(1).map(|b| b[0])
    }
    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.bytes(2).and_then(|b| b.try_into().ok()).map(u16::from_le_bytes)
    }
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.bytes(4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes)
    }
    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.bytes(8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes)
    }
}

fn checked(bytes: &[u8], crc_at: usize) -> bool {
    bytes.get(crc_at..crc_at + 4).is_some_and(|crc| crc == crc32c(&bytes[..crc_at]).to_le_bytes())
}

/// The shape of a pool, for its whole life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Superblock {
    pub(crate) segments: u32,
    pub(crate) segment_bytes: u64,
    /// Tells this pool's segments from what an earlier pool left in the same place.
    pub(crate) tag: u64,
}

impl Superblock {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = SUPERBLOCK_MAGIC.to_vec();
        out.put_u32(FORMAT);
        out.put_u32(self.segments);
        out.put_u64(self.segment_bytes);
        out.put_u64(self.tag);
        out.resize(SUPERBLOCK_BYTES - 4, 0);
        let crc = crc32c(&out);
        out.put_u32(crc);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let broken = EngineError::Broken("superblock");
        if bytes.len() < SUPERBLOCK_BYTES || bytes[..8] != SUPERBLOCK_MAGIC {
            return Err(EngineError::NoPool);
        }
        if !checked(bytes, SUPERBLOCK_BYTES - 4) {
            return Err(broken);
        }
        let mut take = Take(&bytes[8..]);
        let mut fields = || Some((take.u32()?, take.u32()?, take.u64()?, take.u64()?));
        let Some((format, segments, segment_bytes, tag)) = fields() else { return Err(broken) };
        if format != FORMAT {
            return Err(EngineError::Format { found: format, known: FORMAT });
        }
        Ok(Self { segments, segment_bytes, tag })
    }
}

/// Where one chunk of a checkpoint's body lies: its record's meta.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ChunkRef {
    pub(crate) address: Address,
    pub(crate) length: u32,
    pub(crate) crc: u32,
}

/// A checkpoint slot: where the log goes on, and where the body lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    /// Raised by one with each checkpoint; the higher valid slot wins.
    pub(crate) number: u64,
    pub(crate) tag: u64,
    /// The first log number that the body does not hold, and where it is.
    pub(crate) roll_from: LogNumber,
    pub(crate) roll_at: Address,
    pub(crate) roll_use: u32,
    pub(crate) roll_opening: u32,
    /// How often the pool had been opened.
    pub(crate) openings: u64,
    pub(crate) durable: LogNumber,
    pub(crate) body_bytes: u64,
    pub(crate) chunks: Vec<ChunkRef>,
}

impl Slot {
    pub(crate) fn encode(&self) -> Vec<u8> {
        assert!(self.chunks.len() <= MAX_CHUNKS, "the chunk size grows with the body");
        let mut out = SLOT_MAGIC.to_vec();
        out.put_u32(FORMAT);
        out.put_u32(self.chunks.len() as u32);
        for value in [
            self.number,
            self.tag,
            self.roll_from.0,
            self.roll_at.0,
            self.durable.0,
            self.body_bytes,
        ] {
            out.put_u64(value);
        }
        out.put_u32(self.roll_use);
        out.put_u32(self.roll_opening);
        out.put_u64(self.openings);
        debug_assert_eq!(out.len(), SLOT_FIXED_BYTES);
        for chunk in &self.chunks {
            out.put_u64(chunk.address.0);
            out.put_u32(chunk.length);
            out.put_u32(chunk.crc);
        }
        out.resize(SLOT_BYTES - 4, 0);
        let crc = crc32c(&out);
        out.put_u32(crc);
        out
    }

    /// `None` if the slot is torn, rotten or was never written.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < SLOT_BYTES
            || bytes[..8] != SLOT_MAGIC
            || !checked(&bytes[..SLOT_BYTES], SLOT_BYTES - 4)
        {
            return None;
        }
        let mut take = Take(&bytes[8..]);
        if take.u32()? != FORMAT {
            return None;
        }
        let count = take.u32()? as usize;
        let (number, tag) = (take.u64()?, take.u64()?);
        let (roll_from, roll_at) = (LogNumber(take.u64()?), Address(take.u64()?));
        let (durable, body_bytes) = (LogNumber(take.u64()?), take.u64()?);
        let (roll_use, roll_opening, openings) = (take.u32()?, take.u32()?, take.u64()?);
        if count > MAX_CHUNKS {
            return None;
        }
        let chunks = (0..count)
            .map(|_| {
                let (address, length, crc) = (Address(take.u64()?), take.u32()?, take.u32()?);
                Some(ChunkRef { address, length, crc })
            })
            .collect::<Option<_>>()?;
        Some(Self {
            number,
            tag,
            roll_from,
            roll_at,
            roll_use,
            roll_opening,
            openings,
            durable,
            body_bytes,
            chunks,
        })
    }
}

/// The start of a segment in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) tag: u64,
    pub(crate) segment: SegmentId,
    /// How often the segment has been written from its start.
    pub(crate) use_count: u32,
    /// A number drawn at the pool's opening: what one opening left unfinished is never taken for
    /// the work of the next.
    pub(crate) opening: u32,
    /// How often the pool had been opened, this opening included.
    pub(crate) openings: u64,
    pub(crate) first: LogNumber,
    /// Where the log goes on when this segment is full.
    pub(crate) successor: SegmentId,
    pub(crate) successor_use: u32,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        out.put_bytes(&SEGMENT_MAGIC);
        out.put_u32(FORMAT);
        out.put_u64(self.tag);
        for value in [self.segment.0, self.use_count, self.opening, self.successor.0] {
            out.put_u32(value);
        }
        out.put_u64(self.first.0);
        out.put_u32(self.successor_use);
        out.put_u64(self.openings);
        out.resize(SEGMENT_HEADER_BYTES - 4, 0);
        let crc = crc32c(&out);
        out.put_u32(crc);
        out.try_into().expect("the header has 64 bytes")
    }

    /// `None` if this is no segment header.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < SEGMENT_HEADER_BYTES
            || bytes[..4] != SEGMENT_MAGIC
            || !checked(&bytes[..SEGMENT_HEADER_BYTES], SEGMENT_HEADER_BYTES - 4)
        {
            return None;
        }
        let mut take = Take(&bytes[4..]);
        if take.u32()? != FORMAT {
            return None;
        }
        let tag = take.u64()?;
        let (segment, use_count, opening) = (SegmentId(take.u32()?), take.u32()?, take.u32()?);
        let (successor, first) = (SegmentId(take.u32()?), LogNumber(take.u64()?));
        let (successor_use, openings) = (take.u32()?, take.u64()?);
        Some(Self { tag, segment, use_count, opening, openings, first, successor, successor_use })
    }

    /// Whether the log goes on from this segment in `next`. What an earlier opening wrote into the
    /// segment that this one only meant to use has the right use, but not the right opening; a
    /// later opening is fine, since it began where this one's records end.
    pub(crate) fn leads_to(&self, next: &Self) -> bool {
        self.successor == next.segment
            && self.successor_use == next.use_count
            && self.tag == next.tag
            && (self.opening == next.opening || self.openings < next.openings)
    }
}
