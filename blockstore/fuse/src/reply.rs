//! What is answered, put together from what a file system says. Pure.
//!
//! Small answers of a fixed length are put into a [`Frame`]; listings grow in a [`Listing`] that
//! never becomes longer than the kernel asked for.

use std::time::Duration;

use crate::abi::{
    Attr, AttrOut, Dirent, EntryOut, Frame, GetxattrOut, LockOut, LseekOut, OpenOut, Statfs, Statx,
    StatxOut, StatxTail, StatxTime, WriteOut, statx,
};

/// A date as `stat` has it: seconds since 1970 and nanoseconds below 10^9.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Date {
    /// Seconds since 1970; negative before.
    pub seconds: i64,
    /// Nanoseconds of the second.
    pub nanoseconds: u32,
}

/// A node's attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeAttributes {
    /// Number of the inode.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Occupied space in units of 512 bytes.
    pub sectors: u64,
    /// Type and permissions, as in `st_mode`.
    pub mode: u32,
    /// Links.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What a device node stands for, in the kernel's encoding.
    pub rdev: u32,
    /// Access time.
    pub atime: Date,
    /// Modification time.
    pub mtime: Date,
    /// Change time.
    pub ctime: Date,
    /// When it was made.
    pub btime: Date,
}

/// The unit that callers are told to prefer, in bytes.
const BLOCK_SIZE: u32 = 4096;

impl NodeAttributes {
    fn attr(&self) -> Attr {
        Attr {
            ino: self.ino,
            size: self.size,
            blocks: self.sectors,
            // The kernel keeps the sign.
            atime: self.atime.seconds as u64,
            mtime: self.mtime.seconds as u64,
            ctime: self.ctime.seconds as u64,
            atime_nsec: self.atime.nanoseconds,
            mtime_nsec: self.mtime.nanoseconds,
            ctime_nsec: self.ctime.nanoseconds,
            mode: self.mode,
            nlink: self.links,
            uid: self.uid,
            gid: self.gid,
            rdev: self.rdev,
            block_size: BLOCK_SIZE,
            flags: 0,
        }
    }
}

/// A name that was found or made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it names, with the node's number in `ino`; 0 says that there is no such name, and that
    /// this may be cached.
    pub attributes: NodeAttributes,
    /// For how long the kernel may use the name.
    pub entry_valid: Duration,
    /// For how long the kernel may use the attributes.
    pub attributes_valid: Duration,
}

impl Entry {
    fn encode(&self, frame: &mut Frame) {
        EntryOut {
            node: self.attributes.ino,
            generation: 0,
            entry_valid: self.entry_valid.as_secs(),
            attr_valid: self.attributes_valid.as_secs(),
            entry_valid_nsec: self.entry_valid.subsec_nanos(),
            attr_valid_nsec: self.attributes_valid.subsec_nanos(),
        }
        .encode(frame);
        self.attributes.attr().encode(frame);
    }
}

/// To LOOKUP, MKNOD, MKDIR, SYMLINK, LINK.
#[must_use]
pub fn entry(entry: &Entry) -> Frame {
    let mut frame = Frame::new();
    entry.encode(&mut frame);
    frame
}

/// To CREATE and TMPFILE.
#[must_use]
pub fn created(entry: &Entry, fh: u64, open_flags: u32) -> Frame {
    let mut frame = Frame::new();
    entry.encode(&mut frame);
    OpenOut { fh, open_flags, backing_id: 0 }.encode(&mut frame);
    frame
}

/// To GETATTR and SETATTR.
#[must_use]
pub fn attributes(attributes: &NodeAttributes, valid: Duration) -> Frame {
    let mut frame = Frame::new();
    AttrOut { attr_valid: valid.as_secs(), attr_valid_nsec: valid.subsec_nanos(), dummy: 0 }
        .encode(&mut frame);
    attributes.attr().encode(&mut frame);
    frame
}

/// To STATX.
#[must_use]
pub fn statx(attributes: &NodeAttributes, valid: Duration) -> Frame {
    let mut frame = Frame::new();
    StatxOut {
        attr_valid: valid.as_secs(),
        attr_valid_nsec: valid.subsec_nanos(),
        ..StatxOut::default()
    }
    .encode(&mut frame);
    Statx {
        mask: statx::BASIC_STATS | statx::BTIME,
        block_size: BLOCK_SIZE,
        nlink: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        mode: attributes.mode as u16,
        ino: attributes.ino,
        size: attributes.size,
        blocks: attributes.sectors,
        ..Statx::default()
    }
    .encode(&mut frame);
    for date in [attributes.atime, attributes.btime, attributes.ctime, attributes.mtime] {
        StatxTime { seconds: date.seconds, nanoseconds: date.nanoseconds, reserved: 0 }
            .encode(&mut frame);
    }
    StatxTail {
        // new_decode_dev of the kernel's 32 bits.
        rdev_major: (attributes.rdev & 0xf_ff00) >> 8,
        rdev_minor: (attributes.rdev & 0xff) | ((attributes.rdev >> 12) & 0xf_ff00),
        ..StatxTail::default()
    }
    .encode(&mut frame);
    frame
}

/// To OPEN and OPENDIR; `open_flags` are [`crate::abi::open`] bits.
#[must_use]
pub fn opened(fh: u64, open_flags: u32) -> Frame {
    let mut frame = Frame::new();
    OpenOut { fh, open_flags, backing_id: 0 }.encode(&mut frame);
    frame
}

