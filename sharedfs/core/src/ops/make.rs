//! Making inodes: open with O_CREAT, mkdir, mknod, symlink.

use serde::{Deserialize, Serialize};

use super::LINKS_MAX;
use super::access::{ACCESS_ACL, DEFAULT_ACL};
use crate::format::{CountRow, InodeFlags, InodeRow, Key, TARGET_MAX};
use crate::{
    Access, Attributes, Caller, Cookie, Device, FileType, FsError, Ino, Mode, Name, Result,
    Transaction,
};

/// What `st_size` of a directory says: something that programs take for a directory's size.
pub(super) const DIRECTORY_BYTES: u64 = 4096;

/// No more inode numbers are given out at once.
pub const NUMBERS_MAX: u64 = 4096;

/// In an orphan's row: it has never had a name, so it may be given one.
pub(super) const NAMELESS: CountRow = CountRow(1);

/// What is to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum New {
    /// An empty file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link to these bytes.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
}

/// How it is to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Make {
    /// What.
    pub new: New,
    /// The mode that the program asked for.
    pub mode: Mode,
    /// The program's umask: has a say where the directory has no default ACL.
    pub umask: Mode,
}

/// What `create` found or made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The file.
    pub attributes: Attributes,
    /// Whether it was made just now.
    pub created: bool,
}

impl New {
    fn file_type(&self) -> FileType {
        match self {
            Self::Regular => FileType::Regular,
            Self::Directory => FileType::Directory,
            Self::Symlink(_) => FileType::Symlink,
            Self::Fifo => FileType::Fifo,
            Self::Socket => FileType::Socket,
            Self::CharDevice(_) => FileType::CharDevice,
            Self::BlockDevice(_) => FileType::BlockDevice,
        }
    }

    fn device(&self) -> Device {
        match self {
            Self::CharDevice(device) | Self::BlockDevice(device) => *device,
            _ => Device(0),
        }
    }
}

