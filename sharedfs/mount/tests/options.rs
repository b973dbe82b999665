//! What mounts are asked for beside the usual: to be read only, not to wait for ever, not to believe root; and calls
//! that few programs make.
#![allow(clippy::unwrap_used, reason = "in tests, a panic is the report")]
#![allow(clippy::disallowed_methods, reason = "tests of processes run in real time")]

mod rig;

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rig::Rig;
use rustix::fs::{AtFlags, CWD, FlockOperation, copy_file_range, flock, linkat};

const LIMIT: Duration = Duration::from_secs(60);

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

#[test]
fn read_only_mount_shows_what_others_write_and_writes_nothing() {
    let Some(rig) = Rig::start_as(&["", "ro"], LIMIT) else { return };
    fs::write(rig.path(0, "file"), "one").unwrap();
    assert_eq!(fs::read_to_string(rig.path(1, "file")).unwrap(), "one");
    fs::write(rig.path(0, "file"), "two").unwrap();
    assert_eq!(fs::read_to_string(rig.path(1, "file")).unwrap(), "two");
    let file = rig.path(1, "file");
    assert_eq!(errno(File::options().write(true).open(&file)), libc::EROFS);
    assert_eq!(errno(fs::create_dir(rig.path(1, "dir"))), libc::EROFS);
    assert_eq!(errno(fs::remove_file(&file)), libc::EROFS);
    assert_eq!(errno(fs::set_permissions(&file, PermissionsExt::from_mode(0o600))), libc::EROFS);
}

#[test]
fn soft_mount_gives_errors_where_others_wait_and_goes_on_afterwards() {
    let Some(rig) = Rig::start_as(&["soft", ""], LIMIT) else { return };
    fs::write(rig.path(1, "held"), "x").unwrap();
    // A lock is waited for as long as it takes.
    let holder = File::open(rig.path(1, "held")).unwrap();
    flock(&holder, FlockOperation::LockExclusive).unwrap();
    let waits = rig.path(0, "held");
    let waiter = std::thread::spawn(move || {
        flock(File::open(waits).unwrap(), FlockOperation::LockExclusive)
    });
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!waiter.is_finished());
    drop(holder);
    waiter.join().unwrap().unwrap();

    rig.tell("away");
    let began = Instant::now();
    assert_eq!(errno(fs::create_dir(rig.path(0, "dir"))), libc::EIO);
    let took = began.elapsed();
    assert!(took > Duration::from_millis(400) && took < Duration::from_secs(5), "{took:?}");
    let hard = rig.path(1, "other");
    let waiter = std::thread::spawn(move || fs::create_dir(hard));
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!waiter.is_finished(), "the other mount waits");
    rig.tell("back");
    waiter.join().unwrap().unwrap();
    let began = Instant::now();
    while let Err(error) = fs::write(rig.path(0, "after"), "x") {
        assert!(began.elapsed() < Duration::from_secs(20), "{error}");
    }
    assert_eq!(fs::read_to_string(rig.path(1, "after")).unwrap(), "x");
}

#[test]
fn squashed_root_is_nobody_in_particular() {
    let Some(rig) = Rig::start_as(&["", "squash"], LIMIT) else { return };
    fs::write(rig.path(0, "secret"), "x").unwrap();
    fs::set_permissions(rig.path(0, "secret"), PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(rig.path(0, "open"), "for all").unwrap();
    fs::set_permissions(rig.path(0, "open"), PermissionsExt::from_mode(0o644)).unwrap();
    fs::create_dir(rig.path(0, "private")).unwrap();
    fs::write(rig.path(0, "private/file"), "x").unwrap();
    fs::set_permissions(rig.path(0, "private"), PermissionsExt::from_mode(0o700)).unwrap();
    fs::create_dir(rig.path(0, "shared")).unwrap();
    fs::set_permissions(rig.path(0, "shared"), PermissionsExt::from_mode(0o777)).unwrap();

    assert_eq!(fs::read_to_string(rig.path(1, "open")).unwrap(), "for all");
    assert_eq!(errno(fs::read(rig.path(1, "secret"))), libc::EACCES);
    // Also what this mount has cached.
    fs::metadata(rig.path(1, "secret")).unwrap();
    assert_eq!(errno(fs::read(rig.path(1, "secret"))), libc::EACCES);
    assert_eq!(errno(fs::read(rig.path(1, "private/file"))), libc::EACCES);
    assert_eq!(errno(fs::read_dir(rig.path(1, "private"))), libc::EACCES);
    assert_eq!(errno(fs::write(rig.path(1, "new"), "x")), libc::EACCES);
    assert_eq!(errno(fs::remove_file(rig.path(1, "open"))), libc::EACCES);
    assert_eq!(
        errno(fs::set_permissions(rig.path(1, "open"), PermissionsExt::from_mode(0o666))),
        libc::EPERM
    );
    assert_eq!(errno(std::os::unix::fs::chown(rig.path(1, "open"), Some(1), None)), libc::EPERM);

    fs::write(rig.path(1, "shared/mine"), "x").unwrap();
    let made = fs::metadata(rig.path(0, "shared/mine")).unwrap();
    assert_eq!((made.uid(), made.gid()), (65534, 65534));
    fs::set_permissions(rig.path(1, "shared/mine"), PermissionsExt::from_mode(0o640)).unwrap();
    // Root of the other mount is root.
    assert_eq!(fs::read_to_string(rig.path(0, "private/file")).unwrap(), "x");
    fs::remove_file(rig.path(0, "shared/mine")).unwrap();
}

fn tmpfile(dir: &Path, more: i32) -> std::io::Result<File> {
    let flags = libc::O_TMPFILE | more;
    File::options().read(true).write(true).custom_flags(flags).mode(0o640).open(dir)
}

fn name(file: &File, path: &Path) -> rustix::io::Result<()> {
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, from, CWD, path, AtFlags::SYMLINK_FOLLOW)
}

