//! Who holds a block device: mounts, open descriptors, devices stacked on it.
//!
//! What is found explains a refusal; it decides none. Processes of other containers whose /proc
//! entries this one can't read stay unseen.
#![allow(
    clippy::disallowed_methods,
    reason = "waits for programs that look at a device for a moment, in real time"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, StatxFlags, statx};

use crate::{DeviceError, User};

/// Programs that look at every new or changed device (udev's, `blkid`) are given this long to go before
/// a detach is refused.
const PASSERS_BY: Duration = Duration::from_secs(1);

const POLL: Duration = Duration::from_millis(50);

/// Makes sure that nobody uses the block device `major`:`minor` with the node `path`, and that what its
/// cache holds is written; `claim` opens it with `O_EXCL`. Whoever keeps the claim keeps others from
/// mounting it.
///
/// # Errors
/// [`DeviceError::Busy`] while somebody does; [`DeviceError::System`] if it can't be opened or flushed.
pub(crate) fn claim_and_flush(
    path: &Path,
    (major, minor): (u32, u32),
    claim: impl Fn() -> io::Result<OwnedFd>,
) -> Result<OwnedFd, DeviceError> {
    let deadline = Instant::now() + PASSERS_BY;
    let busy = |users| Err(DeviceError::Busy { path: path.to_owned(), users });
    loop {
        let claimed = match claim() {
            Ok(claimed) => claimed,
            // Mounts, swap and stacked devices claim it, as we do.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                return busy(of(path, major, minor));
            }
            Err(source) => return Err(DeviceError::system("opening", path, source)),
        };
        rustix::fs::fsync(&claimed)
            .map_err(|source| DeviceError::system("flushing", path, source))?;
        // Our own claim must not be taken for somebody else's use.
        let openers = openers(major, minor, Some(claimed.as_raw_fd()));
        if openers.is_empty() {
            return Ok(claimed);
        }
        if Instant::now() >= deadline {
            return busy(openers);
        }
        std::thread::sleep(POLL);
    }
}

/// All that can be found of who holds the block device `major`:`minor` with the node `path`.
pub(crate) fn of(path: &Path, major: u32, minor: u32) -> Vec<User> {
    let mut users: BTreeSet<User> = openers(major, minor, None).into_iter().collect();
    let mut namespaces = BTreeSet::new();
    for (pid, process) in processes() {
        if fs::read_link(process.join("ns/mnt")).is_ok_and(|namespace| namespaces.insert(namespace))
        {
            let table = fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
            users.extend(mounts(&table, major, minor).map(|point| User::Mount { point, pid }));
        }
    }
    let holders =
        fs::read_dir(format!("/sys/dev/block/{major}:{minor}/holders")).into_iter().flatten();
    users.extend(holders.filter_map(|entry| {
        Some(User::Stacked { device: entry.ok()?.file_name().to_string_lossy().into_owned() })
    }));
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    if swaps
        .lines()
        .any(|line| line.split_whitespace().next().is_some_and(|swap| Path::new(swap) == path))
    {
        users.insert(User::Swap);
    }
    users.into_iter().collect()
}

/// The processes that have the block device open: all who may use it while somebody has claimed it, as
/// mounts, stacked devices and swap claim it, too. Our own descriptor `but` isn't counted.
fn openers(major: u32, minor: u32, but: Option<RawFd>) -> Vec<User> {
    let own = std::process::id();
    let openers = processes()
        .filter(|(pid, process)| has_open(process, major, minor, but.filter(|_| *pid == own)));
    let named = openers.map(|(pid, process)| {
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        User::Process { pid, name: name.trim().to_owned() }
    });
    named.collect()
}

/// Every process with its directory, our own first: a mount is named as we see it, where we see it.
fn processes() -> impl Iterator<Item = (u32, PathBuf)> {
    let own = std::process::id();
    let pids = fs::read_dir("/proc").into_iter().flatten();
    let pids = pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let others = pids.filter(move |pid| *pid != own);
    std::iter::once(own).chain(others).map(|pid| (pid, PathBuf::from(format!("/proc/{pid}"))))
}

fn mounts(table: &str, major: u32, minor: u32) -> impl Iterator<Item = PathBuf> {
    let device = format!("{major}:{minor}");
    table.lines().filter_map(move |line| {
        let mut fields = line.split(' ');
        (fields.nth(2)? == device).then_some(())?;
        Some(PathBuf::from(fields.nth(1)?))
    })
}

fn has_open(process: &Path, major: u32, minor: u32, but: Option<RawFd>) -> bool {
    fs::read_dir(process.join("fd")).into_iter().flatten().any(|entry| {
        let Ok(entry) = entry else { return false };
        if but.is_some_and(|but| entry.file_name().to_str() == Some(but.to_string().as_str())) {
            return false;
        }
        // Never ask the file's server, which may be dead, or be us.
        let found =
            statx(rustix::fs::CWD, entry.path(), AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE);
        found.is_ok_and(|found| {
            FileType::from_raw_mode(found.stx_mode.into()) == FileType::BlockDevice
                && (found.stx_rdev_major, found.stx_rdev_minor) == (major, minor)
        })
    })
}
