//! The keys of the tree: one kind byte, then big-endian numbers, then bytes, so that byte order is
//! the order of inodes, cookies and addresses.

use crate::{BlockAddress, Cookie, FileBlock, Ino, Name, QuarantineNumber, SessionId, SlotIndex};

/// The key of a row, and what its value is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The volume's counters: [`super::StateRow`].
    State,
    /// An inode: [`super::InodeRow`].
    Inode(Ino),
    /// An entry by name: [`super::EntryRow`].
    Entry(Ino, Name),
    /// An entry by cookie: [`super::PlaceRow`].
    Place(Ino, Cookie),
    /// A small file's bytes or a symlink's target, as they are, without a format byte.
    Inline(Ino),
    /// Blocks of a file: [`super::ExtentRow`]. The block named is the first.
    Extent(Ino, FileBlock),
    /// An extended attribute's value, as it is, without a format byte.
    Xattr(Ino, Box<[u8]>),
    /// An inode without entries that is not yet freed: [`super::CountRow`], always 0.
    Orphan(Ino),
    /// Free blocks: [`super::CountRow`]. No two rows touch each other.
    Free(BlockAddress),
    /// A client's session: [`super::SessionRow`].
    Session(SessionId),
    /// The last reply in a session's slot: [`super::ReplyRow`].
    Reply(SessionId, SlotIndex),
    /// Blocks that a session may write and has not committed: [`super::CountRow`].
    Reservation(SessionId, BlockAddress),
    /// Blocks that were freed and that somebody may still write: [`super::CountRow`].
    Quarantine(QuarantineNumber, BlockAddress),
}

/// Rows from one key up to, not including, another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub from: Vec<u8>,
    /// The first key behind.
    pub end: Vec<u8>,
}

mod kind {
    pub(super) const STATE: u8 = 0x01;
    pub(super) const INODE: u8 = 0x10;
    pub(super) const ENTRY: u8 = 0x20;
    pub(super) const PLACE: u8 = 0x21;
    pub(super) const INLINE: u8 = 0x30;
    pub(super) const EXTENT: u8 = 0x40;
    pub(super) const XATTR: u8 = 0x50;
    pub(super) const ORPHAN: u8 = 0x60;
    pub(super) const FREE: u8 = 0x70;
    // 0x71 is kept for counts of sharers, once extents can be shared.
    pub(super) const SESSION: u8 = 0x80;
    pub(super) const REPLY: u8 = 0x81;
    pub(super) const RESERVATION: u8 = 0x90;
    // 0x91 is kept for ranges of inode numbers that sessions hold (exclusive directory leases).
    pub(super) const QUARANTINE: u8 = 0xA0;
}

impl Key {
    /// The key's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::State => vec![kind::STATE],
            Self::Inode(ino) => one(kind::INODE, ino.0),
            Self::Entry(dir, name) => with(one(kind::ENTRY, dir.0), name.as_bytes()),
            Self::Place(dir, cookie) => two(kind::PLACE, dir.0, cookie.0),
            Self::Inline(ino) => one(kind::INLINE, ino.0),
            Self::Extent(ino, block) => two(kind::EXTENT, ino.0, block.0),
            Self::Xattr(ino, name) => with(one(kind::XATTR, ino.0), name),
            Self::Orphan(ino) => one(kind::ORPHAN, ino.0),
            Self::Free(start) => one(kind::FREE, start.0),
            Self::Session(session) => one(kind::SESSION, session.0),
            Self::Reply(session, slot) => with(one(kind::REPLY, session.0), &slot.0.to_be_bytes()),
            Self::Reservation(session, start) => two(kind::RESERVATION, session.0, start.0),
            Self::Quarantine(number, start) => two(kind::QUARANTINE, number.0, start.0),
        }
    }

    /// Reads a key; `None` if these are the bytes of none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&kind, rest) = bytes.split_first()?;
        if kind == kind::STATE {
            return rest.is_empty().then_some(Self::State);
        }
        let (first, rest) = take(rest)?;
        let ino = Ino(first);
        Some(match kind {
            kind::INODE => whole(rest, Self::Inode(ino))?,
            kind::ENTRY => Self::Entry(ino, Name::new(rest).ok()?),
            kind::PLACE => Self::Place(ino, Cookie(last(rest)?)),
            kind::INLINE => whole(rest, Self::Inline(ino))?,
            kind::EXTENT => Self::Extent(ino, FileBlock(last(rest)?)),
            kind::XATTR => Self::Xattr(ino, rest.into()),
            kind::ORPHAN => whole(rest, Self::Orphan(ino))?,
            kind::FREE => whole(rest, Self::Free(BlockAddress(first)))?,
            kind::SESSION => whole(rest, Self::Session(SessionId(first)))?,
            kind::REPLY => {
                let slot = u32::from_be_bytes(rest.try_into().ok()?);
                Self::Reply(SessionId(first), SlotIndex(slot))
            }
            kind::RESERVATION => Self::Reservation(SessionId(first), BlockAddress(last(rest)?)),
            kind::QUARANTINE => {
                Self::Quarantine(QuarantineNumber(first), BlockAddress(last(rest)?))
            }
            _ => return None,
        })
    }
}

