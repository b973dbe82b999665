//! How a device's file system is mounted.

use std::os::fd::OwnedFd;
use std::path::Path;

use mooring_fuse::MountOptions;
use nix::mount::MsFlags;

use super::limits::{FEATURES, Limits};
use crate::DeviceError;

/// The type under which our mounts are known in the mount table.
pub(crate) const FSTYPE: &str = "fuse.mooring-device";

/// Mounts a device's file system at `point` (an existing directory) and does the handshake: its
/// descriptors, one for each of `threads`, and what was agreed on.
///
/// # Errors
/// [`DeviceError::Fuse`].
pub(crate) fn mount(
    point: &Path,
    name: &str,
    threads: usize,
    limits: Limits,
) -> Result<(Vec<OwnedFd>, mooring_fuse::Agreed), DeviceError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
    let options = MountOptions {
        fstype: FSTYPE,
        source: &format!("mooring:{name}"),
        flags,
        options: "",
        private: true,
        threads,
        limits: mooring_fuse::Limits {
            max_write: limits.max_write,
            max_background: limits.max_background,
        },
        features: FEATURES,
    };
    Ok(mooring_fuse::mount(point, &options)?)
}
