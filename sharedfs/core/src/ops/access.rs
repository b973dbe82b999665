//! Permissions, with the ACLs that the tree holds.

use crate::format::{InodeRow, Key};
use crate::transaction::damaged;
use crate::{Access, Acl, Attributes, Caller, FsError, Ino, Result, Transaction};

pub(super) const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
pub(super) const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

impl Transaction<'_> {
    /// `access(2)`: whether the caller may do `access` with the inode.
    ///
    /// # Errors
    /// [`FsError::Access`] if it may not.
    pub fn access(&self, caller: &Caller, ino: Ino, access: Access) -> Result<()> {
        self.check_access(caller, &self.inode(ino)?, access)
    }

    /// What `stat` tells.
    ///
    /// # Errors
    /// [`FsError::Stale`] if the inode is gone.
    pub fn getattr(&self, ino: Ino) -> Result<Attributes> {
        Ok(self.inode(ino)?.attributes)
    }

    /// Checks what `open` is to check: permission, and that nobody writes a directory.
    ///
    /// # Errors
    /// [`FsError::Access`], [`FsError::IsDirectory`], [`FsError::Stale`].
    pub fn open(&self, caller: &Caller, ino: Ino, access: Access) -> Result<Attributes> {
        let row = self.inode(ino)?;
        let writes = access.bits() & Access::WRITE.bits() != 0;
        if row.attributes.is_directory() && writes {
            return Err(FsError::IsDirectory);
        }
        self.check_access(caller, &row, access)?;
        Ok(row.attributes)
    }

    pub(crate) fn check_access(
        &self,
        caller: &Caller,
        row: &InodeRow,
        access: Access,
    ) -> Result<()> {
        let acl = if caller.privileged { None } else { self.access_acl(row)? };
        caller.check(&row.attributes, acl.as_ref(), access)
    }

    pub(super) fn access_acl(&self, row: &InodeRow) -> Result<Option<Acl>> {
        self.acl(row.attributes.ino, ACCESS_ACL, row.flags.access_acl)
    }

    pub(super) fn default_acl(&self, row: &InodeRow) -> Result<Option<Acl>> {
        self.acl(row.attributes.ino, DEFAULT_ACL, row.flags.default_acl)
    }

    fn acl(&self, ino: Ino, name: &[u8], present: bool) -> Result<Option<Acl>> {
        if !present {
            return Ok(None);
        }
        let key = Key::Xattr(ino, name.into());
        let bytes = self.get(&key)?.ok_or_else(|| damaged(&key))?;
        Acl::decode(&bytes).map(Some).map_err(|_| damaged(&key))
    }
}
