//! Entries: two rows each, one by name and one by cookie.

use crate::error::Damage;
use crate::format::{EntryRow, InodeRow, Key, PlaceRow};
use crate::transaction::damaged;
use crate::{
    Access, Attributes, Caller, Cookie, FileType, FsError, Ino, Name, Result, Transaction,
};

impl Transaction<'_> {
    /// What `name` in `dir` names.
    ///
    /// # Errors
    /// [`FsError::NotFound`], [`FsError::NotDirectory`], [`FsError::Access`] (no search).
    pub fn lookup(&self, caller: &Caller, dir: Ino, name: &Name) -> Result<Attributes> {
        let dir = self.searchable(caller, dir)?;
        let entry = self.entry(dir.attributes.ino, name)?.ok_or(FsError::NotFound)?;
        Ok(self.named_inode(entry.ino)?.attributes)
    }

    /// What `..` of `dir` names.
    ///
    /// # Errors
    /// [`FsError::NotFound`] if it was removed; [`FsError::NotDirectory`], [`FsError::Access`].
    pub fn parent(&self, caller: &Caller, dir: Ino) -> Result<Attributes> {
        let dir = self.searchable(caller, dir)?;
        if dir.attributes.links == 0 {
            return Err(FsError::NotFound);
        }
        Ok(self.named_inode(dir.parent)?.attributes)
    }

    /// The directory `dir`, in which the caller may search.
    pub(super) fn searchable(&self, caller: &Caller, dir: Ino) -> Result<InodeRow> {
        let row = self.inode(dir)?;
        if !row.attributes.is_directory() {
            return Err(FsError::NotDirectory);
        }
        self.check_access(caller, &row, Access::EXECUTE)?;
        Ok(row)
    }

    /// Checks that the caller may add entries to `dir`.
    pub(super) fn check_add(&self, caller: &Caller, dir: &InodeRow) -> Result<()> {
        if dir.attributes.links == 0 {
            return Err(FsError::NotFound);
        }
        self.check_access(caller, dir, Access::WRITE.and(Access::EXECUTE))
    }

    /// Checks that the caller may remove the entry of `dir` that names `victim`.
    pub(super) fn check_remove(
        &self,
        caller: &Caller,
        dir: &InodeRow,
        victim: &InodeRow,
    ) -> Result<()> {
        self.check_access(caller, dir, Access::WRITE.and(Access::EXECUTE))?;
        caller.check_sticky(&dir.attributes, &victim.attributes)
    }

    /// The inode that `name` in `dir` names, if there is one; whoever asks.
    pub(crate) fn entry_ino(&self, dir: Ino, name: &Name) -> Result<Option<Ino>> {
        Ok(self.entry(dir, name)?.map(|entry| entry.ino))
    }

    pub(super) fn entry(&self, dir: Ino, name: &Name) -> Result<Option<EntryRow>> {
        let key = Key::Entry(dir, name.clone());
        let Some(row) = self.get(&key)? else { return Ok(None) };
        EntryRow::decode(&row).map(Some).ok_or_else(|| damaged(&key))
    }

    /// Adds an entry at the end of the directory.
    pub(super) fn add_entry(
        &mut self,
        dir: &mut InodeRow,
        name: &Name,
        ino: Ino,
        file_type: FileType,
    ) {
        let cookie = dir.next_cookie;
        dir.next_cookie = cookie.next();
        dir.entries += 1;
        self.put_entry(dir.attributes.ino, name, &EntryRow { ino, file_type, cookie });
    }

    /// Puts both rows of an entry whose cookie is known.
    pub(super) fn put_entry(&mut self, dir: Ino, name: &Name, entry: &EntryRow) {
        let &EntryRow { ino, file_type, cookie } = entry;
        self.put(&Key::Entry(dir, name.clone()), entry.encode());
        let place = PlaceRow { ino, file_type, name: name.clone() };
        self.put(&Key::Place(dir, cookie), place.encode());
    }

    /// Removes both rows of an entry.
    pub(super) fn remove_entry(
        &mut self,
        dir: &mut InodeRow,
        name: &Name,
        cookie: Cookie,
    ) -> Result<()> {
        let ino = dir.attributes.ino;
        dir.entries = dir.entries.checked_sub(1).ok_or(Damage::Entries(ino))?;
        self.delete(&Key::Entry(ino, name.clone()));
        self.delete(&Key::Place(ino, cookie));
        Ok(())
    }

    /// Dates and stores a directory whose entries have changed.
    pub(super) fn put_changed_directory(&mut self, dir: &mut InodeRow) {
        let now = self.now();
        dir.attributes.mtime = now;
        dir.attributes.ctime = now;
        self.put_inode(dir);
    }
}
