//! What the holder process remembers about an attachment, for the daemon that comes after this one.

use mooring_terms::{AttachmentEpoch, VolumeId};
use serde::{Deserialize, Serialize};

/// The version of the note; a daemon refuses to resume from a newer one.
const VERSION: u8 = 1;

/// An attachment, as the next daemon needs to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The volume.
    pub volume: VolumeId,
    /// The attachment.
    pub epoch: AttachmentEpoch,
    /// The client's number: the next daemon goes on under it, so that what this one had begun is
    /// dropped by the primaries when the next one connects.
    pub client: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether it is attached for a mount alone.
    pub for_mount: bool,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}

impl Note {
    /// The note as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![VERSION]).expect("plain data encodes")
    }

    /// The note of these bytes; `None` if they are no note that this version knows.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => postcard::from_bytes(rest).ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_comes_back_and_rubbish_does_not() {
        let note = Note {
            volume: VolumeId(7),
            epoch: AttachmentEpoch(3),
            client: u64::MAX,
            read_only: false,
            for_mount: true,
            since_ms: 5,
        };
        assert_eq!(Note::decode(&note.encode()), Some(note));
        assert_eq!(Note::decode(b""), None);
        assert_eq!(Note::decode(&[2, 1, 1]), None);
        assert_eq!(Note::decode(&[1, 0xff]), None);
    }
}
