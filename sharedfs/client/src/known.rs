//! Rows of the tree that this client has as they are: what nobody else can change under the leases that
//! it holds. Operations run on them ([`crate::rows`]).

use std::collections::BTreeMap;

use mooring_sharedfs_core::format::{EntryRow, InodeFlags, InodeRow};
use mooring_sharedfs_core::{Attributes, Cookie, Ino, Name};

/// All of an inode's row that its attributes don't say, and the rows beside it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) flags: InodeFlags,
    parent: Ino,
    next_cookie: Cookie,
    entries: u64,
    /// Its ACLs, by the names of their attributes.
    pub(crate) acls: BTreeMap<Box<[u8]>, Vec<u8>>,
    /// A symlink's target.
    pub(crate) target: Option<Vec<u8>>,
    /// A directory's entries, all of them.
    pub(crate) folder: Option<Folder>,
}

/// All entries of a directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Folder {
    pub(crate) entries: BTreeMap<Name, EntryRow>,
    pub(crate) places: BTreeMap<Cookie, Name>,
}

impl Known {
    /// Of this row; nothing of what is beside it.
    pub(crate) fn of(row: &InodeRow) -> Self {
        let InodeRow { flags, parent, next_cookie, entries, .. } = *row;
        let acls = BTreeMap::new();
        Self { flags, parent, next_cookie, entries, acls, target: None, folder: None }
    }

    /// The row is this by now.
    pub(crate) fn learn(&mut self, row: &InodeRow) {
        (self.flags, self.parent) = (row.flags, row.parent);
        (self.next_cookie, self.entries) = (row.next_cookie, row.entries);
    }

    /// The inode's row.
    pub(crate) fn row(&self, attributes: Attributes) -> InodeRow {
        InodeRow {
            attributes,
            flags: self.flags,
            parent: self.parent,
            next_cookie: self.next_cookie,
            entries: self.entries,
        }
    }

    /// An entry was removed at the coordinator.
    pub(crate) fn removed(&mut self, name: &Name) {
        let Some(folder) = &mut self.folder else { return };
        if let Some(entry) = folder.entries.remove(name) {
            folder.places.remove(&entry.cookie);
            self.entries = self.entries.saturating_sub(1);
        }
    }
}
