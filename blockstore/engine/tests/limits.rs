//! What a pool may cost: memory, time to open, space, and stalls while it is nearly full.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real threads and real time are tested")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mooring_engine::{EngineError, FormatOptions, Maintained, MemoryDisk, OpenOptions, Pool, Root};
use mooring_terms::{Entry, Sequence, SnapshotId};
use support::{Rng, block, data, discard, format, open, pool, range, read, slice, version, write};

const MIB: u64 = 1 << 20;

fn work_off(pool: &Pool) {
    while pool.maintain().unwrap() == Maintained::Worked {}
}

#[test]
fn a_thousand_thin_volumes_fit_the_budget() {
    let disk = Arc::new(MemoryDisk::new(16 << 30));
    Pool::format(&*disk, &FormatOptions { size_bytes: 8 << 30, segment_bytes: 4 * MIB, tag: 1 })
        .unwrap();
    let budget = 8 << 20;
    let options = OpenOptions { memory_bytes: budget, ..OpenOptions::default() };
    let (pool, _) = Pool::open(disk, options).unwrap();
    // The measure is 1,000 volumes with 1,000 blocks each; a test takes a twentieth of
    // the volumes unless it is asked for all.
    let volumes = std::env::var("MOORING_SOAK").map_or(50, |_| 1000);
    let (mut rng, one) = (Rng(1), data(1, 1));
    let tib = (1 << 40) / 4096;
    let mut most = 0;
    for volume in 0..volumes {
        pool.create(slice(volume), Bytes::new()).unwrap();
        for sequence in 1..=1000 {
            let entry = write(version(1, sequence), rng.below(tib), one.clone());
            pool.append(slice(volume), &[entry]).unwrap();
            pool.committed(slice(volume), Sequence(sequence));
            if sequence % 100 == 0 {
                most = most.max(pool.usage().memory);
            }
        }
    }
    pool.checkpoint().unwrap();
    let live = pool.usage().live;
    println!("most memory {most} of {budget}; {live} bytes live");
    assert!(most <= budget as u64, "{most} bytes of memory, {budget} allowed");
    // Data, and not much more than data: the map of scattered blocks is a few hundred bytes each.
    assert!(live < volumes * 1000 * 5200, "{live}");
}

#[test]
fn opening_takes_time_with_the_log_and_not_with_the_pool() {
    let cost = |filled: u64, tail: u64| {
        let (disk, pool) = pool(256 * MIB, MIB);
        pool.create(slice(1), Bytes::new()).unwrap();
        for i in 1..=filled {
            pool.append(slice(1), &[write(version(1, i), i * 16, data(i, 16))]).unwrap();
            pool.committed(slice(1), Sequence(i));
        }
        pool.checkpoint().unwrap();
        for i in filled + 1..=filled + tail {
            pool.append(slice(1), &[write(version(1, i), i * 16, data(i, 16))]).unwrap();
        }
        drop(pool);
        disk.kill();
        let before = disk.bytes_read();
        let (pool, report) = open(&disk, 2);
        assert_eq!(pool.replica(slice(1)).unwrap().last, version(1, filled + tail));
        (disk.bytes_read() - before, report.replayed_bytes)
    };
    let (small, _) = cost(100, 10);
    let (large, _) = cost(2000, 10);
    let (long, replayed) = cost(100, 500);
    println!("bytes read to open: {small} (small), {large} (20 times fuller), {long} (long log)");
    assert!(large < small * 2 + 4 * MIB, "{large} against {small}");
    assert!(long >= replayed && long < replayed * 2 + 8 * MIB, "{long} for {replayed}");
}

