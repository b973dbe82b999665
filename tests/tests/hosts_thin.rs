//! Thin volumes: what a file system on one costs before anything is written to it.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "real processes run in real time; in a test's functions too a panic is the report"
)]

use std::time::{Duration, Instant};

use mooring_tests::hosts::{Cluster, Result, judge, on_cluster, seconds};

/// What a file system on 10 TiB may take of the pool, in bytes.
const ROOM: u64 = 100 << 20;

/// How long making it may take.
const TIME: Duration = seconds(10);

/// Live bytes in the pool of host 1.
fn live(cluster: &Cluster) -> Result<u64> {
    let pools = cluster.pools_of(1, 1)?;
    Ok(pools.iter().filter_map(|pool| pool["live"].as_u64()).sum())
}

/// Makes a volume of 10 TiB and has `make` put a file system on it; returns how many bytes that took.
fn is_made_in_time(told: &str, make: impl Fn(&Cluster) -> Result<()>) -> u64 {
    let mut taken = 0;
    on_cluster(1, |cluster| {
        let volume = cluster.create(&format!("thin --size 10T {told}"))?;
        let before = live(cluster)?;
        let began = Instant::now();
        make(cluster)?;
        judge(began.elapsed(), TIME, "a file system on 10 TiB")?;
        taken = live(cluster)?.saturating_sub(before);
        println!("it takes {} KiB of the pool", taken >> 10);
        cluster.ctl(1, "detach --force thin")?;
        volume.remove()
    });
    taken
}

fn mount_makes_it(kind: &str) {
    let taken = is_made_in_time(&format!("--fs {kind}"), |cluster| {
        cluster.ctl(1, "mount thin /mnt/thin")?;
        cluster[1].run("umount /mnt/thin; ! mountpoint -q /mnt/thin").map(drop)
    });
    assert!(taken < ROOM, "{taken} bytes");
}

#[test]
fn ext4_on_ten_tebibytes_is_made_in_seconds_and_takes_little() {
    mount_makes_it("ext4");
}

#[test]
fn xfs_on_ten_tebibytes_is_made_in_seconds_and_takes_little() {
    mount_makes_it("xfs");
}

/// With discards and zeros, all of which go through the loop device.
fn program_makes_it(program: &str) -> u64 {
    is_made_in_time("--fs raw", |cluster| {
        let attached = cluster.ctl(1, "attach thin")?.stdout;
        let device = attached.trim();
        cluster[1].run(format!("{program} {device} && sync {device}")).map(drop)
    })
}

#[test]
fn xfs_that_its_user_makes_on_ten_tebibytes_takes_little() {
    let taken = program_makes_it("mkfs.xfs -q");
    assert!(taken < ROOM, "{taken} bytes");
}

#[test]
fn ext4_that_its_user_makes_on_ten_tebibytes_takes_what_it_writes() {
    // By default mke2fs 1.47 writes 143 MiB that are no zeros (on a sparse file of the same size),
    // most of it copies of the group descriptors.
    let taken = program_makes_it("mkfs.ext4 -q");
    assert!(taken < 143 * (1 << 20) / 10 * 11, "{taken} bytes");
    let taken = program_makes_it("mkfs.ext4 -q -O meta_bg,^resize_inode");
    assert!(taken < ROOM, "{taken} bytes");
}
