//! What a pool promises, operation by operation.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use bytes::Bytes;
use mooring_engine::{ChangedKind, EngineError, ReadContent, Root};
use mooring_terms::{BlockIndex, Body, Entry, Record, Sequence, SnapshotId, Version};
use support::{block, data, discard, open, pool, range, read, slice, version, write};

const MIB: u64 = 1 << 20;

#[test]
fn what_was_appended_is_read_back_with_its_version() {
    let (_, pool) = pool(64 * MIB, MIB);
    pool.create(slice(1), Bytes::from_static(b"state")).unwrap();
    pool.append(slice(1), &[write(version(1, 1), 10, data(1, 3))]).unwrap();
    pool.append(slice(1), &[write(version(1, 2), 11, data(2, 1))]).unwrap();
    assert_eq!(
        block(&pool, slice(1), 10),
        (version(1, 1), Some(data(1, 3).slice(0, 1).bytes().clone()))
    );
    assert_eq!(block(&pool, slice(1), 11), (version(1, 2), Some(data(2, 1).bytes().clone())));
    assert_eq!(block(&pool, slice(1), 9), (Version::ZERO, None));
    assert_eq!(read(&pool, slice(1), 0, 100).len(), 5);
}

#[test]
fn a_reopened_pool_holds_what_was_synced() {
    let (disk, pool) = pool(64 * MIB, MIB);
    pool.create(slice(1), Bytes::from_static(b"state")).unwrap();
    for i in 1..=100 {
        pool.append(slice(1), &[write(version(1, i), i * 7, data(i, 4))]).unwrap();
    }
    pool.sync().unwrap();
    drop(pool);
    disk.crash(3);
    let (pool, report) = open(&disk, 2);
    assert!(!report.damaged, "{report:?}");
    let info = pool.replica(slice(1)).unwrap();
    assert_eq!((info.last, &info.state[..]), (version(1, 100), &b"state"[..]));
    for i in 1..=100 {
        assert_eq!(block(&pool, slice(1), i * 7).0, version(1, i));
    }
    assert_eq!(pool.records(slice(1), Sequence(40), u64::MAX).unwrap().len(), 60);
}

#[test]
fn merged_and_unmerged_maps_read_alike() {
    let (_, pool) = pool(64 * MIB, MIB);
    pool.create(slice(1), Bytes::new()).unwrap();
    for i in 1..=300 {
        pool.append(slice(1), &[write(version(1, i), i * 131 % 5000, data(i, 2))]).unwrap();
        if i % 70 == 0 {
            pool.append(slice(1), &[]).unwrap();
        }
    }
    let before = read(&pool, slice(1), 0, 6000);
    pool.checkpoint().unwrap();
    assert_eq!(read(&pool, slice(1), 0, 6000), before);
    pool.checkpoint().unwrap();
    assert_eq!(read(&pool, slice(1), 0, 6000), before);
}

#[test]
fn newer_than_finds_data_and_holes_before_and_after_a_checkpoint() {
    let (_, pool) = pool(64 * MIB, MIB);
    pool.create(slice(1), Bytes::new()).unwrap();
    for i in 1..=50 {
        pool.append(slice(1), &[write(version(1, i), i * 300, data(i, 1))]).unwrap();
    }
    pool.checkpoint().unwrap();
    pool.append(slice(1), &[write(version(1, 51), 600, data(51, 2))]).unwrap();
    pool.append(slice(1), &[discard(version(1, 52), 900, 1)]).unwrap();
    for _ in 0..2 {
        let changes =
            pool.newer_than(slice(1), Root::Live, version(1, 49), BlockIndex(0), 100).unwrap();
        let found: Vec<_> = changes
            .extents
            .iter()
            .map(|c| (c.range.first.0, c.range.count, c.version, c.kind))
            .collect();
        assert_eq!(
            found,
            [
                (600, 2, version(1, 51), ChangedKind::Data),
                (900, 1, version(1, 52), ChangedKind::Hole),
                (15000, 1, version(1, 50), ChangedKind::Data),
            ]
        );
        assert_eq!(changes.next, None);
        pool.checkpoint().unwrap();
    }
}

