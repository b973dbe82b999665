//! Extended attributes. ACLs are two of them, with rules of their own.

use serde::{Deserialize, Serialize};

use super::access::{ACCESS_ACL, DEFAULT_ACL};
use crate::format::{InodeRow, Key, KeyRange, XATTR_NAME_MAX, XATTR_VALUE_MAX};
use crate::{Access, Acl, AclError, Caller, FileType, FsError, Ino, Mode, Result, Transaction};

/// The most bytes that the names of an inode's attributes take, NULs included: `listxattr` can give
/// no more.
const NAMES_MAX: usize = 65_536;

/// The flags of `setxattr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum XattrMode {
    /// Makes or replaces it.
    Set,
    /// XATTR_CREATE: it must not exist.
    Create,
    /// XATTR_REPLACE: it must exist.
    Replace,
}

/// The attribute that gives a program rights: lost when its contents change.
#[must_use]
pub fn privilege_xattr() -> &'static [u8] {
    b"security.capability"
}

enum Space {
    User,
    Trusted,
    Security,
    AccessAcl,
    DefaultAcl,
}

fn space(name: &[u8]) -> Result<Space> {
    if name.len() > XATTR_NAME_MAX {
        return Err(FsError::Range);
    }
    let in_space = |prefix: &[u8]| name.len() > prefix.len() && name.starts_with(prefix);
    match name {
        ACCESS_ACL => Ok(Space::AccessAcl),
        DEFAULT_ACL => Ok(Space::DefaultAcl),
        _ if name.contains(&0) => Err(FsError::Invalid),
        _ if in_space(b"user.") => Ok(Space::User),
        _ if in_space(b"trusted.") => Ok(Space::Trusted),
        _ if in_space(b"security.") => Ok(Space::Security),
        _ => Err(FsError::NotSupported),
    }
}

