//! The two nodes of the file system: a directory, and the file `disk` in it. Pure.
//!
//! All numbers are fixed and all attributes but the size never change, so that the kernel may cache
//! them for ever: nothing but I/O has to wait for a daemon that is away.

use mooring_fuse::abi::{Attr, AttrOut, Dirent, EntryOut, Frame, OpenOut, Statfs, open};

/// The directory.
pub(super) const ROOT: u64 = 1;

/// The file.
pub(super) const DISK: u64 = 2;

/// The file's name.
pub(crate) const FILE_NAME: &str = "disk";

/// Some hundred years in seconds: the kernel adds it to its clock, so it must not overflow.
const FOR_EVER: u64 = 1 << 33;

fn attr(node: u64, size: u64) -> Option<Attr> {
    let (mode, size, nlink) = match node {
        ROOT => (libc::S_IFDIR | 0o700, 0, 2),
        DISK => (libc::S_IFREG | 0o600, size, 1),
        _ => return None,
    };
    Some(Attr {
        ino: node,
        size,
        blocks: size / 512,
        mode,
        nlink,
        block_size: 4096,
        ..Attr::default()
    })
}

/// The answer to GETATTR (and to a SETATTR that is let pass).
pub(super) fn attributes(node: u64, size: u64) -> Option<Frame> {
    let mut frame = Frame::new();
    AttrOut { attr_valid: FOR_EVER, ..AttrOut::default() }.encode(&mut frame);
    attr(node, size)?.encode(&mut frame);
    Some(frame)
}

/// The answer to LOOKUP.
pub(super) fn entry(parent: u64, name: &[u8], size: u64) -> Option<Frame> {
    if parent != ROOT || name != FILE_NAME.as_bytes() {
        return None;
    }
    let mut frame = Frame::new();
    EntryOut { node: DISK, entry_valid: FOR_EVER, attr_valid: FOR_EVER, ..EntryOut::default() }
        .encode(&mut frame);
    attr(DISK, size)?.encode(&mut frame);
    Some(frame)
}

/// The answer to OPEN. Reads and writes bypass the page cache: what is answered was taken by the
/// volume, and nothing is cached twice.
pub(super) fn opened() -> Frame {
    let mut frame = Frame::new();
    let open_flags = open::DIRECT_IO | open::PARALLEL_DIRECT_WRITES;
    OpenOut { fh: DISK, open_flags, backing_id: 0 }.encode(&mut frame);
    frame
}

/// The answer to OPENDIR.
pub(super) fn opened_directory() -> Frame {
    let mut frame = Frame::new();
    OpenOut { fh: ROOT, ..OpenOut::default() }.encode(&mut frame);
    frame
}

/// The answer to READDIR: the names from `offset` on that fit into `room` bytes.
pub(super) fn listing(offset: u64, room: u32) -> Frame {
    let names =
        [(".", ROOT, libc::DT_DIR), ("..", ROOT, libc::DT_DIR), (FILE_NAME, DISK, libc::DT_REG)];
    let mut frame = Frame::new();
    for (i, (name, ino, kind)) in
        names.iter().enumerate().skip(usize::try_from(offset).unwrap_or(usize::MAX))
    {
        let padded = (Dirent::SIZE + name.len()).next_multiple_of(8);
        if frame.bytes().len() + padded > room as usize {
            break;
        }
        let dirent = Dirent {
            ino: *ino,
            offset: i as u64 + 1,
            name_len: name.len() as u32,
            kind: u32::from(*kind),
        };
        dirent.encode(&mut frame);
        frame.push(name.as_bytes());
        frame.push(&[0; 8][..padded - Dirent::SIZE - name.len()]);
    }
    frame
}

/// The answer to STATFS.
pub(super) fn statfs(size: u64) -> Frame {
    let mut frame = Frame::new();
    let statfs = Statfs {
        blocks: size / 4096,
        files: 2,
        block_size: 4096,
        fragment_size: 4096,
        name_length: 255,
        ..Statfs::default()
    };
    statfs.encode(&mut frame);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_goes_on_where_it_stopped() {
        let all = listing(0, 4096);
        let first = listing(0, 40);
        let rest = listing(1, 4096);
        assert_eq!(first.bytes().len(), 32);
        assert_eq!(all.bytes(), [first.bytes(), rest.bytes()].concat());
        assert!(listing(3, 4096).bytes().is_empty());
        assert!(listing(u64::MAX, 4096).bytes().is_empty());
    }

    #[test]
    fn only_the_disk_is_found() {
        assert_eq!(entry(ROOT, b"disk", 4096).unwrap().bytes().len(), 128);
        assert!(entry(ROOT, b"disc", 4096).is_none());
        assert!(entry(DISK, b"disk", 4096).is_none());
        assert!(attributes(3, 4096).is_none());
    }
}
