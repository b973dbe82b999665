//! Batches of the journal and the records in them.

use serde::{Deserialize, Serialize};

use mooring_terms::{BLOCK_SIZE, Epoch, Sequence, Version, crc32c};

use super::codec::{Reader, Writer};
use super::{FORMAT, INLINE_BYTES};
use crate::tree::Changes;
use crate::{BlockAddress, FileBlock, Ino, JournalNumber, Run};

const MAGIC: [u8; 8] = *b"MOORJRNL";
const RECORD_FORMAT: u8 = 1;
/// No key is longer: kind, inode, and a name of 255 bytes.
const KEY_MAX: usize = 1 + 8 + 255;

/// Says which blocks of a file were written before the record that claims it. After a power cut of all
/// replicas a block may be older than that; [`crate::file::Recovery`] looks after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataClaim {
    /// The file.
    pub ino: Ino,
    /// Where in the file.
    pub block: FileBlock,
    /// Where in the volume; all in one slice.
    pub run: Run,
    /// The versions that these blocks got when they were written. A block with one older than the oldest
    /// is not what was written.
    pub versions: Versions,
    /// What such a block is to be.
    pub otherwise: Otherwise,
}

/// The versions that some blocks of a slice got, written by one writer without another's in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The oldest: whatever these blocks held before is older.
    pub oldest: Version,
    /// The newest: a slice that has it has all that was claimed of it before.
    pub newest: Version,
}

impl Versions {
    /// Those among `versions`; zeros if there are none.
    #[must_use]
    pub fn of(versions: impl Iterator<Item = Version> + Clone) -> Self {
        let (oldest, newest) = (versions.clone().min(), versions.max());
        Self { oldest: oldest.unwrap_or_default(), newest: newest.unwrap_or_default() }
    }
}

/// What becomes of a block that is older than was claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// A hole: it was new to the file.
    Hole,
    /// It stays, with zeros from this byte on: that is where the file ended before its size moved up.
    Zeros {
        /// The first byte of the zeros: 1 to 4,095.
        from: u16,
    },
    /// These bytes and zeros behind them: what the tree held before the file grew out of it. At most
    /// [`super::INLINE_BYTES`].
    Bytes(Vec<u8>),
}

/// What one operation changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The rows put and deleted, applied together.
    pub changes: Changes,
    /// The data that became part of files by it.
    pub claims: Vec<DataClaim>,
}

/// What stands before a batch's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The batch's number.
    pub number: JournalNumber,
    /// The file system's tag.
    pub tag: u64,
    /// The epoch of the attachment under which the coordinator wrote it.
    pub attachment: u64,
    /// How many bytes of records follow.
    pub body_bytes: u32,
    /// How many records follow.
    pub records: u32,
    /// The checksum of the body.
    pub body_crc: u32,
    /// The header checksum of the batch before, so that a batch follows only the one it was written
    /// behind. 0 for the first.
    pub previous_crc: u32,
}

/// Records that are written together, on whole blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// What stands before them.
    pub header: BatchHeader,
    /// The records.
    pub records: Vec<Record>,
}

/// Why bytes are no batch. At the end of the journal that is what must be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalError {
    /// No batch begins here: other bytes, or a checksum that is wrong.
    Absent,
    /// It was written by a newer program.
    Format(u32),
    /// The checksums are right, the contents make no sense.
    Damaged,
}

impl BatchHeader {
    /// Bytes in a header.
    pub const BYTES: usize = 64;
    /// The most bytes of records in a batch.
    pub const BODY_MAX: usize = 32 << 20;

    fn encode(&self) -> Vec<u8> {
        let mut header = Writer::default()
            .bytes(&MAGIC)
            .u32(FORMAT)
            .u32(self.body_bytes)
            .u64(self.number.0)
            .u64(self.tag)
            .u64(self.attachment)
            .u32(self.records)
            .u32(self.body_crc)
            .u32(self.previous_crc)
            .u64(0)
            .0;
        let crc = crc32c(&header);
        header.extend_from_slice(&crc.to_le_bytes());
        header
    }

    /// Reads a header; its checksum, which the next batch must name, comes with it.
    ///
    /// # Errors
    /// [`JournalError`] if there is none.
    pub fn decode(bytes: &[u8]) -> Result<(Self, u32), JournalError> {
        let header = bytes.get(..Self::BYTES).ok_or(JournalError::Absent)?;
        let (covered, crc) = header.split_at(Self::BYTES - 4);
        if covered[..8] != MAGIC || crc != crc32c(covered).to_le_bytes() {
            return Err(JournalError::Absent);
        }
        let mut r = Reader(&covered[8..]);
        let format = r.u32().ok_or(JournalError::Damaged)?;
        if format != FORMAT {
            return Err(JournalError::Format(format));
        }
        let header = Self::read(r).ok_or(JournalError::Damaged)?;
        if header.body_bytes as usize > Self::BODY_MAX {
            return Err(JournalError::Damaged);
        }
        Ok((header, crc32c(covered)))
    }

    fn read(mut r: Reader<'_>) -> Option<Self> {
        let body_bytes = r.u32()?;
        Some(Self {
            number: JournalNumber(r.u64()?),
            tag: r.u64()?,
            attachment: r.u64()?,
            body_bytes,
            records: r.u32()?,
            body_crc: r.u32()?,
            previous_crc: r.u32()?,
        })
    }
}

