//! chmod, chown, utimensat and truncate, which the kernel sends as one request.

use serde::{Deserialize, Serialize};

use super::access::ACCESS_ACL;
use super::{Progress, STEP_ROWS, xattr};
use crate::format::{FILE_SIZE_MAX, InodeRow, Key};
use crate::{
    Access, Attributes, Caller, FileType, FsError, Ino, Mode, Result, Timestamp, Transaction,
};

/// What becomes of a date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetTime {
    /// It stays.
    #[default]
    Keep,
    /// The date of the operation.
    Now,
    /// This one.
    At(Timestamp),
}

/// What is to change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAttributes {
    /// The permission bits.
    pub mode: Option<Mode>,
    /// The owner.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
    /// The size in bytes. Growing needs the bytes behind the old end zeroed first: see
    /// `Transaction::plan_extend`.
    pub size: Option<u64>,
    /// When it was last read.
    pub atime: SetTime,
    /// When its contents last changed.
    pub mtime: SetTime,
    /// The caller has the file open for writing: `ftruncate` asks for no permission.
    pub by_handle: bool,
}

impl Transaction<'_> {
    /// Changes attributes. With [`Progress::More`], only a part of what a smaller size cuts off is
    /// gone: apply that, and ask again.
    ///
    /// # Errors
    /// [`FsError::NotPermitted`], [`FsError::Access`], [`FsError::IsDirectory`] and
    /// [`FsError::Invalid`] (the size of what is no file), [`FsError::TooBig`].
    pub fn setattr(
        &mut self,
        caller: &Caller,
        ino: Ino,
        set: &SetAttributes,
    ) -> Result<(Attributes, Progress)> {
        let mut row = self.inode(ino)?;
        self.check_setattr(caller, &row, set)?;
        if let Some(size) = set.size
            && self.resize(caller, &mut row, size)? == Progress::More
        {
            self.put_inode(&mut row);
            return Ok((row.attributes, Progress::More));
        }
        if set.uid.is_some() || set.gid.is_some() {
            self.change_owner(caller, &mut row, set)?;
        }
        if let Some(mode) = set.mode {
            self.change_mode(caller, &mut row, mode)?;
        }
        let now = self.now();
        for (time, set) in
            [(&mut row.attributes.atime, set.atime), (&mut row.attributes.mtime, set.mtime)]
        {
            match set {
                SetTime::Keep => {}
                SetTime::Now => *time = now,
                SetTime::At(at) => *time = at,
            }
        }
        row.attributes.ctime = now;
        self.put_inode(&mut row);
        Ok((row.attributes, Progress::Done))
    }

    fn check_setattr(&self, caller: &Caller, row: &InodeRow, set: &SetAttributes) -> Result<()> {
        let attributes = &row.attributes;
        if let Some(size) = set.size {
            match attributes.file_type {
                FileType::Regular => {}
                FileType::Directory => return Err(FsError::IsDirectory),
                _ => return Err(FsError::Invalid),
            }
            if !set.by_handle {
                self.check_access(caller, row, Access::WRITE)?;
            }
            if size > FILE_SIZE_MAX {
                return Err(FsError::TooBig);
            }
        }
        let owner = caller.uid == attributes.uid;
        let may_give = |uid| caller.privileged || (owner && uid == attributes.uid);
        let may_group =
            |gid| caller.privileged || (owner && (gid == attributes.gid || caller.in_group(gid)));
        let owns = caller.owns(attributes);
        if !set.uid.is_none_or(may_give)
            || !set.gid.is_none_or(may_group)
            || (set.mode.is_some() && !owns)
        {
            return Err(FsError::NotPermitted);
        }
        match (set.atime, set.mtime) {
            (SetTime::Keep, SetTime::Keep) => Ok(()),
            _ if owns => Ok(()),
            // `touch` by somebody who may write.
            (SetTime::Now, SetTime::Now) => self.check_access(caller, row, Access::WRITE),
            _ => Err(FsError::NotPermitted),
        }
    }

    /// Gives the file its new size, and takes its privileges.
    fn resize(&mut self, caller: &Caller, row: &mut InodeRow, size: u64) -> Result<Progress> {
        if size < row.attributes.size && self.cut(row, size, STEP_ROWS)? == Progress::More {
            return Ok(Progress::More);
        }
        row.attributes.size = size;
        row.attributes.mtime = self.now();
        if !caller.privileged {
            self.kill_privileges(row);
        }
        Ok(Progress::Done)
    }

    fn change_owner(
        &mut self,
        caller: &Caller,
        row: &mut InodeRow,
        set: &SetAttributes,
    ) -> Result<()> {
        if !row.attributes.is_directory() {
            // Whoever it is, even root: a program must not take its rights to a new owner.
            self.kill_privileges(row);
            let mode = row.attributes.mode;
            if mode.has(Mode::SETGID) && !caller.privileged && !caller.in_group(row.attributes.gid)
            {
                row.attributes.mode = mode.without(Mode::SETGID);
            }
        }
        row.attributes.uid = set.uid.unwrap_or(row.attributes.uid);
        row.attributes.gid = set.gid.unwrap_or(row.attributes.gid);
        Ok(())
    }

    fn change_mode(&mut self, caller: &Caller, row: &mut InodeRow, mode: Mode) -> Result<()> {
        let foreign = !caller.privileged && !caller.in_group(row.attributes.gid);
        row.attributes.mode = if foreign { mode.without(Mode::SETGID) } else { mode };
        if let Some(mut acl) = self.access_acl(row)? {
            acl.change_mode(mode);
            self.put(&Key::Xattr(row.attributes.ino, ACCESS_ACL.into()), acl.encode());
        }
        Ok(())
    }

    /// What a change of contents by somebody without privileges takes from a file: setuid, setgid
    /// and capabilities.
    pub(crate) fn kill_privileges(&mut self, row: &mut InodeRow) {
        row.attributes.mode = row.attributes.mode.without_privileges();
        if row.flags.xattrs {
            self.delete(&Key::Xattr(row.attributes.ino, xattr::privilege_xattr().into()));
        }
    }
}