/// To WRITE and COPY_FILE_RANGE.
#[must_use]
pub fn written(size: u32) -> Frame {
    let mut frame = Frame::new();
    WriteOut { size, padding: 0 }.encode(&mut frame);
    frame
}

/// To LSEEK.
#[must_use]
pub fn offset(offset: u64) -> Frame {
    let mut frame = Frame::new();
    LseekOut { offset }.encode(&mut frame);
    frame
}

/// To GETXATTR and LISTXATTR that asked for the size alone.
#[must_use]
pub fn xattr_size(size: u32) -> Frame {
    let mut frame = Frame::new();
    GetxattrOut { size, padding: 0 }.encode(&mut frame);
    frame
}

/// To GETLK; `kind` is `F_UNLCK` where nothing stands in the way.
#[must_use]
pub fn lock(kind: u32, start: u64, end: u64, pid: u32) -> Frame {
    let mut frame = Frame::new();
    LockOut { start, end, kind, pid }.encode(&mut frame);
    frame
}

/// To STATFS.
#[must_use]
pub fn statfs(statfs: &Statfs) -> Frame {
    let mut frame = Frame::new();
    statfs.encode(&mut frame);
    frame
}

/// The answer to READDIR or READDIRPLUS, being put together.
#[derive(Debug)]
pub struct Listing {
    bytes: Vec<u8>,
    room: usize,
}

impl Listing {
    /// An empty listing that may grow to `room` bytes.
    #[must_use]
    pub fn new(room: u32) -> Self {
        Self { bytes: Vec::new(), room: room as usize }
    }

    /// Adds a name: `next` is where the listing goes on behind it, `kind` one of `DT_*`. `false`, and
    /// nothing added, if there is no room.
    #[must_use]
    pub fn push(&mut self, ino: u64, next: u64, kind: u32, name: &[u8]) -> bool {
        let length = padded(Dirent::SIZE + name.len());
        if self.bytes.len() + length > self.room {
            return false;
        }
        self.push_dirent(ino, next, kind, name);
        true
    }

    /// Adds a name with what it names; the kernel counts it as looked up, unless the entry's number
    /// is 0. `false`, and nothing added, if there is no room.
    #[must_use]
    pub fn push_plus(
        &mut self,
        entry: &Entry,
        ino: u64,
        next: u64,
        kind: u32,
        name: &[u8],
    ) -> bool {
        let length = EntryOut::SIZE + Attr::SIZE + padded(Dirent::SIZE + name.len());
        if self.bytes.len() + length > self.room {
            return false;
        }
        let mut frame = Frame::new();
        entry.encode(&mut frame);
        self.bytes.extend_from_slice(frame.bytes());
        self.push_dirent(ino, next, kind, name);
        true
    }

    fn push_dirent(&mut self, ino: u64, next: u64, kind: u32, name: &[u8]) {
        let mut frame = Frame::new();
        Dirent { ino, offset: next, name_len: name.len() as u32, kind }.encode(&mut frame);
        self.bytes.extend_from_slice(frame.bytes());
        self.bytes.extend_from_slice(name);
        let end = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(end, 0);
    }

    /// What was put together.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Entries of a listing begin at multiples of this, counted from each entry's own start, which is a
/// multiple as well.
const ALIGNMENT: usize = 8;

fn padded(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_the_kernels_sizes() {
        let node = NodeAttributes { ino: 7, ..NodeAttributes::default() };
        let found = Entry {
            attributes: node,
            entry_valid: Duration::ZERO,
            attributes_valid: Duration::from_millis(1500),
        };
        assert_eq!(entry(&found).bytes().len(), 128);
        assert_eq!(created(&found, 3, 0).bytes().len(), 144);
        assert_eq!(attributes(&node, Duration::ZERO).bytes().len(), 104);
        assert_eq!(statx(&node, Duration::ZERO).bytes().len(), 288);
        assert_eq!(
            &entry(&found).bytes()[24..40],
            [1_u64.to_ne_bytes().as_slice(), &0_u32.to_ne_bytes(), &500_000_000_u32.to_ne_bytes()]
                .concat()
        );
    }

    #[test]
    fn a_listing_stops_where_the_room_ends() {
        let mut listing = Listing::new(64);
        assert!(listing.push(5, 1, 4, b"abcdefgh"), "32 bytes");
        assert!(listing.push(6, 2, 8, b"x"), "25 bytes, 32 padded");
        assert!(!listing.push(7, 3, 8, b"y"));
        assert_eq!(listing.bytes().len(), 64);
        let found = Entry {
            attributes: NodeAttributes::default(),
            entry_valid: Duration::ZERO,
            attributes_valid: Duration::ZERO,
        };
        let mut plus = Listing::new(159);
        assert!(!plus.push_plus(&found, 5, 1, 4, b"a"));
        let mut plus = Listing::new(160);
        assert!(plus.push_plus(&found, 5, 1, 4, b"a"));
        assert_eq!(plus.bytes().len(), 160);
    }

    #[test]
    fn device_numbers_are_split_as_the_kernel_splits_them() {
        // makedev(259, 65_537) in the kernel's encoding.
        let rdev = (65_537 & 0xff) | (259 << 8) | ((65_537 & !0xff) << 12);
        let node = NodeAttributes { rdev, ..NodeAttributes::default() };
        let frame = statx(&node, Duration::ZERO);
        let at =
            |start: usize| u32::from_ne_bytes(frame.bytes()[start..start + 4].try_into().unwrap());
        assert_eq!((at(160), at(164)), (259, 65_537));
    }
}