#[test]
fn newer_than_goes_on_where_it_stopped() {
    let (_, pool) = pool(64 * MIB, MIB);
    pool.create(slice(1), Bytes::new()).unwrap();
    for i in 1..=500 {
        pool.append(slice(1), &[write(version(1, i), i * 37, data(i, 1))]).unwrap();
        if i == 250 {
            pool.checkpoint().unwrap();
        }
    }
    let (mut from, mut found) = (Some(BlockIndex(0)), Vec::new());
    while let Some(start) = from {
        let changes = pool.newer_than(slice(1), Root::Live, version(1, 100), start, 7).unwrap();
        assert!(changes.extents.len() <= 7);
        found.extend(changes.extents.iter().map(|c| c.range.first.0));
        from = changes.next;
    }
    assert_eq!(found, (101..=500).map(|i| i * 37).collect::<Vec<_>>());
}

#[test]
fn a_record_out_of_order_is_refused() {
    let (_, pool) = pool(64 * MIB, MIB);
    pool.create(slice(1), Bytes::new()).unwrap();
    pool.append(slice(1), &[write(version(2, 1), 0, data(1, 1))]).unwrap();
    for wrong in [version(2, 1), version(2, 3), version(1, 2)] {
        let refused = pool.append(slice(1), &[write(wrong, 0, data(1, 1))]);
        assert!(matches!(refused, Err(EngineError::OutOfOrder { .. })), "{wrong}");
    }
    pool.append(slice(1), &[write(version(3, 2), 0, data(1, 1))]).unwrap();
}

#[test]
fn the_state_comes_with_its_record() {
    let (disk, pool) = pool(64 * MIB, MIB);
    pool.create(slice(1), Bytes::from_static(b"a")).unwrap();
    let record =
        Record { version: version(1, 1), body: Body::Control(Bytes::from_static(b"seal")) };
    let entry = Entry::Record { record: record.clone(), state: Some(Bytes::from_static(b"b")) };
    pool.append(slice(1), &[entry]).unwrap();
    pool.sync().unwrap();
    drop(pool);
    disk.crash(1);
    let (pool, _) = open(&disk, 2);
    assert_eq!(pool.replica(slice(1)).unwrap().state, Bytes::from_static(b"b"));
    assert_eq!(pool.records(slice(1), Sequence(0), u64::MAX).unwrap(), [record]);
}

#[test]
fn a_supersede_marks_missing_what_is_newer_and_copies_fill_it() {
    for checkpoints in 0..4 {
        let (_, pool) = pool(64 * MIB, MIB);
        pool.create(slice(1), Bytes::new()).unwrap();
        for i in 1..=10 {
            pool.append(slice(1), &[write(version(1, i), i, data(i, 1))]).unwrap();
        }
        if checkpoints & 1 != 0 {
            pool.checkpoint().unwrap();
        }
        pool.append(
            slice(1),
            &[Entry::Supersede { after: version(1, 6), state: Bytes::from_static(b"join") }],
        )
        .unwrap();
        if checkpoints & 2 != 0 {
            pool.checkpoint().unwrap();
        }
        let (missing, next) = pool.missing(slice(1), BlockIndex(0), 100).unwrap();
        assert_eq!((missing, next), (vec![range(7, 4)], None));
        pool.append(slice(1), &[Entry::Position { last: version(2, 20), state: Bytes::new() }])
            .unwrap();
        // A copy that is newer than a record to come: the higher version wins block by block.
        let copy = |version, first, seed| Entry::Copy {
            version,
            first: BlockIndex(first),
            data: data(seed, 1),
        };
        pool.append(slice(1), &[copy(version(2, 15), 7, 70), copy(version(2, 22), 8, 80)]).unwrap();
        pool.append(slice(1), &[write(version(2, 21), 8, data(81, 1))]).unwrap();
        pool.append(slice(1), &[copy(version(1, 3), 5, 50), copy(version(1, 3), 9, 90)]).unwrap();
        for _ in 0..2 {
            assert_eq!(block(&pool, slice(1), 7).0, version(2, 15));
            assert_eq!(
                block(&pool, slice(1), 8),
                (version(2, 22), Some(data(80, 1).bytes().clone()))
            );
            assert_eq!(block(&pool, slice(1), 5).0, version(1, 5));
            assert_eq!(block(&pool, slice(1), 9).0, version(1, 3));
            let out = read(&pool, slice(1), 10, 1);
            assert_eq!(out[0].content, ReadContent::Missing);
            pool.checkpoint().unwrap();
        }
    }
}

