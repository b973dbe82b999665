//! An inode's row, 125 bytes.
//!
//! ```text
//!   0  format u8, 1   1  file type u8   2  mode u16   4  flags u8
//!   5  uid u32        9  gid u32        13 links u32  17 device u32
//!   21 size u64       29 blocks u64     37 change u64
//!   45 atime, mtime, ctime, btime: seconds i64, nanoseconds u32 each
//!   93 parent u64     101 next cookie u64             109 entries u64    117 zeros u64
//!   file types: 1 regular  2 directory  3 symlink  4 fifo  5 socket  6 character  7 block device
//!   flags: 1 inline data  2 access ACL  4 default ACL  8 other extended attributes
//! ```

use super::codec::{Reader, Writer};
use crate::{Attributes, Cookie, Device, FileType, Ino, Mode, Timestamp};

const INODE_FORMAT: u8 = 1;

/// What stands beside an inode in rows of its own, so that nobody looks in vain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InodeFlags {
    /// Its bytes, or its target, are in its inline row. Never set for an empty file.
    pub inline: bool,
    /// It has an access ACL.
    pub access_acl: bool,
    /// It has a default ACL.
    pub default_acl: bool,
    /// It has extended attributes beside ACLs.
    pub xattrs: bool,
}

/// An inode as it stands in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InodeRow {
    /// What `stat` tells.
    pub attributes: Attributes,
    /// What stands beside it.
    pub flags: InodeFlags,
    /// A directory's parent; the root is its own. 0 for everything else, and for a removed directory.
    pub parent: Ino,
    /// The cookie of a directory's next entry.
    pub next_cookie: Cookie,
    /// How many entries a directory has.
    pub entries: u64,
}

impl InodeRow {
    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let a = &self.attributes;
        let file_type = FileType::ALL.iter().position(|&t| t == a.file_type);
        let mut out = Writer::of_format(INODE_FORMAT)
            .u8(file_type.expect("ALL has every type") as u8 + 1)
            .u16(a.mode.bits())
            .u8(self.flags.encode())
            .u32(a.uid)
            .u32(a.gid)
            .u32(a.links)
            .u32(a.device.0)
            .u64(a.size)
            .u64(a.blocks)
            .u64(a.change);
        for time in [a.atime, a.mtime, a.ctime, a.btime] {
            out = out.i64(time.seconds).u32(time.nanoseconds);
        }
        out.u64(self.parent.0).u64(self.next_cookie.0).u64(self.entries).u64(0).0
    }

    /// Reads the row of inode `ino`; `None` if these bytes are none.
    #[must_use]
    pub fn decode(ino: Ino, bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::of_format(bytes, INODE_FORMAT)?;
        let file_type = *FileType::ALL.get(usize::from(r.u8()?.checked_sub(1)?))?;
        let mode = r.u16()?;
        if mode > 0o7777 {
            return None;
        }
        let flags = InodeFlags::decode(r.u8()?)?;
        let (uid, gid, links, device) = (r.u32()?, r.u32()?, r.u32()?, Device(r.u32()?));
        let (size, blocks, change) = (r.u64()?, r.u64()?, r.u64()?);
        let mut time = || -> Option<Timestamp> {
            let time = Timestamp { seconds: r.i64()?, nanoseconds: r.u32()? };
            (time.nanoseconds < 1_000_000_000).then_some(time)
        };
        let (atime, mtime, ctime, btime) = (time()?, time()?, time()?, time()?);
        let (parent, next_cookie, entries) = (Ino(r.u64()?), Cookie(r.u64()?), r.u64()?);
        let _kept_for_later = r.u64()?;
        let attributes = Attributes {
            ino,
            file_type,
            mode: Mode::new(mode),
            uid,
            gid,
            links,
            size,
            blocks,
            device,
            atime,
            mtime,
            ctime,
            btime,
            change,
        };
        r.end(Self { attributes, flags, parent, next_cookie, entries })
    }
}

impl InodeFlags {
    fn encode(self) -> u8 {
        u8::from(self.inline)
            | u8::from(self.access_acl) << 1
            | u8::from(self.default_acl) << 2
            | u8::from(self.xattrs) << 3
    }

    fn decode(bits: u8) -> Option<Self> {
        let bit = |i: u8| bits & 1 << i != 0;
        (bits < 16).then(|| Self {
            inline: bit(0),
            access_acl: bit(1),
            default_acl: bit(2),
            xattrs: bit(3),
        })
    }
}
