//! File systems on attached volumes: probe, make, check, mount, grow, unmount.
//!
//! The tools of e2fsprogs, xfsprogs and util-linux do the work; this module decides which of them to
//! run, and turns what they say into errors that tell a person what to do. It never formats a
//! device on which anything was found.
//!
//! Blocking: call it from a blocking thread.

use std::ffi::OsStr;
use std::io::{self, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mooring_terms::ErrorKind;
use nix::mount::{MntFlags, umount2};

/// What a volume's user asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// An ext4 file system, made at first use.
    Ext4,
    /// An XFS file system, made at first use.
    Xfs,
    /// Nothing: the user puts on the device what he likes.
    Raw,
}

/// What is on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing: it reads as zeros at both ends.
    Nothing,
    /// Data that nobody here knows.
    Unknown,
    /// Something, by the name that blkid gives it ("ext4", "xfs", "LVM2_member", "gpt").
    Something(String),
}

/// Why a file system can't be had.
#[derive(Debug, thiserror::Error)]
pub enum FileSystemError {
    /// A tool is not installed.
    #[error("{tool} is not installed: apt-get install {package}")]
    ToolMissing {
        /// The tool.
        tool: String,
        /// Debian's package that has it.
        package: &'static str,
    },
    /// A tool could not be run.
    #[error("can't run {tool}: {source}")]
    Run {
        /// The tool.
        tool: String,
        /// What the system said.
        source: io::Error,
    },
    /// A tool failed.
    #[error("{tool} failed on {}: {output}", device.display())]
    Tool {
        /// The tool.
        tool: String,
        /// The device.
        device: PathBuf,
        /// What it printed.
        output: String,
    },
    /// A raw volume without a file system can't be mounted.
    #[error(
        "the volume is raw and has no file system on it: make one on {} (for example mkfs.ext4), then mount again",
        .0.display()
    )]
    RawWithoutFileSystem(PathBuf),
    /// The device holds something else than a file system of the kind asked for.
    #[error(
        "{} holds {found}, not {wanted}: nothing was touched. Mount it by hand, or wipe it (wipefs -a) if it may go",
        device.display()
    )]
    Unexpected {
        /// The device.
        device: PathBuf,
        /// What is on it.
        found: String,
        /// What was asked for.
        wanted: &'static str,
    },
    /// The device can't be read, so nobody knows what is on it.
    #[error("can't read {} to see what is on it: {source}. Nothing was touched", device.display())]
    Read {
        /// The device.
        device: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file system that was made is no longer there.
    #[error(
        "the {wanted} file system that was made on {} is gone: somebody wiped it, or its data was lost. Nothing was touched; if the volume may be empty, make a new one by hand (mkfs.{wanted} {})",
        device.display(),
        device.display()
    )]
    Vanished {
        /// The device.
        device: PathBuf,
        /// What was there.
        wanted: &'static str,
    },
    /// The file system is damaged beyond what is repaired without asking.
    #[error(
        "the file system on {} needs a repair that isn't made without asking: run e2fsck -f {} (volume detached from any mount), then mount again. e2fsck said: {output}",
        device.display(),
        device.display()
    )]
    Damaged {
        /// The device.
        device: PathBuf,
        /// What the checker printed.
        output: String,
    },
    /// The mount point can't be used.
    #[error("can't mount on {}: {source}", dir.display())]
    MountPoint {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The unmount failed.
    #[error("can't unmount {}: {source}{}", dir.display(), busy_hint(*source))]
    Unmount {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: nix::Error,
    },
}

fn busy_hint(error: nix::Error) -> &'static str {
    if error == nix::Error::EBUSY {
        " (fuser -vm DIR shows who uses it; --force detaches it all the same)"
    } else {
        ""
    }
}

impl FileSystemError {
    /// What the caller must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::ToolMissing { .. } | Self::Run { .. } => ErrorKind::Unavailable,
            Self::Tool { .. }
            | Self::Damaged { .. }
            | Self::Read { .. }
            | Self::Vanished { .. } => ErrorKind::Corrupt,
            Self::RawWithoutFileSystem(_) | Self::Unexpected { .. } | Self::MountPoint { .. } => {
                ErrorKind::Invalid
            }
            Self::Unmount { .. } => ErrorKind::Retry,
        }
    }
}

impl Wanted {
    /// The name of the file system.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Raw => "raw",
        }
    }
}

/// Bytes at either end of a device that must be zeros before it is taken for empty: every file
/// system, partition table and volume manager that is known writes there.
const ENDS: u64 = 1 << 20;

