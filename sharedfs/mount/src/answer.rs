//! The core's replies as the kernel reads them. Pure.

use std::time::Duration;

use bytes::Bytes;
use mooring_fuse::abi::{self, Frame};
use mooring_fuse::reply::{self, Date, Entry, Listing, NodeAttributes};
use mooring_sharedfs_client as client;
use mooring_sharedfs_client::{DirectoryItem, HandleId, KernelReply, OpenFlags};
use mooring_sharedfs_core::locks::{HeldLock, LockMode};
use mooring_sharedfs_core::ops::Statistics;
use mooring_sharedfs_core::{Attributes, Cookie, FileType, Ino, NAME_MAX, Timestamp};
use mooring_terms::BLOCK_SIZE;

use crate::request::{self, Form};

/// An answer's bytes, and what the kernel was not given of it.
pub(crate) struct Answered {
    pub(crate) content: Content,
    /// Names for which there was no room: what they name was not looked up.
    pub(crate) left_out: Vec<Ino>,
}

/// An answer's bytes.
pub(crate) enum Content {
    Error(i32),
    Frame(Box<Frame>),
    Bytes(Vec<u8>),
    /// One behind the other.
    Pieces(Vec<Bytes>),
}

impl Content {
    fn frame(frame: Frame) -> Self {
        Self::Frame(Box::new(frame))
    }

    fn done() -> Self {
        Self::Bytes(Vec::new())
    }
}

/// Puts an answer together; `parent` is that of the directory that is listed.
pub(crate) fn answer(reply: KernelReply, form: Form, parent: Ino) -> Answered {
    if let (KernelReply::Directory(items), Form::Listing(listing)) = (&reply, form) {
        return list(items, listing, parent);
    }
    let content = match reply {
        KernelReply::Error(error) => Content::Error(error.errno()),
        KernelReply::Done | KernelReply::Directory(_) => Content::done(),
        KernelReply::Entry(found) => Content::frame(reply::entry(&entry(&found, form))),
        KernelReply::NoEntry(time) => no_entry(time),
        KernelReply::Attributes(attributes, valid) => told(&attributes, valid, form),
        KernelReply::Opened(handle, flags) => {
            Content::frame(reply::opened(handle.0, open_flags(flags, form)))
        }
        KernelReply::OpenedDirectory(handle, _) => Content::frame(reply::opened(handle.0, 0)),
        KernelReply::Created(found, handle, flags) => created(&found, handle, flags, form),
        KernelReply::Bytes(pieces) => Content::Pieces(pieces),
        KernelReply::Target(bytes) => Content::Bytes(bytes),
        KernelReply::Written(length) => {
            Content::frame(reply::written(u32::try_from(length).unwrap_or(u32::MAX)))
        }
        KernelReply::Value(value) => sized(value, form),
        KernelReply::Names(names) => {
            let ended = names.iter().flat_map(|name| name.iter().chain(b"\0"));
            sized(ended.copied().collect(), form)
        }
        KernelReply::Statistics(statistics) => Content::frame(reply::statfs(&statfs(&statistics))),
        KernelReply::Lock(held) => Content::frame(lock(held)),
        KernelReply::Offset(offset) => Content::frame(reply::offset(offset)),
    };
    Answered { content, left_out: Vec::new() }
}

fn told(attributes: &Attributes, valid: Duration, form: Form) -> Content {
    let node = node(attributes);
    Content::frame(match form {
        Form::Statx => reply::statx(&node, valid),
        Form::Unkept => reply::attributes(&node, Duration::ZERO),
        _ => reply::attributes(&node, valid),
    })
}

fn created(found: &client::Entry, handle: HandleId, flags: OpenFlags, form: Form) -> Content {
    Content::frame(reply::created(&entry(found, form), handle.0, open_flags(flags, form)))
}

fn entry(found: &client::Entry, form: Form) -> Entry {
    let attributes_valid = if form == Form::Unkept { Duration::ZERO } else { found.attr_time };
    Entry { attributes: node(&found.attributes), entry_valid: found.entry_time, attributes_valid }
}

