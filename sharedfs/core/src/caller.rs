//! Who asks, and what mode bits and ACLs allow it.

use serde::{Deserialize, Serialize};

use crate::{Acl, Attributes, FsError, Mode, Result};

/// What somebody wants to do with an inode: any of read, write, execute (or search).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access(u8);

impl Access {
    /// Nothing: only that the inode exists.
    pub const NONE: Self = Self(0);
    /// Run a file, search a directory.
    pub const EXECUTE: Self = Self(1);
    /// Change contents or entries.
    pub const WRITE: Self = Self(2);
    /// Read contents or list entries.
    pub const READ: Self = Self(4);

    /// Both of these.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The lower three bits of `bits`, as `access(2)` has them.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 7)
    }

    /// As three bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }
}

/// The groups of a caller beside its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Groups {
    /// These.
    Known(Vec<u32>),
    /// The request doesn't say, and its sender's kernel has checked permissions against attributes
    /// that its lease vouches for. Membership is then never a reason to refuse.
    CheckedByKernel,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The user for file systems (`fsuid`).
    pub uid: u32,
    /// The group for file systems (`fsgid`): what is made belongs to it.
    pub gid: u32,
    /// The other groups.
    pub groups: Groups,
    /// Whether owners, mode bits and ACLs don't bind it (root that is not squashed).
    pub privileged: bool,
}

impl Caller {
    /// Root.
    pub const ROOT: Self =
        Self { uid: 0, gid: 0, groups: Groups::Known(Vec::new()), privileged: true };

    /// A user with one group.
    #[must_use]
    pub fn user(uid: u32, gid: u32) -> Self {
        Self { uid, gid, groups: Groups::Known(Vec::new()), privileged: false }
    }

    /// Whether it is in `gid`; with unknown groups, it may be.
    #[must_use]
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid
            || match &self.groups {
                Groups::Known(groups) => groups.contains(&gid),
                Groups::CheckedByKernel => true,
            }
    }

    /// Whether somebody has checked what it may read already, or nobody has to.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        self.privileged || self.groups == Groups::CheckedByKernel
    }

    /// Whether it may do what only an inode's owner may.
    #[must_use]
    pub fn owns(&self, attributes: &Attributes) -> bool {
        self.privileged || self.uid == attributes.uid
    }

    /// Checks `access` against the inode's ACL, or its mode bits where it has none.
    ///
    /// # Errors
    /// [`FsError::Access`].
    pub fn check(&self, attributes: &Attributes, acl: Option<&Acl>, access: Access) -> Result<()> {
        if self.privileged {
            // Even root can't run a file that nobody may run.
            let runs = access.bits() & Access::EXECUTE.bits() != 0 && !attributes.is_directory();
            return if runs && attributes.mode.bits() & 0o111 == 0 {
                Err(FsError::Access)
            } else {
                Ok(())
            };
        }
        if self.groups == Groups::CheckedByKernel {
            return Ok(());
        }
        let allowed = match acl {
            Some(acl) => acl.permits(self, attributes, access),
            None => {
                let bits = attributes.mode.bits();
                let class = if self.uid == attributes.uid {
                    bits >> 6
                } else if self.in_group(attributes.gid) {
                    bits >> 3
                } else {
                    bits
                };
                access.bits() & !(class as u8 & 7) == 0
            }
        };
        if allowed { Ok(()) } else { Err(FsError::Access) }
    }

    /// Checks whether it may remove or replace an entry of `directory` that names `victim`, as far
    /// as the sticky bit is concerned.
    ///
    /// # Errors
    /// [`FsError::NotPermitted`].
    pub fn check_sticky(&self, directory: &Attributes, victim: &Attributes) -> Result<()> {
        let free = !directory.mode.has(Mode::STICKY) || self.owns(directory) || self.owns(victim);
        if free { Ok(()) } else { Err(FsError::NotPermitted) }
    }
}
