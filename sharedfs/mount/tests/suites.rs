//! Other people's suites, on real mounts: pjdfstest (what POSIX says of names, modes and errors) and fsx
//! (random reads, writes, mappings, truncations of one file, each checked).
//!
//! Both are programs that `deploy/setup test` installs; where they lack the tests are skipped, loudly.
//! `MOORING_FSX_OPERATIONS` asks for more operations than an ordinary run has time for.

#![allow(clippy::disallowed_methods, reason = "tests of processes run in real time")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod rig;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rig::Rig;

/// The program, wherever `deploy/setup` has put it.
fn tool(name: &str) -> Option<PathBuf> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).chain([ours]).map(|dir| dir.join(name));
    let found = found.into_iter().find(|program| program.is_file());
    if found.is_none() {
        rig::skip(&format!("{name} is not installed: deploy/setup test"));
    }
    found
}

/// Users whom every Debian has spare making some.
const CONFIGURATION: &str = r#"
[features]
posix_fallocate = {}
utime_now = {}
utimensat = {}
rename_ctime = {}
[settings]
naptime = 0.001
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// Everything that passes on a local ext4, but for one test that is skipped: `link_count_max` asks the C
/// library how many links a file may have, and it knows that of no FUSE file system. (They are 2^31, which
/// nobody wants to try out.) The 13 that are skipped on ext4, too, want a file system that they may mount
/// read-only meanwhile.
#[test]
fn pjdfstest_passes() {
    let Some(rig) = Rig::start_for(1, Duration::from_secs(200)) else { return };
    let Some(program) = tool("pjdfstest") else { return };
    let beside = tempfile::TempDir::new().unwrap();
    let configuration = beside.path().join("pjdfstest.toml");
    fs::write(&configuration, CONFIGURATION).unwrap();
    // It works as other users, too.
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(rig.root(0), all).unwrap();
    let output = Command::new(program)
        .arg("-c")
        .arg(&configuration)
        .arg("-p")
        .arg(rig.root(0))
        .arg("-s")
        .arg(beside.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let summary = text.lines().find(|line| line.starts_with("Summary:")).unwrap_or_default();
    eprintln!("{summary}");
    let all = "Summary: 0 failed, 14 skipped, 384 passed, 0 expected failures, 398 total";
    assert_eq!(summary, all, "{text}");
}

/// All that fsx can do and a file system may support.
const ALL_OPERATIONS: &str = "
[weights]
close_open = 1
invalidate = 1
mapread = 10
mapwrite = 10
read = 10
write = 10
truncate = 10
fsync = 0.2
fdatasync = 0.2
posix_fallocate = 3
punch_hole = 3
sendfile = 3
posix_fadvise = 1
copy_file_range = 3
";

fn operations() -> u64 {
    let asked = std::env::var("MOORING_FSX_OPERATIONS").ok().and_then(|n| n.parse().ok());
    asked.unwrap_or(50_000)
}

/// Runs fsx on a file; `meanwhile` until it has ended.
fn fsx(file: &Path, seed: u64, meanwhile: impl Fn()) {
    let Some(program) = tool("fsx") else { return };
    let beside = tempfile::TempDir::new().unwrap();
    let configuration = beside.path().join("fsx.toml");
    fs::write(&configuration, ALL_OPERATIONS).unwrap();
    let log = fs::File::create(beside.path().join("log")).unwrap();
    let mut child = Command::new(program)
        .arg("-f")
        .arg(&configuration)
        .args(["-N", &operations().to_string(), "-S", &seed.to_string(), "-P"])
        .arg(beside.path())
        .arg(file)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        meanwhile();
        std::thread::sleep(Duration::from_millis(3));
    };
    let text = fs::read_to_string(beside.path().join("log")).unwrap();
    assert!(status.success(), "{status}\n{}", &text[text.len().saturating_sub(4000)..]);
}

/// For an ordinary run less than the test runner's own limit: who is killed by that could leave somebody
/// waiting.
fn limit() -> Duration {
    Duration::from_secs(60 + operations() / 300)
}

#[test]
fn fsx_passes_on_one_mount() {
    let Some(rig) = Rig::start_for(1, limit()) else { return };
    fsx(&rig.path(0, "file"), 42, || {});
}

/// The file's name is a link that changes from one mount to the other all the time: fsx opens it anew
/// now and then, on whichever mount it leads to, and sees what it did on the other.
#[test]
fn fsx_passes_from_two_mounts_in_turn() {
    let Some(rig) = Rig::start_for(2, limit()) else { return };
    let beside = tempfile::TempDir::new().unwrap();
    let (link, next) = (beside.path().join("file"), beside.path().join("next"));
    let turn = std::cell::Cell::new(0);
    let lead_to = |mount| {
        std::os::unix::fs::symlink(rig.path(mount, "file"), &next).unwrap();
        fs::rename(&next, &link).unwrap();
    };
    lead_to(0);
    fsx(&link, 43, || {
        turn.set(1 - turn.get());
        lead_to(turn.get());
    });
}
