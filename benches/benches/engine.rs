//! The storage engine on a directory, and the checksum of a block.
#![allow(clippy::unwrap_used)] // A measurement that fails may panic.
#![allow(missing_docs)] // What the macros of criterion make.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mooring_engine::{DirectoryDisk, FormatOptions, OpenOptions, Pool};
use mooring_terms::{
    BLOCK_SIZE, BlockIndex, BlockRange, Body, Data, Entry, Epoch, Record, Sequence, SliceId,
    SliceIndex, Version, VolumeId, crc32c,
};

const MIB: u64 = 1 << 20;
const SLICE: SliceId = SliceId { volume: VolumeId(1), index: SliceIndex(0) };

/// A pool in a directory of its own, and where its log stands.
struct Bench {
    pool: Pool,
    sequence: u64,
    state: u64,
    block: Data,
    // After the pool, so that its files go last.
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new(size_bytes: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let disk = DirectoryDisk::open(&directory.path().join("pool")).unwrap();
        let mut options = FormatOptions::new(size_bytes, 1);
        options.segment_bytes = size_bytes / 128;
        Pool::format(&disk, &options).unwrap();
        let (pool, _) = Pool::open(Arc::new(disk), OpenOptions::default()).unwrap();
        pool.create(SLICE, Bytes::new()).unwrap();
        let block = Data::checksummed(Bytes::from(vec![0x5a; BLOCK_SIZE]));
        Self { pool, sequence: 0, state: 1, block, _directory: directory }
    }

    fn below(&mut self, bound: u64) -> u64 {
        // Knuth's linear congruential generator: its upper bits will do.
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.state >> 33) % bound
    }

    fn entry(&mut self, block: u64) -> Entry {
        self.sequence += 1;
        let version = Version::new(Epoch(1), Sequence(self.sequence));
        let body = Body::Write { first: BlockIndex(block), data: self.block.clone() };
        Entry::Record { record: Record { version, body }, state: None }
    }

    /// Appends at random places, so many records a call.
    fn append(&mut self, records: usize, blocks: u64) {
        let entries: Vec<Entry> = (0..records)
            .map(|_| {
                let block = self.below(blocks);
                self.entry(block)
            })
            .collect();
        self.pool.append(SLICE, &entries).unwrap();
        self.pool.committed(SLICE, Sequence(self.sequence));
    }

    /// Writes each `step`th block once.
    fn fill(&mut self, blocks: u64, step: usize) {
        for block in (0..blocks).step_by(step) {
            let entry = self.entry(block);
            self.pool.append(SLICE, &[entry]).unwrap();
            self.pool.committed(SLICE, Sequence(self.sequence));
        }
        self.pool.checkpoint().unwrap();
    }

    fn read(&self, block: u64) {
        let mut found = Vec::new();
        self.pool.read(SLICE, BlockRange::new(BlockIndex(block), 1), &mut found).unwrap();
        black_box(found);
    }
}

fn engine(c: &mut Criterion) {
    let mut group = c.benchmark_group("engine");
    let mut bench = Bench::new(1024 * MIB);
    group.throughput(Throughput::Bytes(BLOCK_SIZE as u64));
    group.bench_function("append 4 KiB", |b| b.iter(|| bench.append(1, 16_384)));
    group.throughput(Throughput::Bytes(64 * BLOCK_SIZE as u64));
    group.bench_function("append 64 x 4 KiB", |b| b.iter(|| bench.append(64, 16_384)));
    drop(bench);

    let blocks = 100_000;
    let mut bench = Bench::new(1024 * MIB);
    bench.fill(blocks, 2);
    group.throughput(Throughput::Bytes(BLOCK_SIZE as u64));
    group.bench_function("read 4 KiB", |b| {
        b.iter(|| {
            let block = bench.below(blocks / 2) * 2;
            bench.read(block);
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("map lookup", |b| {
        // What was never written is looked up and not read.
        b.iter(|| {
            let block = bench.below(blocks / 2) * 2 + 1;
            bench.read(block);
        });
    });
    drop(bench);

    // Four fifths of the pool are live: each append has to make room for itself sooner or later.
    let mut bench = Bench::new(256 * MIB);
    let live = bench.pool.usage().usable / 100 * 80 / 4200;
    bench.fill(live, 1);
    group.throughput(Throughput::Bytes(64 * BLOCK_SIZE as u64));
    group.bench_function("append with reclaim", |b| {
        b.iter(|| {
            bench.append(64, live);
            while bench.pool.maintain().unwrap() == mooring_engine::Maintained::Worked {}
        });
    });
    group.finish();
}

fn checksum(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    let block = vec![7; BLOCK_SIZE];
    group.throughput(Throughput::Bytes(BLOCK_SIZE as u64));
    group.bench_function("crc32c 4 KiB", |b| b.iter(|| crc32c(black_box(&block))));
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group!(name = all; config = short(); targets = engine, checksum);
criterion_main!(all);