#[test]
fn a_supersede_brings_nothing_back_that_a_newer_block_had_replaced() {
    let (disk, pool) = pool(64 * MIB, MIB);
    pool.create(slice(1), Bytes::new()).unwrap();
    let copy = |sequence, first, seed| Entry::Copy {
        version: version(4, sequence),
        first: BlockIndex(first),
        data: data(seed, 1),
    };
    let position = Entry::Position { last: version(4, 80), state: Bytes::new() };
    pool.append(slice(1), &[position, copy(88, 5, 1), copy(88, 6, 2)]).unwrap();
    // The newer blocks are in the tree, the older ones that come late in a layer over it.
    pool.checkpoint().unwrap();
    let hole = Entry::CopyHole { version: version(4, 79), range: range(5, 1) };
    pool.append(slice(1), &[hole, copy(79, 6, 3)]).unwrap();
    assert_eq!(block(&pool, slice(1), 5).0, version(4, 88));
    assert_eq!(block(&pool, slice(1), 6).0, version(4, 88));
    let supersede = Entry::Supersede { after: version(4, 84), state: Bytes::new() };
    pool.append(slice(1), &[supersede]).unwrap();
    // A block that seemed to be there would never be asked for.
    let both = (vec![range(5, 2)], None);
    assert_eq!(pool.missing(slice(1), BlockIndex(0), 10).unwrap(), both);
    pool.sync().unwrap();
    drop(pool);
    disk.crash(1);
    let (pool, _) = open(&disk, 2);
    assert_eq!(pool.missing(slice(1), BlockIndex(0), 10).unwrap(), both);
    // 83 came between what was offered late and the supersede: it is what belongs there.
    pool.append(slice(1), &[copy(83, 5, 4), copy(83, 6, 5)]).unwrap();
    pool.checkpoint().unwrap();
    assert_eq!(block(&pool, slice(1), 5), (version(4, 83), Some(data(4, 1).bytes().clone())));
    assert_eq!(block(&pool, slice(1), 6), (version(4, 83), Some(data(5, 1).bytes().clone())));
}

#[test]
fn a_snapshot_stays_as_it_was() {
    let (disk, pool) = pool(64 * MIB, MIB);
    pool.create(slice(1), Bytes::new()).unwrap();
    let mut frozen = Vec::new();
    for round in 0..6_u64 {
        for i in 1..=20 {
            let sequence = round * 20 + i;
            pool.append(
                slice(1),
                &[write(version(1, sequence), i * 50 + round, data(sequence, 1))],
            )
            .unwrap();
        }
        pool.snapshot(slice(1), SnapshotId(round)).unwrap();
        frozen.push(read(&pool, slice(1), 0, 2000));
        if round % 2 == 1 {
            pool.checkpoint().unwrap();
        }
    }
    let check = |pool: &mooring_engine::Pool| {
        for (round, expected) in frozen.iter().enumerate() {
            let mut out = Vec::new();
            let root = Root::Snapshot(SnapshotId(round as u64));
            pool.read_root(slice(1), root, range(0, 2000), &mut out).unwrap();
            assert_eq!(&out, expected, "snapshot {round}");
        }
    };
    check(&pool);
    pool.checkpoint().unwrap();
    check(&pool);
    drop(pool);
    disk.crash(9);
    let (pool, _) = open(&disk, 2);
    check(&pool);
}

