//! Several hosts at work on the same files at the same time.

#![allow(clippy::disallowed_methods, reason = "tests of processes run in real time")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod rig;

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rig::Rig;

/// How long "at once" may take on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(5);

fn in_threads(threads: usize, run: impl Fn(usize) + Send + Sync) {
    std::thread::scope(|scope| {
        for i in 0..threads {
            let run = &run;
            scope.spawn(move || run(i));
        }
    });
}

#[test]
fn appends_of_two_hosts_lose_and_tear_nothing() {
    const EACH: u32 = 2000;
    let Some(rig) = Rig::start_for(2, Duration::from_secs(200)) else { return };
    in_threads(2, |mount| {
        let path = rig.path(mount, "log");
        let mut file = File::options().append(true).create(true).open(path).unwrap();
        for i in 0..EACH {
            // Of many lengths: records across blocks, too.
            let record = format!("<{mount} {i} {}>\n", "x".repeat(i as usize * 7 % 300));
            file.write_all(record.as_bytes()).unwrap();
        }
    });
    let text = fs::read_to_string(rig.path(0, "log")).unwrap();
    let mut next = [0; 2];
    for line in text.lines() {
        let inner =
            line.strip_prefix('<').and_then(|l| l.strip_suffix('>')).expect("a whole record");
        let mut words = inner.split(' ');
        let mount: usize = words.next().unwrap().parse().unwrap();
        let i: u32 = words.next().unwrap().parse().unwrap();
        assert_eq!(words.next().unwrap().len(), i as usize * 7 % 300);
        assert_eq!(i, next[mount], "records of one host keep their order");
        next[mount] += 1;
    }
    assert_eq!(next, [EACH; 2]);
    assert_eq!(fs::read_to_string(rig.path(1, "log")).unwrap(), text);
}

/// Three hosts count in one file under a lock; no step is lost.
fn counts(rig: &Rig, lock: impl Fn(&File, bool) + Sync) {
    const EACH: u64 = 300;
    fs::write(rig.path(0, "counter"), 0_u64.to_le_bytes()).unwrap();
    in_threads(3, |mount| {
        let path = rig.path(mount, "counter");
        let file = File::options().read(true).write(true).open(path).unwrap();
        for _ in 0..EACH {
            lock(&file, true);
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, 0).unwrap();
            file.write_all_at(&(u64::from_le_bytes(bytes) + 1).to_le_bytes(), 0).unwrap();
            lock(&file, false);
        }
    });
    let counted = fs::read(rig.path(1, "counter")).unwrap();
    assert_eq!(u64::from_le_bytes(counted.try_into().unwrap()), 3 * EACH);
}

#[test]
fn a_counter_under_flock_loses_no_step() {
    let Some(rig) = Rig::start(3) else { return };
    counts(&rig, |file, lock| {
        let operation = if lock { libc::LOCK_EX } else { libc::LOCK_UN };
        // SAFETY: the descriptor is open.
        assert_eq!(unsafe { libc::flock(file.as_raw_fd(), operation) }, 0);
    });
}

#[test]
fn a_counter_under_fcntl_loses_no_step() {
    let Some(rig) = Rig::start(3) else { return };
    counts(&rig, |file, lock| range_lock(file, lock, libc::F_OFD_SETLKW));
}

/// Locks or frees eight bytes, for this open file: threads of one process would share the other kind.
fn range_lock(file: &File, lock: bool, command: libc::c_int) {
    let kind = if lock { libc::F_WRLCK } else { libc::F_UNLCK };
    let wanted = libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 8,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open, and the lock lives as long as the call.
    let taken = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw const wanted) };
    assert_eq!(taken, 0, "{}", std::io::Error::last_os_error());
}

/// Somebody waits for a lock that another host holds, and is told to go.
fn dies_waiting(rig: &Rig, signal: &str) {
    let held = File::create(rig.path(0, "lock")).unwrap();
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::flock(held.as_raw_fd(), libc::LOCK_EX) }, 0);
    let mut waiter = Command::new("flock")
        .arg(rig.path(1, "lock"))
        .arg("true")
        .stderr(Stdio::null())
        .spawn()
        .expect("flock(1)");
    std::thread::sleep(Duration::from_millis(300));
    assert!(waiter.try_wait().unwrap().is_none(), "it waits");
    let began = Instant::now();
    let told = Command::new("kill").args([signal, &waiter.id().to_string()]).status().unwrap();
    assert!(told.success());
    waiter.wait().unwrap();
    assert!(began.elapsed() < AT_ONCE, "{signal} took {:?}", began.elapsed());
    // It left nothing behind that waits, or holds.
    drop(held);
    let after = Command::new("flock").arg("-n").arg(rig.path(1, "lock")).arg("true").status();
    assert!(after.unwrap().success());
}

