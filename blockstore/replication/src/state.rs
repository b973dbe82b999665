//! What a replica must not forget: its opaque state in the engine.
//!
//! Version history
//! - 1: promise, epochs, standing, seal.

use bytes::Bytes;
use mooring_terms::{AttachmentEpoch, Epoch, Sequence, Version};
use serde::{Deserialize, Serialize};

use crate::control::Control;
use crate::history;
use crate::message::{EpochStart, Standing};
use crate::wire::{self, WireError};

/// A replica's durable memory beside its blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Nothing older than this is taken.
    pub promised: Epoch,
    /// The epochs of the log, oldest first.
    pub epochs: Vec<EpochStart>,
    /// Whether every block is there.
    pub standing: Standing,
    /// The attachment sealed last.
    pub seal: AttachmentEpoch,
}

impl State {
    /// The state of a replica that never held anything.
    #[must_use]
    pub fn new() -> Self {
        Self {
            promised: Epoch(0),
            epochs: Vec::new(),
            standing: Standing::Complete,
            seal: AttachmentEpoch(0),
        }
    }

    /// The state's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        wire::write_header(self)
    }

    /// The state of these bytes; none stands for a new replica's.
    ///
    /// # Errors
    /// [`WireError`] for whatever [`State::encode`] doesn't write.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.is_empty() { Ok(Self::new()) } else { wire::read_header(bytes) }
    }

    /// What the control record at `version` makes of the state.
    pub(crate) fn apply(&mut self, version: Version, control: Control) {
        match control {
            Control::EpochStart { epoch, keep_from } => {
                let after = Sequence(version.sequence.0 - 1);
                history::begin(&mut self.epochs, EpochStart { epoch, after }, keep_from);
            }
            Control::Seal { attachment } => self.seal = self.seal.max(attachment),
        }
    }

    /// Up to where every block is there, in a log that ends at `last`.
    pub(crate) fn complete_to(&self, last: Version) -> Version {
        match self.standing {
            Standing::Complete => last,
            Standing::Joining { complete_to } => complete_to,
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_survives_its_encoding_and_rubbish_is_refused() {
        let mut state = State::new();
        state.apply(
            Version::new(Epoch(3), Sequence(8)),
            Control::EpochStart { epoch: Epoch(3), keep_from: Epoch(1) },
        );
        state.apply(
            Version::new(Epoch(3), Sequence(9)),
            Control::Seal { attachment: AttachmentEpoch(4) },
        );
        let bytes = state.encode();
        assert_eq!(State::decode(&bytes), Ok(state));
        assert_eq!(State::decode(&[]), Ok(State::new()));
        assert!(State::decode(&bytes[..bytes.len() - 1]).is_err());
        assert_eq!(State::decode(&[9, 9]), Err(WireError::Version(9)));
    }
}
