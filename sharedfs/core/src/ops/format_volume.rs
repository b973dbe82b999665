//! A new file system: the counters, all space free, and the root.

use crate::format::{CountRow, FILE_SIZE_MAX, InodeFlags, InodeRow, Key, StateRow};
use crate::tree::Tree;
use crate::{
    Attributes, BlockAddress, Context, Cookie, Device, FileType, FsError, Ino, Mode,
    QuarantineNumber, Result, SessionId, Timestamp, Transaction,
};

/// What a new file system is to be.
#[derive(Clone, Copy, Debug)]
pub struct FormatOptions {
    /// Where data begins.
    pub data_first: BlockAddress,
    /// Blocks for data.
    pub capacity: u64,
    /// Blocks in a slice.
    pub slice_blocks: u64,
    /// The root's owner, group and mode.
    pub root: (u32, u32, Mode),
    /// The date of its making.
    pub now: Timestamp,
}

/// The changes that make an empty `tree` an empty file system.
///
/// # Errors
/// [`FsError::Exists`] if it isn't empty; [`FsError::Invalid`] if the sizes make no sense.
pub fn format_volume(tree: &dyn Tree, options: &FormatOptions) -> Result<crate::format::Record> {
    if !tree.scan(&crate::format::KeyRange::all(), 1)?.is_empty() {
        return Err(FsError::Exists);
    }
    let &FormatOptions { data_first, capacity, slice_blocks, root: (uid, gid, mode), now } =
        options;
    let fits = data_first.0.checked_add(capacity).is_some_and(|end| end < FILE_SIZE_MAX);
    if capacity == 0 || slice_blocks == 0 || !fits {
        return Err(FsError::Invalid);
    }
    let mut transaction = Transaction::new(tree, Context { now });
    transaction.begin_state(StateRow {
        capacity,
        free: capacity,
        reserved: 0,
        quarantined: 0,
        charged: 0,
        inodes: 1,
        next_ino: Ino(Ino::ROOT.0 + 1),
        next_session: SessionId(SessionId::COORDINATOR.0 + 1),
        next_quarantine: QuarantineNumber(1),
        data_first,
        slice_blocks,
    });
    transaction.put(&Key::Free(data_first), CountRow(capacity).encode());
    let attributes = Attributes {
        ino: Ino::ROOT,
        file_type: FileType::Directory,
        mode,
        uid,
        gid,
        links: 2,
        size: super::make::DIRECTORY_BYTES,
        blocks: 0,
        device: Device(0),
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        change: 0,
    };
    let flags = InodeFlags::default();
    let mut root =
        InodeRow { attributes, flags, parent: Ino::ROOT, next_cookie: Cookie::FIRST, entries: 0 };
    transaction.put_inode(&mut root);
    Ok(transaction.finish().record)
}
