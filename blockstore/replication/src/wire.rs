//! Encoding of messages: a small header, and the data apart.
//!
//! ```text
//!   header:  version (1 byte) | postcard of the message, each run of data replaced by its checksums
//!   frames:  one a run of data, in the order of the header; shared, never copied
//! ```
//!
//! Decoding never panics and never allocates more than a small multiple of what came in.

use std::collections::VecDeque;

use bytes::Bytes;
use mooring_terms::{BlockIndex, BlockRange, Body, Data, Extent, Record, Version};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of every header that this build writes, and the only one that it reads.
const WIRE_VERSION: u8 = 1;

/// Why a message can't be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The header has a version that this build doesn't know.
    #[error("unknown message version {0}")]
    Version(u8),
    /// The header is not what a sender writes.
    #[error("malformed message header")]
    Header,
    /// The frames don't fit the header.
    #[error("the data frames don't fit the message header")]
    Frames,
}

/// The data frames of a message being decoded.
pub(crate) type Frames = VecDeque<Bytes>;

/// Data in a header: its checksums; the bytes are the next frame.
#[derive(Serialize, Deserialize)]
pub(crate) struct WireData(Vec<u32>);

/// A record in a header.
#[derive(Serialize, Deserialize)]
pub(crate) struct WireRecord {
    version: Version,
    body: WireBody,
}

#[derive(Serialize, Deserialize)]
enum WireBody {
    Write { first: BlockIndex, data: WireData },
    Discard(BlockRange),
    Control(Bytes),
}

/// An extent in a header.
#[derive(Serialize, Deserialize)]
pub(crate) enum WireExtent {
    Hole {
        version: Version,
        range: BlockRange,
    },
    Data {
        version: Version,
        first: BlockIndex,
        data: WireData,
    },
    /// Written by no node any more.
    Missing {
        range: BlockRange,
    },
    /// From cluster version 2 on.
    Lost {
        version: Version,
        range: BlockRange,
    },
}

/// Writes a header.
pub(crate) fn write_header(header: &impl Serialize) -> Bytes {
    let buffer = vec![WIRE_VERSION];
    postcard::to_extend(header, buffer)
        .expect("a header is plain data, and a Vec takes any length")
        .into()
}

/// Reads a header.
pub(crate) fn read_header<T: DeserializeOwned>(header: &[u8]) -> Result<T, WireError> {
    match header.split_first() {
        Some((&WIRE_VERSION, rest)) => match postcard::take_from_bytes(rest) {
            Ok((value, [])) => Ok(value),
            _ => Err(WireError::Header),
        },
        Some((&other, _)) => Err(WireError::Version(other)),
        None => Err(WireError::Header),
    }
}

/// Fails if frames are left over.
pub(crate) fn end_of_frames(frames: &Frames) -> Result<(), WireError> {
    if frames.is_empty() { Ok(()) } else { Err(WireError::Frames) }
}

impl WireData {
    /// Moves the bytes of `data` to the frames.
    pub(crate) fn pack(data: Data, frames: &mut Vec<Bytes>) -> Self {
        let crcs = data.crcs().to_vec();
        frames.push(data.bytes().clone());
        Self(crcs)
    }

    /// Takes the next frame.
    pub(crate) fn unpack(self, frames: &mut Frames) -> Result<Data, WireError> {
        let bytes = frames.pop_front().ok_or(WireError::Frames)?;
        Data::from_parts(bytes, self.0.into()).map_err(|_| WireError::Frames)
    }
}

impl WireRecord {
    fn pack(record: Record, frames: &mut Vec<Bytes>) -> Self {
        let body = match record.body {
            Body::Write { first, data } => {
                WireBody::Write { first, data: WireData::pack(data, frames) }
            }
            Body::Discard(range) => WireBody::Discard(range),
            Body::Control(bytes) => WireBody::Control(bytes),
        };
        Self { version: record.version, body }
    }

    fn unpack(self, frames: &mut Frames) -> Result<Record, WireError> {
        let body = match self.body {
            WireBody::Write { first, data } => Body::Write { first, data: data.unpack(frames)? },
            WireBody::Discard(range) => Body::Discard(range),
            WireBody::Control(bytes) => Body::Control(bytes),
        };
        Ok(Record { version: self.version, body })
    }
}

/// Moves the data of `records` to the frames.
pub(crate) fn pack_records(records: Vec<Record>, frames: &mut Vec<Bytes>) -> Vec<WireRecord> {
    records.into_iter().map(|record| WireRecord::pack(record, frames)).collect()
}

/// Takes the data of records from the frames.
pub(crate) fn unpack_records(
    records: Vec<WireRecord>,
    frames: &mut Frames,
) -> Result<Vec<Record>, WireError> {
    records.into_iter().map(|record| record.unpack(frames)).collect()
}

/// Moves the data of `extents` to the frames.
pub(crate) fn pack_extents(extents: Vec<Extent>, frames: &mut Vec<Bytes>) -> Vec<WireExtent> {
    let pack = |extent| match extent {
        Extent::Hole { version, range } => WireExtent::Hole { version, range },
        Extent::Data { version, first, data } => {
            WireExtent::Data { version, first, data: WireData::pack(data, frames) }
        }
        Extent::Missing { version, range } => WireExtent::Lost { version, range },
    };
    extents.into_iter().map(pack).collect()
}

/// Takes the data of extents from the frames.
pub(crate) fn unpack_extents(
    extents: Vec<WireExtent>,
    frames: &mut Frames,
) -> Result<Vec<Extent>, WireError> {
    let mut unpack = |extent| {
        Ok(match extent {
            WireExtent::Hole { version, range } => Extent::Hole { version, range },
            WireExtent::Data { version, first, data } => {
                Extent::Data { version, first, data: data.unpack(frames)? }
            }
            WireExtent::Missing { range } => Extent::Missing { version: Version::ZERO, range },
            WireExtent::Lost { version, range } => Extent::Missing { version, range },
        })
    };
    extents.into_iter().map(&mut unpack).collect()
}
