//! Disks that fail, rot and hang; places that are not ours to take.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real threads and real time are tested")]

#[path = "../../../tests/fuzz/seeds.rs"]
mod seeds;
mod support;

use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mooring_engine::{
    Area, DamageReason, DeviceDisk, DirectoryDisk, Disk, DiskOperation, EngineError, FormatOptions,
    MemoryDisk, OpenOptions, Pool, ReadContent, SegmentId, decode,
};
use mooring_terms::{BlockIndex, BlockRange, Data, Entry, ErrorKind, Sequence};
use support::{Rng, block, data, open, options, pool, range, read, script, slice, version, write};

const MIB: u64 = 1 << 20;

fn filled(count: u64) -> (Arc<MemoryDisk>, Pool) {
    let (disk, pool) = pool(64 * MIB, MIB);
    pool.create(slice(1), Bytes::new()).unwrap();
    for i in 1..=count {
        pool.append(slice(1), &[write(version(1, i), i, data(i, 1))]).unwrap();
    }
    (disk, pool)
}

#[test]
fn a_failed_write_or_sync_ends_all_writing_until_the_pool_is_reopened() {
    for operation in [DiskOperation::Write, DiskOperation::Sync] {
        let (disk, pool) = filled(10);
        pool.sync().unwrap();
        let durable = pool.durable();
        disk.fail_next(operation, 1);
        let first = pool
            .append(slice(1), &[write(version(1, 11), 11, data(11, 1))])
            .map(|_| ())
            .and_then(|()| pool.sync().map(|_| ()))
            .unwrap_err();
        assert_eq!(first.kind(), ErrorKind::Fatal, "{first}");
        assert!(pool.is_poisoned());
        let again = pool.append(slice(1), &[write(version(1, 12), 12, data(12, 1))]);
        assert!(matches!(again, Err(EngineError::Poisoned)));
        assert!(matches!(pool.sync(), Err(EngineError::Poisoned)));
        assert_eq!(pool.durable(), durable);
        assert_eq!(block(&pool, slice(1), 5).1.unwrap(), data(5, 1).bytes());
        drop(pool);
        disk.crash(1);
        let (pool, report) = open(&disk, 2);
        assert!(!report.damaged);
        assert!(pool.replica(slice(1)).unwrap().last >= version(1, 10));
    }
}

#[test]
fn a_hung_disk_stops_writers_and_not_readers_of_what_is_cached() {
    let (disk, pool) = filled(10);
    let pool = Arc::new(pool);
    disk.hang(true);
    let writer = pool.clone();
    let stuck = std::thread::spawn(move || {
        writer.append(slice(1), &[write(version(1, 11), 11, data(11, 1))]).map(|_| ())
    });
    while disk.waiting() == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    // The map answers while the log's lock is held by the writer.
    assert_eq!(pool.replica(slice(1)).unwrap().last, version(1, 10));
    assert_eq!(pool.missing(slice(1), BlockIndex(0), 10).unwrap().0, []);
    disk.hang(false);
    stuck.join().unwrap().unwrap();
    assert_eq!(pool.replica(slice(1)).unwrap().last, version(1, 11));
}