/// That there is no such name is an error, unless it may be kept.
fn no_entry(time: Duration) -> Content {
    if time.is_zero() {
        return Content::Error(libc::ENOENT);
    }
    let attributes = NodeAttributes::default();
    let entry = Entry { attributes, entry_valid: time, attributes_valid: Duration::ZERO };
    Content::frame(reply::entry(&entry))
}

fn open_flags(flags: OpenFlags, form: Form) -> u32 {
    let mut bits = 0;
    if flags.direct {
        bits |= abi::open::DIRECT_IO;
    }
    if flags.keep_cache {
        bits |= abi::open::KEEP_CACHE;
    }
    // Writes of one file go one after the other, as on a local file system, but for those of whoever
    // asked for direct I/O, where they run side by side there too.
    if flags.direct && matches!(form, Form::Open { o_direct: true, .. }) {
        bits |= abi::open::PARALLEL_DIRECT_WRITES;
    }
    bits
}

fn sized(bytes: Vec<u8>, form: Form) -> Content {
    match form {
        Form::Sized(0) => {
            Content::frame(reply::xattr_size(u32::try_from(bytes.len()).unwrap_or(u32::MAX)))
        }
        Form::Sized(room) if bytes.len() > room as usize => Content::Error(libc::ERANGE),
        _ => Content::Bytes(bytes),
    }
}

fn statfs(statistics: &Statistics) -> abi::Statfs {
    abi::Statfs {
        blocks: statistics.blocks,
        blocks_free: statistics.free,
        blocks_available: statistics.free,
        files: statistics.inodes,
        files_free: statistics.free_inodes,
        block_size: BLOCK_SIZE as u32,
        name_length: NAME_MAX as u32,
        fragment_size: BLOCK_SIZE as u32,
        ..abi::Statfs::default()
    }
}

fn lock(held: Option<HeldLock>) -> Frame {
    let Some(held) = held else { return reply::lock(libc::F_UNLCK as u32, 0, 0, 0) };
    let kind = match held.mode {
        LockMode::Read => libc::F_RDLCK,
        LockMode::Write => libc::F_WRLCK,
    };
    let end = held.range.end.min(i64::MAX as u64);
    reply::lock(kind as u32, held.range.start, end, held.pid)
}

fn list(items: &[DirectoryItem], listing: request::Listing, parent: Ino) -> Answered {
    let mut list = Listing::new(listing.room);
    let mut full = false;
    let dots = [(Cookie::DOT, listing.dir, &b"."[..]), (Cookie::DOT_DOT, parent, b"..")];
    for (cookie, ino, name) in dots {
        if listing.after < cookie && !full {
            let kind = u32::from(libc::DT_DIR);
            full = !push(&mut list, listing.plus, None, (ino, cookie, kind, name));
        }
    }
    let mut left_out = Vec::new();
    for item in items {
        let kind = directory_type(item.file_type);
        let named = (item.ino, item.cookie, kind, item.name.as_bytes());
        full = full || !push(&mut list, listing.plus, item.entry.as_ref(), named);
        if full && item.entry.is_some() {
            left_out.push(item.ino);
        }
    }
    Answered { content: Content::Bytes(list.bytes().to_vec()), left_out }
}

/// Adds a name, if there is room.
fn push(
    list: &mut Listing,
    plus: bool,
    found: Option<&client::Entry>,
    (ino, cookie, kind, name): (Ino, Cookie, u32, &[u8]),
) -> bool {
    if !plus {
        return list.push(ino.0, cookie.0, kind, name);
    }
    let nothing = Entry {
        attributes: NodeAttributes::default(),
        entry_valid: Duration::ZERO,
        attributes_valid: Duration::ZERO,
    };
    let entry = found.map_or(nothing, |found| entry(found, Form::Plain));
    list.push_plus(&entry, ino.0, cookie.0, kind, name)
}