impl KeyRange {
    /// From one key up to, not including, another of its kind.
    #[must_use]
    pub fn between(from: &Key, end: &Key) -> Self {
        Self { from: from.encode(), end: end.encode() }
    }

    /// A directory's entries by cookie, from `cookie` on.
    #[must_use]
    pub fn places(dir: Ino, cookie: Cookie) -> Self {
        Self { from: two(kind::PLACE, dir.0, cookie.0), end: behind(kind::PLACE, dir.0) }
    }

    /// A directory's entries by name.
    #[must_use]
    pub fn entries(dir: Ino) -> Self {
        Self { from: one(kind::ENTRY, dir.0), end: behind(kind::ENTRY, dir.0) }
    }

    /// A file's extents.
    #[must_use]
    pub fn extents(ino: Ino) -> Self {
        Self { from: one(kind::EXTENT, ino.0), end: behind(kind::EXTENT, ino.0) }
    }

    /// An inode's extended attributes.
    #[must_use]
    pub fn xattrs(ino: Ino) -> Self {
        Self { from: one(kind::XATTR, ino.0), end: behind(kind::XATTR, ino.0) }
    }

    /// All inodes.
    #[must_use]
    pub fn inodes() -> Self {
        Self::kind(kind::INODE)
    }

    /// All orphans from `ino` on.
    #[must_use]
    pub fn orphans(ino: Ino) -> Self {
        Self { from: one(kind::ORPHAN, ino.0), ..Self::kind(kind::ORPHAN) }
    }

    /// All free runs from `start` on.
    #[must_use]
    pub fn free(start: BlockAddress) -> Self {
        Self { from: one(kind::FREE, start.0), ..Self::kind(kind::FREE) }
    }

    /// All sessions.
    #[must_use]
    pub fn sessions() -> Self {
        Self::kind(kind::SESSION)
    }

    /// A session's slots.
    #[must_use]
    pub fn replies(session: SessionId) -> Self {
        Self { from: one(kind::REPLY, session.0), end: behind(kind::REPLY, session.0) }
    }

    /// A session's reserved blocks.
    #[must_use]
    pub fn reservations(session: SessionId) -> Self {
        Self { from: one(kind::RESERVATION, session.0), end: behind(kind::RESERVATION, session.0) }
    }

    /// The blocks under one number of the quarantine.
    #[must_use]
    pub fn quarantine(number: QuarantineNumber) -> Self {
        Self { from: one(kind::QUARANTINE, number.0), end: behind(kind::QUARANTINE, number.0) }
    }

    /// All of the quarantine.
    #[must_use]
    pub fn all_quarantine() -> Self {
        Self::kind(kind::QUARANTINE)
    }

    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self { from: Vec::new(), end: vec![0xff] }
    }

    fn kind(kind: u8) -> Self {
        Self { from: vec![kind], end: vec![kind + 1] }
    }
}

fn one(kind: u8, number: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(32);
    key.push(kind);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn two(kind: u8, first: u64, second: u64) -> Vec<u8> {
    with(one(kind, first), &second.to_be_bytes())
}

fn with(mut key: Vec<u8>, bytes: &[u8]) -> Vec<u8> {
    key.extend_from_slice(bytes);
    key
}

/// The end of the rows of `number`.
fn behind(kind: u8, number: u64) -> Vec<u8> {
    number.checked_add(1).map_or_else(|| vec![kind + 1], |next| one(kind, next))
}

fn take(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), rest))
}

fn last(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

fn whole(rest: &[u8], key: Key) -> Option<Key> {
    rest.is_empty().then_some(key)
}