impl Transaction<'_> {
    /// An attribute's value.
    ///
    /// # Errors
    /// [`FsError::NoData`] if there is none of that name, [`FsError::Access`],
    /// [`FsError::NotSupported`] (no such name space).
    pub fn getxattr(&self, caller: &Caller, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        let row = self.inode(ino)?;
        match space(name)? {
            Space::User if !has_user_space(&row) => return Err(FsError::NoData),
            Space::User => self.check_access(caller, &row, Access::READ)?,
            Space::Trusted if !caller.privileged => return Err(FsError::NoData),
            _ => {}
        }
        self.get(&Key::Xattr(ino, name.into()))?.ok_or(FsError::NoData)
    }

    /// The names of an inode's attributes, in order; `trusted` ones only for the privileged.
    ///
    /// # Errors
    /// Damage.
    pub fn listxattr(&self, caller: &Caller, ino: Ino) -> Result<Vec<Vec<u8>>> {
        self.inode(ino)?;
        let names = self.xattr_names(ino)?.into_iter();
        Ok(names.filter(|name| caller.privileged || !name.starts_with(b"trusted.")).collect())
    }

    /// Sets an attribute.
    ///
    /// # Errors
    /// [`FsError::Exists`], [`FsError::NoData`], [`FsError::NotPermitted`], [`FsError::Access`],
    /// [`FsError::NotSupported`], [`FsError::ValueTooBig`], [`FsError::Invalid`] (no valid ACL),
    /// [`FsError::NoSpace`] (too many names).
    pub fn setxattr(
        &mut self,
        caller: &Caller,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<()> {
        let mut row = self.inode(ino)?;
        let space = space(name)?;
        if value.len() > XATTR_VALUE_MAX {
            return Err(FsError::ValueTooBig);
        }
        self.check_xattr(caller, &row, &space)?;
        let key = Key::Xattr(ino, name.into());
        let exists = self.get(&key)?.is_some();
        match (mode, exists) {
            (XattrMode::Create, true) => return Err(FsError::Exists),
            (XattrMode::Replace, false) => return Err(FsError::NoData),
            _ => {}
        }
        match space {
            Space::AccessAcl => self.set_access_acl(caller, &mut row, value)?,
            Space::DefaultAcl => self.set_default_acl(&mut row, value)?,
            _ => {
                let names = self.xattr_names(ino)?;
                let bytes: usize = names.iter().map(|name| name.len() + 1).sum();
                if !exists && bytes + name.len() + 1 > NAMES_MAX {
                    return Err(FsError::NoSpace { coming: false });
                }
                row.flags.xattrs = true;
                self.put(&key, value.to_vec());
            }
        }
        row.attributes.ctime = self.now();
        self.put_inode(&mut row);
        Ok(())
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// [`FsError::NoData`], [`FsError::NotPermitted`], [`FsError::Access`],
    /// [`FsError::NotSupported`].
    pub fn removexattr(&mut self, caller: &Caller, ino: Ino, name: &[u8]) -> Result<()> {
        let mut row = self.inode(ino)?;
        let space = space(name)?;
        self.check_xattr(caller, &row, &space)?;
        let key = Key::Xattr(ino, name.into());
        if self.get(&key)?.is_none() {
            return Err(FsError::NoData);
        }
        self.delete(&key);
        match space {
            Space::AccessAcl => row.flags.access_acl = false,
            Space::DefaultAcl => row.flags.default_acl = false,
            _ => {
                let acl = |name: &Vec<u8>| name == ACCESS_ACL || name == DEFAULT_ACL;
                row.flags.xattrs = self.xattr_names(ino)?.iter().any(|name| !acl(name));
            }
        }
        row.attributes.ctime = self.now();
        self.put_inode(&mut row);
        Ok(())
    }

    /// Whether the caller may change an attribute of this space.
    fn check_xattr(&self, caller: &Caller, row: &InodeRow, space: &Space) -> Result<()> {
        let attributes = &row.attributes;
        match space {
            Space::User if !has_user_space(row) => Err(FsError::NotPermitted),
            // A directory for everybody's files is nobody's to describe.
            Space::User
                if attributes.is_directory()
                    && attributes.mode.has(Mode::STICKY)
                    && !caller.owns(attributes) =>
            {
                Err(FsError::NotPermitted)
            }
            Space::User => self.check_access(caller, row, Access::WRITE),
            Space::Trusted | Space::Security if caller.privileged => Ok(()),
            Space::Trusted | Space::Security => Err(FsError::NotPermitted),
            _ if attributes.file_type == FileType::Symlink => Err(FsError::NotSupported),
            _ if caller.owns(attributes) => Ok(()),
            _ => Err(FsError::NotPermitted),
        }
    }

    fn set_access_acl(&mut self, caller: &Caller, row: &mut InodeRow, value: &[u8]) -> Result<()> {
        let acl = decode_acl(value)?;
        let attributes = &mut row.attributes;
        let key = Key::Xattr(attributes.ino, ACCESS_ACL.into());
        let kept = acl.filter(|acl| {
            attributes.mode = acl.mode(attributes.mode);
            if !caller.privileged && !caller.in_group(attributes.gid) {
                attributes.mode = attributes.mode.without(Mode::SETGID);
            }
            !acl.is_minimal()
        });
        row.flags.access_acl = kept.is_some();
        match kept {
            Some(acl) => self.put(&key, acl.encode()),
            None => self.delete(&key),
        }
        Ok(())
    }

    fn set_default_acl(&mut self, row: &mut InodeRow, value: &[u8]) -> Result<()> {
        let acl = decode_acl(value)?;
        if !row.attributes.is_directory() {
            return if acl.is_some() { Err(FsError::Access) } else { Ok(()) };
        }
        let key = Key::Xattr(row.attributes.ino, DEFAULT_ACL.into());
        row.flags.default_acl = acl.is_some();
        match acl {
            Some(acl) => self.put(&key, acl.encode()),
            None => self.delete(&key),
        }
        Ok(())
    }

    fn xattr_names(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        let rows = self.scan(&KeyRange::xattrs(ino), NAMES_MAX)?;
        Ok(rows
            .into_iter()
            .filter_map(|(key, _)| match Key::decode(&key) {
                Some(Key::Xattr(_, name)) => Some(name.into_vec()),
                _ => None,
            })
            .collect())
    }
}

/// Only files and directories have attributes that users name: on the others, mode bits say
/// something else than who may read and write them.
fn has_user_space(row: &InodeRow) -> bool {
    matches!(row.attributes.file_type, FileType::Regular | FileType::Directory)
}

/// An ACL as a program gives it; an empty one means none.
fn decode_acl(value: &[u8]) -> Result<Option<Acl>> {
    if value.is_empty() || value == 2_u32.to_le_bytes() {
        return Ok(None);
    }
    match Acl::decode(value) {
        Ok(acl) => Ok(Some(acl)),
        Err(AclError::Version) => Err(FsError::NotSupported),
        Err(AclError::Invalid) => Err(FsError::Invalid),
    }
}
