//! What this client has cached, as the rows of a tree: the coordinator's own operations run on it, so that
//! errors, dates, link counts, modes and ACLs come out as they will there.

use mooring_sharedfs_core::format::{InodeRow, Key, KeyRange, PlaceRow, StateRow};
use mooring_sharedfs_core::leases::LeaseLevel;
use mooring_sharedfs_core::tree::{Row, Tree};
use mooring_sharedfs_core::{
    BlockAddress, Cookie, FsError, Ino, QuarantineNumber, Result, SessionId,
};

use crate::client::Client;
use crate::inode::Inode;
use crate::known::Known;

/// The rows. What isn't known here, or may be changed by others, is [`FsError::Unavailable`]: the
/// operation is then the coordinator's to do.
pub(crate) struct Rows<'c> {
    pub(crate) client: &'c Client,
    /// Whether the operation changes nothing.
    pub(crate) reads: bool,
}

impl Rows<'_> {
    fn inode(&self, ino: Ino) -> Result<Option<&Inode>> {
        let Some(inode) = self.client.inodes.get(&ino) else {
            // Numbers of what is to be made name nothing.
            return if self.client.numbers.has(ino) { Ok(None) } else { Err(FsError::Unavailable) };
        };
        let good = if self.reads { inode.lease >= LeaseLevel::Read } else { inode.is_alone() };
        if good && inode.changing == 0 { Ok(Some(&**inode)) } else { Err(FsError::Unavailable) }
    }

    fn known(&self, ino: Ino) -> Result<&Known> {
        let inode = self.inode(ino)?.ok_or(FsError::Unavailable)?;
        inode.known.as_deref().ok_or(FsError::Unavailable)
    }

    fn row(&self, ino: Ino) -> Result<Option<InodeRow>> {
        let Some(inode) = self.inode(ino)? else { return Ok(None) };
        let attributes = inode.attributes.ok_or(FsError::Unavailable)?;
        Ok(Some(match &inode.known {
            Some(known) => known.row(attributes),
            // For reading attributes: nothing looks at the rest.
            None if self.reads => InodeRow {
                attributes,
                flags: mooring_sharedfs_core::format::InodeFlags::default(),
                parent: Ino(0),
                next_cookie: Cookie(0),
                entries: 0,
            },
            None => return Err(FsError::Unavailable),
        }))
    }
}

impl Tree for Rows<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match Key::decode(key).ok_or(FsError::Unavailable)? {
            Key::State => Ok(Some(state().encode())),
            Key::Inode(ino) => Ok(self.row(ino)?.map(|row| row.encode())),
            Key::Entry(dir, name) => {
                let folder = self.known(dir)?.folder.as_ref().ok_or(FsError::Unavailable)?;
                Ok(folder.entries.get(&name).map(|entry| entry.encode()))
            }
            Key::Xattr(ino, name) => Ok(self.known(ino)?.acls.get(&name).cloned()),
            Key::Inline(ino) => {
                let target = self.known(ino)?.target.clone();
                target.map(Some).ok_or(FsError::Unavailable)
            }
            _ => Err(FsError::Unavailable),
        }
    }

    /// Entries by cookie: nothing else is looked for in this way.
    fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>> {
        let (Some(Key::Place(dir, from)), Some(Key::Place(end_dir, end))) =
            (Key::decode(&range.from), Key::decode(&range.end))
        else {
            return Err(FsError::Unavailable);
        };
        let folder = self.known(dir)?.folder.as_ref().ok_or(FsError::Unavailable)?;
        if dir != end_dir || end < from {
            return Ok(Vec::new());
        }
        let places = folder.places.range(from..end).take(limit);
        let row = |(&cookie, name): (&Cookie, &mooring_sharedfs_core::Name)| {
            let entry = folder.entries.get(name)?;
            let place = PlaceRow { ino: entry.ino, file_type: entry.file_type, name: name.clone() };
            Some((Key::Place(dir, cookie).encode(), place.encode()))
        };
        Ok(places.filter_map(row).collect())
    }

    fn scan_back(&self, _: &KeyRange, _: usize) -> Result<Vec<Row>> {
        Err(FsError::Unavailable)
    }
}

/// The volume's counters, as far as operations here look at them: there is room, and every number that
/// was given out is below the next.
fn state() -> StateRow {
    StateRow {
        capacity: 1 << 40,
        free: 1 << 40,
        reserved: 0,
        quarantined: 0,
        charged: 0,
        inodes: 1 << 30,
        next_ino: Ino(u64::MAX),
        next_session: SessionId(0),
        next_quarantine: QuarantineNumber(0),
        data_first: BlockAddress(0),
        slice_blocks: 1,
    }
}
