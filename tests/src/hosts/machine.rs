//! What the machine under the hosts must offer, and where our binaries are.

use std::env;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The folder of `mountd` and `mountctl`: what `MOORING_BIN` says, or where cargo built this test.
pub fn binaries() -> PathBuf {
    if let Some(folder) = env::var_os("MOORING_BIN") {
        return folder.into();
    }
    let me = env::current_exe().unwrap_or_default();
    let folder = me.parent().unwrap_or_else(|| "/".as_ref());
    // Test binaries lie in `deps`, one below the programs.
    if folder.ends_with("deps") { folder.join("..") } else { folder.to_path_buf() }
        .canonicalize()
        .unwrap_or_else(|_| folder.to_path_buf())
}

/// The search path of commands in hosts: ours first, then where Debian keeps root's tools.
pub(super) fn search_path() -> String {
    let inherited = env::var("PATH").unwrap_or_default();
    format!("{}:{inherited}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin", binaries().display())
}

/// All that this machine lacks to run several hosts; nothing if it can.
pub fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        missing.push("root: run the tests as root, or let sudo work without a password".to_owned());
    }
    for tool in ["ip", "nsenter", "unshare", "losetup", "mount", "bash"] {
        if !succeeds("bash", &["-c", &format!("command -v {tool}")]) {
            missing.push(format!("the command `{tool}`: run `make setup`"));
        }
    }
    if !missing.is_empty() {
        return missing;
    }
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        missing.push(format!("FUSE: /dev/fuse: {error}"));
    }
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/loop-control") {
        missing.push(format!("loop devices: /dev/loop-control: {error}"));
    }
    let mount = "mount -t tmpfs tmpfs /run";
    if !succeeds("unshare", &["-muipf", "--propagation", "private", "bash", "-c", mount]) {
        missing.push("mount, uts, ipc and pid namespaces with mounts in them".to_owned());
    }
    let link = "ip link add br0 type bridge && ip link add p1 type veth peer name p2";
    if !succeeds("unshare", &["-n", "bash", "-c", link]) {
        missing.push("network namespaces with bridges and veth pairs".to_owned());
    }
    missing
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .env("PATH", search_path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
