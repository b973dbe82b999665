//! Ids, indices and counters of a shared volume, each a type of its own.

use serde::{Deserialize, Serialize};

use std::fmt;

/// Declares a newtype over an unsigned integer with the traits every id needs.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number! {
    /// An inode's number. Given once in a volume's life and never again. 0 names nothing.
    Ino(u64), "ino"
}
number! {
    /// A block's place in its file, in blocks of 4 KiB.
    FileBlock(u64), "fb"
}
number! {
    /// A block's place in the volume, in blocks of 4 KiB. (A `BlockIndex` is a place in a slice.)
    BlockAddress(u64), "at"
}
number! {
    /// An entry's place in the order of its directory: what `telldir` gives. Given once in a
    /// directory's life. 0 stands before every entry, 1 is `.`, 2 is `..`.
    Cookie(u64), "cookie"
}
number! {
    /// A client's standing with the coordinator. Given once in a volume's life; 0 is the coordinator
    /// itself, where it writes for several clients.
    SessionId(u64), "session"
}
number! {
    /// The place in a session that a request occupies until it is answered.
    SlotIndex(u32), "slot"
}
number! {
    /// The number of a request in its slot: one more than that of the one before.
    RequestNumber(u64), "request"
}
number! {
    /// The number of a batch in the journal: dense over the volume's life. The first is 1.
    JournalNumber(u64), "journal"
}
number! {
    /// One operation's freed blocks, waiting until nobody can write them any more.
    QuarantineNumber(u64), "quarantine"
}

impl Ino {
    /// The root directory.
    pub const ROOT: Self = Self(1);
}

impl SessionId {
    /// The coordinator itself.
    pub const COORDINATOR: Self = Self(0);
}

impl Cookie {
    /// The place of `.`.
    pub const DOT: Self = Self(1);
    /// The place of `..`.
    pub const DOT_DOT: Self = Self(2);
    /// The place of a directory's first entry.
    pub const FIRST: Self = Self(3);

    /// The place after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl JournalNumber {
    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl FileBlock {
    /// The block that byte `offset` lies in.
    #[must_use]
    pub fn of(offset: u64) -> Self {
        Self(offset / mooring_terms::BLOCK_SIZE as u64)
    }

    /// The first block that lies wholly at or behind byte `offset`.
    #[must_use]
    pub fn at_or_after(offset: u64) -> Self {
        Self(offset.div_ceil(mooring_terms::BLOCK_SIZE as u64))
    }

    /// The place of the block's first byte in the file.
    #[must_use]
    pub fn offset(self) -> u64 {
        self.0 * mooring_terms::BLOCK_SIZE as u64
    }

    /// The block `count` further on.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

impl BlockAddress {
    /// The block `count` further on.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

/// `count` blocks of the volume from `start` on; never none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Run {
    /// The first block.
    pub start: BlockAddress,
    /// How many blocks.
    pub count: u64,
}

impl Run {
    /// `count` blocks from `start` on.
    #[must_use]
    pub fn new(start: BlockAddress, count: u64) -> Self {
        Self { start, count }
    }

    /// The first block behind the run.
    #[must_use]
    pub fn end(&self) -> BlockAddress {
        self.start.plus(self.count)
    }

    /// Whether all of `other` lies in this run.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.start <= other.start && other.end() <= self.end()
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.start.0, self.count)
    }
}
