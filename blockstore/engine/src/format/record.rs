//! Records of the log: the header, and the meta of each kind.
//!
//! ```text
//! meta, in this order:
//!   state     if flag 1 is set: length u32, bytes (the replica's opaque state from here on)
//!   then by kind:
//!   1 write, 5 copy, 7 repair   first block u64, count u32, crc u32 x count, bitmap of the blocks
//!                               whose data follows (the others are zeros), (count + 7) / 8 bytes
//!   2 discard, 6 copy hole, 19 copy lost    first block u64, count u64
//!   3 control                   the record's bytes
//!   4 state, 8 supersede, 9 position, 10 create, 11 remove, 18 joined    nothing
//!   12 snapshot, 13 remove snapshot    snapshot u64
//!   14 moved    count u32; a block each: block u64, sequence u64, epoch u32, crc u32, from u64
//!   15 kept     kind u8, flags u8, meta of the record that is kept; its data follows
//!   16 node     see node.rs        17 body     see body.rs
//! ```
//! Numbered records (1 to 3) carry their version in the header; 5 to 9 and 19 the version they name.
//! Kind 19, and what is lost in map nodes, is in no pool of a cluster below version 2.

use bytes::Bytes;
use mooring_terms::{
    BLOCK_SIZE, BlockIndex, BlockRange, Body, Data, Epoch, Record, Sequence, SliceId, SliceIndex,
    SnapshotId, Version, VolumeId, ZERO_BLOCK_CRC, crc32c,
};

use super::{Put, RECORD_HEADER_BYTES, RECORD_MAGIC, Take};
use crate::address::Address;
use crate::{LogNumber, SegmentId};

const FLAG_STATE: u8 = 1;

/// The fixed part of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RecordHeader {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) meta_bytes: u32,
    pub(crate) data_bytes: u32,
    pub(crate) log: LogNumber,
    pub(crate) durable: LogNumber,
    pub(crate) use_count: u32,
    pub(crate) opening: u32,
    pub(crate) slice: SliceId,
    pub(crate) version: Version,
    pub(crate) segment: SegmentId,
}

impl RecordHeader {
    /// The header's bytes with the checksum over them and the meta.
    pub(crate) fn encode(&self, meta: &[u8]) -> [u8; RECORD_HEADER_BYTES] {
        let mut out = [0; RECORD_HEADER_BYTES];
        out[..4].copy_from_slice(&RECORD_MAGIC);
        out[4] = self.kind;
        out[5] = self.flags;
        out[8..12].copy_from_slice(&self.meta_bytes.to_le_bytes());
        out[12..16].copy_from_slice(&self.data_bytes.to_le_bytes());
        out[16..24].copy_from_slice(&self.log.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.durable.0.to_le_bytes());
        out[32..36].copy_from_slice(&self.use_count.to_le_bytes());
        out[36..40].copy_from_slice(&self.opening.to_le_bytes());
        out[40..48].copy_from_slice(&self.slice.volume.0.to_le_bytes());
        out[48..52].copy_from_slice(&self.slice.index.0.to_le_bytes());
        out[52..56].copy_from_slice(&self.version.epoch.0.to_le_bytes());
        out[56..64].copy_from_slice(&self.version.sequence.0.to_le_bytes());
        out[64..68].copy_from_slice(&self.segment.0.to_le_bytes());
        let crc = header_crc(&out[..68], meta);
        out[68..72].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header in front of `bytes`, its checksum not yet verified; `None` without the magic.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < RECORD_HEADER_BYTES || bytes[..4] != RECORD_MAGIC {
            return None;
        }
        let mut take = Take(&bytes[4..]);
        let (kind, flags, _) = (take.u8()?, take.u8()?, take.u16()?);
        let (meta_bytes, data_bytes) = (take.u32()?, take.u32()?);
        let (log, durable) = (LogNumber(take.u64()?), LogNumber(take.u64()?));
        let (use_count, opening) = (take.u32()?, take.u32()?);
        let slice = SliceId { volume: VolumeId(take.u64()?), index: SliceIndex(take.u32()?) };
        let version = Version::new(Epoch(take.u32()?), Sequence(take.u64()?));
        let segment = SegmentId(take.u32()?);
        Some(Self {
            kind,
            flags,
            meta_bytes,
            data_bytes,
            log,
            durable,
            use_count,
            opening,
            slice,
            version,
            segment,
        })
    }

