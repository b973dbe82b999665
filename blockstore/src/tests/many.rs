//! Many slices must cost a failover little more than a few do.

use std::time::{Duration, Instant};

use mooring_terms::NodeId;

use super::rig::{Rig, slice};

/// From the silence of a node to the last of `count` slices moved to the other.
fn failover(count: u64) -> Duration {
    let rig = Rig::new(2, 1);
    for volume in 1..=count {
        rig.make(volume, 1);
    }
    let serves = |node: u64| {
        (1..=count).all(|volume| {
            let slice = rig.node(node).plane.slice(slice(volume)).unwrap();
            slice.status().role == mooring_replication::Role::Primary
        })
    };
    let begun = Instant::now();
    while !serves(1) {
        assert!(begun.elapsed() < Duration::from_secs(120), "the first epochs begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    eprintln!("{count} slices serve after {:?}", begun.elapsed());
    // Both have been heard at length.
    std::thread::sleep(Duration::from_secs(1));
    rig.node(1).kill();
    let begun = Instant::now();
    while (1..=count).any(|volume| rig.config(volume).primary != NodeId(2)) {
        assert!(begun.elapsed() < Duration::from_secs(120), "all slices move");
        std::thread::sleep(Duration::from_millis(20));
    }
    begun.elapsed()
}

#[test]
fn many_slices_cost_a_failover_little_more_than_a_few() {
    let few = failover(10);
    let many = failover(5_000);
    eprintln!("failover of 10 slices {few:?}, of 5,000 {many:?}");
    assert!(many < few + Duration::from_secs(2), "10: {few:?}, 5,000: {many:?}");
}

/// Processor time that this process has used: its clock ticks are 10 ms.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// Memory that this process has touched, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn idle_volumes_cost_next_to_nothing() {
    const VOLUMES: u64 = 50;
    let rig = Rig::new(3, 1);
    for volume in 1..=VOLUMES {
        rig.make(volume, 1);
    }
    let before = resident();
    let users: Vec<_> = (1..=VOLUMES).map(|volume| rig.attach(volume, 1)).collect();
    for user in &users {
        user.write(1, 1);
    }
    // Credits are given back once nothing has been written for a while.
    std::thread::sleep(Duration::from_secs(4));
    let each = resident().saturating_sub(before) / VOLUMES;
    let span = Duration::from_secs(5);
    let used = processor_time();
    std::thread::sleep(span);
    let used = processor_time() - used;
    eprintln!("{VOLUMES} idle volumes, 3 nodes: {used:?} in {span:?}; {} KiB each", each >> 10);
    assert!(used < span * 3 / 100, "three nodes used {used:?} of a processor in {span:?}");
    assert!(each < 1 << 20, "{each} bytes a volume");
}
