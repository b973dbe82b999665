//! Removing what killed test runs left: files, loop devices, mounts, and the processes of tests that
//! don't run in hosts (those in hosts end by themselves).
//!
//! Everything of ours lies below a directory with an `owner` file: the id and start time of the
//! process that made it. A directory whose owner is gone is swept:
//! 1. processes that carry the directory in their environment are killed;
//! 2. loop devices with a file of the directory behind them are detached, and those on file systems
//!    that only its hosts had mounted and nobody has now;
//! 3. mounts below the directory are taken away, the deepest first;
//! 4. the directory is removed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;

use super::failure::{Failure, Result};
use super::loops::{self, DeviceNumber};
use super::{seconds, set, tasks, wait_until};

/// The directory of one set of hosts.
pub(super) const HOSTS_PREFIX: &str = "mooring-hosts.";

/// The directory of one run of all tests, which has those of its sets of hosts in it.
const RUN_PREFIX: &str = "mooring-run.";

const OWNER: &str = "owner";

/// What a sweep found and removed, a line for each thing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// For people.
    pub removed: Vec<String>,
    /// What could not be removed, and why.
    pub left: Vec<String>,
}

/// Sweeps up after all runs that were killed, in `TMPDIR` and in /tmp.
///
/// # Errors
/// Only if loop devices can't be listed; what can't be removed is in the result.
pub fn sweep() -> Result<Swept> {
    let mut swept = Swept::default();
    let places: BTreeSet<PathBuf> = [set::scratch(), "/tmp".into()].into();
    for entry in places.iter().flat_map(|place| fs::read_dir(place).into_iter().flatten().flatten())
    {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = name.starts_with(HOSTS_PREFIX) || name.starts_with(RUN_PREFIX);
        if ours && is_abandoned(&entry.path()) {
            clean(&entry.path(), &mut swept)?;
        }
    }
    Ok(swept)
}

/// Ends and removes all that lies in `directory` or was started with it as `TMPDIR`, whoever owns it:
/// the last thing that a run of all tests does.
///
/// # Errors
/// As [`sweep`]; also if it isn't a directory that [`sweep`] would know.
pub fn sweep_directory(directory: &Path) -> Result<Swept> {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    if !(name.starts_with(RUN_PREFIX) || name.starts_with(HOSTS_PREFIX)) {
        return Err(Failure::Wrong(format!("{} is not ours", directory.display())));
    }
    let mut swept = Swept::default();
    clean(directory, &mut swept)?;
    Ok(swept)
}

/// Writes down that a directory is this process's.
pub(super) fn claim(directory: &Path) -> Result<()> {
    let pid = std::process::id();
    let started = tasks::stat(pid.cast_signed()).map_or(0, |stat| stat.started);
    let path = directory.join(OWNER);
    fs::write(&path, format!("{pid} {started}\n")).map_err(Failure::io(path.display().to_string()))
}

fn is_abandoned(directory: &Path) -> bool {
    // One that has no owner yet is being made.
    let Ok(owner) = fs::read_to_string(directory.join(OWNER)) else { return false };
    let mut fields = owner.split_whitespace();
    let (Some(pid), Some(started)) = (fields.next(), fields.next()) else { return false };
    let (Ok(pid), Ok(started)) = (pid.parse(), started.parse::<u64>()) else { return false };
    tasks::stat(pid).is_none_or(|stat| stat.started != started)
}

fn clean(directory: &Path, swept: &mut Swept) -> Result<()> {
    kill_marked(directory, swept);
    let mut loops = loops::detach_in_directory(directory)?;
    loops.extend(loops::detach_on_devices(&dead_devices(directory))?);
    for device in loops {
        swept.removed.push(format!("{} of {}", device.device.display(), device.backing_file));
    }
    for point in mounts_below(directory) {
        match umount2(&point, MntFlags::MNT_DETACH) {
            Ok(()) => swept.removed.push(format!("mount {}", point.display())),
            Err(error) => swept.left.push(format!("mount {}: {error}", point.display())),
        }
    }
    if let Err(error) = fs::remove_dir_all(directory) {
        swept.left.push(format!("{}: {error}", directory.display()));
    }
    Ok(())
}

fn kill_marked(directory: &Path, swept: &mut Swept) {
    let marked = || {
        let mut pids = tasks::started_with("TMPDIR", directory);
        for host in fs::read_dir(directory).into_iter().flatten().flatten() {
            pids.extend(tasks::started_with("MOORING_HOST", &host.path()));
        }
        pids.retain(|&pid| tasks::stat(pid).is_some_and(|stat| stat.state != 'Z'));
        pids
    };
    // What is ending by itself gets the time to.
    let _ = wait_until(seconds(1), "the last processes end", || Ok(marked().is_empty()));
    for pid in marked() {
        swept.removed.push(format!("process {}", tasks::describe(pid)));
        tasks::signal(pid, Signal::SIGKILL);
    }
    let _ = wait_until(seconds(10), "the killed processes end", || Ok(marked().is_empty()));
    swept.left.extend(marked().into_iter().map(|pid| format!("process {}", tasks::describe(pid))));
}

/// The file systems that the dead hosts of a directory had mounted and no process has now. A loop
/// device on one of these keeps it alive, so that its number can't have gone to another.
fn dead_devices(directory: &Path) -> BTreeSet<DeviceNumber> {
    let mut dead = BTreeSet::new();
    for host in fs::read_dir(directory).into_iter().flatten().flatten() {
        let mut own = loops::devices_mounted_in(host.path().join("mounts"));
        loops::remove_machine_mounts(&host.path(), &mut own);
        dead.append(&mut own);
    }
    if dead.is_empty() {
        return dead;
    }
    let mut namespaces = BTreeSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(namespace) = fs::read_link(entry.path().join("ns/mnt")) else { continue };
        if namespaces.insert(namespace) {
            for device in loops::devices_mounted_in(entry.path().join("mountinfo")) {
                dead.remove(&device);
            }
        }
    }
    dead
}

fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    // The kernel writes blanks as octal numbers; our directories have none.
    let mut below: Vec<PathBuf> =
        points.map(PathBuf::from).filter(|point| point.starts_with(directory)).collect();
    below.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    below
}