    /// Whether the header's bytes and the meta match their checksum.
    pub(crate) fn verify(header: &[u8], meta: &[u8]) -> bool {
        header[68..72] == header_crc(&header[..68], meta).to_le_bytes()
    }

    /// Bytes from the header's start to the end of its data, unpadded.
    pub(crate) fn total_bytes(&self) -> u64 {
        RECORD_HEADER_BYTES as u64 + u64::from(self.meta_bytes) + u64::from(self.data_bytes)
    }
}

fn header_crc(header: &[u8], meta: &[u8]) -> u32 {
    // Two checksums into one: no buffer in which both would stand side by side.
    let mut pair = [0; 8];
    pair[..4].copy_from_slice(&crc32c(header).to_le_bytes());
    pair[4..].copy_from_slice(&crc32c(meta).to_le_bytes());
    crc32c(&pair)
}

/// Consecutive blocks with their checksums; blocks of zeros have no data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Blocks {
    pub(crate) first: u64,
    pub(crate) crcs: Vec<u32>,
    stored: Vec<u8>,
}

impl Blocks {
    /// The blocks of `data`, and the runs of it that need storing.
    pub(crate) fn of(first: BlockIndex, data: &Data) -> (Self, Vec<Bytes>) {
        let count = data.crcs().len();
        let mut stored = vec![0_u8; count.div_ceil(8)];
        let mut runs = Vec::new();
        let mut start = None;
        for i in 0..count {
            // The checksum decides quickly, the bytes decide surely.
            let zero = data.crcs()[i] == ZERO_BLOCK_CRC && is_zero(data.block(i));
            if !zero {
                stored[i / 8] |= 1 << (i % 8);
                start.get_or_insert(i);
            } else if let Some(from) = start.take() {
                runs.push(data.bytes().slice(from * BLOCK_SIZE..i * BLOCK_SIZE));
            }
        }
        if let Some(from) = start {
            runs.push(data.bytes().slice(from * BLOCK_SIZE..count * BLOCK_SIZE));
        }
        (Self { first: first.0, crcs: data.crcs().to_vec(), stored }, runs)
    }

    pub(crate) fn is_stored(&self, i: usize) -> bool {
        self.stored[i / 8] & (1 << (i % 8)) != 0
    }

    pub(crate) fn stored_count(&self) -> usize {
        self.stored.iter().map(|byte| byte.count_ones() as usize).sum()
    }

    /// The data that [`Blocks::of`] took apart.
    pub(crate) fn data(&self, stored: &[u8]) -> Option<Data> {
        let mut bytes = Vec::with_capacity(self.crcs.len() * BLOCK_SIZE);
        let mut rest = stored.chunks_exact(BLOCK_SIZE);
        for i in 0..self.crcs.len() {
            if self.is_stored(i) {
                bytes.extend_from_slice(rest.next()?);
            } else {
                bytes.resize(bytes.len() + BLOCK_SIZE, 0);
            }
        }
        Data::from_parts(bytes.into(), self.crcs.as_slice().into()).ok()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.first);
        out.put_u32(self.crcs.len() as u32);
        for crc in &self.crcs {
            out.put_u32(*crc);
        }
        out.put_bytes(&self.stored);
    }

    fn decode(take: &mut Take<'_>) -> Option<Self> {
        let first = take.u64()?;
        let count = take.u32()? as usize;
        let crcs = take
            .bytes(count.checked_mul(4)?)?
            .chunks_exact(4)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        let stored = take.bytes(count.div_ceil(8))?.to_vec();
        let spare = count % 8;
        if spare != 0 && stored[count / 8] >> spare != 0 {
            return None;
        }
        Some(Self { first, crcs, stored })
    }

    fn matches(&self, data: &[u8]) -> bool {
        let mut blocks = data.chunks_exact(BLOCK_SIZE);
        (0..self.crcs.len())
            .filter(|&i| self.is_stored(i))
            .all(|i| blocks.next().is_some_and(|block| crc32c(block) == self.crcs[i]))
    }
}

