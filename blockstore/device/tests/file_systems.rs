//! What users do with a device: file systems, discards, growing, detaching.
#![allow(clippy::disallowed_methods, reason = "tests of processes run in real time")]

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mooring_device::{
    Device, DeviceError, DeviceKind, Handover, IoError, LoopDevice, LoopOptions, User,
};
use support::memory_io::MemoryIo;
use support::{Background, Place, eventually, loop_backed_by, run, sector_size, try_run};

const MIB: usize = 1 << 20;

/// A device in this process over memory.
fn attach(place: &Place, bytes: usize) -> (Arc<MemoryIo>, LoopDevice) {
    let io = Arc::new(MemoryIo::new(bytes));
    let device = place.host().attach("vol", io.clone(), &LoopOptions::default());
    (io, device.expect("a device"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// Makes a file system, fills it, and reads it back after another mount.
fn use_file_system(mkfs: &str, arguments: &[&str], check: &[&str]) {
    let place = Place::new();
    let (io, device) = attach(&place, 512 * MIB);
    let node = text(device.path()).to_owned();
    run(mkfs, arguments.iter().copied().chain([node.as_str()]));
    let mounted = place.mount(device.path(), "mounted");
    let content: Vec<u8> = (0..40 * MIB).map(|i| (i % 251) as u8).collect();
    fs::write(mounted.join("file"), &content).expect("it takes a file");
    let before = io.flushes.load(Ordering::SeqCst);
    fs::File::open(mounted.join("file")).expect("the file").sync_all().expect("an fsync");
    assert!(io.flushes.load(Ordering::SeqCst) > before, "fsync must reach the volume as a flush");
    run("umount", [&mounted]);
    run(check[0], check[1..].iter().copied().chain([node.as_str()]));
    place.mount(device.path(), "mounted");
    assert_eq!(fs::read(mounted.join("file")).expect("the file"), content);
    fs::remove_file(mounted.join("file")).expect("it can be removed");
    let before = io.discarded.load(Ordering::SeqCst);
    run("fstrim", [&mounted]);
    let freed = io.discarded.load(Ordering::SeqCst) - before;
    assert!(
        freed >= 40 * MIB as u64,
        "fstrim must reach the volume as discards, not {freed} bytes"
    );
    run("umount", [&mounted]);
    device.detach().expect("nobody uses it");
    assert!(loop_backed_by(&place.devices()).is_empty());
}

#[test]
fn ext4_works() {
    use_file_system("mkfs.ext4", &["-q"], &["e2fsck", "-fn"]);
}

#[test]
fn xfs_works() {
    use_file_system("mkfs.xfs", &["-q"], &["xfs_repair", "-n"]);
}

#[test]
fn the_device_is_what_it_says() {
    let place = Place::new();
    let (_io, device) = attach(&place, 64 * MIB);
    assert_eq!(device.kind(), DeviceKind::Loop);
    assert_eq!(device.size_bytes(), 64 * MIB as u64);
    assert_eq!(sector_size(device.path()), 4096);
    let number = text(device.path()).trim_start_matches("/dev/").to_owned();
    let direct = fs::read_to_string(format!("/sys/block/{number}/loop/dio")).expect("sysfs");
    assert_eq!(direct.trim(), "1", "no page cache beneath the device");
    let names: Vec<_> = fs::read_dir(device.mount_point()).expect("a listing").flatten().collect();
    assert_eq!(names.len(), 1);
    assert_eq!(names[0].file_name(), "disk");
    let disk = fs::OpenOptions::new().write(true).open(names[0].path()).expect("the file");
    assert!(disk.set_len(1).is_err(), "the size is the volume's");
    assert!(fs::write(device.mount_point().join("other"), "x").is_err());
    let disk = format!("if={}", text(&names[0].path()));
    run("dd", ["of=/dev/null", "bs=1M", "count=64", disk.as_str()]);
    assert_eq!(device.stats().read_bytes, 64 * MIB as u64);
}

#[test]
fn blkdiscard_discards_and_zeroes() {
    let place = Place::new();
    let (io, device) = attach(&place, 64 * MIB);
    let node = text(device.path());
    let fill = |bytes: usize| {
        run(
            "dd",
            [
                &format!("of={node}"),
                "if=/dev/urandom",
                "bs=1M",
                "oflag=direct",
                &format!("count={}", bytes / MIB),
            ],
        );
    };
    fill(64 * MIB);
    assert!(io.at(0, 64 * MIB).chunks(4096).all(|block| block.iter().any(|byte| *byte != 0)));
    run("blkdiscard", ["-o", "4194304", "-l", "8388608", node]);
    assert_eq!(io.discarded.load(Ordering::SeqCst), 8 * MIB as u64);
    assert!(io.at(4 * MIB, 8 * MIB).iter().all(|byte| *byte == 0));
    assert!(io.at(12 * MIB, 4096).iter().any(|byte| *byte != 0), "and no more than that");
    run("blkdiscard", ["-z", "-o", "33554432", "-l", "1048576", node]);
    assert_eq!(io.zeroed.load(Ordering::SeqCst), MIB as u64);
    assert!(io.at(32 * MIB, MIB).iter().all(|byte| *byte == 0));
    assert!(io.at(33 * MIB, 4096).iter().any(|byte| *byte != 0));
    assert_eq!(device.stats().errors, 0);
    // A request leaves the table just after its answer.
    let idle = eventually(Duration::from_secs(5), || (device.stats().in_flight == 0).then_some(()));
    assert!(idle.is_some());
}

#[test]
fn a_mounted_file_system_grows() {
    let place = Place::new();
    let (io, device) = attach(&place, 320 * MIB);
    run("mkfs.xfs", ["-q", text(device.path())]);
    let mounted = place.mount(device.path(), "mounted");
    io.grow(640 * MIB);
    assert_eq!(device.grow().expect("it grows"), 640 * MIB as u64);
    assert_eq!(device.size_bytes(), 640 * MIB as u64);
    run("xfs_growfs", [&mounted]);
    fs::write(mounted.join("file"), vec![7; 400 * MIB]).expect("there is room now");
    run("umount", [&mounted]);
    run("xfs_repair", ["-n", text(device.path())]);
}

#[test]
fn ext4_grows() {
    let place = Place::new();
    let (io, device) = attach(&place, 128 * MIB);
    let node = text(device.path());
    run("mkfs.ext4", ["-q", node]);
    let mounted = place.mount(device.path(), "mounted");
    io.grow(256 * MIB);
    device.grow().expect("it grows");
    // The kernel lets ext4 grow while it is mounted only with CAP_SYS_RESOURCE.
    let capabilities = fs::read_to_string("/proc/self/status").expect("our status");
    let effective =
        capabilities.lines().find_map(|line| line.strip_prefix("CapEff:\t")).expect("a mask");
    let online = u64::from_str_radix(effective, 16).expect("a mask") & (1 << 24) != 0;
    if online {
        run("resize2fs", [node]);
    } else {
        run("umount", [&mounted]);
        run("e2fsck", ["-fp", node]);
        run("resize2fs", [node]);
        place.mount(device.path(), "mounted");
    }
    fs::write(mounted.join("file"), vec![7; 160 * MIB]).expect("there is room now");
    run("umount", [&mounted]);
    run("e2fsck", ["-fn", node]);
}

#[test]
fn a_device_in_use_is_not_detached() {
    let place = Place::new();
    let (_io, device) = attach(&place, 64 * MIB);
    run("mkfs.ext4", ["-q", text(device.path())]);
    let mounted = place.mount(device.path(), "mounted");
    let Err(DeviceError::Busy { users, .. }) = device.detach() else { panic!("it is mounted") };
    let named =
        users.iter().any(|user| matches!(user, User::Mount { point, .. } if *point == mounted));
    assert!(named, "who holds it must be said, not {users:?}");
    fs::write(mounted.join("file"), "still works").expect("a refused detach changes nothing");
    run("umount", [&mounted]);

    let reader =
        Background::start("sh", ["-c", &format!("exec sleep 100 < {}", text(device.path()))]);
    let pid = reader.0.id();
    let has_it =
        || fs::read_link(format!("/proc/{pid}/fd/0")).is_ok_and(|input| input == device.path());
    assert!(eventually(Duration::from_secs(5), || has_it().then_some(())).is_some());
    let Err(DeviceError::Busy { users, .. }) = device.detach() else { panic!("it is open") };
    let named =
        users.iter().any(|user| matches!(user, User::Process { pid: found, .. } if *found == pid));
    assert!(named, "the process must be named, not {users:?}");
    drop(reader);
    device.detach().expect("now nobody uses it");
    device.detach().expect("and a second time does nothing");
    assert!(matches!(device.grow(), Err(DeviceError::Gone { .. })));
    assert!(!device.mount_point().exists());
    assert!(place.holder().list().expect("the holder answers").is_empty());
}

#[test]
fn names_and_sizes_are_checked() {
    let place = Place::new();
    let host = place.host();
    let options = LoopOptions::default();
    for name in ["", ".", "..", "a/b", ".hidden", "new\nline", &"x".repeat(201)] {
        let result = host.attach(name, Arc::new(MemoryIo::new(MIB)), &options);
        assert!(matches!(result, Err(DeviceError::Name { .. })), "{name:?}");
    }
    for bytes in [0, 4095, MIB + 512] {
        let result = host.attach("vol", Arc::new(MemoryIo::new(bytes)), &options);
        assert!(matches!(result, Err(DeviceError::Size { .. })), "{bytes}");
    }
    let first = host.attach("vol", Arc::new(MemoryIo::new(MIB)), &options).expect("a device");
    let second = host.attach("vol", Arc::new(MemoryIo::new(MIB)), &options);
    assert!(matches!(second, Err(DeviceError::AlreadyAttached { .. })));
    assert_eq!(first.size_bytes(), MIB as u64, "the first is none the worse");
    assert!(matches!(
        host.resume("other", Arc::new(MemoryIo::new(MIB))),
        Err(DeviceError::NotHeld { .. })
    ));
}

#[test]
fn a_full_volume_is_no_broken_disk() {
    let place = Place::new();
    let (io, device) = attach(&place, 16 * MIB);
    let write = || {
        let output = try_run(
            "dd",
            [
                "if=/dev/zero",
                "bs=4k",
                "count=1",
                "oflag=direct",
                &format!("of={}", text(device.path())),
            ],
        );
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    *io.refuse.lock() = Some(IoError::NoSpace);
    let (taken, said) = write();
    assert!(!taken && said.contains("No space left"), "{said}");
    *io.refuse.lock() = Some(IoError::Corrupt);
    let (taken, said) = write();
    assert!(!taken && said.contains("Input/output error"), "{said}");
    *io.refuse.lock() = None;
    assert!(write().0);
    assert_eq!(device.stats().errors, 2);
}

#[test]
fn many_devices_live_side_by_side() {
    let place = Place::new();
    let host = place.host();
    let devices: Vec<_> = (0..20)
        .map(|i| {
            let handover = if i % 2 == 0 { Handover::Resend } else { Handover::Forward };
            let options = LoopOptions { handover, ..LoopOptions::default() };
            let io = Arc::new(MemoryIo::new((i + 1) * MIB));
            host.attach(&format!("vol-{i}"), io, &options).expect("a device")
        })
        .collect();
    for (i, device) in devices.iter().enumerate() {
        assert_eq!(device.size_bytes(), ((i + 1) * MIB) as u64);
        run(
            "dd",
            [
                "if=/dev/urandom",
                "bs=64k",
                "count=8",
                "oflag=direct",
                &format!("of={}", text(device.path())),
            ],
        );
    }
    assert_eq!(place.holder().list().expect("the holder answers").len(), 20);
    for device in &devices {
        device.detach().expect("nobody uses it");
    }
    assert!(loop_backed_by(&place.devices()).is_empty());
    assert!(place.holder().list().expect("the holder answers").is_empty());
}
