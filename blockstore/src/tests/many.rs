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