fn is_zero(block: &[u8]) -> bool {
    block.chunks_exact(16).all(|chunk| chunk == [0; 16])
}

/// A block that reclaim copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MovedBlock {
    pub(crate) block: u64,
    pub(crate) version: Version,
    /// Of the bytes as copied. The map keeps the block's own checksum: what was corrupt stays so.
    pub(crate) crc: u32,
    pub(crate) from: Address,
}

/// What a record does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    Write(Blocks),
    Discard(BlockRange),
    Control(Bytes),
    State,
    Copy(Blocks),
    CopyHole(BlockRange),
    CopyLost(BlockRange),
    Repair(Blocks),
    Supersede,
    Position,
    Joined,
    Create,
    Remove,
    Snapshot(SnapshotId),
    RemoveSnapshot(SnapshotId),
    Moved(Vec<MovedBlock>),
    Kept(Box<Logged>),
    /// A map node; the bytes are its meta.
    Node(Bytes),
    /// A chunk of a checkpoint's body.
    Chunk(Bytes),
}

/// A record without its place in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Logged {
    pub(crate) slice: SliceId,
    pub(crate) version: Version,
    pub(crate) operation: Operation,
    pub(crate) state: Option<Bytes>,
}

impl Logged {
    pub(crate) fn kind(&self) -> u8 {
        match self.operation {
            Operation::Write(_) => 1,
            Operation::Discard(_) => 2,
            Operation::Control(_) => 3,
            Operation::State => 4,
            Operation::Copy(_) => 5,
            Operation::CopyHole(_) => 6,
            Operation::Repair(_) => 7,
            Operation::Supersede => 8,
            Operation::Position => 9,
            Operation::Create => 10,
            Operation::Remove => 11,
            Operation::Snapshot(_) => 12,
            Operation::RemoveSnapshot(_) => 13,
            Operation::Moved(_) => 14,
            Operation::Kept(_) => 15,
            Operation::Node(_) => 16,
            Operation::Chunk(_) => 17,
            Operation::Joined => 18,
            Operation::CopyLost(_) => 19,
        }
    }

    pub(crate) fn flags(&self) -> u8 {
        if self.state.is_some() { FLAG_STATE } else { 0 }
    }

    /// Whether the record takes a place in its slice's order.
    pub(crate) fn numbered(&self) -> bool {
        matches!(
            self.operation,
            Operation::Write(_) | Operation::Discard(_) | Operation::Control(_)
        )
    }

    pub(crate) fn encode_meta(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        if let Some(state) = &self.state {
            out.put_u32(state.len() as u32);
            out.put_bytes(state);
        }
        match &self.operation {
            Operation::Write(blocks) | Operation::Copy(blocks) | Operation::Repair(blocks) => {
                blocks.encode(&mut out);
            }
            Operation::Discard(range) | Operation::CopyHole(range) | Operation::CopyLost(range) => {
                out.put_u64(range.first.0);
                out.put_u64(range.count);
            }
            Operation::Control(bytes) | Operation::Node(bytes) | Operation::Chunk(bytes) => {
                out.put_bytes(bytes);
            }
            Operation::Snapshot(id) | Operation::RemoveSnapshot(id) => out.put_u64(id.0),
            Operation::Moved(blocks) => {
                out.put_u32(blocks.len() as u32);
                for moved in blocks {
                    out.put_u64(moved.block);
                    out.put_u64(moved.version.sequence.0);
                    out.put_u32(moved.version.epoch.0);
                    out.put_u32(moved.crc);
                    out.put_u64(moved.from.0);
                }
            }
            Operation::Kept(inner) => {
                out.put_u8(inner.kind());
                out.put_u8(inner.flags());
                out.put_bytes(&inner.encode_meta());
            }
            Operation::State
            | Operation::Supersede
            | Operation::Position
            | Operation::Joined
            | Operation::Create
            | Operation::Remove => {}
        }
        out
    }

    /// The record of `header` with its meta; `None` if the meta makes no sense.
    pub(crate) fn decode(header: &RecordHeader, meta: &[u8]) -> Option<Self> {
        Self::decode_as(header, header.kind, header.flags, meta)
    }