impl Batch {
    /// The blocks of a batch of `records`, and the checksum that the next batch must name.
    ///
    /// # Panics
    /// If the records have more than [`BatchHeader::BODY_MAX`] bytes; whoever gathers them counts.
    #[must_use]
    pub fn encode(
        number: JournalNumber,
        tag: u64,
        attachment: u64,
        previous_crc: u32,
        records: &[Record],
    ) -> (Vec<u8>, u32) {
        let body = records.iter().fold(Writer::default(), |out, record| record.write(out)).0;
        assert!(body.len() <= BatchHeader::BODY_MAX, "a batch of the journal is too large");
        let header = BatchHeader {
            number,
            tag,
            attachment,
            body_bytes: body.len() as u32,
            records: records.len() as u32,
            body_crc: crc32c(&body),
            previous_crc,
        };
        let mut bytes = header.encode();
        let crc = crc32c(&bytes[..BatchHeader::BYTES - 4]);
        bytes.extend_from_slice(&body);
        bytes.resize(bytes.len().next_multiple_of(BLOCK_SIZE), 0);
        (bytes, crc)
    }

    /// Reads the records behind a header that was read.
    ///
    /// # Errors
    /// [`JournalError::Absent`] if the body is not the one that was written (a torn batch).
    pub fn decode_body(header: BatchHeader, bytes: &[u8]) -> Result<Self, JournalError> {
        let body = bytes
            .get(BatchHeader::BYTES..BatchHeader::BYTES + header.body_bytes as usize)
            .filter(|body| crc32c(body) == header.body_crc)
            .ok_or(JournalError::Absent)?;
        let mut r = Reader(body);
        let mut records = Vec::new();
        for _ in 0..header.records {
            records.push(Record::read(&mut r).ok_or(JournalError::Damaged)?);
        }
        r.end(Self { header, records }).ok_or(JournalError::Damaged)
    }
}

/// How many blocks a batch with a body of `body_bytes` takes.
#[must_use]
pub fn batch_blocks(body_bytes: usize) -> u64 {
    (BatchHeader::BYTES + body_bytes).div_ceil(BLOCK_SIZE) as u64
}

impl Record {
    /// How many bytes it takes in a batch's body.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let row = |(key, value): (&[u8], Option<&[u8]>)| {
            2 + key.len() + 1 + value.map_or(0, |value| 4 + value.len())
        };
        let claim = |claim: &DataClaim| 53 + claim.otherwise.bytes();
        9 + self.changes.iter().map(row).sum::<usize>()
            + self.claims.iter().map(claim).sum::<usize>()
    }

    fn write(&self, mut out: Writer) -> Writer {
        out = out.u8(RECORD_FORMAT).u32(self.changes.len() as u32).u32(self.claims.len() as u32);
        for (key, value) in self.changes.iter() {
            out = out.u16(key.len() as u16).bytes(key);
            out = match value {
                Some(value) => out.u8(1).u32(value.len() as u32).bytes(value),
                None => out.u8(0),
            };
        }
        for claim in &self.claims {
            out = out
                .u64(claim.ino.0)
                .u64(claim.block.0)
                .u64(claim.run.start.0)
                .u32(claim.run.count as u32);
            for version in [claim.versions.oldest, claim.versions.newest] {
                out = out.u32(version.epoch.0).u64(version.sequence.0);
            }
            out = claim.otherwise.write(out);
        }
        out
    }

    fn read(r: &mut Reader<'_>) -> Option<Self> {
        if r.u8()? != RECORD_FORMAT {
            return None;
        }
        let (rows, claims) = (r.u32()?, r.u32()?);
        let mut record = Self::default();
        for _ in 0..rows {
            let length = usize::from(r.u16()?);
            if length > KEY_MAX {
                return None;
            }
            let key = r.bytes(length)?.to_vec();
            let value = match r.u8()? {
                0 => None,
                1 => {
                    let length = r.u32()? as usize;
                    Some(r.bytes(length)?.to_vec())
                }
                _ => return None,
            };
            record.changes.insert(key, value);
        }
        for _ in 0..claims {
            record.claims.push(DataClaim {
                ino: Ino(r.u64()?),
                block: FileBlock(r.u64()?),
                run: Run::new(BlockAddress(r.u64()?), u64::from(r.u32()?)),
                versions: Versions { oldest: read_version(r)?, newest: read_version(r)? },
                otherwise: Otherwise::read(r)?,
            });
        }
        Some(record)
    }
}

fn read_version(r: &mut Reader<'_>) -> Option<Version> {
    Some(Version::new(Epoch(r.u32()?), Sequence(r.u64()?)))
}

impl Otherwise {
    /// How many bytes follow its kind.
    fn bytes(&self) -> usize {
        match self {
            Self::Hole => 0,
            Self::Zeros { .. } => 2,
            Self::Bytes(bytes) => 2 + bytes.len(),
        }
    }

    fn write(&self, out: Writer) -> Writer {
        match self {
            Self::Hole => out.u8(0),
            Self::Zeros { from } => out.u8(1).u16(*from),
            Self::Bytes(bytes) => out.u8(2).u16(bytes.len() as u16).bytes(bytes),
        }
    }

    fn read(r: &mut Reader<'_>) -> Option<Self> {
        Some(match r.u8()? {
            0 => Self::Hole,
            1 => Self::Zeros { from: r.u16().filter(|&from| (1..4096).contains(&from))? },
            2 => {
                let length = usize::from(r.u16()?);
                Self::Bytes(r.bytes(length).filter(|_| length <= INLINE_BYTES)?.to_vec())
            }
            _ => return None,
        })
    }
}