/// Random overwrite of a pool filled to `percent` of what it can take, for `times` its size;
/// returns the longest stall of a write and the bytes written to the disk a byte.
fn churn(size: u64, percent: u64, times: f64) -> (Duration, f64) {
    let disk = Arc::new(MemoryDisk::new(size * 2));
    format(&*disk, size, size / 128);
    let options =
        OpenOptions { memory_bytes: 8 << 20, zero_ahead: false, ..OpenOptions::default() };
    let (pool, _) = Pool::open(disk.clone(), options).unwrap();
    let pool = Arc::new(pool);
    pool.create(slice(1), Bytes::new()).unwrap();
    let blocks = pool.usage().usable / 100 * percent / 4200;
    let mut sequence = 0;
    let mut put = |block: u64, count: u64, content: &mooring_terms::Data| {
        sequence += 1;
        let start = Instant::now();
        let entry = write(version(1, sequence), block, content.slice(0, count as usize));
        pool.append(slice(1), &[entry]).unwrap();
        pool.committed(slice(1), Sequence(sequence));
        start.elapsed()
    };
    let content = data(5, 16);
    for first in (0..blocks).step_by(16) {
        put(first, 16.min(blocks - first), &content);
    }
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (worker_pool, worker_stop) = (pool.clone(), stop.clone());
    let worker = std::thread::spawn(move || {
        while !worker_stop.load(std::sync::atomic::Ordering::Relaxed) {
            if worker_pool.maintain().unwrap() == Maintained::Idle {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let before = disk.bytes_written();
    let (mut rng, mut longest) = (Rng(9), Duration::ZERO);
    let writes = (size as f64 * times) as u64 / 4096;
    for _ in 0..writes {
        longest = longest.max(put(rng.below(blocks), 1, &content));
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    worker.join().unwrap();
    let ratio = (disk.bytes_written() - before) as f64 / (writes * 4096) as f64;
    let verified = pool.verify().unwrap();
    assert_eq!((verified.in_free_segments, verified.lost_nodes), (0, 0), "{verified:?}");
    for block in (0..blocks).step_by(97) {
        assert_eq!(read(&pool, slice(1), block, 1).len(), 1);
    }
    (longest, ratio)
}

#[test]
fn reclaim_keeps_up_with_random_overwrite_of_a_pool_80_percent_full() {
    let size = std::env::var("MOORING_SOAK").map_or(128 * MIB, |_| 1 << 30);
    let (longest, ratio) = churn(size, 80, 5.0);
    println!("longest write stall {longest:?}; {ratio:.2} bytes written a byte");
    assert!(longest < Duration::from_secs(1), "a write took {longest:?}");
}

#[test]
fn a_pool_filled_to_the_brim_can_still_be_overwritten() {
    let (longest, ratio) = churn(64 * MIB, 98, 0.1);
    println!("longest write stall {longest:?}; {ratio:.2} bytes written a byte");
}

#[test]
fn without_a_worker_appends_keep_the_pool_going() {
    let (_, pool) = pool(64 * MIB, MIB);
    pool.create(slice(1), Bytes::new()).unwrap();
    let (mut rng, content) = (Rng(3), data(5, 1));
    let mut longest = Duration::ZERO;
    for sequence in 1..=30_000 {
        let start = Instant::now();
        pool.append(slice(1), &[write(version(1, sequence), rng.below(8000), content.clone())])
            .unwrap();
        longest = longest.max(start.elapsed());
        pool.committed(slice(1), Sequence(sequence));
    }
    println!("longest write stall {longest:?}");
    assert!(longest < Duration::from_secs(1), "a write took {longest:?}");
}

#[test]
fn a_full_pool_refuses_keeps_everything_and_works_again() {
    let (disk, pool) = pool(32 * MIB, MIB);
    pool.create(slice(1), Bytes::new()).unwrap();
    pool.create(slice(2), Bytes::new()).unwrap();
    let mut last = 0;
    let refused = loop {
        let entry = write(version(1, last + 1), last * 8, data(last, 8));
        match pool.append(slice(1), &[entry]) {
            Ok(_) => last += 1,
            Err(error) => break error,
        }
        pool.committed(slice(1), Sequence(last));
    };
    assert!(matches!(refused, EngineError::NoSpace { .. }), "{refused}");
    let usage = pool.usage();
    assert!(last * 8 * 4096 > usage.size / 2, "only {last} writes fitted: {usage:?}");
    for i in 0..last {
        assert_eq!(block(&pool, slice(1), i * 8).1.unwrap(), data(i, 8).slice(0, 1).bytes());
    }
    // States and discards still go through, again and again.
    for i in 0..200 {
        pool.append(slice(2), &[Entry::State(Bytes::from(vec![i; 100]))]).unwrap();
    }
    pool.sync().unwrap();
    drop(pool);
    disk.crash(4);
    let (pool, _) = open(&disk, 2);
    for i in 0..last {
        assert_eq!(block(&pool, slice(1), i * 8).1.unwrap(), data(i, 8).slice(0, 1).bytes());
    }
    pool.append(slice(1), &[discard(version(1, last + 1), 0, last * 4)]).unwrap();
    pool.append(slice(1), &[write(version(1, last + 2), 0, data(77, 8))]).unwrap();
    // Removing gives back everything.
    pool.remove(slice(1)).unwrap();
    work_off(&pool);
    pool.checkpoint().unwrap();
    work_off(&pool);
    pool.checkpoint().unwrap();
    let usage = pool.usage();
    assert!(usage.live < 64 << 10, "{usage:?}");
}

#[test]
fn what_was_promised_can_be_written() {
    let (_, pool) = pool(32 * MIB, MIB);
    pool.create(slice(1), Bytes::new()).unwrap();
    pool.create(slice(2), Bytes::new()).unwrap();
    let granted = pool.reserve(slice(1), 8 * MIB).unwrap();
    assert_eq!(granted, 8 * MIB);
    let mut sequence = 0;
    while pool
        .append(slice(2), &[write(version(1, sequence + 1), sequence * 8, data(sequence, 8))])
        .is_ok()
    {
        sequence += 1;
    }
    assert!(pool.reserve(slice(2), MIB).unwrap() < 64 << 10);
    for i in 0..granted / (8 * 4096) {
        pool.append(slice(1), &[write(version(1, i + 1), i * 8, data(i, 8))]).unwrap();
    }
    pool.release(slice(1), granted);
    pool.release(slice(2), MIB);
    assert_eq!(pool.usage().reserved, 0);
}

#[test]
fn many_snapshots_cost_what_they_differ() {
    let (disk, pool) = pool(128 * MIB, MIB);
    pool.create(slice(1), Bytes::new()).unwrap();
    let mut sequence = 0;
    let mut put = |pool: &Pool, block: u64| {
        sequence += 1;
        pool.append(slice(1), &[write(version(1, sequence), block, data(sequence, 1))]).unwrap();
        pool.committed(slice(1), Sequence(sequence));
        version(1, sequence)
    };
    for block in 0..4000 {
        put(&pool, block);
    }
    let mut marks = Vec::new();
    for id in 0..200 {
        marks.push(put(&pool, id * 17 % 4000));
        pool.snapshot(slice(1), SnapshotId(id)).unwrap();
    }
    pool.checkpoint().unwrap();
    let live = pool.usage().live;
    assert!(live < 4000 * 4300 + 200 * 40_000, "{live} bytes live");
    assert_eq!(pool.verify().unwrap().live, live, "the counters agree with what is there");
    for (id, mark) in marks.iter().enumerate() {
        let mut out = Vec::new();
        let root = Root::Snapshot(SnapshotId(id as u64));
        pool.read_root(slice(1), root, range(id as u64 * 17 % 4000, 1), &mut out).unwrap();
        assert_eq!(out[0].version, *mark);
    }
    drop(pool);
    disk.crash(5);
    let (pool, _) = open(&disk, 2);
    for id in (0..200).rev() {
        pool.remove_snapshot(slice(1), SnapshotId(id)).unwrap();
    }
    pool.checkpoint().unwrap();
    work_off(&pool);
    let (counted, found) = (pool.usage().live, pool.verify().unwrap().live);
    assert!(counted.abs_diff(found) < 64 << 10, "counted {counted}, found {found}");
    assert!(counted < 4000 * 4400, "{counted}");
}

#[test]
fn snapshots_come_and_go_while_a_full_pool_is_overwritten() {
    // 80 % with a snapshot that differs more and more: what the snapshot holds must fit too.
    let disk = Arc::new(MemoryDisk::new(256 * MIB));
    format(&*disk, 64 * MIB, MIB);
    let (pool, _) = open(&disk, 1);
    pool.create(slice(1), Bytes::new()).unwrap();
    let (mut rng, content) = (Rng(4), data(6, 1));
    let blocks = 24 * MIB / 4096;
    for sequence in 1..=12_000_u64 {
        pool.append(slice(1), &[write(version(1, sequence), rng.below(blocks), content.clone())])
            .unwrap();
        pool.committed(slice(1), Sequence(sequence));
        if sequence % 500 == 0 {
            let id = sequence / 500;
            pool.snapshot(slice(1), SnapshotId(id)).unwrap();
            if id > 2 {
                pool.remove_snapshot(slice(1), SnapshotId(id - 2)).unwrap();
            }
        }
    }
    pool.checkpoint().unwrap();
    work_off(&pool);
    let verified = pool.verify().unwrap();
    assert_eq!((verified.in_free_segments, verified.lost_nodes), (0, 0), "{verified:?}");
    let counted = pool.usage().live;
    println!("counted {counted}, found {}", verified.live);
    assert!(counted + MIB >= verified.live, "counted {counted}, found {}", verified.live);
}

#[test]
fn a_disk_full_of_other_things_is_a_full_pool_and_no_failure() {
    // The pool may have 64 MiB, the disk has 24.
    let disk = Arc::new(MemoryDisk::new(64 * MIB));
    format(&*disk, 64 * MIB, MIB);
    disk.set_capacity(24 * MIB);
    let (pool, _) = open(&disk, 1);
    pool.create(slice(1), Bytes::new()).unwrap();
    let mut last = 0;
    let refused = loop {
        match pool.append(slice(1), &[write(version(1, last + 1), last * 8, data(last, 8))]) {
            Ok(_) => last += 1,
            Err(error) => break error,
        }
        pool.committed(slice(1), Sequence(last));
    };
    assert!(matches!(refused, EngineError::NoSpace { .. }), "{refused}");
    assert!(!pool.is_poisoned());
    assert!(last * 8 * 4096 > 8 * MIB, "{last}");
    pool.sync().unwrap();
    disk.set_capacity(64 * MIB);
    pool.append(slice(1), &[write(version(1, last + 1), last * 8, data(last, 8))]).unwrap();
    for i in 0..last {
        assert_eq!(block(&pool, slice(1), i * 8).0, version(1, i + 1));
    }
}
