//! Loop devices are the machine's, whatever host made them: here they are listed and told apart by
//! the file system and inode behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::failure::{Failure, Result};

/// The number of a mounted file system, as `major:minor`.
pub(super) type DeviceNumber = String;

/// One bound loop device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoopDevice {
    /// `/dev/loopN`.
    pub device: PathBuf,
    /// The file behind it, as the kernel names it: of a file system that is mounted elsewhere, only
    /// the path inside that file system.
    pub backing_file: String,
    /// The file system that the file lies on, as `major:minor`.
    pub backing_device: String,
    /// The file's inode there.
    pub backing_inode: u64,
}

/// All loop devices of the machine that are bound.
///
/// # Errors
/// `losetup` can't be run or understood.
pub fn loop_devices() -> Result<Vec<LoopDevice>> {
    let columns = "NAME,BACK-FILE,BACK-MAJ:MIN,BACK-INO";
    let output = Command::new("losetup")
        .args(["--list", "--json", "--output", columns])
        .env("PATH", super::machine::search_path())
        .output()
        .map_err(Failure::io("losetup --list"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let unreadable =
        || Failure::Unreadable { what: "losetup --list".into(), because: text.to_string() };
    let json: Value = serde_json::from_str(&text).map_err(|_| unreadable())?;
    let devices = json["loopdevices"].as_array().ok_or_else(unreadable)?;
    Ok(devices
        .iter()
        .map(|device| LoopDevice {
            device: device["name"].as_str().unwrap_or_default().into(),
            backing_file: device["back-file"].as_str().unwrap_or_default().into(),
            backing_device: device["back-maj:min"].as_str().unwrap_or_default().trim().into(),
            backing_inode: device["back-ino"].as_u64().unwrap_or_default(),
        })
        .collect())
}

/// Takes the file from behind a loop device; if something has it mounted, as soon as nothing has.
pub(super) fn detach(device: &Path) {
    // Gone already is as good.
    let _ = Command::new("losetup")
        .arg("--detach")
        .arg(device)
        .env("PATH", super::machine::search_path())
        .output();
}

/// The file systems mounted in a list of mounts (the form of /proc/PID/mountinfo).
pub(super) fn mounted_devices(mountinfo: &str) -> BTreeSet<DeviceNumber> {
    mountinfo.lines().filter_map(|line| Some(line.split(' ').nth(2)?.to_owned())).collect()
}

/// The same, of a file that has such a list; none if it can't be read.
pub(super) fn devices_mounted_in(file: impl AsRef<Path>) -> BTreeSet<DeviceNumber> {
    mounted_devices(&fs::read_to_string(file).unwrap_or_default())
}

/// Where a host's directory tells what the machine had mounted when the host was booted.
const MACHINE_MOUNTS: &str = "machine-mounts";

/// Writes that down.
pub(super) fn note_machine_mounts(directory: &Path) -> Result<()> {
    let noted = fs::read("/proc/self/mountinfo")
        .and_then(|mounts| fs::write(directory.join(MACHINE_MOUNTS), mounts));
    noted.map_err(Failure::io("noting what is mounted"))
}

/// Takes away from a host's file systems what the machine had mounted then or has now: what others
/// made must not be touched.
pub(super) fn remove_machine_mounts(directory: &Path, devices: &mut BTreeSet<DeviceNumber>) {
    for file in [directory.join(MACHINE_MOUNTS), "/proc/self/mountinfo".into()] {
        for device in devices_mounted_in(file) {
            devices.remove(&device);
        }
    }
}

/// Detaches what lies on one of `devices`: file systems that only hosts had mounted.
pub(super) fn detach_on_devices(devices: &BTreeSet<DeviceNumber>) -> Result<Vec<LoopDevice>> {
    let mut found = loop_devices()?;
    found.retain(|device| devices.contains(&device.backing_device));
    found.iter().for_each(|device| detach(&device.device));
    Ok(found)
}

/// Detaches what has a file of `directory`, at any depth, behind it.
pub(super) fn detach_in_directory(directory: &Path) -> Result<Vec<LoopDevice>> {
    let mut found = loop_devices()?;
    if found.is_empty() {
        return Ok(found);
    }
    let mut inodes = BTreeMap::new();
    collect_inodes(directory, &mut inodes);
    found.retain(|device| {
        inodes.get(&device.backing_inode).is_some_and(|number| *number == device.backing_device)
            || Path::new(&device.backing_file).starts_with(directory)
    });
    found.iter().for_each(|device| detach(&device.device));
    Ok(found)
}

fn collect_inodes(directory: &Path, inodes: &mut BTreeMap<u64, DeviceNumber>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.path().symlink_metadata() else { continue };
        if metadata.is_dir() {
            collect_inodes(&entry.path(), inodes);
        } else {
            let (major, minor) = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
            inodes.insert(metadata.ino(), format!("{major}:{minor}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_from_a_list_of_mounts() {
        let mounts = "27 1 254:0 / / rw - ext4 /dev/vda rw\n28 27 0:25 / /run rw - tmpfs t rw\n";
        let found: Vec<_> = mounted_devices(mounts).into_iter().collect();
        assert_eq!(found, ["0:25", "254:0"]);
    }
}
