//! The values of all rows but inodes.
//!
//! ```text
//!   state        0 format u8, 1   1 capacity u64       9 free u64         17 reserved u64
//!                25 quarantined u64   33 charged u64   41 inodes u64      49 next inode u64
//!                57 next session u64  65 next quarantine u64   73 data first u64
//!                81 slice blocks u64
//!   entry        0 format u8, 1   1 file type u8   2 inode u64   10 cookie u64
//!   place        0 format u8, 1   1 file type u8   2 inode u64   10 name
//!   extent       0 format u8, 1   1 flags u8 (1 unwritten; 2 is kept for shared)   2 count u32
//!                6 start u64
//!   count        0 format u8, 1   1 count u64
//!   session      0 format u8, 1   1 node u64   9 mount u64   17 slots u32
//!   reply        0 format u8, 1   1 request number u64   9 the reply's bytes
//! ```

use serde::{Deserialize, Serialize};

use super::codec::{Reader, Writer};
use crate::{
    BlockAddress, Cookie, FileType, Ino, Name, QuarantineNumber, RequestNumber, Run, SessionId,
};

const ROW_FORMAT: u8 = 1;
const EXTENT_UNWRITTEN: u8 = 1;

/// The volume's counters. `free + reserved + quarantined` and the blocks of all extents make the
/// capacity; `charged <= free`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateRow {
    /// Blocks of the data area.
    pub capacity: u64,
    /// Blocks in free runs.
    pub free: u64,
    /// Blocks that sessions have reserved.
    pub reserved: u64,
    /// Blocks that were freed and can't be given away yet.
    pub quarantined: u64,
    /// Blocks that are free and promised: one for each file that lies in the tree.
    pub charged: u64,
    /// How many inodes there are, orphans included.
    pub inodes: u64,
    /// The next inode's number.
    pub next_ino: Ino,
    /// The next session's number.
    pub next_session: SessionId,
    /// The next number of the quarantine.
    pub next_quarantine: QuarantineNumber,
    /// The first block of the data area.
    pub data_first: BlockAddress,
    /// Blocks in a slice: no extent lies in two.
    pub slice_blocks: u64,
}

/// An entry, found by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRow {
    /// What it names.
    pub ino: Ino,
    /// The kind of what it names.
    pub file_type: FileType,
    /// Its place in the directory's order.
    pub cookie: Cookie,
}

/// An entry, found by its cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceRow {
    /// What it names.
    pub ino: Ino,
    /// The kind of what it names.
    pub file_type: FileType,
    /// Its name.
    pub name: Name,
}

/// Whether an extent's blocks hold data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ExtentState {
    /// They hold the file's bytes.
    Written,
    /// They belong to the file and read as zeros (`fallocate`).
    Unwritten,
}

/// Some of a file's blocks, and where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentRow {
    /// Where.
    pub run: Run,
    /// Whether they hold data.
    pub state: ExtentState,
}

/// How many: of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountRow(pub u64);

/// A client's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// The node that the mount is on.
    pub node: u64,
    /// Which of the node's mounts: random, drawn by the mount.
    pub mount: u64,
    /// How many requests it may have on the way; 0 once it is over and its reservations are being
    /// freed.
    pub slots: u32,
}

/// The last reply in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyRow {
    /// The request that it answers.
    pub number: RequestNumber,
    /// The reply as it was sent.
    pub reply: Vec<u8>,
}

