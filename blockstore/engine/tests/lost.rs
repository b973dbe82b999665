//! Blocks that are lost: known to have been written with a version, and to be had from nobody.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use bytes::Bytes;
use mooring_engine::{
    Area, Changed, ChangedKind, Disk, MemoryDisk, Pool, ReadBlock, ReadContent, Root, SegmentId,
    decode,
};
use mooring_terms::{BlockIndex, Data, Entry, Version};
use support::{block, data, discard, open, pool, range, read, slice, version, write};

/// What stands in the first segment.
fn decoded(disk: &MemoryDisk) -> String {
    let mut bytes = vec![0; 1 << 20];
    disk.read(Area::Segment(SegmentId(0)), 0, &mut bytes).unwrap();
    decode::bytes(&bytes)
}

fn copy(version: Version, first: u64, data: Data) -> Entry {
    Entry::Copy { version, first: BlockIndex(first), data }
}

/// Block, version and kind of what there is in the first blocks of a slice.
fn seen(pool: &Pool, count: u64) -> Vec<(u64, Version, &'static str)> {
    let kind = |content: &ReadContent| match content {
        ReadContent::Hole => "hole",
        ReadContent::Data(_) => "data",
        ReadContent::Missing => "missing",
    };
    let runs = read(pool, slice(1), 0, count);
    let each = |run: &ReadBlock| {
        let (version, kind) = (run.version, kind(&run.content));
        (run.range.first.0..run.range.end().0).map(move |block| (block, version, kind))
    };
    runs.iter().flat_map(each).collect()
}

#[test]
fn a_lost_block_gives_way_only_to_its_own_version_or_a_newer_one() {
    let (disk, pool) = pool(64 << 20, 1 << 20);
    pool.create(slice(1), Bytes::new()).unwrap();
    for i in 1..=8 {
        pool.append(slice(1), &[write(version(1, i), i - 1, data(i, 1))]).unwrap();
    }
    pool.checkpoint().unwrap();
    let lost = |v, first, count| Entry::CopyLost { version: v, range: range(first, count) };
    let older = version(1, 2);
    let five = version(2, 5);
    let entries = [
        Entry::Position { last: version(2, 20), state: Bytes::new() },
        lost(five, 0, 6),
        // What is older is not taken, in the layer or beneath it; nor does it become lost again.
        copy(older, 0, data(20, 1)),
        copy(five, 1, data(21, 1)),
        copy(version(2, 6), 2, data(22, 1)),
        Entry::CopyHole { version: version(2, 7), range: range(3, 1) },
        lost(version(1, 1), 6, 1),
        lost(five, 2, 1),
        discard(version(2, 21), 5, 1),
    ];
    pool.append(slice(1), &entries).unwrap();
    let expected = [
        (0, five, "missing"),
        (1, five, "data"),
        (2, version(2, 6), "data"),
        (3, version(2, 7), "hole"),
        (4, five, "missing"),
        (5, version(2, 21), "hole"),
        (6, version(1, 7), "data"),
        (7, version(1, 8), "data"),
    ];
    assert_eq!(seen(&pool, 8), expected);
    pool.checkpoint().unwrap();
    assert_eq!(seen(&pool, 8), expected);
    let text = decoded(&disk);
    assert!(text.contains(&format!("copy of what is lost {five} [0+6]")), "{text}");
    assert!(text.contains("0 missing, 2 lost"), "{text}");
    drop(pool);
    let (pool, _) = open(&disk, 2);
    assert_eq!(seen(&pool, 8), expected);
    // Resync is told of it: by what is newer, and by what is missing.
    let newer = pool.newer_than(slice(1), Root::Live, version(2, 4), BlockIndex(0), 10).unwrap();
    assert!(newer.extents.contains(&Changed {
        range: range(0, 1),
        version: five,
        kind: ChangedKind::Missing
    }));
    let (missing, _) = pool.missing(slice(1), BlockIndex(0), 10).unwrap();
    assert_eq!(missing, [range(0, 1), range(4, 1)]);
    pool.append(slice(1), &[copy(version(2, 4), 0, data(9, 1)), copy(five, 4, data(23, 1))])
        .unwrap();
    pool.checkpoint().unwrap();
    assert_eq!(seen(&pool, 5)[0], (0, five, "missing"));
    assert_eq!(block(&pool, slice(1), 4), (five, Some(data(23, 1).bytes().clone())));
    // A repair knows what it does.
    let repair = Entry::Repair { version: older, first: BlockIndex(0), data: data(20, 1) };
    pool.append(slice(1), &[repair]).unwrap();
    pool.checkpoint().unwrap();
    assert_eq!(block(&pool, slice(1), 0), (older, Some(data(20, 1).bytes().clone())));
}

#[test]
fn a_supersede_forgets_what_is_lost_behind_it() {
    let (_, pool) = pool(64 << 20, 1 << 20);
    pool.create(slice(1), Bytes::new()).unwrap();
    let after = version(1, 2);
    for i in 1..=2 {
        pool.append(slice(1), &[write(version(1, i), i - 1, data(i, 1))]).unwrap();
    }
    let huge = range(1 << 30, 1 << 33);
    let lost = |range| Entry::CopyLost { version: version(2, 5), range };
    pool.append(slice(1), &[lost(range(0, 1)), lost(huge)]).unwrap();
    pool.checkpoint().unwrap();
    pool.append(slice(1), &[Entry::Supersede { after, state: Bytes::new() }]).unwrap();
    pool.append(slice(1), &[copy(version(1, 1), 0, data(7, 1))]).unwrap();
    for _ in 0..2 {
        assert_eq!(seen(&pool, 1), [(0, version(1, 1), "data")]);
        let mut out = Vec::new();
        pool.read(slice(1), huge, &mut out).unwrap();
        assert!(out.iter().all(|run| run.content == ReadContent::Missing), "{out:?}");
        pool.checkpoint().unwrap();
    }
}
