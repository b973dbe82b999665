//! A disk that hangs is one pool's trouble: whatever else the node does goes on.

use std::thread;
use std::time::{Duration, Instant};

use mooring_terms::NodeId;

use super::rig::{Rig, User};

/// Of a write that nothing holds up. Far above what it takes, far below a lease.
const PROMPT: Duration = Duration::from_millis(700);
/// From the hang to the first write under the next primary, at the most.
const FAILOVER: Duration = Duration::from_secs(5);

/// Writes again and again for `span`; the longest that one write took.
fn keep_writing(user: &User, span: Duration) -> Duration {
    let end = Instant::now() + span;
    let mut longest = Duration::ZERO;
    let mut block = 0;
    while Instant::now() < end {
        longest = longest.max(user.write(block % 512, 7));
        block += 1;
        thread::sleep(Duration::from_millis(2));
    }
    longest
}

/// Volume 1 lies in pools 1, volume 2 in pools 2; both are used on node `user`. Pool 1 of node `hung`
/// hangs while both are written.
fn one_pool_hangs(user: u64, hung: u64) {
    let rig = Rig::new(3, 2);
    rig.make(1, 1);
    rig.make(2, 2);
    let (one, two) = (rig.attach(1, user), rig.attach(2, user));
    for block in 0..50 {
        one.write(block, 1);
        two.write(block, 2);
    }
    thread::scope(|scope| {
        let other = scope.spawn(|| keep_writing(&two, Duration::from_secs(6)));
        rig.hang(hung, 1, true);
        let begun = Instant::now();
        // Several threads get into the disk before anybody can know that it hangs.
        let answers: Vec<_> = (0..4).map(|block| one.begin_write(block, 3)).collect();
        for answer in answers {
            assert_eq!(answer.recv_timeout(FAILOVER), Ok(true), "a write waits for the disk");
        }
        let stall = begun.elapsed();
        assert!(keep_writing(&one, Duration::from_secs(1)) < PROMPT, "after the failover");
        let longest = other.join().unwrap();
        eprintln!("user {user}, hung {hung}: stall {stall:?}, longest write beside it {longest:?}");
        assert!(longest < PROMPT, "a volume of another pool waited for {longest:?}");
    });
    let (config, beside) = (rig.config(1), rig.config(2));
    assert_ne!(config.primary, NodeId(hung));
    assert!(config.in_sync_member(NodeId(hung)).is_none(), "{config:?}");
    assert_eq!((beside.in_sync.len(), beside.primary), (3, NodeId(1)), "{beside:?}");
    for block in 0..4 {
        assert_eq!(one.read(block), 7);
    }
    // It goes on: the replica is brought level again, and nobody takes anything over.
    let primary = config.primary;
    rig.hang(hung, 1, false);
    let deadline = Instant::now() + Duration::from_secs(15);
    while rig.config(1).in_sync.len() < 3 {
        assert!(Instant::now() < deadline, "{:?}", rig.config(1));
        one.write(9, 9);
    }
    assert_eq!(rig.config(1).primary, primary);
}

#[test]
fn a_primary_whose_disk_hangs_resigns_and_its_node_goes_on() {
    one_pool_hangs(2, 1);
}

#[test]
fn a_user_beside_a_hung_primary_goes_on_with_another() {
    one_pool_hangs(1, 1);
}

#[test]
fn a_secondary_whose_disk_hangs_leaves_and_takes_nothing_over() {
    one_pool_hangs(1, 3);
}

/// For people: what a write costs at queue depth 1. Run it with `--no-capture`, alone.
#[test]
#[ignore = "a measurement"]
fn round_trip() {
    let rig = Rig::new(3, 1);
    rig.make(1, 1);
    for user in [1, 2] {
        rig.grant(1, user, user);
        let client = rig.node(user).open(1, user, user);
        assert!(client.serves_within(Duration::from_secs(10)));
        for _ in 0..4 {
            let mut all: Vec<_> = (0..5_000).map(|i| client.write_here(i % 512, 5)).collect();
            all.sort_unstable();
            eprintln!("user on node {user}: p50 {:?}, p90 {:?}", all[2_500], all[4_500]);
        }
    }
}
