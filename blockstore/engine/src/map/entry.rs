//! What the map knows of one block.

use mooring_terms::{Epoch, Sequence, Version};

use crate::address::Address;

/// What a block holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// 4 KiB at this address.
    Data { address: Address, crc: u32 },
    /// Zeros that occupy nothing.
    Hole,
    /// It was written once, but this replica hasn't what was written: superseded, or lost with a
    /// piece of the map. Nothing written beneath is newer than the entry's version, and whatever a
    /// peer has takes its place.
    Missing,
    /// It held something of the entry's version, and what that was is lost on every replica that was
    /// in sync when this one learned so. What is older never takes its place, but as a repair.
    Lost,
}

impl Content {
    /// Whether both are data, both holes, both missing, or both lost.
    pub(crate) fn same_kind(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// Version and content of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) version: Version,
    pub(crate) content: Content,
}

impl Entry {
    pub(crate) fn data(version: Version, address: Address, crc: u32) -> Self {
        Self { version, content: Content::Data { address, crc } }
    }

    pub(crate) fn hole(version: Version) -> Self {
        Self { version, content: Content::Hole }
    }

    pub(crate) fn missing(version: Version) -> Self {
        Self { version, content: Content::Missing }
    }

    pub(crate) fn lost(version: Version) -> Self {
        Self { version, content: Content::Lost }
    }

    /// Whether this replica hasn't got what the block held.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self.content, Content::Missing | Content::Lost)
    }

    /// What a supersede makes of it that leaves nothing newer than `cut`.
    pub(crate) fn cut_off(&self, cut: Version) -> Self {
        if self.version > cut && self.content != Content::Missing {
            Self::missing(cut)
        } else {
            *self
        }
    }

    pub(crate) fn address(&self) -> Option<Address> {
        match self.content {
            Content::Data { address, .. } => Some(address),
            Content::Hole | Content::Missing | Content::Lost => None,
        }
    }

    /// Whether this entry, offered for a block that holds `present`, takes its place: the higher
    /// version does, of one version what was written before what is known to be lost, and anything
    /// before what is missing. The order is total, so it doesn't matter in which order entries come.
    pub(crate) fn beats(&self, present: &Self) -> bool {
        self.rank() > present.rank()
    }

    fn rank(&self) -> (Version, u8) {
        match self.content {
            Content::Missing => (Version::ZERO, 0),
            Content::Lost => (self.version, 1),
            Content::Hole | Content::Data { .. } => (self.version, 2),
        }
    }
}

const KIND_DATA: u64 = 0;
const KIND_HOLE: u64 = 1;
const KIND_MISSING: u64 = 2;
const KIND_LOST: u64 = 3;
const KIND_SHIFT: u32 = 62;
const FORCED: u64 = 1 << 61;
const ADDRESS: u64 = (1 << 60) - 1;

/// An entry in 24 bytes: the form in which layers hold millions of them. The two top bits of
/// `place` are the kind, the next is `forced`: whatever lies below has no say.
#[derive(Clone, Copy)]
pub(crate) struct Packed {
    sequence: u64,
    place: u64,
    epoch: u32,
    crc: u32,
}

const _: () = assert!(size_of::<Packed>() == 24);

impl Packed {
    pub(crate) fn new(entry: Entry, forced: bool) -> Self {
        let (kind, place, crc) = match entry.content {
            Content::Data { address, crc } => (KIND_DATA, address.0, crc),
            Content::Hole => (KIND_HOLE, 0, 0),
            Content::Missing => (KIND_MISSING, 0, 0),
            Content::Lost => (KIND_LOST, 0, 0),
        };
        Self {
            sequence: entry.version.sequence.0,
            place: kind << KIND_SHIFT | if forced { FORCED } else { 0 } | place,
            epoch: entry.version.epoch.0,
            crc,
        }
    }

    pub(crate) fn entry(&self) -> Entry {
        let version = Version::new(Epoch(self.epoch), Sequence(self.sequence));
        let content = match self.place >> KIND_SHIFT {
            KIND_DATA => Content::Data { address: Address(self.place & ADDRESS), crc: self.crc },
            KIND_HOLE => Content::Hole,
            KIND_MISSING => Content::Missing,
            _ => Content::Lost,
        };
        Entry { version, content }
    }

    pub(crate) fn forced(&self) -> bool {
        self.place & FORCED != 0
    }
}
