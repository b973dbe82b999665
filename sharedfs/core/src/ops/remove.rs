//! Removing entries, and inodes that have none left.
//!
//! An inode without entries is an *orphan* as long as somebody has it open, and until its rows are
//! gone: a large file's go in steps.

use serde::{Deserialize, Serialize};

use super::{Progress, STEP_ROWS};
use crate::error::Damage;
use crate::format::{CountRow, InodeRow, Key, KeyRange};
use crate::{Attributes, Caller, FileBlock, FileType, FsError, Ino, Name, Result, Transaction};

/// What became of an inode that lost an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The inode as it is now, or as it was last.
    pub attributes: Attributes,
    /// Whether it is an orphan now: [`Transaction::reap`] frees it once nobody has it open.
    pub orphan: bool,
}

impl Transaction<'_> {
    /// Removes the name of something that is no directory. `open` says whether anybody has the
    /// inode open.
    ///
    /// # Errors
    /// [`FsError::NotFound`], [`FsError::Access`], [`FsError::NotPermitted`] (sticky),
    /// [`FsError::IsDirectory`].
    pub fn unlink(
        &mut self,
        caller: &Caller,
        dir: Ino,
        name: &Name,
        open: impl Fn(Ino) -> bool,
    ) -> Result<Removed> {
        let mut dir = self.searchable(caller, dir)?;
        let entry = self.entry(dir.attributes.ino, name)?.ok_or(FsError::NotFound)?;
        let victim = self.named_inode(entry.ino)?;
        self.check_remove(caller, &dir, &victim)?;
        if victim.attributes.is_directory() {
            return Err(FsError::IsDirectory);
        }
        self.remove_entry(&mut dir, name, entry.cookie)?;
        self.put_changed_directory(&mut dir);
        self.drop_link(victim, open)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`FsError::NotFound`], [`FsError::Access`], [`FsError::NotPermitted`] (sticky),
    /// [`FsError::NotDirectory`], [`FsError::NotEmpty`].
    pub fn rmdir(
        &mut self,
        caller: &Caller,
        dir: Ino,
        name: &Name,
        open: impl Fn(Ino) -> bool,
    ) -> Result<Removed> {
        let mut dir = self.searchable(caller, dir)?;
        let entry = self.entry(dir.attributes.ino, name)?.ok_or(FsError::NotFound)?;
        let victim = self.named_inode(entry.ino)?;
        self.check_remove(caller, &dir, &victim)?;
        if !victim.attributes.is_directory() {
            return Err(FsError::NotDirectory);
        }
        if victim.entries > 0 {
            return Err(FsError::NotEmpty);
        }
        self.remove_entry(&mut dir, name, entry.cookie)?;
        self.drop_subdirectory(&mut dir)?;
        self.put_changed_directory(&mut dir);
        self.drop_directory(victim, open)
    }

    /// Frees an orphan that nobody has open, or some of it.
    ///
    /// # Errors
    /// [`FsError::Stale`] if there is no such inode; [`FsError::Invalid`] if it has entries.
    pub fn reap(&mut self, ino: Ino) -> Result<Progress> {
        let row = self.inode(ino)?;
        if row.attributes.links > 0 {
            return Err(FsError::Invalid);
        }
        self.destroy(row)
    }

    /// Up to `limit` orphans from `from` on.
    ///
    /// # Errors
    /// Damage.
    pub fn orphans(&self, from: Ino, limit: usize) -> Result<Vec<Ino>> {
        let rows = self.scan(&KeyRange::orphans(from), limit)?;
        Ok(rows
            .iter()
            .filter_map(|(key, _)| match Key::decode(key) {
                Some(Key::Orphan(ino)) => Some(ino),
                _ => None,
            })
            .collect())
    }

    /// Takes one link from something that is no directory.
    pub(super) fn drop_link(
        &mut self,
        mut row: InodeRow,
        open: impl Fn(Ino) -> bool,
    ) -> Result<Removed> {
        let ino = row.attributes.ino;
        row.attributes.links = row.attributes.links.checked_sub(1).ok_or(Damage::Links(ino))?;
        row.attributes.ctime = self.now();
        self.put_inode(&mut row);
        if row.attributes.links > 0 {
            return Ok(Removed { attributes: row.attributes, orphan: false });
        }
        self.orphan(row, open)
    }

    /// A directory whose entry is gone: it can be open, and nothing can be made in it.
    pub(super) fn drop_directory(
        &mut self,
        mut row: InodeRow,
        open: impl Fn(Ino) -> bool,
    ) -> Result<Removed> {
        row.attributes.links = 0;
        row.attributes.ctime = self.now();
        row.parent = Ino(0);
        self.put_inode(&mut row);
        self.orphan(row, open)
    }

    /// A directory loses the `..` of one below it.
    pub(super) fn drop_subdirectory(&mut self, dir: &mut InodeRow) -> Result<()> {
        let links = dir.attributes.links.checked_sub(1).filter(|&links| links >= 2);
        dir.attributes.links = links.ok_or(Damage::Links(dir.attributes.ino))?;
        Ok(())
    }

    fn orphan(&mut self, row: InodeRow, open: impl Fn(Ino) -> bool) -> Result<Removed> {
        let attributes = row.attributes;
        if !open(attributes.ino) && self.destroy(row)? == Progress::Done {
            return Ok(Removed { attributes, orphan: false });
        }
        self.put(&Key::Orphan(attributes.ino), CountRow(0).encode());
        Ok(Removed { attributes, orphan: true })
    }

    /// Deletes what an inode without links has, and then itself.
    fn destroy(&mut self, mut row: InodeRow) -> Result<Progress> {
        let ino = row.attributes.ino;
        if self.remove_blocks(&mut row, FileBlock(0), None, STEP_ROWS)? == Progress::More {
            row.attributes.size = 0;
            self.put_inode(&mut row);
            return Ok(Progress::More);
        }
        match (row.flags.inline, row.attributes.file_type) {
            (true, FileType::Regular) => self.remove_inline(&mut row)?,
            (true, _) => self.delete(&Key::Inline(ino)),
            (false, _) => {}
        }
        let flags = row.flags;
        if flags.xattrs || flags.access_acl || flags.default_acl {
            let rows = self.scan(&KeyRange::xattrs(ino), STEP_ROWS)?;
            let more = rows.len() == STEP_ROWS;
            for (key, _) in rows {
                self.delete(&Key::decode(&key).ok_or(Damage::Row(key[0]))?);
            }
            if more {
                self.put_inode(&mut row);
                return Ok(Progress::More);
            }
        }
        self.delete(&Key::Inode(ino));
        self.delete(&Key::Orphan(ino));
        let state = self.state_mut()?;
        state.inodes = state.inodes.checked_sub(1).ok_or(Damage::Counters)?;
        Ok(Progress::Done)
    }
}
