//! A small file system, really mounted: who waits is freed by the right signals, locks come with
//! their kind, and what the kernel has cached is dropped when it is told so.
#![allow(clippy::disallowed_methods, reason = "tests of processes run in real time")]

mod toy;

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::thread::JoinHandleExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use toy::Mounted;

/// What "at once" is allowed to take on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(5);

extern "C" fn noted(_: libc::c_int) {}

fn with_handler(signal: Signal) {
    let action = SigAction::new(SigHandler::Handler(noted), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { sigaction(signal, &action).expect("a handler") };
}

/// Runs `wait` on a thread of its own, and sends it `signal` once a request of it waits; the result
/// comes over the channel.
fn signalled<T: Send + 'static>(
    mounted: &Mounted,
    signal: Signal,
    wait: impl FnOnce() -> T + Send + 'static,
) -> mpsc::Receiver<T> {
    with_handler(signal);
    let (sender, result) = mpsc::channel();
    let thread = std::thread::spawn(move || drop(sender.send(wait())));
    mounted.until_requests_wait(1);
    // SAFETY: the thread hasn't ended: its request waits.
    assert_eq!(unsafe { libc::pthread_kill(thread.as_pthread_t(), signal as libc::c_int) }, 0);
    result
}

#[test]
fn a_killed_reader_is_gone_while_nobody_answers() {
    let mounted = Mounted::new();
    let mut reader =
        Command::new("cat").arg(mounted.path("slow")).stdout(Stdio::null()).spawn().expect("cat");
    mounted.until_requests_wait(1);
    let began = Instant::now();
    reader.kill().expect("kill");
    reader.wait().expect("an end");
    assert!(began.elapsed() < AT_ONCE);
    assert_eq!(mounted.toy().interrupted(), 1);
}

#[test]
fn ctrl_c_ends_a_reader_while_nobody_answers() {
    let mounted = Mounted::new();
    let mut reader =
        Command::new("cat").arg(mounted.path("slow")).stdout(Stdio::null()).spawn().expect("cat");
    mounted.until_requests_wait(1);
    let pid = nix::unistd::Pid::from_raw(reader.id() as i32);
    nix::sys::signal::kill(pid, Signal::SIGINT).expect("a signal");
    let began = Instant::now();
    reader.wait().expect("an end");
    assert!(began.elapsed() < AT_ONCE);
}

#[test]
fn a_handled_ctrl_c_interrupts_a_read_that_has_waited_long() {
    let mounted = Mounted::new();
    let mut file = File::open(mounted.path("slow")).expect("a file");
    let result = signalled(&mounted, Signal::SIGINT, move || file.read(&mut [0; 4]));
    let error = result.recv_timeout(AT_ONCE).expect("an answer").expect_err("an interruption");
    assert_eq!(error.raw_os_error(), Some(libc::EINTR));
}

#[test]
fn a_timer_does_not_make_an_error_of_a_stall() {
    let mounted = Mounted::new();
    let path = mounted.path("slow");
    let result = signalled(&mounted, Signal::SIGALRM, move || std::fs::read(path));
    result
        .recv_timeout(Duration::from_secs(1))
        .expect_err("the read waits on, whatever timers go off");
    mounted.toy().release();
    let bytes = result.recv_timeout(AT_ONCE).expect("an answer").expect("no error");
    assert_eq!(bytes, b"late");
}

#[test]
fn any_handled_signal_ends_a_wait_for_a_lock() {
    let mounted = Mounted::new();
    let file = File::open(mounted.path("slow")).expect("a file");
    let result = signalled(&mounted, Signal::SIGALRM, move || {
        // SAFETY: the descriptor is open.
        let taken = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) };
        (taken, std::io::Error::last_os_error().raw_os_error())
    });
    let answer = result.recv_timeout(AT_ONCE).expect("an answer");
    assert_eq!(answer, (-1, Some(libc::EINTR)));
}

#[test]
fn locks_of_flock_and_fcntl_are_told_apart() {
    let mounted = Mounted::new();
    let file = File::options().read(true).write(true).open(mounted.path("slow")).expect("a file");
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }, 0);
    let whole = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 3,
        l_len: 4,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open, and the lock lives as long as the call.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const whole) }, 0);
    assert_eq!(mounted.toy().locks(), [(true, 0, i64::MAX as u64), (false, 3, 6)]);
}

#[test]
fn cached_attributes_are_dropped_when_the_kernel_is_told() {
    let mounted = Mounted::new();
    let path = mounted.path("slow");
    let size = || std::fs::metadata(&path).expect("attributes").size();
    assert_eq!(size(), 4);
    mounted.toy().set_size(9);
    assert_eq!(size(), 4, "they are cached for long");
    mounted.session().notifier().invalidate_attributes(toy::SLOW);
    assert_eq!(size(), 9);
}

#[test]
fn cached_names_are_dropped_when_the_kernel_is_told() {
    let mounted = Mounted::new();
    let path = mounted.path("slow");
    assert!(path.exists());
    mounted.toy().hide();
    assert!(path.exists(), "the name is cached for long");
    mounted.session().notifier().invalidate_entry(toy::ROOT, b"slow");
    assert!(!path.exists());
}

#[test]
fn a_long_write_arrives_whole() {
    use std::io::Write;
    let mounted = Mounted::new();
    let mut file = File::options().write(true).open(mounted.path("slow")).expect("a file");
    let bytes: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
    file.write_all(&bytes).expect("written");
    drop(file);
    assert!(mounted.toy().written() == bytes);
}

#[test]
fn a_directory_is_listed_with_attributes() {
    let mounted = Mounted::new();
    let mut names: Vec<_> = std::fs::read_dir(mounted.path(""))
        .expect("a directory")
        .map(|entry| entry.expect("an entry"))
        .map(|entry| (entry.file_name(), entry.metadata().expect("attributes").size()))
        .collect();
    names.sort();
    assert_eq!(names, [("slow".into(), 4)]);
    let mut text = String::new();
    mounted.toy().release();
    File::open(mounted.path("slow")).expect("a file").read_to_string(&mut text).expect("text");
    assert_eq!(text, "late");
}