#[test]
fn who_waits_for_a_lock_dies_of_sigkill() {
    let Some(rig) = Rig::start(2) else { return };
    dies_waiting(&rig, "-KILL");
}

#[test]
fn who_waits_for_a_lock_dies_of_ctrl_c() {
    let Some(rig) = Rig::start(2) else { return };
    dies_waiting(&rig, "-INT");
}

#[test]
fn a_lock_is_free_when_its_holder_is_gone() {
    let Some(rig) = Rig::start(2) else { return };
    fs::write(rig.path(0, "lock"), b"").unwrap();
    let mut holder = Command::new("flock")
        .arg(rig.path(0, "lock"))
        .args(["sleep", "100"])
        .spawn()
        .expect("flock(1)");
    std::thread::sleep(Duration::from_millis(300));
    let try_lock = || {
        let path = rig.path(1, "lock");
        let status = Command::new("flock").arg("-n").arg(path).arg("true").status().unwrap();
        status.success()
    };
    assert!(!try_lock(), "it is held on the other host");
    // flock(1) gives the lock to its child, too.
    let pid = holder.id().to_string();
    Command::new("pkill").args(["-KILL", "-P", &pid]).status().unwrap();
    holder.wait().unwrap();
    let began = Instant::now();
    while !try_lock() {
        assert!(began.elapsed() < AT_ONCE);
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn two_writers_of_one_file_for_a_while() {
    let Some(rig) = Rig::start(2) else { return };
    const BLOCKS: u64 = 64;
    fs::write(rig.path(0, "file"), vec![0; (BLOCKS * 4096) as usize]).unwrap();
    in_threads(2, |mount| {
        let path = rig.path(mount, "file");
        let file = File::options().read(true).write(true).open(path).unwrap();
        let began = Instant::now();
        let mut i = 0_u64;
        while began.elapsed() < Duration::from_secs(8) {
            i += 1;
            let block = (i * 29 + mount as u64 * 13) % BLOCKS;
            let value = [(i % 250) as u8 + 1; 4096];
            file.write_all_at(&value, block * 4096).unwrap();
            let mut read = [0; 4096];
            file.read_exact_at(&mut read, (i * 31 % BLOCKS) * 4096).unwrap();
            assert!(read.iter().all(|byte| *byte == read[0]), "a torn write");
        }
    });
}

#[test]
fn work_goes_on_while_coordinators_come_and_go() {
    let Some(rig) = Rig::start(2) else { return };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|mount| {
                let rig = &rig;
                scope.spawn(move || {
                    let began = Instant::now();
                    let mut i = 0;
                    while began.elapsed() < Duration::from_secs(10) {
                        i += 1;
                        let path = rig.path(mount, &format!("f{mount}-{}", i % 100));
                        let text = format!("{mount} {i}");
                        fs::write(&path, &text).unwrap();
                        assert_eq!(fs::read_to_string(&path).unwrap(), text);
                        if i % 3 == 0 {
                            fs::remove_file(&path).unwrap();
                        }
                    }
                    i
                })
            })
            .collect();
        for _ in 0..4 {
            std::thread::sleep(Duration::from_secs(2));
            rig.fail_over();
        }
        let done: Vec<u32> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        assert!(done.iter().all(|done| *done > 10), "{done:?}");
    });
}

#[test]
fn a_stream_that_breaks_is_no_error() {
    let Some(rig) = Rig::start(2) else { return };
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let file = File::options().append(true).create(true).open(rig.path(0, "log")).unwrap();
            for i in 0..600_u32 {
                (&file).write_all(&i.to_le_bytes()).unwrap();
                if i % 50 == 0 {
                    file.sync_all().unwrap();
                }
                assert_eq!(fs::metadata(rig.path(1, "log")).unwrap().len(), u64::from(i + 1) * 4);
            }
        });
        while !worker.is_finished() {
            std::thread::sleep(Duration::from_millis(30));
            rig.tell("cut 0");
            rig.tell("cut 1");
        }
    });
    let bytes = fs::read(rig.path(1, "log")).unwrap();
    let numbers: Vec<u32> =
        bytes.chunks(4).map(|four| u32::from_le_bytes(four.try_into().unwrap())).collect();
    assert!(numbers.iter().copied().eq(0..600));
}
