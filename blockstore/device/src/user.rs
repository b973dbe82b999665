//! Who uses a device, as a refusal names them.

use std::fmt;
use std::path::PathBuf;

/// One who uses a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum User {
    /// A file system on it is mounted.
    Mount {
        /// Where, as the mounting process sees it.
        point: PathBuf,
        /// A process that sees this mount.
        pid: u32,
    },
    /// A process has it open.
    Process {
        /// Its number.
        pid: u32,
        /// Its name.
        name: String,
    },
    /// Another block device (device mapper, md) stands on it.
    Stacked {
        /// That device's name.
        device: String,
    },
    /// The kernel swaps to it.
    Swap,
    /// An NBD client is connected.
    NbdClient {
        /// A process of this machine, or an address.
        peer: String,
    },
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount { point, pid } if *pid == std::process::id() => {
                write!(f, "the mount at {}", point.display())
            }
            Self::Mount { point, pid } => {
                write!(f, "the mount at {} (seen by process {pid})", point.display())
            }
            Self::Process { pid, name } => write!(f, "process {pid} ({name})"),
            Self::Stacked { device } => write!(f, "block device {device}"),
            Self::Swap => f.write_str("the kernel, which swaps to it"),
            Self::NbdClient { peer } => write!(f, "the NBD client {peer}"),
        }
    }
}
