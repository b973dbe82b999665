//! Renaming: one entry moves, or two change places.

use serde::{Deserialize, Serialize};

use super::LINKS_MAX;
use super::make::{Make, New};
use super::remove::Removed;
use crate::error::Damage;
use crate::format::{EntryRow, InodeRow};
use crate::{Access, Caller, Device, FileType, FsError, Ino, Mode, Name, Result, Transaction};

/// The flags of `renameat2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenameMode {
    /// Replaces what has the new name.
    Replace,
    /// RENAME_NOREPLACE: fails if something has the new name.
    NoReplace,
    /// RENAME_EXCHANGE: both names must exist, and change places.
    Exchange,
    /// RENAME_WHITEOUT: leaves a character device 0/0 under the old name.
    Whiteout,
}

/// The most directories between a directory and the root that a rename looks at. Deeper trees can
/// be made (each step by itself), but directories in them can't be moved elsewhere.
const DEPTH_MAX: usize = 65_536;

/// The two directories of a rename, once each though they may be the same.
struct Directories {
    from: InodeRow,
    /// `None` if it is the same directory.
    to: Option<InodeRow>,
}

impl Directories {
    fn to(&mut self) -> &mut InodeRow {
        self.to.as_mut().unwrap_or(&mut self.from)
    }
}

