//! Reading directories. A cookie is a place that stays: entries are returned in the order of their
//! making, one that is there from the first call to the last is returned once, and one that is
//! renamed within its directory keeps its place.

use serde::{Deserialize, Serialize};

use crate::format::{InodeRow, Key, KeyRange, PlaceRow};
use crate::transaction::damaged;
use crate::{
    Access, Attributes, Caller, Cookie, FileType, FsError, Ino, Name, Result, Transaction,
};

/// One entry. `.` and `..` are the reader's to add: their places are [`Cookie::DOT`] and
/// [`Cookie::DOT_DOT`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryEntry {
    /// Its place: reading goes on behind it.
    pub cookie: Cookie,
    /// Its name.
    pub name: Name,
    /// What it names.
    pub ino: Ino,
    /// The kind of what it names.
    pub file_type: FileType,
    /// All about what it names, where that was asked for.
    pub attributes: Option<Attributes>,
}

/// Some entries of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryPage {
    /// The entries, in order.
    pub entries: Vec<DirectoryEntry>,
    /// Whether these were the last before the bound.
    pub end: bool,
}

impl Transaction<'_> {
    /// Opens a directory for reading: its parent, and where this reading ends. What is made while
    /// somebody reads lies behind that place, so no reading goes on for ever.
    ///
    /// # Errors
    /// [`FsError::NotDirectory`], [`FsError::Access`].
    pub fn opendir(&self, caller: &Caller, dir: Ino) -> Result<(Ino, Cookie)> {
        let row = self.directory(dir)?;
        self.check_access(caller, &row, Access::READ)?;
        Ok((row.parent, row.next_cookie))
    }

    /// At most `limit` entries behind `after` and before `bound`; with their attributes if `plus`.
    ///
    /// # Errors
    /// [`FsError::NotDirectory`], [`FsError::Stale`].
    pub fn readdir(
        &self,
        dir: Ino,
        after: Cookie,
        bound: Cookie,
        limit: usize,
        plus: bool,
    ) -> Result<DirectoryPage> {
        self.directory(dir)?;
        let first = after.next().max(Cookie::FIRST);
        let range = KeyRange::between(&Key::Place(dir, first), &Key::Place(dir, bound));
        let rows = self.scan(&range, limit)?;
        let end = rows.len() < limit;
        let mut entries = Vec::with_capacity(rows.len());
        for (key, value) in rows {
            let place = PlaceRow::decode(&value);
            let (Some(Key::Place(_, cookie)), Some(place)) = (Key::decode(&key), place) else {
                return Err(damaged(&Key::Place(dir, first)));
            };
            let PlaceRow { ino, file_type, name } = place;
            let attributes = if plus { Some(self.named_inode(ino)?.attributes) } else { None };
            entries.push(DirectoryEntry { cookie, name, ino, file_type, attributes });
        }
        Ok(DirectoryPage { entries, end })
    }

    fn directory(&self, dir: Ino) -> Result<InodeRow> {
        let row = self.inode(dir)?;
        if row.attributes.is_directory() { Ok(row) } else { Err(FsError::NotDirectory) }
    }
}
