//! What the places of killed tests leave on the machine: mounts, loop devices, processes. Each place
//! is marked with the process that made it; whoever makes the next one clears away those whose maker is
//! gone, and touches nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mooring_device::LoopHost;
use mooring_device::holder::HolderClient;
use rustix::process::{Pid, Signal, kill_process};

/// What the directory of a place begins with.
pub const PREFIX: &str = "mooring-device-";

/// The file in it that says whose it is.
const OWNER: &str = "owner";

/// Marks a place as a process's.
pub fn mark(root: &Path, pid: u32) {
    let started = started(pid).expect("a process that runs");
    fs::write(root.join(OWNER), format!("{pid} {started}\n")).expect("a mark");
}

/// Clears away the places whose makers are gone.
pub fn sweep() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if ours && is_abandoned(&entry.path()) {
            clear(&entry.path(), || kill_users_of(&entry.path()));
            eprintln!(
                "{}: left by a test that was killed, and cleared away",
                entry.path().display()
            );
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Takes away all that is of a place but its directory; `end_servers` ends what serves devices.
///
/// All errors are ignored: each step is for what may be left, and there is nobody to tell.
pub fn clear(root: &Path, end_servers: impl FnOnce()) {
    let unmount = |how: &str, fuse: bool| {
        for (point, fstype) in mounts_below(root) {
            if (fstype == "fuse.mooring-device") == fuse {
                let _ = Command::new("umount").arg(how).arg(&point).stderr(Stdio::null()).status();
            }
        }
    };
    // Whoever waits for a device is freed first, so that nothing below can hang.
    unmount("-f", true);
    unmount("-l", false);
    end_servers();
    let sweep = || LoopHost::new(&root.join("devices"), None).and_then(|host| host.sweep());
    let _ = sweep();
    if let Ok(holder) = HolderClient::connect(&root.join("holder.sock")) {
        let _ = holder.stop(true);
    }
    let _ = sweep();
    unmount("-l", true);
}

fn is_abandoned(root: &Path) -> bool {
    // One without a mark is being made.
    let Ok(owner) = fs::read_to_string(root.join(OWNER)) else { return false };
    let mut fields = owner.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(at))) = (fields.next(), fields.next()) else { return false };
    u32::try_from(pid).ok().and_then(started) != Some(at)
}

/// When a process was started, in clock ticks since the machine was: nobody else of its number has that.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind its name, which may hold anything, the state is the first.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    if fields.next()? == "Z" { None } else { fields.nth(18)?.parse().ok() }
}

/// Processes that were started with something below `root` as an argument.
pub fn users_of(root: &Path) -> Vec<u32> {
    let uses = |pid: &u32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let below =
            |argument: &[u8]| Path::new(&*String::from_utf8_lossy(argument)).starts_with(root);
        arguments.split(|&byte| byte == 0).any(below)
    };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    all.filter(|&pid| pid != std::process::id()).filter(uses).collect()
}

fn kill_users_of(root: &Path) {
    for pid in users_of(root) {
        if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Mount points below `root` with the kind of their file system, the newest first.
fn mounts_below(root: &Path) -> Vec<(PathBuf, String)> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut found: Vec<(PathBuf, String)> = table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let point = PathBuf::from(fields.nth(1)?);
            point.starts_with(root).then_some((point, fields.next()?.to_owned()))
        })
        .collect();
    found.reverse();
    found
}