impl StateRow {
    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Writer::of_format(ROW_FORMAT)
            .u64(self.capacity)
            .u64(self.free)
            .u64(self.reserved)
            .u64(self.quarantined)
            .u64(self.charged)
            .u64(self.inodes)
            .u64(self.next_ino.0)
            .u64(self.next_session.0)
            .u64(self.next_quarantine.0)
            .u64(self.data_first.0)
            .u64(self.slice_blocks)
            .0
    }

    /// Reads a row; `None` if these bytes are none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::of_format(bytes, ROW_FORMAT)?;
        let state = Self {
            capacity: r.u64()?,
            free: r.u64()?,
            reserved: r.u64()?,
            quarantined: r.u64()?,
            charged: r.u64()?,
            inodes: r.u64()?,
            next_ino: Ino(r.u64()?),
            next_session: SessionId(r.u64()?),
            next_quarantine: QuarantineNumber(r.u64()?),
            data_first: BlockAddress(r.u64()?),
            slice_blocks: r.u64()?,
        };
        let sane = state.slice_blocks > 0 && state.charged <= state.free;
        r.end(state).filter(|_| sane)
    }
}

impl EntryRow {
    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        file_type(Writer::of_format(ROW_FORMAT), self.file_type)
            .u64(self.ino.0)
            .u64(self.cookie.0)
            .0
    }

    /// Reads a row; `None` if these bytes are none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::of_format(bytes, ROW_FORMAT)?;
        let file_type = read_file_type(&mut r)?;
        let row = Self { file_type, ino: Ino(r.u64()?), cookie: Cookie(r.u64()?) };
        r.end(row)
    }
}

impl PlaceRow {
    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        file_type(Writer::of_format(ROW_FORMAT), self.file_type)
            .u64(self.ino.0)
            .bytes(self.name.as_bytes())
            .0
    }

    /// Reads a row; `None` if these bytes are none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::of_format(bytes, ROW_FORMAT)?;
        let file_type = read_file_type(&mut r)?;
        Some(Self { file_type, ino: Ino(r.u64()?), name: Name::new(r.rest()).ok()? })
    }
}

impl ExtentRow {
    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let flags = match self.state {
            ExtentState::Written => 0,
            ExtentState::Unwritten => EXTENT_UNWRITTEN,
        };
        let count = u32::try_from(self.run.count).expect("an extent has 2^18 blocks at most");
        Writer::of_format(ROW_FORMAT).u8(flags).u32(count).u64(self.run.start.0).0
    }

    /// Reads a row; `None` if these bytes are none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::of_format(bytes, ROW_FORMAT)?;
        let state = match r.u8()? {
            0 => ExtentState::Written,
            EXTENT_UNWRITTEN => ExtentState::Unwritten,
            _ => return None,
        };
        let (count, start) = (u64::from(r.u32()?), r.u64()?);
        let sane =
            (1..=super::EXTENT_BLOCKS_MAX).contains(&count) && start.checked_add(count).is_some();
        r.end(Self { run: Run::new(BlockAddress(start), count), state }).filter(|_| sane)
    }
}

impl CountRow {
    /// The row's bytes.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        Writer::of_format(ROW_FORMAT).u64(self.0).0
    }

    /// Reads a row; `None` if these bytes are none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::of_format(bytes, ROW_FORMAT)?;
        let row = Self(r.u64()?);
        r.end(row)
    }
}

impl SessionRow {
    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Writer::of_format(ROW_FORMAT).u64(self.node).u64(self.mount).u32(self.slots).0
    }

    /// Reads a row; `None` if these bytes are none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::of_format(bytes, ROW_FORMAT)?;
        let row = Self { node: r.u64()?, mount: r.u64()?, slots: r.u32()? };
        r.end(row)
    }
}

impl ReplyRow {
    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Writer::of_format(ROW_FORMAT).u64(self.number.0).bytes(&self.reply).0
    }

    /// Reads a row; `None` if these bytes are none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::of_format(bytes, ROW_FORMAT)?;
        Some(Self { number: RequestNumber(r.u64()?), reply: r.rest().to_vec() })
    }
}

fn file_type(out: Writer, file_type: FileType) -> Writer {
    let code = FileType::ALL.iter().position(|&t| t == file_type).expect("ALL has every type");
    out.u8(code as u8 + 1)
}

fn read_file_type(r: &mut Reader<'_>) -> Option<FileType> {
    FileType::ALL.get(usize::from(r.u8()?.checked_sub(1)?)).copied()
}
