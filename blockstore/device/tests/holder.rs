//! The holder process: what it keeps, for whom, and what it survives.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests of processes run in real time"
)]

mod support;

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use mooring_device::holder::{HolderClient, HolderError, Mode, Refusal};
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
};
use support::{Place, SERVER, eventually};

const SOON: Duration = Duration::from_secs(5);

/// A file that can be told from others by its content.
fn file(place: &Place, content: &str) -> File {
    let mut file = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(place.path(content))
        .unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

fn content(fd: std::os::fd::OwnedFd) -> String {
    let mut file = File::from(fd);
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn descriptors_come_back_to_the_next_process() {
    let place = Place::new();
    let first = place.holder();
    let (a, b) = (file(&place, "a"), file(&place, "b"));
    first.keep("x", b"blob", &[a.as_fd(), b.as_fd()], Mode::Keep).unwrap();
    first.update("x", b"newer").unwrap();
    let second = HolderClient::connect(&place.socket()).unwrap();
    assert!(matches!(second.take("x"), Err(HolderError::Refused(Refusal::Owned))));
    assert!(matches!(second.forget("x"), Err(HolderError::Refused(Refusal::Owned))));
    assert!(matches!(second.take("y"), Err(HolderError::Refused(Refusal::Unknown))));
    drop((first, a, b));
    let taken = eventually(SOON, || second.take("x").ok()).expect("the owner is gone");
    assert_eq!(taken.blob, b"newer");
    let names: Vec<String> = taken.fds.into_iter().map(content).collect();
    assert_eq!(names, ["a", "b"]);
    // It still keeps them: the second process may die, too.
    assert_eq!(second.take("x").unwrap().fds.len(), 2);
    second.forget("x").unwrap();
    second.forget("x").unwrap();
    assert!(second.list().unwrap().is_empty());
}

#[test]
fn long_lists_come_in_pages() {
    let place = Place::new();
    let holder = place.holder();
    let file = file(&place, "a");
    for i in 0..300 {
        holder.keep(&format!("{i:0>200}"), &[], &[file.as_fd()], Mode::Keep).unwrap();
    }
    let held = holder.list().unwrap();
    assert_eq!(held.len(), 300);
    assert!(held.iter().all(|held| held.owned));
    assert!(held.is_sorted_by(|a, b| a.name < b.name));
}

#[test]
fn bounds_are_kept() {
    let place = Place::new();
    let holder = place.holder();
    let file = file(&place, "a");
    let refused = |result: Result<Vec<std::os::fd::OwnedFd>, HolderError>| {
        assert!(matches!(result, Err(HolderError::Refused(Refusal::Bounds))), "{result:?}");
    };
    refused(holder.keep("", &[], &[file.as_fd()], Mode::Keep));
    refused(holder.keep(&"x".repeat(256), &[], &[file.as_fd()], Mode::Keep));
    refused(holder.keep("x", &[0; (16 << 10) + 1], &[file.as_fd()], Mode::Keep));
    refused(holder.keep("x", &[], &[], Mode::Keep));
    holder.keep("x", &[0; 16 << 10], &[file.as_fd(); 16], Mode::Keep).unwrap();
}

#[test]
fn it_ends_only_when_it_holds_nothing() {
    let place = Place::new();
    let holder = place.holder();
    let file = file(&place, "a");
    holder.keep("x", &[], &[file.as_fd()], Mode::Keep).unwrap();
    assert!(matches!(holder.stop(false), Err(HolderError::Refused(Refusal::Holding { names: 1 }))));
    let pid = rustix::process::Pid::from_raw(holder.pid() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(holder.is_alive(), "SIGTERM must not end it while it holds something");
    holder.forget("x").unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(eventually(SOON, || (!holder.is_alive()).then_some(())).is_some());
    let next = eventually(SOON, || {
        let next = place.holder();
        (next.pid() != holder.pid()).then_some(next)
    })
    .expect("another one takes its place");
    next.keep("x", &[], &[file.as_fd()], Mode::Keep).unwrap();
    next.stop(true).unwrap();
    assert!(eventually(SOON, || (!next.is_alive()).then_some(())).is_some());
    assert!(!place.socket().exists());
}

#[test]
fn there_is_one_a_socket() {
    let place = Place::new();
    let holder = place.holder();
    let output = Command::new(SERVER).arg("holder").arg(place.socket()).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("another holder already serves"));
    assert_eq!(place.holder().pid(), holder.pid());
}

#[test]
fn it_has_nothing_of_its_starter() {
    let place = Place::new();
    // Not closed on exec: what a careless library may leave open.
    let careless = file(&place, "careless");
    rustix::io::fcntl_setfd(&careless, rustix::io::FdFlags::empty()).unwrap();
    let holder = place.holder();
    let process = format!("/proc/{}", holder.pid());
    let open: Vec<String> = fs::read_dir(format!("{process}/fd"))
        .unwrap()
        .filter_map(|entry| {
            Some(fs::read_link(entry.ok()?.path()).ok()?.to_string_lossy().into_owned())
        })
        .collect();
    assert!(!open.iter().any(|path| path.contains("careless")), "{open:?}");
    let foreign = |path: &&String| {
        !path.starts_with("socket:") && !path.starts_with("anon_inode:") && *path != "/dev/null"
    };
    let foreign: Vec<&String> = open.iter().filter(foreign).collect();
    assert_eq!(foreign.len(), 2, "its log and its lock, and no more: {foreign:?}");
    let stat = fs::read_to_string(format!("{process}/stat")).unwrap();
    let session: u32 =
        stat.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap().parse().unwrap();
    assert_eq!(session, holder.pid(), "it leads a session of its own");
    assert_eq!(fs::read_link(format!("{process}/cwd")).unwrap().to_str(), Some("/"));
}

#[test]
fn garbage_costs_the_sender_its_connection_only() {
    let place = Place::new();
    let holder = place.holder();
    let file = file(&place, "a");
    holder.keep("x", b"blob", &[file.as_fd()], Mode::Keep).unwrap();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for round in 0..500 {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        connect(&socket, &SocketAddrUnix::new(place.socket()).unwrap()).unwrap();
        if round % 2 == 0 {
            // A proper hello first: version 1.
            send(&socket, &[0, 1], SendFlags::NOSIGNAL).unwrap();
        }
        for _ in 0..4 {
            let length = 1 + random() as usize % 300;
            let garbage: Vec<u8> = (0..length)
                .map(|i| if i == 0 { random() as u8 % 8 } else { random() as u8 })
                .collect();
            // It may have hung up already.
            let _ = send(&socket, &garbage, SendFlags::NOSIGNAL);
        }
        let huge = vec![0xff; 40 << 10];
        let _ = send(&socket, &huge, SendFlags::NOSIGNAL);
    }
    assert!(holder.is_alive());
    let taken = holder.take("x").unwrap();
    assert_eq!((taken.blob.as_slice(), taken.fds.len()), (b"blob".as_slice(), 1));
    assert_eq!(holder.list().unwrap().len(), 1, "garbage must not have kept anything");
}

#[test]
fn only_root_may_talk_to_it() {
    let place = Place::new();
    let holder = place.holder();
    // Even where the socket's permissions would let others in.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(place.path("."), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(place.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let socket = place.socket();
    let stranger = std::thread::spawn(move || {
        // The system call itself, which changes this thread only.
        // SAFETY: it takes numbers only.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) };
        assert_eq!(changed, 0);
        HolderClient::connect(&socket)
    });
    let result = stranger.join().unwrap();
    assert!(matches!(result, Err(HolderError::Broken { .. })), "{result:?}");
    assert!(holder.is_alive());
}
