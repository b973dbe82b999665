//! Hard links.

use super::LINKS_MAX;
use super::make::NAMELESS;
use crate::format::Key;
use crate::{Attributes, Caller, FsError, Ino, Name, Result, Transaction};

impl Transaction<'_> {
    /// Gives an inode another name, or its first one.
    ///
    /// # Errors
    /// [`FsError::Exists`], [`FsError::Access`], [`FsError::NotPermitted`] (a directory),
    /// [`FsError::NotFound`] (it has no name any more, or the directory was removed),
    /// [`FsError::TooManyLinks`].
    pub fn link(&mut self, caller: &Caller, ino: Ino, dir: Ino, name: &Name) -> Result<Attributes> {
        let mut dir = self.searchable(caller, dir)?;
        if self.entry(dir.attributes.ino, name)?.is_some() {
            return Err(FsError::Exists);
        }
        self.check_add(caller, &dir)?;
        let mut row = self.inode(ino)?;
        if row.attributes.is_directory() {
            return Err(FsError::NotPermitted);
        }
        if row.attributes.links == 0 {
            // One that has lost its names gets none again: it may be going.
            let orphan = Key::Orphan(ino);
            let is_nameless = self.get(&orphan)?.is_some_and(|row| row == NAMELESS.encode());
            if !is_nameless {
                return Err(FsError::NotFound);
            }
            self.delete(&orphan);
        }
        if row.attributes.links >= LINKS_MAX {
            return Err(FsError::TooManyLinks);
        }
        row.attributes.links += 1;
        row.attributes.ctime = self.now();
        self.add_entry(&mut dir, name, ino, row.attributes.file_type);
        self.put_changed_directory(&mut dir);
        self.put_inode(&mut row);
        Ok(row.attributes)
    }
}