#[test]
fn a_flipped_bit_is_named_and_can_be_repaired() {
    let (disk, pool) = filled(40);
    pool.checkpoint().unwrap();
    let before: Vec<Bytes> = (1..=40).map(|i| block(&pool, slice(1), i).1.unwrap()).collect();
    // Somewhere in the data of the records of the first segment.
    for offset in (8192..160_000).step_by(4700) {
        disk.rot(Area::Segment(SegmentId(0)), offset, 3);
    }
    let mut corrupt = Vec::new();
    for i in 1..=40_u64 {
        let mut out = Vec::new();
        match pool.read(slice(1), range(i, 1), &mut out) {
            Ok(()) => {
                let ReadContent::Data(found) = &out[0].content else { panic!("{out:?}") };
                assert_eq!(found.bytes(), &before[i as usize - 1]);
            }
            Err(EngineError::Corrupt { slice: named, block, version: lost }) => {
                assert_eq!((named, block.0, lost), (slice(1), i, version(1, i)));
                corrupt.push(i);
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(corrupt.len() > 10, "{corrupt:?}");
    for i in corrupt {
        let repair = |version| Entry::Repair { version, first: BlockIndex(i), data: data(i, 1) };
        // The wrong version is not taken, the right one is.
        pool.append(slice(1), &[repair(version(1, i + 1))]).unwrap();
        assert!(pool.read(slice(1), range(i, 1), &mut Vec::new()).is_err());
        pool.append(slice(1), &[repair(version(1, i))]).unwrap();
        assert_eq!(block(&pool, slice(1), i), (version(1, i), Some(data(i, 1).bytes().clone())));
    }
}

#[test]
fn a_block_that_cannot_be_read_is_named_and_can_be_repaired() {
    let (disk, pool) = filled(8);
    // The run, and the first of its blocks.
    disk.fail_next(DiskOperation::Read, 2);
    let lost = pool.read(slice(1), range(1, 8), &mut Vec::new());
    assert!(
        matches!(lost, Err(EngineError::Corrupt { block: BlockIndex(1), version: v, .. }) if v == version(1, 1)),
        "{lost:?}"
    );
    let repair = Entry::Repair { version: version(1, 1), first: BlockIndex(1), data: data(1, 1) };
    pool.append(slice(1), &[repair]).unwrap();
    assert_eq!(block(&pool, slice(1), 1).1.unwrap(), *data(1, 1).bytes());
    // What fails once for the run, and not for its blocks, is read all the same.
    disk.fail_next(DiskOperation::Read, 1);
    assert_eq!(block(&pool, slice(1), 5).1.unwrap(), *data(5, 1).bytes());
    pool.append(slice(1), &[write(version(1, 9), 9, data(9, 1))]).unwrap();
}

#[test]
fn rot_anywhere_is_never_returned_as_data() {
    for seed in 0..12 {
        script::rot(seed).unwrap();
    }
}

#[test]
fn a_payload_that_does_not_match_its_checksum_is_not_logged() {
    let (_, pool) = filled(1);
    let good = data(3, 2);
    let mut bytes = good.bytes().to_vec();
    bytes[5000] ^= 1;
    let bad = Data::from_parts(bytes.into(), good.crcs().into()).unwrap();
    let refused = pool.append(slice(1), &[write(version(1, 2), 7, bad)]);
    assert!(
        matches!(refused, Err(EngineError::CorruptPayload { block: BlockIndex(8), .. })),
        "{refused:?}"
    );
    pool.append(slice(1), &[write(version(1, 2), 7, good)]).unwrap();
}

#[test]
fn rot_in_the_durable_log_opens_damaged_and_a_torn_tail_does_not() {
    let (mut damaged, mut clean) = (0, 0);
    for at in (0..100).map(|i| 70_000 + i * 4096) {
        let (disk, pool) = filled(60);
        pool.sync().unwrap();
        for i in 61..=70 {
            pool.append(slice(1), &[write(version(1, i), i, data(i, 1))]).unwrap();
        }
        drop(pool);
        disk.kill();
        if !disk.rot(Area::Segment(SegmentId(0)), at, 1) {
            continue;
        }
        let (pool, report) = open(&disk, 2);
        let info = pool.replica(slice(1)).unwrap();
        assert_eq!(info.damaged, report.damaged);
        assert_eq!(info.last < version(1, 60), report.damaged, "{report:?}, {info:?}");
        if report.damaged {
            assert!(matches!(report.reason, Some(DamageReason::RecordBehindGap)), "{report:?}");
            damaged += 1;
            // The mark stays until the replica joins again.
            drop(pool);
            disk.kill();
            let (pool, report) = open(&disk, 3);
            assert!(!report.damaged);
            assert!(pool.replica(slice(1)).unwrap().damaged);
            let after = version(1, 5);
            pool.append(slice(1), &[Entry::Supersede { after, state: Bytes::new() }]).unwrap();
            assert!(!pool.replica(slice(1)).unwrap().damaged);
        } else {
            clean += 1;
        }
    }
    assert!(damaged > 20 && clean > 0, "{damaged} damaged, {clean} clean");
}

#[test]
fn a_rotten_slot_falls_back_to_the_other() {
    for place in 0..2 {
        let (disk, pool) = filled(50);
        pool.checkpoint().unwrap();
        pool.append(slice(1), &[write(version(1, 51), 51, data(51, 1))]).unwrap();
        pool.checkpoint().unwrap();
        drop(pool);
        disk.kill();
        assert!(disk.rot(Area::Checkpoint(place), 30, 2));
        let (pool, report) = open(&disk, 2);
        assert!(!report.damaged, "{report:?}");
        assert_eq!(pool.replica(slice(1)).unwrap().last, version(1, 51));
        assert_eq!(block(&pool, slice(1), 7).1.unwrap(), data(7, 1).bytes());
    }
}

#[test]
fn both_slots_rotten_is_said_and_nothing_is_overwritten() {
    let (disk, pool) = filled(5);
    drop(pool);
    disk.kill();
    disk.rot(Area::Checkpoint(0), 30, 2);
    disk.rot(Area::Checkpoint(1), 30, 2);
    let before = disk.bytes_written();
    assert!(matches!(Pool::open(disk.clone(), options(2)), Err(EngineError::Broken(_))));
    assert_eq!(disk.bytes_written(), before);
}

#[test]
fn many_threads_append_sync_read_and_maintain() {
    let (disk, pool) = pool(64 * MIB, MIB);
    let pool = Arc::new(pool);
    for volume in 0..6 {
        pool.create(slice(volume), Bytes::new()).unwrap();
    }
    std::thread::scope(|scope| {
        for volume in 0..6 {
            let pool = &pool;
            scope.spawn(move || {
                let mut rng = Rng(volume);
                for sequence in 1..=1500 {
                    let at = rng.below(500);
                    let entry = write(version(1, sequence), at, data(sequence * 10 + volume, 1));
                    pool.append(slice(volume), &[entry]).unwrap();
                    pool.committed(slice(volume), Sequence(sequence));
                    if sequence % 50 == 0 {
                        pool.sync().unwrap();
                    }
                    let found = block(pool, slice(volume), at);
                    assert_eq!(found.0, version(1, sequence));
                    assert_eq!(found.1.unwrap(), data(sequence * 10 + volume, 1).bytes());
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..3000 {
                pool.maintain().unwrap();
            }
            for _ in 0..20 {
                pool.checkpoint().unwrap();
            }
        });
    });
    let last: Vec<_> = (0..6).map(|v| read(&pool, slice(v), 0, 500)).collect();
    pool.sync().unwrap();
    drop(pool);
    disk.crash(11);
    let (pool, _) = open(&disk, 2);
    for (volume, expected) in last.iter().enumerate() {
        assert_eq!(&read(&pool, slice(volume as u64), 0, 500), expected);
    }
}

#[test]
fn a_directory_holds_a_pool_through_reopening_and_one_process_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pool");
    let disk = Arc::new(DirectoryDisk::open(&path).unwrap());
    let format = FormatOptions { size_bytes: 32 * MIB, segment_bytes: MIB, tag: 9 };
    Pool::format(&*disk, &format).unwrap();
    assert!(matches!(Pool::format(&*disk, &format), Err(EngineError::NotEmpty(..))));
    assert!(matches!(DirectoryDisk::open(&path), Err(EngineError::InUse(_))));
    let (pool, _) = Pool::open(disk, options(1)).unwrap();
    pool.create(slice(1), Bytes::from_static(b"x")).unwrap();
    for i in 1..=2000 {
        let entry = write(version(1, i), i % 300 * 16, data(i, 16));
        pool.append(slice(1), &[entry]).unwrap();
        pool.committed(slice(1), Sequence(i));
    }
    let expected = read(&pool, slice(1), 0, 4900);
    drop(pool);
    let disk = Arc::new(DirectoryDisk::open(&path).unwrap());
    assert_eq!(disk.strangers().unwrap(), Vec::<String>::new());
    let (pool, report) = Pool::open(disk, options(2)).unwrap();
    assert!(!report.damaged && !report.torn_tail, "{report:?}");
    assert_eq!(read(&pool, slice(1), 0, 4900), expected);
    pool.close().unwrap();
    for name in ["superblock", "checkpoint.0", "checkpoint.1", "segment.00000000"] {
        let text = decode::file(&path.join(name)).unwrap();
        assert!(text.lines().count() > 0 && !text.contains("unknown magic"), "{name}: {text}");
    }
}

#[test]
fn a_device_with_something_on_it_is_recognized_and_an_empty_one_holds_a_pool() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("device");
    let strangers: [(u64, &[u8], &str); 6] = [
        (0x438, &[0x53, 0xef], "ext"),
        (0, b"XFSB", "XFS"),
        (0x1_0040, b"_BHRfS_M", "btrfs"),
        (4086, b"SWAPSPACE2", "swap"),
        (512, b"EFI PART", "GPT"),
        (0, b"LUKS\xba\xbe", "LUKS"),
    ];
    for (offset, magic, name) in strangers {
        let mut file = std::fs::File::create(&path).unwrap();
        file.set_len(64 * MIB).unwrap();
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.write_all(magic).unwrap();
        drop(file);
        let disk = DeviceDisk::open(&path).unwrap();
        assert!(disk.stranger().unwrap().unwrap().contains(name), "{name}");
        disk.wipe().unwrap();
        assert_eq!(disk.stranger().unwrap(), None);
    }
    let disk = Arc::new(DeviceDisk::open(&path).unwrap());
    assert!(matches!(DeviceDisk::open(&path), Err(EngineError::InUse(_))));
    assert!(matches!(Pool::open(disk.clone(), options(1)), Err(EngineError::NoPool)));
    let size_bytes = disk.capacity().unwrap();
    Pool::format(&*disk, &FormatOptions { size_bytes, segment_bytes: MIB, tag: 3 }).unwrap();
    let (pool, _) = Pool::open(disk, options(1)).unwrap();
    pool.create(slice(1), Bytes::new()).unwrap();
    pool.append(slice(1), &[write(version(1, 1), 5, data(1, 4))]).unwrap();
    pool.close().unwrap();
    let disk = Arc::new(DeviceDisk::open(&path).unwrap());
    assert!(matches!(
        Pool::format(&*disk, &FormatOptions { size_bytes, segment_bytes: MIB, tag: 3 }),
        Err(EngineError::NotEmpty(..))
    ));
    let (pool, _) = Pool::open(disk, OpenOptions { opening: 5, ..options(5) }).unwrap();
    assert_eq!(block(&pool, slice(1), 6).0, version(1, 1));
}

#[test]
fn the_decoder_survives_rubbish() {
    let (disk, pool) = filled(30);
    pool.checkpoint().unwrap();
    let areas = [
        (Area::Superblock, 4096),
        (Area::Checkpoint(0), 16384),
        (Area::Segment(SegmentId(0)), MIB as usize),
        (Area::Segment(SegmentId(1)), MIB as usize),
    ];
    let mut rng = Rng(5);
    for (area, length) in areas {
        let mut good = vec![0; length];
        if disk.read(area, 0, &mut good).is_err() {
            continue;
        }
        let text = decode::bytes(&good);
        assert!(!text.is_empty());
        for _ in 0..60 {
            let mut bad = good.clone();
            for _ in 0..1 + rng.below(20) {
                let at = rng.below(length.min(40_000) as u64) as usize;
                bad[at] = rng.next() as u8;
            }
            bad.truncate(rng.below(length as u64 + 1) as usize);
            let _ = decode::bytes(&bad);
        }
    }
    for length in 0..400 {
        let rubbish: Vec<u8> = (0..length).map(|_| rng.next() as u8).collect();
        let _ = decode::bytes(&rubbish);
    }
}

#[test]
fn the_fuzzers_seeds_are_what_is_on_a_disk() {
    let (disk, pool) = filled(3);
    pool.checkpoint().unwrap();
    pool.append(slice(1), &[write(version(1, 4), 4, data(4, 1))]).unwrap();
    pool.close().unwrap();
    let areas = [
        ("superblock", Area::Superblock, 4096),
        ("slot", Area::Checkpoint(0), 4096),
        ("segment", Area::Segment(SegmentId(0)), 48 << 10),
    ];
    for (name, area, length) in areas {
        let mut bytes = vec![0; length];
        disk.read(area, 0, &mut bytes).unwrap();
        seeds::check("disk", name, &bytes);
    }
}

#[test]
fn bad_ranges_sizes_and_geometry_are_refused() {
    let (_, pool) = filled(1);
    let mut out = Vec::new();
    for bad in [BlockRange::new(BlockIndex(0), 0), BlockRange::new(BlockIndex(u64::MAX - 4), 4)] {
        assert!(matches!(pool.read(slice(1), bad, &mut out), Err(EngineError::BadRange { .. })));
    }
    let large = pool.append(slice(1), &[write(version(1, 2), 0, data(1, 140))]);
    assert!(matches!(large, Err(EngineError::TooLarge { .. })), "{large:?}");
    assert!(matches!(pool.append(slice(9), &[]), Err(EngineError::NoReplica(_))));
    assert!(matches!(pool.create(slice(1), Bytes::new()), Err(EngineError::ReplicaExists(_))));
    let disk = MemoryDisk::new(MIB);
    let tiny = Pool::format(&disk, &FormatOptions { size_bytes: MIB, segment_bytes: MIB, tag: 1 });
    assert!(matches!(tiny, Err(EngineError::BadGeometry { .. })));
}

#[test]
fn a_read_error_beside_an_append_neither_fails_it_nor_loses_blocks() {
    let (disk, pool) = filled(600);
    pool.checkpoint().unwrap();
    drop(pool);
    disk.kill();
    // A cold cache, so that merging has to read nodes.
    let (pool, _) = open(&disk, 2);
    pool.append(slice(1), &[write(version(1, 601), 3, data(601, 1))]).unwrap();
    disk.fail_next(DiskOperation::Read, 1);
    assert!(pool.checkpoint().is_err());
    assert!(!pool.is_poisoned());
    pool.append(slice(1), &[write(version(1, 602), 4, data(602, 1))]).unwrap();
    pool.checkpoint().unwrap();
    assert_eq!(pool.missing(slice(1), BlockIndex(0), 10).unwrap().0, []);
    for i in 5..=600 {
        assert_eq!(block(&pool, slice(1), i), (version(1, i), Some(data(i, 1).bytes().clone())));
    }
    assert_eq!(pool.verify().unwrap().lost_nodes, 0);
}
