//! What is said between a daemon and the holder.
//!
//! Unix SOCK_SEQPACKET: one packet is one message in postcard's encoding, descriptors travel beside
//! it. The daemon asks, the holder answers, in turns.
//!
//! Versions: 1, the first.

use std::fmt;

use mooring_terms::ErrorKind;
use serde::{Deserialize, Serialize};

/// The version spoken here.
pub(super) const VERSION: u32 = 1;

/// Longest packet in bytes.
pub(super) const PACKET_MAX: usize = 32 << 10;

/// Longest name in bytes.
pub(super) const NAME_MAX: usize = 255;

/// Longest blob in bytes.
pub(super) const BLOB_MAX: usize = 16 << 10;

/// Most descriptors under one name.
pub(super) const FDS_MAX: usize = 16;

/// Largest writes in bytes that can be forwarded.
pub(super) const MAX_WRITE: std::ops::RangeInclusive<u32> = 8 << 10..=1 << 20;

/// Names in one answer; those of the longest names fit into a packet.
pub(super) const NAMES_MAX: usize = 64;

/// What a daemon asks. All may be repeated.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Must come first.
    Hello { version: u32 },
    /// Keep the descriptors that come along, instead of what the name had; forward their requests,
    /// if a largest write (in bytes) is given.
    Keep { name: String, blob: Vec<u8>, forward: Option<u32> },
    /// Keep another blob.
    Update { name: String, blob: Vec<u8> },
    /// Hand back.
    Take { name: String },
    /// Keep no longer.
    Forget { name: String },
    /// Which names there are, behind `after`.
    List { after: Option<String> },
    /// End.
    Stop { force: bool },
}

/// What the holder answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// To Hello.
    Hello { version: u32, pid: u32 },
    /// To Keep (with the streams, if the requests are forwarded), Update, Forget and Stop.
    Done,
    /// To Take; the descriptors come along.
    Taken { blob: Vec<u8>, forward: bool },
    /// To List, in order of names.
    Names { names: Vec<(String, bool)>, more: bool },
    /// No.
    Refused(Refusal),
}

/// Why the holder says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// Another connection owns the name.
    Owned,
    /// It has nothing of this name.
    Unknown,
    /// Too long a name or blob, too many descriptors, or none.
    Bounds,
    /// It holds something and wasn't forced to end.
    Holding {
        /// How many names.
        names: u32,
    },
    /// It speaks another version.
    Version {
        /// Which.
        spoken: u32,
    },
    /// The system gave it no descriptors or threads.
    Resources,
}

impl Refusal {
    /// What the caller must do.
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::Owned | Self::Resources => ErrorKind::Retry,
            Self::Unknown => ErrorKind::NotFound,
            Self::Bounds | Self::Holding { .. } => ErrorKind::Invalid,
            Self::Version { .. } => ErrorKind::Fatal,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owned => f.write_str("another live process owns the name"),
            Self::Unknown => f.write_str("it has nothing of that name"),
            Self::Bounds => f.write_str("a name, blob or number of descriptors is out of bounds"),
            Self::Holding { names } => write!(f, "it still holds {names} devices"),
            Self::Version { spoken } => {
                write!(f, "it speaks version {spoken} of the protocol, not {VERSION}")
            }
            Self::Resources => f.write_str("the system gave it no more descriptors or threads"),
        }
    }
}