#[test]
fn file_without_a_name_gets_one_or_is_gone() {
    let Some(rig) = Rig::start(2) else { return };
    let inodes = |i| {
        let seen = rustix::fs::statvfs(rig.root(i)).unwrap();
        seen.f_files - seen.f_ffree
    };
    let before = inodes(0);
    let mut file = tmpfile(&rig.root(0), 0).unwrap();
    file.write_all(b"contents").unwrap();
    let seen = file.metadata().unwrap();
    assert_eq!((seen.nlink(), seen.size(), seen.mode() & 0o777), (0, 8, 0o640));
    assert_eq!(fs::read_dir(rig.root(1)).unwrap().count(), 0, "it has no name");
    assert_eq!(inodes(1), before + 1);
    name(&file, &rig.path(0, "named")).unwrap();
    assert_eq!(fs::read_to_string(rig.path(1, "named")).unwrap(), "contents");
    assert_eq!(fs::metadata(rig.path(1, "named")).unwrap().nlink(), 1);
    file.write_all(b" and more").unwrap();
    drop(file);
    assert_eq!(fs::read_to_string(rig.path(1, "named")).unwrap(), "contents and more");

    // One that nobody may name, and one that has lost its name.
    let unnamed = tmpfile(&rig.root(0), libc::O_EXCL).unwrap();
    assert_eq!(name(&unnamed, &rig.path(0, "x")), Err(rustix::io::Errno::NOENT));
    let lost = File::open(rig.path(0, "named")).unwrap();
    fs::remove_file(rig.path(1, "named")).unwrap();
    assert_eq!(name(&lost, &rig.path(0, "x")), Err(rustix::io::Errno::NOENT));
    drop((unnamed, lost));
    let began = Instant::now();
    while inodes(1) != before {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{} inodes are left",
            inodes(1) - before
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn file_without_a_name_outlives_its_coordinator() {
    let Some(rig) = Rig::start(2) else { return };
    let mut file = tmpfile(&rig.root(0), 0).unwrap();
    file.write_all(b"kept").unwrap();
    file.sync_all().unwrap();
    rig.fail_over();
    file.write_all(b" on").unwrap();
    name(&file, &rig.path(0, "named")).unwrap();
    assert_eq!(fs::read_to_string(rig.path(1, "named")).unwrap(), "kept on");
}

#[test]
fn copy_file_range_copies_also_beyond_four_gibibytes() {
    let Some(rig) = Rig::start(2) else { return };
    const FAR: u64 = (4 << 30) + 12_345;
    let bytes: Vec<u8> = (0..3_000_000_u64).map(|i| ((i * 7919) >> 8) as u8).collect();
    let from =
        File::options().read(true).write(true).create_new(true).open(rig.path(0, "from")).unwrap();
    from.write_all_at(&bytes, FAR).unwrap();
    let to =
        File::options().read(true).write(true).create_new(true).open(rig.path(0, "to")).unwrap();
    // Much more than there is: it ends where the source does.
    let (mut at, mut into) = (FAR, FAR + 77);
    let mut copied = 0;
    loop {
        let wanted = usize::try_from(9_u64 << 30).unwrap();
        match copy_file_range(&from, Some(&mut at), &to, Some(&mut into), wanted).unwrap() {
            0 => break,
            some => copied += some,
        }
    }
    assert_eq!((copied, at, into), (bytes.len(), FAR + 3_000_000, FAR + 77 + 3_000_000));
    let mut read = vec![0; bytes.len()];
    let mut seen = File::open(rig.path(1, "to")).unwrap();
    seen.seek(SeekFrom::Start(FAR + 77)).unwrap();
    seen.read_exact(&mut read).unwrap();
    assert!(read == bytes, "another mount reads other bytes");
    // What another mount has just written is what is copied.
    File::options()
        .write(true)
        .open(rig.path(1, "from"))
        .unwrap()
        .write_all_at(b"new", FAR)
        .unwrap();
    let (mut at, mut into) = (FAR, 0);
    assert_eq!(copy_file_range(&from, Some(&mut at), &to, Some(&mut into), 3).unwrap(), 3);
    let mut three = [0; 3];
    File::open(rig.path(1, "to")).unwrap().read_exact(&mut three).unwrap();
    assert_eq!(&three, b"new");
}

/// Runs a command as somebody else; whether it succeeded.
fn as_somebody(how: &[&str], command: &[&str], path: &Path) -> bool {
    let output = Command::new(how[0]).args(&how[1..]).args(command).arg(path).output().unwrap();
    output.status.success()
}

#[test]
fn capabilities_of_who_is_not_root_count() {
    let Some(rig) = Rig::start(2) else { return };
    let file = rig.path(0, "file");
    fs::write(&file, "x").unwrap();
    let plain = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"];
    let with = |capability: &'static str| -> Vec<&'static str> {
        let (inherited, ambient) = match capability {
            "fowner" => ("--inh-caps=+fowner", "--ambient-caps=+fowner"),
            _ => ("--inh-caps=+chown", "--ambient-caps=+chown"),
        };
        plain.iter().copied().chain([inherited, ambient]).collect()
    };
    assert!(!as_somebody(&plain, &["chmod", "640"], &file));
    assert!(as_somebody(&with("fowner"), &["chmod", "640"], &file));
    assert_eq!(fs::metadata(rig.path(1, "file")).unwrap().mode() & 0o777, 0o640);
    assert!(!as_somebody(&with("fowner"), &["chown", "7:8"], &file));
    assert!(as_somebody(&with("chown"), &["chown", "7:8"], &file));
    let seen = fs::metadata(rig.path(1, "file")).unwrap();
    assert_eq!((seen.uid(), seen.gid()), (7, 8));
}

/// Runs a command as root of a user namespace, whose users are those from 100,000 on outside.
fn in_container(command: &[&str], path: &Path) -> bool {
    let script = "read go && exec setpriv --reuid=0 --regid=0 --clear-groups \"$@\"";
    let mut container = Command::new("unshare");
    container
        .args(["--user", "--keep-caps", "bash", "-c", script, "container"])
        .args(command)
        .arg(path);
    let mut child = container.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let of = |name: &str| format!("/proc/{}/{name}", child.id());
    let own = fs::metadata("/proc/self/ns/user").unwrap().ino();
    while fs::metadata(of("ns/user")).unwrap().ino() == own {
        std::thread::sleep(Duration::from_millis(1));
    }
    fs::write(of("uid_map"), "0 100000 65536").unwrap();
    fs::write(of("gid_map"), "0 100000 65536").unwrap();
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    child.wait().unwrap().success()
}

#[test]
fn root_of_a_user_namespace_owns_what_that_has_names_for() {
    let Some(rig) = Rig::start(2) else { return };
    let (theirs, ours) = (rig.path(0, "theirs"), rig.path(0, "ours"));
    for (path, owner) in [(&theirs, 100_007), (&ours, 0)] {
        fs::write(path, "x").unwrap();
        std::os::unix::fs::chown(path, Some(owner), Some(owner)).unwrap();
    }
    assert!(in_container(&["chmod", "604"], &theirs));
    assert!(in_container(&["chown", "8:9"], &theirs));
    let seen = fs::metadata(rig.path(1, "theirs")).unwrap();
    assert_eq!((seen.mode() & 0o777, seen.uid(), seen.gid()), (0o604, 100_008, 100_009));
    assert!(!in_container(&["chmod", "666"], &ours));
    assert!(!in_container(&["chown", "8:9"], &ours));
    // Given away by another host: what this one's kernel believes doesn't count.
    std::os::unix::fs::chown(rig.path(1, "theirs"), Some(0), Some(0)).unwrap();
    assert!(!in_container(&["chmod", "666"], &theirs));
}

#[test]
fn what_a_mount_does_is_counted() {
    let Some(rig) = Rig::start(2) else { return };
    fs::write(rig.path(0, "file"), [1; 5000]).unwrap();
    for _ in 0..3 {
        assert_eq!(fs::read(rig.path(0, "file")).unwrap().len(), 5000);
    }
    // Another host wants it.
    fs::write(rig.path(1, "file"), "x").unwrap();
    let said = rig.tell("statistics 0");
    for counted in ["\"create\": 1", "written_bytes: 5000", "\"open\": 3", "write_back_errors: 0"] {
        assert!(said.contains(counted), "{counted}: {said}");
    }
    let number = |of: &str| -> u64 {
        let (_, rest) = said.split_once(&format!("{of}: ")).unwrap();
        rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
    };
    assert!(number("recalls") > 0 && number("at_once") > 0, "{said}");
}
