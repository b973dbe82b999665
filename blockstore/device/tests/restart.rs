//! The daemon is killed under load and started again: no I/O error, nothing lost.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests of processes run in real time"
)]

mod support;

use std::time::{Duration, Instant};

use support::{Background, Place, eventually, leftovers, loop_backed_by, run};

const MIB: u64 = 1 << 20;

/// fio on `target`, writing and verifying for as long as the rounds take.
fn fio(target: &str, seconds: u64, more: &[&str]) -> Background {
    let mut arguments = vec![
        "--name=verify".to_owned(),
        format!("--filename={target}"),
        "--direct=1".to_owned(),
        "--ioengine=libaio".to_owned(),
        "--verify=crc32c".to_owned(),
        "--verify_fatal=1".to_owned(),
        "--verify_backlog=256".to_owned(),
        "--time_based".to_owned(),
        format!("--runtime={seconds}"),
    ];
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    Background::start("fio", arguments)
}

/// Kills and restarts the daemon `rounds` times under fio; prints the longest stall.
fn kill_under_fio(handover: &str, rounds: u32, more: &[&str]) {
    let mut place = Place::new();
    place.file(192 * MIB);
    let node = place.start(handover);
    let seconds = u64::from(rounds) * 600 / 1000 + 2;
    let mut load = fio(node.to_str().unwrap(), seconds, more);
    let (mut stall, mut resent) = (Duration::ZERO, 0);
    for round in 0..rounds {
        std::thread::sleep(Duration::from_millis(300 + u64::from(round * 37 % 200)));
        assert!(load.0.try_wait().unwrap().is_none(), "fio ended in round {round}");
        let begin = Instant::now();
        place.kill();
        assert_eq!(place.start(handover), node);
        stall = stall.max(begin.elapsed());
        std::thread::sleep(Duration::from_millis(20));
        resent += number(&place.tell("stats"), "resent: ");
    }
    let status = load.wait(Duration::from_secs(60)).expect("fio ends");
    let said = load.said();
    assert!(status.success(), "fio: {status}: {said}");
    assert!(!said.contains("error="), "fio saw an error: {said}");
    if handover == "forward" {
        // The kernel knows nothing of these; the holder tells.
        let log = std::fs::read_to_string(place.path("holder.log")).unwrap();
        let sent_again = log.lines().filter(|line| line.contains("sending again"));
        resent += sent_again.map(|line| number(line, "count=")).sum::<u64>();
    }
    println!(
        "{handover} {more:?}: {rounds} kills, kill to serving again at most {stall:?}, {resent} requests resent"
    );
    assert!(
        handover == "forward" || resent > 0,
        "no kill caught a request: the test shows nothing"
    );
    assert_eq!(place.tell("detach"), "detached");
    assert!(support::loop_backed_by(&place.devices()).is_empty());
}

