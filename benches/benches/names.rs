//! What names cost in directories of 1 thousand, 100 thousand and 1 million entries: the core's operations
//! on the tree as a coordinator keeps it (redb and journal), over blocks in memory. A change is journaled
//! each time; where changes come together they share that.

#![allow(missing_docs, reason = "criterion's own functions")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mooring_sharedfs_core::format::{Record, Superblock};
use mooring_sharedfs_core::ops::{FormatOptions, Make, New, format_volume};
use mooring_sharedfs_core::tree::{MemoryTree, TreeStore};
use mooring_sharedfs_core::{
    BlockAddress, Caller, Context, Cookie, Ino, Mode, Name, Run, Timestamp, Transaction,
};
use mooring_sharedfs_store::{MemoryBlocks, Store};

const SLICE_BLOCKS: u64 = 1 << 20;
/// As a coordinator has it.
const CACHE: usize = 16 << 20;
/// Entries of one page of readdir.
const PAGE: usize = 100;

/// A directory with so many entries, and more to come.
struct Directory {
    store: Store<MemoryBlocks>,
    entries: usize,
}

fn name(number: usize) -> Name {
    Name::new(format!("file{number}").as_bytes()).expect("a name")
}

impl Directory {
    fn new() -> Self {
        let superblock = Superblock {
            tag: 1,
            slice_blocks: SLICE_BLOCKS,
            journal: Run::new(BlockAddress(1), 8192),
            data_first: BlockAddress(8193),
            tree_first: BlockAddress(SLICE_BLOCKS * 1000),
        };
        let options = FormatOptions {
            data_first: superblock.data_first,
            capacity: 1 << 24,
            slice_blocks: SLICE_BLOCKS,
            root: (0, 0, Mode::new(0o777)),
            now: Timestamp::default(),
        };
        let blocks = Arc::new(MemoryBlocks::new(SLICE_BLOCKS));
        let first = format_volume(&MemoryTree::default(), &options).expect("a new tree");
        Store::format(&blocks, &superblock, &first, CACHE).expect("memory takes it");
        let (store, _) = Store::open(blocks, 2, CACHE).expect("it was just made");
        Self { store, entries: 0 }
    }

    fn create(&mut self) {
        let make = Make { new: New::Regular, mode: Mode::new(0o644), umask: Mode::default() };
        let name = name(self.entries);
        let mut transaction = Transaction::new(&self.store, Context { now: Timestamp::default() });
        transaction.make(&Caller::ROOT, Ino::ROOT, &name, &make).expect("there is room");
        let record = transaction.finish().record;
        self.write(&[record]);
        self.entries += 1;
    }

    fn write(&mut self, records: &[Record]) {
        for record in records {
            self.store.apply(&record.changes).expect("memory takes it");
        }
        self.store.write(records).expect("memory takes it");
        if self.store.is_almost_full() {
            self.store.checkpoint().expect("memory takes it");
            self.store.flush().expect("memory takes it");
        }
    }

    fn fill(&mut self, entries: usize) {
        while self.entries < entries {
            self.create();
        }
        self.store.checkpoint().expect("memory takes it");
        self.store.flush().expect("memory takes it");
    }

    fn view(&self) -> Transaction<'_> {
        Transaction::new(&self.store, Context { now: Timestamp::default() })
    }

    fn lookup(&self, number: usize) {
        let found = self.view().lookup(&Caller::ROOT, Ino::ROOT, &name(number));
        black_box(found.expect("it is there"));
    }

    fn page(&self, after: usize) {
        let page = self.view().readdir(
            Ino::ROOT,
            Cookie(after as u64 + 2),
            Cookie(self.entries as u64),
            PAGE,
            true,
        );
        black_box(page.expect("it is a directory"));
    }
}

fn names(c: &mut Criterion) {
    let mut group = c.benchmark_group("names of a shared volume");
    let mut directory = Directory::new();
    for (entries, among) in
        [(1_000, "1 thousand"), (100_000, "100 thousand"), (1_000_000, "1 million")]
    {
        directory.fill(entries);
        let mut at = 0;
        let mut anywhere = move || {
            at = (at + 7_919 * 31) % (entries - PAGE);
            at
        };
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("lookup among {among}"), |b| {
            b.iter(|| directory.lookup(anywhere()));
        });
        group.throughput(Throughput::Elements(PAGE as u64));
        group.bench_function(format!("{PAGE} entries of readdir among {among}"), |b| {
            b.iter(|| directory.page(anywhere()));
        });
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("create among {among}"), |b| b.iter(|| directory.create()));
    }
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group!(name = all; config = short(); targets = names);
criterion_main!(all);
