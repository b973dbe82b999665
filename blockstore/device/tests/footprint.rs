//! What idle devices cost. Alone in its program, so that nobody else's memory is counted.
#![allow(clippy::disallowed_methods, reason = "measures real time")]

mod support;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mooring_device::{Device, LoopDevice, LoopOptions};
use support::Place;
use support::memory_io::MemoryIo;

const DEVICES: u64 = 20;

/// This process's resident memory.
fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("our status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn an_idle_device_costs_less_than_a_mebibyte() {
    let place = Place::new();
    let host = place.host();
    let (before, begin) = (resident_kib(), Instant::now());
    let devices: Vec<_> = (0..DEVICES)
        .map(|i| {
            let io = Arc::new(MemoryIo::new(1 << 20));
            host.attach(&format!("vol-{i}"), io, &LoopOptions::default()).expect("a device")
        })
        .collect();
    let each_kib = (resident_kib() - before) / DEVICES;
    println!("{} devices: {each_kib} KiB and {:?} each", devices.len(), begin.elapsed() / 20);
    assert!(each_kib < 1024, "{each_kib} KiB each");
}

/// How many devices there are when what one costs among many is measured.
const MANY: u64 = 200;

#[test]
fn detaching_one_of_many_devices_takes_milliseconds() {
    let place = Place::new();
    let host = place.host();
    let attach = |i: u64| {
        let io = Arc::new(MemoryIo::new(1 << 20));
        host.attach(&format!("vol-{i}"), io, &LoopOptions::default()).expect("a device")
    };
    let begin = Instant::now();
    let mut devices: Vec<LoopDevice> = (0..MANY).map(attach).collect();
    let attached = begin.elapsed() / MANY as u32;
    let mut detach = || {
        let mut took: Vec<Duration> = devices
            .split_off(devices.len() - 20)
            .iter()
            .map(|device| {
                let begin = Instant::now();
                device.detach().expect("nobody uses it");
                begin.elapsed()
            })
            .collect();
        took.sort();
        took[took.len() / 2]
    };
    let among_many = detach();
    while devices.len() > 20 {
        devices.pop().expect("a device").detach().expect("nobody uses it");
    }
    let mut detach = || {
        let begin = Instant::now();
        devices.drain(..).for_each(|device| device.detach().expect("nobody uses it"));
        begin.elapsed() / 20
    };
    let among_few = detach();
    println!(
        "attached in {attached:?}; detached in {among_many:?} among {MANY}, {among_few:?} among 20"
    );
    // On a machine with nothing else to do it is a tenth of that.
    assert!(among_many < Duration::from_millis(100), "{among_many:?}, and {among_few:?} among few");
}