/// The number behind `word`.
fn number(text: &str, word: &str) -> u64 {
    let at = text.find(word).unwrap() + word.len();
    text[at..].chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

#[test]
fn small_writes_survive_twenty_kills() {
    kill_under_fio("resend", 20, &["--rw=randwrite", "--bs=4k", "--iodepth=16", "--size=160m"]);
}

#[test]
fn mixed_sizes_survive_twenty_kills() {
    kill_under_fio(
        "resend",
        20,
        &["--rw=randwrite", "--bsrange=4k-1m", "--bs_unaligned=0", "--iodepth=32", "--size=160m"],
    );
}

#[test]
fn forwarded_writes_survive_kills() {
    kill_under_fio("forward", 8, &["--rw=randwrite", "--bs=4k", "--iodepth=16", "--size=160m"]);
}

#[test]
fn forwarded_mixed_sizes_survive_kills() {
    kill_under_fio(
        "forward",
        8,
        &["--rw=randwrite", "--bsrange=4k-1m", "--iodepth=32", "--size=160m"],
    );
}

/// Daemons that die while they take over: at every moment from the first system call to full work.
fn kill_while_taking_over(handover: &str) {
    let mut place = Place::new();
    place.file(192 * MIB);
    let node = place.start(handover);
    let mut load = fio(
        node.to_str().unwrap(),
        8,
        &["--rw=randwrite", "--bsrange=4k-256k", "--iodepth=16", "--size=160m"],
    );
    for round in 0..60_u64 {
        std::thread::sleep(Duration::from_millis(50));
        place.kill();
        place.launch(handover);
        // It serves after some five milliseconds.
        std::thread::sleep(Duration::from_micros(round * 250));
        place.kill();
        assert_eq!(place.start(handover), node);
    }
    let status = load.wait(Duration::from_secs(60)).expect("fio ends");
    assert!(status.success(), "fio: {}", load.said());
    assert_eq!(place.tell("detach"), "detached");
}

#[test]
fn daemons_may_die_while_they_take_over() {
    kill_while_taking_over("resend");
}

#[test]
fn daemons_may_die_while_they_take_over_a_forwarded_device() {
    kill_while_taking_over("forward");
}

#[test]
fn a_mounted_file_system_survives_kills() {
    let mut place = Place::new();
    place.file(512 * MIB);
    let node = place.start("auto");
    run("mkfs.ext4", ["-q", node.to_str().unwrap()]);
    let mounted = place.mount(&node, "mounted");
    let file = mounted.join("file");
    let mut load = fio(
        file.to_str().unwrap(),
        6,
        &["--rw=randrw", "--bs=16k", "--iodepth=8", "--fsync=32", "--size=128m"],
    );
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(400));
        place.kill();
        // I/O waits for as long as it takes.
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(place.start("auto"), node);
    }
    let status = load.wait(Duration::from_secs(60)).expect("fio ends");
    assert!(status.success(), "fio: {}", load.said());
    run("umount", [&mounted]);
    run("e2fsck", ["-fn", node.to_str().unwrap()]);
    assert_eq!(place.tell("detach"), "detached");
}

#[test]
fn a_device_grows_while_its_daemon_is_away() {
    let mut place = Place::new();
    let file = place.file(64 * MIB);
    let node = place.start("auto");
    place.kill();
    std::fs::File::options().write(true).open(file).unwrap().set_len(128 * MIB).unwrap();
    assert_eq!(place.start("auto"), node);
    let size: u64 =
        run("blockdev", ["--getsize64", node.to_str().unwrap()]).trim().parse().unwrap();
    assert_eq!(size, 128 * MIB);
}

#[test]
fn two_daemons_never_serve_one_device() {
    let mut place = Place::new();
    place.file(64 * MIB);
    place.start("auto");
    let host = place.host();
    let io = std::sync::Arc::new(support::memory_io::MemoryIo::new(64 << 20));
    assert!(matches!(
        host.resume("vol", io.clone()),
        Err(mooring_device::DeviceError::Owned { .. })
    ));
    assert!(matches!(host.abandon("vol"), Err(mooring_device::DeviceError::Owned { .. })));
    place.kill();
    let held =
        eventually(Duration::from_secs(5), || host.held().ok().filter(|held| !held.is_empty()));
    assert_eq!(held.unwrap(), vec![("vol".to_owned(), b"note".to_vec())]);
    assert!(host.resume("vol", io).is_ok());
}

#[test]
fn what_a_killed_test_left_behind_is_cleared_away_by_the_next() {
    let mut killed = Place::new();
    killed.file(64 * MIB);
    let node = killed.start("forward");
    run("mkfs.ext4", ["-q", node.to_str().unwrap()]);
    killed.mount(&node, "mnt");
    let mut maker = Background::start("sleep", ["60"]);
    leftovers::mark(killed.root(), maker.0.id());
    let root = killed.root().to_owned();
    let left = || (loop_backed_by(&root).len(), leftovers::users_of(&root).len());

    let living = Place::new();
    assert_eq!(left(), (1, 2), "its maker lives: device, holder and daemon are in use");
    maker.0.kill().unwrap();
    maker.0.wait().unwrap();
    let next = Place::new();
    assert!(!root.exists());
    let gone = eventually(Duration::from_secs(5), || (left() == (0, 0)).then_some(()));
    assert!(gone.is_some(), "loop devices and processes are left: {:?}", left());
    assert!(living.root().exists() && next.root().exists());
}