/// Whether nothing was ever written at either end of `device`, by our own eyes.
///
/// # Errors
/// [`FileSystemError::Read`]: what can't be read is not empty.
fn is_blank(device: &Path) -> Result<bool, FileSystemError> {
    let failed = |source| FileSystemError::Read { device: device.to_owned(), source };
    let mut file = std::fs::File::open(device).map_err(failed)?;
    let size = file.seek(io::SeekFrom::End(0)).map_err(failed)?;
    let length = usize::try_from(ENDS.min(size)).unwrap_or(usize::MAX);
    let mut end = vec![0; length];
    for offset in [0, size - length as u64] {
        file.read_exact_at(&mut end, offset).map_err(failed)?;
        if end.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What is on `device`.
///
/// # Errors
/// If it can't be read, blkid can't be run, or finds contradicting signatures.
pub fn probe(device: &Path) -> Result<Found, FileSystemError> {
    // blkid says "nothing" of a device that it can't read, too.
    let blank = is_blank(device)?;
    for tag in ["TYPE", "PTTYPE"] {
        let output = run(
            Command::new("blkid").args(["-p", "-o", "value", "-s", tag]).arg(device),
            "util-linux",
        )?;
        match output.code {
            0 if !output.text.is_empty() => return Ok(Found::Something(output.text)),
            // 2: nothing was found.
            0 | 2 => {}
            _ => return Err(output.failed("blkid", device)),
        }
    }
    Ok(if blank { Found::Nothing } else { Found::Unknown })
}

/// Makes sure that `device` holds a file system to mount, and says which one: makes the one wanted
/// if there is nothing yet and this is its `first_use`, checks the one found where it asks for that.
///
/// # Errors
/// [`FileSystemError`]; nothing was overwritten then.
pub fn prepare(
    device: &Path,
    wanted: Wanted,
    first_use: bool,
    label: &str,
) -> Result<String, FileSystemError> {
    match (probe(device)?, wanted) {
        (Found::Nothing | Found::Unknown, Wanted::Raw) => {
            Err(FileSystemError::RawWithoutFileSystem(device.to_owned()))
        }
        (Found::Unknown, wanted) => Err(FileSystemError::Unexpected {
            device: device.to_owned(),
            found: "data of an unknown kind".to_owned(),
            wanted: wanted.name(),
        }),
        (Found::Nothing, wanted) if !first_use => {
            Err(FileSystemError::Vanished { device: device.to_owned(), wanted: wanted.name() })
        }
        (Found::Nothing, wanted) => {
            make(device, wanted, label)?;
            Ok(wanted.name().to_owned())
        }
        (Found::Something(found), wanted) => {
            if wanted != Wanted::Raw && found != wanted.name() {
                return Err(FileSystemError::Unexpected {
                    device: device.to_owned(),
                    found,
                    wanted: wanted.name(),
                });
            }
            check(device, &found)?;
            Ok(found)
        }
    }
}

/// From here on, in bytes, ext4 keeps the descriptors of its block groups beside the groups, in three
/// copies, instead of all of them in some twenty places: 10 TiB take 36 MiB instead of 143, all
/// of it written when the file system is made. It grows while mounted either way.
const GROUPS_APART_FROM: u64 = 1 << 40;

/// Makes a file system on an empty, thin device that reads as zeros: nothing is discarded first, and
/// what mkfs would zero is left to the holes that are there already.
fn make(device: &Path, wanted: Wanted, label: &str) -> Result<(), FileSystemError> {
    let (tool, package) = match wanted {
        Wanted::Ext4 => ("mkfs.ext4", "e2fsprogs"),
        Wanted::Xfs => ("mkfs.xfs", "xfsprogs"),
        Wanted::Raw => return Err(FileSystemError::RawWithoutFileSystem(device.to_owned())),
    };
    let mut command = Command::new(tool);
    match wanted {
        Wanted::Ext4 => {
            command
                .args(["-q", "-F", "-b", "4096", "-m", "0", "-E"])
                .arg("nodiscard,lazy_itable_init=1,lazy_journal_init=1")
                .args(["-L", truncated(label, 16)]);
            if size(device)? >= GROUPS_APART_FROM {
                command.args(["-O", "meta_bg,^resize_inode"]);
            }
            &mut command
        }
        // XFS labels have at most 12 characters.
        _ => command.args(["-q", "-f", "-K", "-L", truncated(label, 12)]),
    };
    let output = run(command.arg(device), package)?;
    if output.code == 0 { Ok(()) } else { Err(output.failed(tool, device)) }
}

/// The size of a device in bytes.
fn size(device: &Path) -> Result<u64, FileSystemError> {
    let failed = |source| FileSystemError::Read { device: device.to_owned(), source };
    let mut file = std::fs::File::open(device).map_err(failed)?;
    file.seek(io::SeekFrom::End(0)).map_err(failed)
}

fn truncated(label: &str, length: usize) -> &str {
    label.get(..length).unwrap_or(label)
}

/// Replays the journal and checks, as far as the file system itself asks for it.
fn check(device: &Path, found: &str) -> Result<(), FileSystemError> {
    if !found.starts_with("ext") {
        // XFS replays its log when it is mounted, and says so if that isn't enough.
        return Ok(());
    }
    let output = run(Command::new("e2fsck").arg("-p").arg(device), "e2fsprogs")?;
    match output.code {
        0 | 1 => Ok(()),
        _ => Err(FileSystemError::Damaged { device: device.to_owned(), output: output.text }),
    }
}

/// Mounts `device` on `dir`, which is made if it doesn't exist.
///
/// # Errors
/// [`FileSystemError::MountPoint`] or what mount(8) says.
pub fn mount(
    device: &Path,
    dir: &Path,
    file_system: &str,
    options: &str,
) -> Result<(), FileSystemError> {
    std::fs::create_dir_all(dir)
        .map_err(|source| FileSystemError::MountPoint { dir: dir.to_owned(), source })?;
    let mut command = Command::new("mount");
    command.args(["-t", file_system]);
    if !options.is_empty() {
        command.args(["-o", options]);
    }
    let output = run(command.arg("--").arg(device).arg(dir), "mount")?;
    if output.code == 0 { Ok(()) } else { Err(output.failed("mount", device)) }
}

/// Grows an ext4 file system that is not mounted to the size of its device: unlike growing it while
/// mounted, that takes no capability beyond those for mounting. XFS grows only while mounted.
///
/// # Errors
/// What the tools say; the file system is then as large as it was.
pub fn grow_unmounted(device: &Path, file_system: &str) -> Result<(), FileSystemError> {
    if !file_system.starts_with("ext") || !is_smaller_than_device(device)? {
        return Ok(());
    }
    // resize2fs insists on a check just before.
    let checked = run(Command::new("e2fsck").args(["-f", "-p"]).arg(device), "e2fsprogs")?;
    if checked.code > 1 {
        return Err(FileSystemError::Damaged { device: device.to_owned(), output: checked.text });
    }
    let output = run(Command::new("resize2fs").arg(device), "e2fsprogs")?;
    if output.code == 0 { Ok(()) } else { Err(output.failed("resize2fs", device)) }
}

/// Whether an ext4 file system leaves at least a block group of its device unused.
fn is_smaller_than_device(device: &Path) -> Result<bool, FileSystemError> {
    let output = run(Command::new("dumpe2fs").arg("-h").arg(device), "e2fsprogs")?;
    if output.code != 0 {
        return Err(output.failed("dumpe2fs", device));
    }
    let number = |name: &str| {
        let line = output.text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    let size = size(device)?;
    match (number("Block count:"), number("Block size:"), number("Blocks per group:")) {
        (Some(count), Some(block), Some(group)) => Ok(size / block >= count + group),
        _ => Ok(false),
    }
}

/// Grows the mounted file system to the size of its device.
///
/// # Errors
/// What the tool says; the file system is then as large as it was.
pub fn grow(device: &Path, dir: &Path, file_system: &str) -> Result<(), FileSystemError> {
    let (tool, package, subject): (_, _, &OsStr) = match file_system {
        "xfs" => ("xfs_growfs", "xfsprogs", dir.as_os_str()),
        found if found.starts_with("ext") => ("resize2fs", "e2fsprogs", device.as_os_str()),
        _ => return Ok(()),
    };
    let output = run(Command::new(tool).arg(subject), package)?;
    if output.code == 0 { Ok(()) } else { Err(output.failed(tool, device)) }
}

/// Unmounts `dir`. `lazy` takes it out of the tree even while it is in use.
///
/// # Errors
/// [`FileSystemError::Unmount`].
pub fn unmount(dir: &Path, lazy: bool) -> Result<(), FileSystemError> {
    let flags = if lazy { MntFlags::MNT_DETACH | MntFlags::MNT_FORCE } else { MntFlags::empty() };
    umount2(dir, flags).map_err(|source| FileSystemError::Unmount { dir: dir.to_owned(), source })
}

/// What a tool left: its exit code (255 if a signal ended it) and what it printed, trimmed.
struct Output {
    code: i32,
    text: String,
}

impl Output {
    fn failed(self, tool: &str, device: &Path) -> FileSystemError {
        FileSystemError::Tool {
            tool: tool.to_owned(),
            device: device.to_owned(),
            output: self.text,
        }
    }
}

fn run(command: &mut Command, package: &'static str) -> Result<Output, FileSystemError> {
    let tool = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|source| {
        if source.kind() == io::ErrorKind::NotFound {
            FileSystemError::ToolMissing { tool: tool.clone(), package }
        } else {
            FileSystemError::Run { tool: tool.clone(), source }
        }
    })?;
    let mut text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    if !errors.trim().is_empty() {
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(errors.trim());
    }
    Ok(Output { code: output.status.code().unwrap_or(255), text })
}

#[cfg(test)]
mod tests;