    fn decode_as(header: &RecordHeader, kind: u8, flags: u8, meta: &[u8]) -> Option<Self> {
        let mut take = Take(meta);
        let state = if flags & FLAG_STATE != 0 {
            let length = take.u32()? as usize;
            Some(Bytes::copy_from_slice(take.bytes(length)?))
        } else {
            None
        };
        let range =
            |take: &mut Take<'_>| Some(BlockRange::new(BlockIndex(take.u64()?), take.u64()?));
        let operation = match kind {
            1 => Operation::Write(Blocks::decode(&mut take)?),
            2 => Operation::Discard(range(&mut take)?),
            3 => Operation::Control(Bytes::copy_from_slice(take.0)),
            4 => Operation::State,
            5 => Operation::Copy(Blocks::decode(&mut take)?),
            6 => Operation::CopyHole(range(&mut take)?),
            7 => Operation::Repair(Blocks::decode(&mut take)?),
            8 => Operation::Supersede,
            9 => Operation::Position,
            10 => Operation::Create,
            11 => Operation::Remove,
            12 => Operation::Snapshot(SnapshotId(take.u64()?)),
            13 => Operation::RemoveSnapshot(SnapshotId(take.u64()?)),
            14 => Operation::Moved(decode_moved(&mut take)?),
            15 => {
                let (kind, flags) = (take.u8()?, take.u8()?);
                // Only numbered records are kept, so this goes one deep.
                if !(1..=3).contains(&kind) {
                    return None;
                }
                Operation::Kept(Box::new(Self::decode_as(header, kind, flags, take.0)?))
            }
            16 => Operation::Node(Bytes::copy_from_slice(take.0)),
            17 => Operation::Chunk(Bytes::copy_from_slice(take.0)),
            18 => Operation::Joined,
            19 => Operation::CopyLost(range(&mut take)?),
            _ => return None,
        };
        Some(Self { slice: header.slice, version: header.version, operation, state })
    }

    /// How many bytes of data stand behind the meta.
    pub(crate) fn data_bytes(&self) -> usize {
        match &self.operation {
            Operation::Write(blocks) | Operation::Copy(blocks) | Operation::Repair(blocks) => {
                blocks.stored_count() * BLOCK_SIZE
            }
            Operation::Moved(blocks) => blocks.len() * BLOCK_SIZE,
            Operation::Kept(inner) => inner.data_bytes(),
            _ => 0,
        }
    }

    /// Whether `data` is what the checksums in the meta say.
    pub(crate) fn matches(&self, data: &[u8]) -> bool {
        if data.len() != self.data_bytes() {
            return false;
        }
        match &self.operation {
            Operation::Write(blocks) | Operation::Copy(blocks) | Operation::Repair(blocks) => {
                blocks.matches(data)
            }
            Operation::Moved(blocks) => blocks
                .iter()
                .zip(data.chunks_exact(BLOCK_SIZE))
                .all(|(moved, block)| crc32c(block) == moved.crc),
            Operation::Kept(inner) => inner.matches(data),
            _ => true,
        }
    }

    /// The record of the slice's log that this is, or keeps.
    pub(crate) fn record(&self, data: &[u8]) -> Option<Record> {
        let body = match &self.operation {
            Operation::Write(blocks) => {
                Body::Write { first: BlockIndex(blocks.first), data: blocks.data(data)? }
            }
            Operation::Discard(range) => Body::Discard(*range),
            Operation::Control(bytes) => Body::Control(bytes.clone()),
            Operation::Kept(inner) => return inner.record(data),
            _ => return None,
        };
        Some(Record { version: self.version, body })
    }
}

fn decode_moved(take: &mut Take<'_>) -> Option<Vec<MovedBlock>> {
    let count = take.u32()? as usize;
    let mut fields = Take(take.bytes(count.checked_mul(32)?)?);
    (0..count)
        .map(|_| {
            let block = fields.u64()?;
            let sequence = Sequence(fields.u64()?);
            let version = Version::new(Epoch(fields.u32()?), sequence);
            let (crc, from) = (fields.u32()?, Address(fields.u64()?));
            Some(MovedBlock { block, version, crc, from })
        })
        .collect()
}
