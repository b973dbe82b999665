//! Data that says who wrote it: a block holds its writer's client, the number of the write, and
//! the block's own place, over and over, so that a read tells what it has seen, and a block that
//! is torn, mixed up or at the wrong place is known as such.

use bytes::Bytes;
use mooring_terms::{BLOCK_SIZE, BlockIndex, Data, SliceIndex};

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// Zeros: never written, discarded, or written with zeros.
    Zero,
    /// What operation `number` of client `client` wrote.
    Tag {
        /// The client, unique in a run (a restarted client is another one).
        client: u32,
        /// The operation's number.
        number: u32,
    },
}

/// Why a block is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbled;

/// Sets the filler apart from zeros and from most garbage.
const MAGIC: u64 = 0x4d6f_6f72_696e_6721;

fn words(tag: (u32, u32), slice: SliceIndex, block: BlockIndex) -> [u64; 4] {
    let number = u64::from(tag.0) << 32 | u64::from(tag.1);
    [MAGIC, number, u64::from(slice.0), block.0]
}

/// `count` blocks from `first` of `slice` on, as operation `number` of `client` writes them.
#[must_use]
pub fn encode(client: u32, number: u32, slice: SliceIndex, first: BlockIndex, count: u64) -> Data {
    let mut bytes = Vec::with_capacity(BLOCK_SIZE * usize::try_from(count).expect("few blocks"));
    for i in 0..count {
        let mut unit = [0; 32];
        for (at, word) in words((client, number), slice, first.plus(i)).iter().enumerate() {
            unit[at * 8..at * 8 + 8].copy_from_slice(&word.to_le_bytes());
        }
        let end = bytes.len() + BLOCK_SIZE;
        while bytes.len() < end {
            bytes.extend_from_slice(&unit);
        }
    }
    Data::checksummed(Bytes::from(bytes))
}

/// What the bytes of `block` of `slice` say.
///
/// # Errors
/// [`Garbled`] if no single write, nor zeros, can have left these bytes at this place.
pub fn decode(bytes: &[u8], slice: SliceIndex, block: BlockIndex) -> Result<Value, Garbled> {
    let (units, []) = bytes.as_chunks::<32>() else { return Err(Garbled) };
    let Some(first) = units.first() else { return Err(Garbled) };
    if bytes.len() != BLOCK_SIZE || units.iter().any(|unit| unit != first) {
        return Err(Garbled);
    }
    if first.iter().all(|&b| b == 0) {
        return Ok(Value::Zero);
    }
    let (found, _) = first.as_chunks::<8>();
    let found: Vec<u64> = found.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let client = u32::try_from(found[1] >> 32).map_err(|_| Garbled)?;
    let number = u32::try_from(found[1] & 0xffff_ffff).map_err(|_| Garbled)?;
    if found == words((client, number), slice, block) {
        Ok(Value::Tag { client, number })
    } else {
        Err(Garbled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_tells_who_wrote_it() {
        let data = encode(3, 9, SliceIndex(1), BlockIndex(5), 2);
        let tag = Ok(Value::Tag { client: 3, number: 9 });
        assert_eq!(decode(data.block(0), SliceIndex(1), BlockIndex(5)), tag);
        assert_eq!(decode(data.block(1), SliceIndex(1), BlockIndex(6)), tag);
        assert_eq!(decode(&[0; BLOCK_SIZE], SliceIndex(0), BlockIndex(0)), Ok(Value::Zero));
    }

    #[test]
    fn a_torn_or_misplaced_block_is_garbled() {
        let one = encode(1, 1, SliceIndex(0), BlockIndex(0), 1);
        let two = encode(1, 2, SliceIndex(0), BlockIndex(0), 1);
        let torn = [&one.bytes()[..512], &two.bytes()[512..]].concat();
        assert_eq!(decode(&torn, SliceIndex(0), BlockIndex(0)), Err(Garbled));
        assert_eq!(decode(one.block(0), SliceIndex(0), BlockIndex(1)), Err(Garbled));
        assert_eq!(decode(one.block(0), SliceIndex(1), BlockIndex(0)), Err(Garbled));
    }
}
