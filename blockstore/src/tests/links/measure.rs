//! Measurements, run by name and in release: what a link costs beside a function call, and what many
//! slices do.

use std::time::{Duration, Instant};

use mooring_terms::Version;

use super::super::rig::Rig;
use super::{Shared, read, write};

/// The median and the 99th percentile of `count` runs.
fn timed(count: usize, mut one: impl FnMut(u64)) -> String {
    let mut times: Vec<Duration> = (0..count as u64)
        .map(|i| {
            let start = Instant::now();
            one(i);
            start.elapsed()
        })
        .collect();
    times.sort();
    format!("p50 {:?}, p99 {:?}", times[count / 2], times[count * 99 / 100])
}

/// Memory in use, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Processor time of this process.
fn worked() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

#[test]
#[ignore = "a measurement: run it by name, in release"]
fn measure_4k_over_links() {
    for (nodes, node) in [(1, 1), (3, 1), (3, 2)] {
        let shared = Shared::of(nodes, &[1]);
        let volume = shared.process(node, 11);
        let place = if node == 1 { "the primary's" } else { "another" };
        println!("{nodes} replicas, process on {place} node");
        println!(
            "  write: {}",
            timed(8_000, |i| assert!(write(&volume, i % 512, 1) > Version::ZERO))
        );
        println!("  read: {}", timed(8_000, |i| assert_eq!(read(&volume, i % 512), 1)));
    }
    let rig = Rig::new(1, 1);
    rig.make(1, 1);
    let user = rig.attach(1, 1);
    println!("1 replica, no link");
    println!("  write: {}", timed(8_000, |i| assert!(!user.write_here(i % 512, 1).is_zero())));
    println!("  read: {}", timed(8_000, |i| assert_eq!(user.read(i % 512), 1)));
}

#[test]
#[ignore = "a measurement: run it by name, in release"]
fn measure_10_tib_of_slices() {
    const SLICES: u64 = 2_560;
    let shared = Shared::of(1, &[1; SLICES as usize]);
    let blocks = (1 << 20) / SLICES;
    let volume = shared.process(1, 11);
    write(&volume, 0, 1);
    println!(
        "{SLICES} slices; write: {}",
        timed(4_000, |i| assert!(write(&volume, i % 64, 1) > Version::ZERO))
    );
    println!("read: {}", timed(4_000, |i| assert_eq!(read(&volume, i % 64), 1)));
    let (before, start) = (resident(), Instant::now());
    for slice in 0..SLICES {
        assert_eq!(read(&volume, slice * blocks + 1) & 0xfe, 0);
    }
    println!("let in everywhere after {:?}: {} KiB more", start.elapsed(), resident() - before);
    let before = worked();
    std::thread::sleep(Duration::from_secs(4));
    println!("renewing all: {:?} of processor time a second", (worked() - before) / 4);
    println!(
        "write meanwhile: {}",
        timed(2_000, |i| assert!(write(&volume, i % 64, 1) > Version::ZERO))
    );
    let start = Instant::now();
    shared.fence(11);
    println!("fenced after {:?}", start.elapsed());
}
