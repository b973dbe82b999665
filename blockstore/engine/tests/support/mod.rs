//! What the engine's tests share: a seeded generator, pools in memory, blocks to write.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod model;
pub mod script;

use std::sync::Arc;

use bytes::Bytes;
use mooring_engine::{
    Disk, FormatOptions, MemoryDisk, OpenOptions, OpenReport, Pool, ReadBlock, ReadContent,
};
use mooring_terms::{
    BLOCK_SIZE, BlockIndex, BlockRange, Body, Data, Entry, Epoch, Record, Sequence, SliceId,
    SliceIndex, Version, VolumeId,
};

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

pub fn slice(volume: u64) -> SliceId {
    SliceId { volume: VolumeId(volume), index: SliceIndex(0) }
}

pub fn version(epoch: u32, sequence: u64) -> Version {
    Version::new(Epoch(epoch), Sequence(sequence))
}

/// Blocks whose contents follow from `seed`.
pub fn data(seed: u64, blocks: usize) -> Data {
    let mut bytes = vec![0; blocks * BLOCK_SIZE];
    let mut rng = Rng(seed);
    for word in bytes.chunks_exact_mut(8) {
        word.copy_from_slice(&rng.next().to_le_bytes());
    }
    Data::checksummed(Bytes::from(bytes))
}

pub fn write(version: Version, first: u64, data: Data) -> Entry {
    let body = Body::Write { first: BlockIndex(first), data };
    Entry::Record { record: Record { version, body }, state: None }
}

pub fn discard(version: Version, first: u64, count: u64) -> Entry {
    let body = Body::Discard(BlockRange::new(BlockIndex(first), count));
    Entry::Record { record: Record { version, body }, state: None }
}

pub fn range(first: u64, count: u64) -> BlockRange {
    BlockRange::new(BlockIndex(first), count)
}

pub fn options(opening: u64) -> OpenOptions {
    OpenOptions { opening, ..OpenOptions::default() }
}

pub fn format(disk: &dyn Disk, size_bytes: u64, segment_bytes: u64) {
    let options = FormatOptions { size_bytes, segment_bytes, tag: 7 };
    Pool::format(disk, &options).expect("the disk is empty");
}

pub fn open(disk: &Arc<MemoryDisk>, opening: u64) -> (Pool, OpenReport) {
    Pool::open(disk.clone(), options(opening)).expect("the pool opens")
}

/// A memory disk with a fresh pool.
pub fn pool(size_bytes: u64, segment_bytes: u64) -> (Arc<MemoryDisk>, Pool) {
    let disk = Arc::new(MemoryDisk::new(size_bytes * 2));
    format(&disk, size_bytes, segment_bytes);
    let pool = open(&disk, 1).0;
    (disk, pool)
}

pub fn read(pool: &Pool, slice: SliceId, first: u64, count: u64) -> Vec<ReadBlock> {
    let mut out = Vec::new();
    pool.read(slice, range(first, count), &mut out).expect("the range can be read");
    out
}

/// One block: its version and its bytes, `None` for a hole.
pub fn block(pool: &Pool, slice: SliceId, block: u64) -> (Version, Option<Bytes>) {
    let out = read(pool, slice, block, 1);
    assert_eq!(out.len(), 1);
    match &out[0].content {
        ReadContent::Hole => (out[0].version, None),
        ReadContent::Data(data) => (out[0].version, Some(data.bytes().clone())),
        ReadContent::Missing => panic!("block {block} is missing"),
    }
}