#[test]
fn a_huge_discard_costs_next_to_nothing() {
    let (disk, pool) = pool(64 * MIB, MIB);
    pool.create(slice(1), Bytes::new()).unwrap();
    let ten_tib = (10 << 40) / 4096;
    pool.append(slice(1), &[discard(version(1, 1), 0, ten_tib)]).unwrap();
    pool.append(slice(1), &[write(version(1, 2), ten_tib / 2, data(1, 1))]).unwrap();
    pool.append(slice(1), &[discard(version(1, 3), 0, ten_tib)]).unwrap();
    let before = disk.bytes_written();
    pool.checkpoint().unwrap();
    assert!(disk.bytes_written() - before < 200_000, "{}", disk.bytes_written() - before);
    assert_eq!(block(&pool, slice(1), ten_tib / 2), (version(1, 3), None));
    let changes = pool.newer_than(slice(1), Root::Live, version(1, 2), BlockIndex(0), 10).unwrap();
    assert_eq!(changes.extents.len(), 1);
    assert_eq!(changes.extents[0].kind, ChangedKind::Hole);
}

#[test]
fn what_holds_data_is_counted_under_discards_that_no_checkpoint_has_merged_yet() {
    let (_, pool) = pool(64 * MIB, MIB);
    pool.create(slice(1), Bytes::new()).unwrap();
    let counted = |expected: u64| assert_eq!(pool.allocated(slice(1)).unwrap(), expected);
    // In three leaves, and in two inner nodes.
    for (sequence, first) in [(1, 0), (2, 300), (3, 1 << 20)] {
        pool.append(slice(1), &[write(version(1, sequence), first, data(sequence, 10))]).unwrap();
    }
    counted(30);
    pool.checkpoint().unwrap();
    counted(30);
    // All of the first leaf and half of what the second holds.
    pool.append(slice(1), &[discard(version(1, 4), 0, 305)]).unwrap();
    counted(15);
    pool.checkpoint().unwrap();
    counted(15);
    // Whole nodes go, and one block comes into what is gone.
    pool.append(slice(1), &[discard(version(1, 5), 0, 1 << 40)]).unwrap();
    counted(0);
    pool.append(slice(1), &[write(version(1, 6), 301, data(6, 1))]).unwrap();
    counted(1);
    pool.checkpoint().unwrap();
    counted(1);
}

#[test]
fn a_supersede_over_a_huge_hole_costs_next_to_nothing() {
    let (disk, pool) = pool(64 * MIB, MIB);
    pool.create(slice(1), Bytes::new()).unwrap();
    let ten_tib = (10 << 40) / 4096;
    pool.append(slice(1), &[write(version(1, 1), ten_tib - 1, data(1, 1))]).unwrap();
    pool.append(slice(1), &[Entry::Position { last: version(1, 1), state: Bytes::new() }]).unwrap();
    pool.append(slice(1), &[discard(version(1, 2), 0, ten_tib)]).unwrap();
    pool.checkpoint().unwrap();
    let before = disk.bytes_written();
    pool.append(slice(1), &[Entry::Supersede { after: version(1, 1), state: Bytes::new() }])
        .unwrap();
    pool.checkpoint().unwrap();
    assert!(disk.bytes_written() - before < 200_000, "{}", disk.bytes_written() - before);
    let (missing, _) = pool.missing(slice(1), BlockIndex(0), 10).unwrap();
    assert_eq!(missing, [range(0, ten_tib)]);
}

#[test]
fn a_layer_that_holds_only_a_cut_counts_as_memory() {
    let (_, pool) = pool(64 * MIB, MIB);
    pool.create(slice(1), Bytes::new()).unwrap();
    let before = pool.usage().memory;
    let supersede = Entry::Supersede { after: version(1, 6), state: Bytes::new() };
    pool.append(slice(1), &[supersede]).unwrap();
    assert!(pool.usage().memory > before, "{before}");
}
