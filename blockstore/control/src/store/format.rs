//! What the store's file holds, as bytes.
//!
//! ```text
//!   table      key               sealed value
//!   meta       "vote"            Vote
//!   meta       "committed"       Option<LogId>
//!   meta       "purged"          LogId: the log begins after it
//!   log        index (u64)       Entry
//!   snapshot   "meta"            SnapshotMeta
//!   snapshot   "data"            Machine
//!
//!   sealed value   | format (1) | crc32c (4, little-endian) | postcard bytes |
//!                  the crc covers the format byte and the bytes
//!   plain values   meta "node": the node's number (u64, little-endian)
//! ```
//!
//! The database has checksums of its own on its pages; these catch what passes between, and tell a
//! damaged value from one of newer software.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The format that is written.
pub(super) const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 5;

/// Why a sealed value can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsealable {
    /// Too short, or its checksum doesn't fit, or its bytes don't decode.
    Damaged,
    /// Of a newer format.
    Newer(u8),
}

/// Encodes and seals a value.
pub(super) fn seal<T: Serialize>(value: &T) -> Vec<u8> {
    let sealed = vec![FORMAT, 0, 0, 0, 0];
    let mut sealed = postcard::to_extend(value, sealed)
        .expect("plain data always encodes: no map of unknown length, no failing writer");
    let crc = checksum(&sealed);
    sealed[1..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    sealed
}

/// Opens and decodes a value.
pub(super) fn open<T: DeserializeOwned>(sealed: &[u8]) -> Result<T, Unsealable> {
    if sealed.len() < HEADER_BYTES {
        return Err(Unsealable::Damaged);
    }
    let stored = u32::from_le_bytes([sealed[1], sealed[2], sealed[3], sealed[4]]);
    if stored != checksum(sealed) {
        return Err(Unsealable::Damaged);
    }
    if sealed[0] > FORMAT {
        return Err(Unsealable::Newer(sealed[0]));
    }
    postcard::from_bytes(&sealed[HEADER_BYTES..]).map_err(|_| Unsealable::Damaged)
}

/// Covers the format byte and everything after the checksum itself.
fn checksum(sealed: &[u8]) -> u32 {
    mooring_terms::crc32c(&sealed[HEADER_BYTES..]) ^ u32::from(sealed[0]).rotate_left(24)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_opens_and_any_flipped_bit_is_found() {
        let sealed = seal(&("vote", 7_u64));
        assert_eq!(open::<(String, u64)>(&sealed), Ok(("vote".to_owned(), 7)));
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open::<(String, u64)>(&damaged), Err(Unsealable::Damaged), "bit {bit}");
        }
        assert_eq!(open::<(String, u64)>(&sealed[..4]), Err(Unsealable::Damaged));
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut sealed = seal(&1_u8);
        sealed[0] = FORMAT + 1;
        let crc = checksum(&sealed);
        sealed[1..5].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(open::<u8>(&sealed), Err(Unsealable::Newer(FORMAT + 1)));
    }
}
