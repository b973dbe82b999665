//! Asking a file system's own checker.

use super::failure::Result;
use super::host::Host;
use super::seconds;

/// A kind of file system that volumes carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4, checked by `e2fsck`.
    Ext4,
    /// XFS, checked by `xfs_repair`.
    Xfs,
}

impl Host {
    /// Checks the file system on an unmounted device, changing nothing.
    ///
    /// # Errors
    /// `Failure::Command` with what the checker found, if it is not clean. A journal that was not
    /// replayed counts as unclean: mount and unmount it first.
    pub fn check_file_system(&self, kind: FileSystem, device: &str) -> Result<()> {
        let command = match kind {
            FileSystem::Ext4 => format!("e2fsck -fn '{device}'"),
            FileSystem::Xfs => format!("xfs_repair -n '{device}'"),
        };
        self.run_for(seconds(300), command).map(|_| ())
    }
}
