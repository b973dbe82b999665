//! What idle devices cost. Alone in its program, so that nobody else's memory is counted.
#![allow(clippy::disallowed_methods, reason = "measures real time")]

mod support;

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use mooring_device::LoopOptions;
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