fn directory_type(file_type: FileType) -> u32 {
    u32::from(match file_type {
        FileType::Regular => libc::DT_REG,
        FileType::Directory => libc::DT_DIR,
        FileType::Symlink => libc::DT_LNK,
        FileType::Fifo => libc::DT_FIFO,
        FileType::Socket => libc::DT_SOCK,
        FileType::CharDevice => libc::DT_CHR,
        FileType::BlockDevice => libc::DT_BLK,
    })
}

fn date(timestamp: Timestamp) -> Date {
    Date { seconds: timestamp.seconds, nanoseconds: timestamp.nanoseconds }
}

fn node(attributes: &Attributes) -> NodeAttributes {
    let kind = match attributes.file_type {
        FileType::Regular => libc::S_IFREG,
        FileType::Directory => libc::S_IFDIR,
        FileType::Symlink => libc::S_IFLNK,
        FileType::Fifo => libc::S_IFIFO,
        FileType::Socket => libc::S_IFSOCK,
        FileType::CharDevice => libc::S_IFCHR,
        FileType::BlockDevice => libc::S_IFBLK,
    };
    NodeAttributes {
        ino: attributes.ino.0,
        size: attributes.size,
        sectors: attributes.sectors(),
        mode: kind | u32::from(attributes.mode.bits()),
        links: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: attributes.device.0,
        atime: date(attributes.atime),
        mtime: date(attributes.mtime),
        ctime: date(attributes.ctime),
        btime: date(attributes.btime),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mooring_sharedfs_core::Name;

    fn item(number: u64, name: &[u8], plus: bool) -> DirectoryItem {
        let entry = client::Entry {
            attributes: Attributes {
                ino: Ino(number),
                file_type: FileType::Regular,
                mode: mooring_sharedfs_core::Mode::new(0o644),
                uid: 0,
                gid: 0,
                links: 1,
                size: 0,
                blocks: 0,
                device: mooring_sharedfs_core::Device(0),
                atime: Timestamp::default(),
                mtime: Timestamp::default(),
                ctime: Timestamp::default(),
                btime: Timestamp::default(),
                change: 1,
            },
            entry_time: Duration::ZERO,
            attr_time: Duration::ZERO,
        };
        DirectoryItem {
            cookie: Cookie(number),
            name: Name::new(name).unwrap(),
            ino: Ino(number),
            file_type: FileType::Regular,
            entry: plus.then_some(entry),
        }
    }

    fn listed(after: u64, room: u32, plus: bool) -> (usize, Vec<Ino>) {
        let listing =
            request::Listing { dir: Ino(1), handle: HandleId(1), after: Cookie(after), room, plus };
        let items: Vec<_> = (3..6).map(|n| item(n, b"name", plus)).collect();
        let answered = list(&items, listing, Ino(1));
        let Content::Bytes(bytes) = answered.content else { panic!("a listing is bytes") };
        (bytes.len(), answered.left_out)
    }

    #[test]
    fn a_listing_begins_with_the_directory_and_its_parent() {
        assert_eq!(listed(0, 4096, false), (5 * 32, vec![]));
        assert_eq!(listed(1, 4096, false), (4 * 32, vec![]));
        assert_eq!(listed(2, 4096, false), (3 * 32, vec![]));
    }

    #[test]
    fn what_finds_no_room_was_not_looked_up() {
        assert_eq!(listed(2, 2 * 160, true), (320, vec![Ino(5)]));
        assert_eq!(listed(2, 100, true), (0, vec![Ino(3), Ino(4), Ino(5)]));
        // Even one that would fit behind one that didn't.
        assert_eq!(listed(2, 64, false), (64, vec![]));
    }

    #[test]
    fn a_value_longer_than_the_room_is_refused() {
        assert!(matches!(sized(vec![0; 5], Form::Sized(4)), Content::Error(libc::ERANGE)));
        assert!(matches!(sized(vec![0; 5], Form::Sized(5)), Content::Bytes(b) if b.len() == 5));
        assert!(matches!(sized(vec![0; 5], Form::Sized(0)), Content::Frame(_)));
    }
}
