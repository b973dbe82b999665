//! What the holder stores beside a device's descriptors, for the next daemon.

use serde::{Deserialize, Serialize};

/// The layout's version; another one is not resumed.
const VERSION: u32 = 1;

/// A device, as the process that attached it knew it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Blob {
    version: u32,
    /// The loop device's number; none while it is being attached.
    pub(super) loop_number: Option<u32>,
    /// The FUSE file system's device number.
    pub(super) device: (u32, u32),
    /// The session's largest write, agreed with the kernel once and for all.
    pub(super) max_write: u32,
    /// What the user of this crate stored.
    pub(super) note: Vec<u8>,
}

impl Blob {
    pub(super) fn new(
        loop_number: Option<u32>,
        device: (u32, u32),
        max_write: u32,
        note: Vec<u8>,
    ) -> Self {
        Self { version: VERSION, loop_number, device, max_write, note }
    }

    /// The same, once the loop device is there.
    pub(super) fn with_loop(self, number: u32) -> Self {
        Self { loop_number: Some(number), ..self }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("numbers and bytes always encode")
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let blob: Self = postcard::from_bytes(bytes).ok()?;
        let possible = (8 << 10..=1 << 20).contains(&blob.max_write);
        (blob.version == VERSION && possible).then_some(blob)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_back_and_nothing_else() {
        let blob = Blob::new(Some(3), (0, 77), 1 << 20, b"attachment".to_vec());
        let bytes = blob.encode();
        assert_eq!(Blob::decode(&bytes), Some(blob.clone()));
        assert_eq!(Blob::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Blob::decode(&Blob { version: 2, ..blob }.encode()), None);
    }
}
