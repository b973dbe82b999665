//! What `stat` tells of an inode.

use serde::{Deserialize, Serialize};

use mooring_terms::BLOCK_SIZE;

use crate::Ino;

/// A date: seconds since 1970 (negative before), and nanoseconds below 10^9. Not a `Time`: dates
/// are for people, and come with the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Timestamp {
    /// Whole seconds since 1970-01-01 UTC.
    pub seconds: i64,
    /// Nanoseconds of the second.
    pub nanoseconds: u32,
}

/// What kind of thing an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FileType {
    /// A file with bytes.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// The lower twelve bits of `st_mode`: permissions, sticky, setgid, setuid.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mode(u16);

/// The device that a device node names, in the kernel's own encoding; 0 for everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Device(pub u32);

/// What is known of an inode, but for its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Its number.
    pub ino: Ino,
    /// Its kind.
    pub file_type: FileType,
    /// Its permission bits.
    pub mode: Mode,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// How many entries name it; a directory counts `.` and each `..` below it.
    pub links: u32,
    /// Bytes: of a file's contents, a symlink's target; for a directory, of nothing in particular.
    pub size: u64,
    /// Blocks of 4 KiB that it occupies, preallocated ones included.
    pub blocks: u64,
    /// What a device node stands for.
    pub device: Device,
    /// When it was last read, as far as anybody said so.
    pub atime: Timestamp,
    /// When its contents last changed.
    pub mtime: Timestamp,
    /// When anything about it last changed.
    pub ctime: Timestamp,
    /// When it was made.
    pub btime: Timestamp,
    /// Raised by every change of the inode: equal numbers, equal inode.
    pub change: u64,
}

impl Attributes {
    /// `st_blocks`: in units of 512 bytes.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.blocks * (BLOCK_SIZE as u64 / 512)
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.file_type == FileType::Directory
    }
}

impl Mode {
    /// Read, write and execute for the group.
    pub const GROUP: u16 = 0o070;
    /// Execute for the group.
    pub const GROUP_EXECUTE: u16 = 0o010;
    /// Only the owner of an entry's file or of the directory may remove it.
    pub const STICKY: u16 = 0o1000;
    /// Runs with the file's group; on a directory: what is made in it belongs to its group.
    pub const SETGID: u16 = 0o2000;
    /// Runs as the file's owner.
    pub const SETUID: u16 = 0o4000;

    /// The mode with the lower twelve bits of `bits`.
    #[must_use]
    pub fn new(bits: u16) -> Self {
        Self(bits & 0o7777)
    }

    /// All twelve bits.
    #[must_use]
    pub fn bits(self) -> u16 {
        self.0
    }

    /// Whether all of `bits` are set.
    #[must_use]
    pub fn has(self, bits: u16) -> bool {
        self.0 & bits == bits
    }

    /// This mode without `bits`.
    #[must_use]
    pub fn without(self, bits: u16) -> Self {
        Self(self.0 & !bits)
    }

    /// This mode with `bits`.
    #[must_use]
    pub fn with(self, bits: u16) -> Self {
        Self::new(self.0 | bits)
    }

    /// What is left when somebody without privileges changes the contents: no setuid, and no setgid
    /// where it means "run as" (without group execute it once meant mandatory locking).
    #[must_use]
    pub fn without_privileges(self) -> Self {
        let mode = self.without(Self::SETUID);
        if mode.has(Self::GROUP_EXECUTE) { mode.without(Self::SETGID) } else { mode }
    }
}

impl std::fmt::Debug for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl FileType {
    /// Every kind, in the order of the codes that stand on the volume: 1, 2, ...
    pub(crate) const ALL: [Self; 7] = [
        Self::Regular,
        Self::Directory,
        Self::Symlink,
        Self::Fifo,
        Self::Socket,
        Self::CharDevice,
        Self::BlockDevice,
    ];
}
