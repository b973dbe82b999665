//! Finding and signalling processes by what can't be mistaken: their pid namespace, or a variable
//! that they were started with.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Every process id that the machine shows now.
fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The processes in the pid namespace of process `init`, itself included; none if it is gone.
pub(super) fn in_namespace_of(init: i32) -> Vec<i32> {
    let Some(namespace) = pid_namespace(init) else { return Vec::new() };
    all().filter(|&pid| pid_namespace(pid).as_ref() == Some(&namespace)).collect()
}

fn pid_namespace(pid: i32) -> Option<OsString> {
    Some(fs::read_link(format!("/proc/{pid}/ns/pid")).ok()?.into_os_string())
}

/// The processes that were started with `NAME=VALUE` in their environment, less this process and
/// those it comes from.
pub(super) fn started_with(name: &str, value: &Path) -> Vec<i32> {
    let mut mark = name.as_bytes().to_vec();
    mark.push(b'=');
    mark.extend_from_slice(value.as_os_str().as_bytes());
    let ours = ancestors();
    let carries = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|variable| variable == mark)
    };
    all().filter(|pid| !ours.contains(pid)).filter(carries).collect()
}

fn ancestors() -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    let mut pid = i32::try_from(std::process::id()).unwrap_or(0);
    while pid > 0 && found.insert(pid) {
        pid = stat(pid).map_or(0, |stat| stat.parent);
    }
    found
}

/// What of /proc/PID/stat is of use here.
pub(super) struct Stat {
    /// R, S, D, T, Z...
    pub(super) state: char,
    pub(super) parent: i32,
    /// In clock ticks since the machine's start: with the id, what no other process ever has.
    pub(super) started: u64,
}

pub(super) fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; fields are counted from behind it, state is 3.
    let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
    Some(Stat {
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
        started: fields.nth(17)?.parse().ok()?,
    })
}

/// A line for people about a process.
pub(super) fn describe(pid: i32) -> String {
    let read = |file| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let state = stat(pid).map_or('?', |stat| stat.state);
    let command = read("cmdline").replace('\0', " ");
    let name = if command.is_empty() { format!("[{}]", read("comm").trim()) } else { command };
    // Scripts are arguments too: their first words will do.
    let name: String = name.split_whitespace().collect::<Vec<_>>().join(" ");
    let name: String = name.chars().take(100).collect();
    format!("{pid} {state} {name} (in {})", read("wchan"))
}

/// Sends a signal; a process that is gone already is no error.
pub(super) fn signal(pid: i32, signal: Signal) {
    // The only other answer is EPERM, and we are root.
    let _ = kill(Pid::from_raw(pid), signal);
}