impl Transaction<'_> {
    /// Renames `from` to `to`, each a directory and a name in it. What it replaced, if anything, is
    /// returned. `open` says whether anybody has an inode open.
    ///
    /// # Errors
    /// Those of `rename(2)`: [`FsError::NotFound`], [`FsError::Exists`], [`FsError::Access`],
    /// [`FsError::NotPermitted`] (sticky), [`FsError::Invalid`] (into itself),
    /// [`FsError::NotEmpty`], [`FsError::IsDirectory`], [`FsError::NotDirectory`],
    /// [`FsError::TooManyLinks`].
    pub fn rename(
        &mut self,
        caller: &Caller,
        from: (Ino, &Name),
        to: (Ino, &Name),
        mode: RenameMode,
        open: impl Fn(Ino) -> bool,
    ) -> Result<Option<Removed>> {
        let mut dirs = Directories {
            from: self.searchable(caller, from.0)?,
            to: if from.0 == to.0 { None } else { Some(self.searchable(caller, to.0)?) },
        };
        if [&dirs.from].into_iter().chain(&dirs.to).any(|dir| dir.attributes.links == 0) {
            return Err(FsError::NotFound);
        }
        let source_entry = self.entry(from.0, from.1)?.ok_or(FsError::NotFound)?;
        let source = self.named_inode(source_entry.ino)?;
        let target_entry = self.entry(to.0, to.1)?;
        let target = match &target_entry {
            Some(entry) => Some(self.named_inode(entry.ino)?),
            None => None,
        };
        match (mode, &target) {
            (RenameMode::NoReplace, Some(_)) => return Err(FsError::Exists),
            (RenameMode::Exchange, None) => return Err(FsError::NotFound),
            _ => {}
        }
        self.check_cycle(&dirs, &source, target.as_ref(), mode)?;
        if source_entry.ino == to_ino(&target_entry) {
            return Ok(None);
        }
        self.check_rename(caller, &mut dirs, &source, target.as_ref(), mode)?;
        match (target_entry, target) {
            (Some(entry), Some(row)) if mode == RenameMode::Exchange => {
                let there = (to.1, entry, row);
                self.exchange(dirs, (from.1, source_entry, source), there)?;
                Ok(None)
            }
            (entry, row) => {
                let replaced = entry.zip(row);
                let whiteout = (mode == RenameMode::Whiteout).then_some(caller);
                let names = (from.1, to.1);
                self.move_entry(dirs, names, (source_entry, source), replaced, whiteout, open)
            }
        }
    }

    /// No directory may come to lie below itself.
    fn check_cycle(
        &self,
        dirs: &Directories,
        source: &InodeRow,
        target: Option<&InodeRow>,
        mode: RenameMode,
    ) -> Result<()> {
        let Some(to) = &dirs.to else { return Ok(()) };
        let (source_ino, from_ino) = (source.attributes.ino, dirs.from.attributes.ino);
        if source.attributes.is_directory() && self.is_above(source_ino, to)? {
            return Err(FsError::Invalid);
        }
        let Some(target) = target.filter(|target| target.attributes.is_directory()) else {
            return Ok(());
        };
        let above = target.attributes.ino == from_ino
            || self.is_above(target.attributes.ino, &dirs.from)?;
        match mode {
            _ if !above => Ok(()),
            RenameMode::Exchange => Err(FsError::Invalid),
            _ => Err(FsError::NotEmpty),
        }
    }

    /// Whether the directory `ino` is `dir` or lies above it.
    fn is_above(&self, ino: Ino, dir: &InodeRow) -> Result<bool> {
        let mut at = *dir;
        for _ in 0..DEPTH_MAX {
            if at.attributes.ino == ino {
                return Ok(true);
            }
            if at.attributes.ino == Ino::ROOT {
                return Ok(false);
            }
            at = self.named_inode(at.parent)?;
        }
        Err(FsError::Invalid)
    }

    /// Permissions, kinds and link counts, in the order in which Linux looks at them.
    fn check_rename(
        &self,
        caller: &Caller,
        dirs: &mut Directories,
        source: &InodeRow,
        target: Option<&InodeRow>,
        mode: RenameMode,
    ) -> Result<()> {
        let (is_dir, exchange) = (source.attributes.is_directory(), mode == RenameMode::Exchange);
        self.check_remove(caller, &dirs.from, source)?;
        match target {
            None => self.check_add(caller, dirs.to())?,
            Some(target) => {
                self.check_remove(caller, dirs.to(), target)?;
                match (is_dir, target.attributes.is_directory()) {
                    (true, false) if !exchange => return Err(FsError::NotDirectory),
                    (false, true) if !exchange => return Err(FsError::IsDirectory),
                    _ => {}
                }
            }
        }
        // Its `..` changes, which is a write to it.
        if is_dir && dirs.to.is_some() {
            self.check_access(caller, source, Access::WRITE)?;
        }
        let target_is_dir = target.is_some_and(|target| target.attributes.is_directory());
        if exchange && target_is_dir && dirs.to.is_some() {
            self.check_access(caller, target.unwrap_or(source), Access::WRITE)?;
        }
        if !exchange && target.is_some_and(|target| target.entries > 0) {
            return Err(FsError::NotEmpty);
        }
        let comes = dirs.to.is_some() && is_dir && !target_is_dir;
        if comes && dirs.to().attributes.links >= LINKS_MAX {
            return Err(FsError::TooManyLinks);
        }
        Ok(())
    }

    fn move_entry(
        &mut self,
        mut dirs: Directories,
        (old_name, new_name): (&Name, &Name),
        (entry, mut source): (EntryRow, InodeRow),
        replaced: Option<(EntryRow, InodeRow)>,
        whiteout: Option<&Caller>,
        open: impl Fn(Ino) -> bool,
    ) -> Result<Option<Removed>> {
        let is_dir = source.attributes.is_directory();
        self.remove_entry(&mut dirs.from, old_name, entry.cookie)?;
        if is_dir {
            self.drop_subdirectory(&mut dirs.from)?;
        }
        if let Some((entry, row)) = &replaced {
            self.remove_entry(dirs.to(), new_name, entry.cookie)?;
            if row.attributes.is_directory() {
                self.drop_subdirectory(dirs.to())?;
            }
        }
        if dirs.to.is_none() {
            // Within its directory an entry keeps its place: whoever reads it meanwhile finds it.
            dirs.from.entries += 1;
            self.put_entry(dirs.from.attributes.ino, new_name, &entry);
        } else {
            self.add_entry(dirs.to(), new_name, entry.ino, entry.file_type);
        }
        let to = dirs.to();
        if is_dir {
            to.attributes.links += 1;
            source.parent = to.attributes.ino;
        }
        source.attributes.ctime = self.now();
        self.put_inode(&mut source);
        self.put_changed_directory(&mut dirs.from);
        if let Some(to) = &mut dirs.to {
            self.put_changed_directory(to);
        }
        if let Some(caller) = whiteout {
            let new = New::CharDevice(Device(0));
            let make = Make { new, mode: Mode::new(0), umask: Mode::new(0) };
            self.make(caller, dirs.from.attributes.ino, old_name, &make)?;
        }
        match replaced {
            None => Ok(None),
            Some((_, row)) if row.attributes.file_type == FileType::Directory => {
                self.drop_directory(row, open).map(Some)
            }
            Some((_, row)) => self.drop_link(row, open).map(Some),
        }
    }

    fn exchange(
        &mut self,
        mut dirs: Directories,
        (old_name, here, mut source): (&Name, EntryRow, InodeRow),
        (new_name, there, mut target): (&Name, EntryRow, InodeRow),
    ) -> Result<()> {
        let (from_ino, to_ino) = (dirs.from.attributes.ino, dirs.to().attributes.ino);
        let moved = |what: EntryRow, place: EntryRow| EntryRow { cookie: place.cookie, ..what };
        self.put_entry(from_ino, old_name, &moved(there, here));
        self.put_entry(to_ino, new_name, &moved(here, there));
        if source.attributes.is_directory() != target.attributes.is_directory() {
            let (loses, gains) = if source.attributes.is_directory() {
                (from_ino, to_ino)
            } else {
                (to_ino, from_ino)
            };
            for dir in [Some(&mut dirs.from), dirs.to.as_mut()].into_iter().flatten() {
                let ino = dir.attributes.ino;
                let links = dir.attributes.links + u32::from(ino == gains);
                let links = links.checked_sub(u32::from(ino == loses));
                dir.attributes.links = links.ok_or(Damage::Links(ino))?;
            }
        }
        for (row, parent) in [(&mut source, to_ino), (&mut target, from_ino)] {
            if row.attributes.is_directory() {
                row.parent = parent;
            }
            row.attributes.ctime = self.now();
            self.put_inode(row);
        }
        self.put_changed_directory(&mut dirs.from);
        if let Some(to) = &mut dirs.to {
            self.put_changed_directory(to);
        }
        Ok(())
    }
}

fn to_ino(entry: &Option<EntryRow>) -> Ino {
    entry.as_ref().map_or(Ino(0), |entry| entry.ino)
}
