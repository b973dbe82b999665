//! Devices that must end although their volume doesn't answer: nobody is left waiting.
#![allow(clippy::disallowed_methods, reason = "tests of processes run in real time")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mooring_device::{Device, DeviceError, Handover, LoopDevice, LoopHost, LoopOptions};
use support::memory_io::MemoryIo;
use support::{Background, Place, eventually, loop_backed_by, run, stuck_tasks};

const MIB: usize = 1 << 20;

/// What "at once" is allowed to take on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(5);

fn attach(place: &Place, handover: Handover) -> (Arc<MemoryIo>, LoopDevice) {
    let io = Arc::new(MemoryIo::new(128 * MIB));
    let options = LoopOptions { handover, ..LoopOptions::default() };
    let device = place.host().attach("vol", io.clone(), &options).expect("a device");
    (io, device)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// A mounted ext4 and a raw reader wait for a volume that doesn't answer; `end` frees both.
fn waiters_are_freed(handover: Handover, end: impl FnOnce(&LoopDevice)) {
    let place = Place::new();
    let (io, device) = attach(&place, handover);
    let node = text(device.path()).to_owned();
    run("mkfs.ext4", ["-q", &node]);
    let mounted = place.mount(device.path(), "mounted");
    let file = mounted.join("file");
    std::fs::write(&file, "before").expect("it works");
    run("sync", ["-f", text(&mounted)]);

    io.stuck.store(true, Ordering::SeqCst);
    let fio = [
        "--name=wait",
        "--rw=randwrite",
        "--bs=4k",
        "--iodepth=32",
        "--ioengine=libaio",
        "--direct=1",
        "--size=16m",
    ];
    let fio_file = format!("--filename={}", text(&mounted.join("fio")));
    let mut waiters = vec![
        Background::start(
            "dd",
            ["if=/dev/zero", "bs=1M", "count=8", "conv=fsync", &format!("of={}", text(&file))],
        ),
        Background::start(
            "dd",
            ["of=/dev/null", "iflag=direct", "bs=4k", "count=100", &format!("if={node}")],
        ),
        Background::start("fio", fio.iter().copied().chain([fio_file.as_str()])),
    ];
    let begun = eventually(AT_ONCE, || (device.stats().in_flight >= 2).then_some(()));
    assert!(begun.is_some(), "somebody must wait: {:?}", device.stats());
    std::thread::sleep(Duration::from_millis(200));
    assert!(waiters.iter_mut().all(|waiter| matches!(waiter.0.try_wait(), Ok(None))));

    let begin = Instant::now();
    end(&device);
    for waiter in &mut waiters {
        let status =
            waiter.wait(AT_ONCE).unwrap_or_else(|| panic!("still waiting: {:?}", stuck_tasks("")));
        assert!(!status.success(), "what could not be done must not be called done");
    }
    println!("{handover:?}: all waiters freed {:?} after the end began", begin.elapsed());
    let number = node.trim_start_matches("/dev/");
    let stuck = || [stuck_tasks(number), stuck_tasks(text(&mounted))].concat();
    assert!(eventually(AT_ONCE, || stuck().is_empty().then_some(())).is_some(), "{:?}", stuck());

    assert!(!device.is_serving());
    // What comes later gets errors at once, too; the file system can be unmounted, and all goes.
    let begin = Instant::now();
    assert!(
        std::fs::write(mounted.join("later"), "x")
            .and_then(|()| std::fs::File::open(mounted.join("later"))?.sync_all())
            .is_err()
    );
    run("umount", [&mounted]);
    device.detach().expect("nobody uses it any more");
    assert!(begin.elapsed() < AT_ONCE);
    let left = eventually(AT_ONCE, || loop_backed_by(&place.devices()).is_empty().then_some(()));
    assert!(left.is_some(), "{:?}", loop_backed_by(&place.devices()));
    // Answers that come too late harm nobody.
    io.go_on();
    assert!(place.holder().list().expect("the holder answers").is_empty());
}

#[test]
fn failing_frees_whoever_waits() {
    waiters_are_freed(Handover::Resend, |device| device.fail().expect("it fails"));
}

#[test]
fn failing_frees_whoever_waits_for_a_forwarded_device() {
    waiters_are_freed(Handover::Forward, |device| device.fail().expect("it fails"));
}

#[test]
fn a_forced_detach_frees_whoever_waits() {
    waiters_are_freed(Handover::Resend, |device| {
        device.detach_forced().expect("it goes");
        assert!(!device.mount_point().exists());
    });
}

#[test]
fn a_request_is_interruptible_where_its_caller_is() {
    let place = Place::new();
    let (io, device) = attach(&place, Handover::Auto);
    io.stuck.store(true, Ordering::SeqCst);
    // The file itself, not the loop device: a system call waits for the answer here.
    let disk = device.mount_point().join("disk");
    let mut reader = Background::start(
        "dd",
        ["of=/dev/null", "bs=4k", "count=1", &format!("if={}", text(&disk))],
    );
    assert!(eventually(AT_ONCE, || (device.stats().in_flight > 0).then_some(())).is_some());
    let pid = rustix::process::Pid::from_child(&reader.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
    assert!(reader.wait(AT_ONCE).is_some(), "a signal must free the caller");
    io.go_on();
    assert!(eventually(AT_ONCE, || (device.stats().in_flight == 0).then_some(())).is_some());
    device.detach().expect("nobody uses it");
}

#[test]
fn a_dropped_answer_is_no_error() {
    let place = Place::new();
    let (io, device) = attach(&place, Handover::Auto);
    io.stuck.store(true, Ordering::SeqCst);
    let read = format!("if={}", text(device.path()));
    let mut reader =
        Background::start("dd", ["of=/dev/null", "iflag=direct", "bs=4k", "count=1", &read]);
    assert!(eventually(AT_ONCE, || (!io.waiting.lock().is_empty()).then_some(())).is_some());
    io.waiting.lock().clear();
    assert!(reader.wait(Duration::from_millis(300)).is_none(), "it waits for the next process");
    device.fail().expect("it fails");
    assert!(reader.wait(AT_ONCE).is_some_and(|status| !status.success()));
}

#[test]
fn what_was_left_without_a_daemon_is_abandoned() {
    let mut place = Place::new();
    place.file(64 * MIB as u64);
    let node = place.start("auto");
    place.kill();
    let read = format!("if={}", text(&node));
    let mut reader =
        Background::start("dd", ["of=/dev/null", "iflag=direct", "bs=4k", "count=1", &read]);
    assert!(reader.wait(Duration::from_millis(300)).is_none(), "it waits for the next process");
    let host = place.host();
    let swept = host.sweep().expect("a sweep");
    assert!(swept.cleaned.is_empty() && swept.lingering.is_empty(), "the holder has it: {swept:?}");
    let done = eventually(AT_ONCE, || match host.abandon("vol") {
        Err(DeviceError::Owned { .. }) => None,
        other => Some(other),
    });
    done.expect("the dead process's claim ends").expect("it is abandoned");
    assert!(reader.wait(AT_ONCE).is_some_and(|status| !status.success()));
    assert!(
        eventually(AT_ONCE, || loop_backed_by(&place.devices()).is_empty().then_some(())).is_some()
    );
    assert!(place.holder().list().expect("the holder answers").is_empty());
    assert!(!place.devices().join("vol").exists());
}

#[test]
fn a_crash_of_daemon_and_holder_is_swept() {
    let mut place = Place::new();
    place.file(64 * MIB as u64);
    let node = place.start("auto");
    run("mkfs.ext4", ["-q", text(&node)]);
    let mounted = place.mount(&node, "mounted");
    // A neighbour on the same machine, with a place of its own: it must not notice.
    let neighbour = Place::new();
    let (_io, other) = attach(&neighbour, Handover::Auto);

    let holder = place.holder();
    let pid = rustix::process::Pid::from_raw(holder.pid() as i32).expect("a process");
    place.kill();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it can be killed");
    drop(holder);
    let host = LoopHost::new(&place.devices(), None).expect("a place for devices");
    let swept = eventually(AT_ONCE, || {
        let swept = host.sweep().expect("a sweep");
        (!swept.lingering.is_empty()).then_some(swept)
    });
    assert_eq!(swept.expect("the mount was left").lingering, ["vol"], "it is still mounted");
    run("umount", [&mounted]);
    assert!(
        eventually(AT_ONCE, || loop_backed_by(&place.devices()).is_empty().then_some(())).is_some()
    );
    let swept = host.sweep().expect("a sweep");
    assert!(
        swept.cleaned.is_empty() && swept.lingering.is_empty() && swept.failed.is_empty(),
        "{swept:?}"
    );
    // The place is usable again.
    let node = place.start("auto");
    run("e2fsck", ["-fp", text(&node)]);
    assert_eq!(other.stats().errors, 0);
    run(
        "dd",
        ["if=/dev/zero", "bs=4k", "count=1", "oflag=direct", &format!("of={}", text(other.path()))],
    );
    other.detach().expect("the neighbour's device is whole");
}

#[test]
fn a_stopped_holder_keeps_nobody_waiting() {
    let place = Place::new();
    let (io, device) = attach(&place, Handover::Forward);
    io.stuck.store(true, Ordering::SeqCst);
    let read = format!("if={}", text(device.path()));
    let mut reader =
        Background::start("dd", ["of=/dev/null", "iflag=direct", "bs=4k", "count=1", &read]);
    assert!(eventually(AT_ONCE, || (device.stats().in_flight > 0).then_some(())).is_some());
    let holder = place.holder();
    let pid = rustix::process::Pid::from_raw(holder.pid() as i32).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("it can be stopped");
    device.fail().expect("it fails");
    assert!(reader.wait(AT_ONCE).is_some_and(|status| !status.success()));
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("it can go on");
    device.detach().expect("nobody uses it");
}

#[test]
fn an_unmounted_device_still_fails() {
    let place = Place::new();
    let (io, device) = attach(&place, Handover::Resend);
    io.stuck.store(true, Ordering::SeqCst);
    let read = format!("if={}", text(device.path()));
    let mut reader =
        Background::start("dd", ["of=/dev/null", "iflag=direct", "bs=4k", "count=1", &read]);
    assert!(eventually(AT_ONCE, || (device.stats().in_flight > 0).then_some(())).is_some());
    // Somebody tidies up what he doesn't know.
    run("umount", ["-l", text(device.mount_point())]);
    device.fail().expect("it fails");
    assert!(reader.wait(AT_ONCE).is_some_and(|status| !status.success()));
    device.detach_forced().expect("it goes");
    let gone = || {
        !text(device.path()).is_empty()
            && std::fs::metadata(format!(
                "/sys/block/{}/loop",
                text(device.path()).trim_start_matches("/dev/")
            ))
            .is_err()
    };
    assert!(
        eventually(AT_ONCE, || gone().then_some(())).is_some(),
        "the loop device must not stay"
    );
}

#[test]
fn a_holder_that_died_is_replaced() {
    let place = Place::new();
    let (_io, device) = attach(&place, Handover::Resend);
    let write = || {
        run(
            "dd",
            [
                "if=/dev/zero",
                "bs=4k",
                "count=1",
                "oflag=direct",
                &format!("of={}", text(device.path())),
            ],
        )
    };
    let holder = place.holder();
    let pid = rustix::process::Pid::from_raw(holder.pid() as i32).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it can be killed");
    assert!(eventually(AT_ONCE, || (!holder.is_alive()).then_some(())).is_some());
    write();
    let next = place.holder();
    assert!(device.is_serving());
    assert!(device.keep_with(&next).expect("the next one keeps it"));
    assert_eq!(next.list().expect("it answers").len(), 1);
    assert_eq!(next.take("vol").expect("it is ours").fds.len(), 2);
    write();
    device.detach().expect("nobody uses it");
    assert!(next.list().expect("it answers").is_empty());
}

#[test]
fn a_forwarding_holder_that_dies_frees_whoever_waits() {
    let place = Place::new();
    let (io, device) = attach(&place, Handover::Forward);
    io.stuck.store(true, Ordering::SeqCst);
    let read = format!("if={}", text(device.path()));
    let mut reader =
        Background::start("dd", ["of=/dev/null", "iflag=direct", "bs=4k", "count=1", &read]);
    assert!(eventually(AT_ONCE, || (device.stats().in_flight > 0).then_some(())).is_some());
    let holder = place.holder();
    let pid = rustix::process::Pid::from_raw(holder.pid() as i32).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it can be killed");
    assert!(reader.wait(AT_ONCE).is_some_and(|status| !status.success()));
    assert!(eventually(AT_ONCE, || (!device.is_serving()).then_some(())).is_some());
    let result = device.keep_with(&place.holder());
    assert!(matches!(result, Err(DeviceError::Gone { .. })), "{result:?}");
}
