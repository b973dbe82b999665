//! A pool whose disk was tampered with: opened, read and written. Checksums always fit when fuzzing, so
//! this is more than rot: the worst may be an error, never an endless loop or memory out of bounds.
//!
//! Input: changes of seven bytes: area, offset (u32), byte, and how to change it.
#![no_main]

use std::io::IoSlice;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mooring_engine::{
    Area, Disk, FormatOptions, MemoryDisk, OpenOptions, Pool, SegmentId,
};
use mooring_terms::{
    BlockIndex, BlockRange, Body, Data, Entry, Epoch, Record, Sequence, SliceId, SliceIndex, Version,
    VolumeId,
};

const SEGMENT: u64 = 1 << 20;
const SLICE: SliceId = SliceId { volume: VolumeId(1), index: SliceIndex(0) };

fn options() -> OpenOptions {
    OpenOptions { memory_bytes: 4 << 20, opening: 5, ..OpenOptions::default() }
}

fn record(sequence: u64, first: u64) -> Entry {
    let data = Data::checksummed(Bytes::from(vec![sequence as u8; 8192]));
    let version = Version::new(Epoch(1), Sequence(sequence));
    let record = Record { version, body: Body::Write { first: BlockIndex(first), data } };
    Entry::Record { record, state: None }
}

fn good() -> &'static MemoryDisk {
    static DISK: OnceLock<Arc<MemoryDisk>> = OnceLock::new();
    DISK.get_or_init(|| {
        let disk = Arc::new(MemoryDisk::new(40 * SEGMENT));
        let format = FormatOptions { size_bytes: 40 * SEGMENT, segment_bytes: SEGMENT, tag: 1 };
        Pool::format(&*disk, &format).expect("it fits");
        let (pool, _) = Pool::open(disk.clone(), options()).expect("it was just made");
        pool.create(SLICE, Bytes::new()).expect("there is room");
        for sequence in 1..40 {
            pool.append(SLICE, &[record(sequence, sequence * 3)]).expect("there is room");
            if sequence == 20 {
                pool.checkpoint().expect("there is room");
            }
        }
        pool.sync().expect("memory syncs");
        disk
    })
}

fuzz_target!(|input: &[u8]| {
    let disk = Arc::new(good().fork());
    for change in input.as_chunks::<7>().0.iter().take(64) {
        let [area, o0, o1, o2, o3, byte, how] = *change;
        let area = match area % 8 {
            0 => Area::Superblock,
            1 | 2 => Area::Checkpoint(area % 2),
            _ => Area::Segment(SegmentId(u32::from(area % 8) - 3)),
        };
        let Ok(Some(length)) = disk.length(area) else { continue };
        let offset = u64::from(u32::from_le_bytes([o0, o1, o2, o3])) % length.max(1);
        let mut old = [0];
        if disk.read(area, offset, &mut old).is_err() {
            continue;
        }
        let new = if how % 2 == 0 { byte } else { old[0].wrapping_add(byte) };
        disk.write(area, offset, &[IoSlice::new(&[new])]).expect("it can be read");
    }
    let Ok((pool, _)) = Pool::open(disk, options()) else { return };
    let mut out = Vec::new();
    let _ = pool.read(SLICE, BlockRange::new(BlockIndex(0), 128), &mut out);
    let _ = pool.append(SLICE, &[record(41, 5)]);
    let _ = pool.checkpoint();
});