impl Transaction<'_> {
    /// Makes something under a name that is free.
    ///
    /// # Errors
    /// [`FsError::Exists`], [`FsError::Access`], [`FsError::NotFound`] (the directory was removed),
    /// [`FsError::NotPermitted`] (device nodes), [`FsError::TooManyLinks`], [`FsError::NoSpace`].
    pub fn make(
        &mut self,
        caller: &Caller,
        dir: Ino,
        name: &Name,
        make: &Make,
    ) -> Result<Attributes> {
        let dir = self.searchable(caller, dir)?;
        if self.entry(dir.attributes.ino, name)?.is_some() {
            return Err(FsError::Exists);
        }
        self.make_absent(caller, dir, name, make)
    }

    /// `open` with O_CREAT: makes a file, or opens what is there (`exclusive`: O_EXCL).
    ///
    /// # Errors
    /// Those of [`Transaction::make`]; for what is there, those of [`Transaction::open`]. A symlink
    /// that is there is returned: following it is for whoever walks the path.
    pub fn create(
        &mut self,
        caller: &Caller,
        dir: Ino,
        name: &Name,
        (mode, umask): (Mode, Mode),
        exclusive: bool,
        access: Access,
    ) -> Result<Opened> {
        let dir = self.searchable(caller, dir)?;
        match self.entry(dir.attributes.ino, name)? {
            Some(_) if exclusive => Err(FsError::Exists),
            Some(entry) => match entry.file_type {
                FileType::Directory => Err(FsError::IsDirectory),
                FileType::Symlink => {
                    let attributes = self.named_inode(entry.ino)?.attributes;
                    Ok(Opened { attributes, created: false })
                }
                _ => {
                    let attributes = self.open(caller, entry.ino, access)?;
                    Ok(Opened { attributes, created: false })
                }
            },
            None => {
                let make = Make { new: New::Regular, mode, umask };
                let attributes = self.make_absent(caller, dir, name, &make)?;
                Ok(Opened { attributes, created: true })
            }
        }
    }

    /// `open` with O_TMPFILE: makes a file that has no name, and is gone when nobody has it open any more,
    /// unless [`Transaction::link`] has given it one.
    ///
    /// # Errors
    /// Those of [`Transaction::make`].
    pub fn tmpfile(
        &mut self,
        caller: &Caller,
        dir: Ino,
        (mode, umask): (Mode, Mode),
    ) -> Result<Opened> {
        let dir = self.searchable(caller, dir)?;
        self.check_add(caller, &dir)?;
        let make = Make { new: New::Regular, mode, umask };
        let mut row = self.new_inode(caller, &dir, &make)?;
        self.inherit_acl(&dir, &mut row, &make)?;
        row.attributes.links = 0;
        self.put(&Key::Orphan(row.attributes.ino), NAMELESS.encode());
        self.put_inode(&mut row);
        Ok(Opened { attributes: row.attributes, created: true })
    }

    /// A symlink's target.
    ///
    /// # Errors
    /// [`FsError::Invalid`] if it is none.
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        let row = self.inode(ino)?;
        if row.attributes.file_type != FileType::Symlink {
            return Err(FsError::Invalid);
        }
        let target = self.get(&Key::Inline(ino))?;
        target.ok_or(FsError::Damaged(crate::Damage::Target(ino)))
    }

    /// Gives out numbers for inodes that will be made: the first, and how many, at most `count` and an
    /// eighth of what there is room for. A number that nothing is made under is lost.
    ///
    /// # Errors
    /// [`FsError::NoSpace`], [`FsError::Invalid`] for more than [`NUMBERS_MAX`].
    pub fn take_numbers(&mut self, count: u64) -> Result<(Ino, u64)> {
        if count == 0 || count > NUMBERS_MAX {
            return Err(FsError::Invalid);
        }
        let state = self.state_mut()?;
        let room = state.inode_limit().saturating_sub(state.inodes);
        let count = count.min(room / 8);
        if count == 0 {
            return Err(FsError::NoSpace { coming: false });
        }
        let first = state.next_ino;
        state.next_ino = Ino(first.0 + count);
        Ok((first, count))
    }

    fn make_absent(
        &mut self,
        caller: &Caller,
        mut dir: InodeRow,
        name: &Name,
        make: &Make,
    ) -> Result<Attributes> {
        self.check_add(caller, &dir)?;
        check_new(caller, make)?;
        let file_type = make.new.file_type();
        if file_type == FileType::Directory {
            if dir.attributes.links >= LINKS_MAX {
                return Err(FsError::TooManyLinks);
            }
            dir.attributes.links += 1;
        }
        let mut row = self.new_inode(caller, &dir, make)?;
        let ino = row.attributes.ino;
        if let New::Symlink(target) = &make.new {
            self.put(&Key::Inline(ino), target.clone());
            row.flags.inline = true;
            row.attributes.size = target.len() as u64;
        } else {
            self.inherit_acl(&dir, &mut row, make)?;
        }
        self.add_entry(&mut dir, name, ino, file_type);
        self.put_changed_directory(&mut dir);
        self.put_inode(&mut row);
        Ok(row.attributes)
    }

    /// The row of a new inode, its number taken from the counters.
    fn new_inode(&mut self, caller: &Caller, dir: &InodeRow, make: &Make) -> Result<InodeRow> {
        let made = self.made.take();
        if let Some(made) = made
            && self.inode(made) != Err(FsError::Stale)
        {
            return Err(FsError::Invalid);
        }
        let state = self.state_mut()?;
        let ino = match made {
            // It was promised with its number, whatever the limit says by now.
            Some(made) if made < state.next_ino => made,
            Some(_) => return Err(FsError::Invalid),
            None if state.inodes >= state.inode_limit() => {
                return Err(FsError::NoSpace { coming: false });
            }
            None => {
                let next = state.next_ino;
                state.next_ino = Ino(next.0 + 1);
                next
            }
        };
        state.inodes += 1;

        let directory = make.new == New::Directory;
        let from_dir = dir.attributes.mode.has(Mode::SETGID);
        let now = self.now();
        let attributes = Attributes {
            ino,
            file_type: make.new.file_type(),
            mode: made_mode(caller, dir, make),
            uid: caller.uid,
            gid: if from_dir { dir.attributes.gid } else { caller.gid },
            links: if directory { 2 } else { 1 },
            size: if directory { DIRECTORY_BYTES } else { 0 },
            blocks: 0,
            device: make.new.device(),
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            change: 0,
        };
        Ok(InodeRow {
            attributes,
            flags: InodeFlags::default(),
            parent: if directory { dir.attributes.ino } else { Ino(0) },
            next_cookie: if directory { Cookie::FIRST } else { Cookie(0) },
            entries: 0,
        })
    }

    /// Gives a new inode its ACLs and the mode that follows from its directory's default ACL, or
    /// applies the umask where there is none.
    fn inherit_acl(&mut self, dir: &InodeRow, row: &mut InodeRow, make: &Make) -> Result<()> {
        let attributes = &mut row.attributes;
        let Some(default) = self.default_acl(dir)? else {
            attributes.mode = attributes.mode.without(make.umask.bits() & 0o777);
            return Ok(());
        };
        let (acl, mode) = default.inherited(attributes.mode);
        attributes.mode = mode;
        if !acl.is_minimal() {
            row.flags.access_acl = true;
            self.put(&Key::Xattr(attributes.ino, ACCESS_ACL.into()), acl.encode());
        }
        if attributes.is_directory() {
            row.flags.default_acl = true;
            self.put(&Key::Xattr(attributes.ino, DEFAULT_ACL.into()), default.encode());
        }
        Ok(())
    }
}

fn check_new(caller: &Caller, make: &Make) -> Result<()> {
    match &make.new {
        New::Symlink(target) if target.is_empty() => Err(FsError::NotFound),
        New::Symlink(target) if target.len() > TARGET_MAX => Err(FsError::NameTooLong),
        New::Symlink(target) if target.contains(&0) => Err(FsError::Invalid),
        // Device 0/0 is a whiteout: it opens nothing, so anybody may make one.
        New::CharDevice(Device(0)) => Ok(()),
        New::CharDevice(_) | New::BlockDevice(_) if !caller.privileged => {
            Err(FsError::NotPermitted)
        }
        _ => Ok(()),
    }
}

/// The mode before umask and default ACL.
fn made_mode(caller: &Caller, dir: &InodeRow, make: &Make) -> Mode {
    let in_setgid_dir = dir.attributes.mode.has(Mode::SETGID);
    match make.new {
        New::Symlink(_) => Mode::new(0o777),
        New::Directory => {
            let mode = make.mode.without(Mode::SETUID | Mode::SETGID);
            if in_setgid_dir { mode.with(Mode::SETGID) } else { mode }
        }
        // Nobody makes a program that runs with the rights of a group that he isn't in.
        _ if in_setgid_dir
            && make.mode.has(Mode::SETGID | Mode::GROUP_EXECUTE)
            && !caller.privileged
            && !caller.in_group(dir.attributes.gid) =>
        {
            make.mode.without(Mode::SETGID)
        }
        _ => make.mode,
    }
}
