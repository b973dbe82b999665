//! The store stopped at every write and every flush, and opened again: by another coordinator, which
//! finds every write that had returned, and after a power cut, which takes in each slice some of
//! what was not flushed.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::sync::Arc;

use mooring_sharedfs_core::format::{DataClaim, KeyRange, Otherwise, Record, Superblock, Versions};
use mooring_sharedfs_core::tree::{MemoryTree, Tree, TreeStore};
use mooring_sharedfs_core::{BlockAddress, FileBlock, Ino, Run};
use mooring_sharedfs_store::{Blocks, MemoryBlocks, Opened, Room, Store, StoreError};
use mooring_terms::{Epoch, Sequence, Version};

const SLICE_BLOCKS: u64 = 512;
const CACHE: usize = 1 << 20;

fn superblock() -> Superblock {
    Superblock {
        tag: 77,
        slice_blocks: SLICE_BLOCKS,
        // Small, so that it is full every few batches.
        journal: Run::new(BlockAddress(1), 12),
        data_first: BlockAddress(64),
        tree_first: BlockAddress(SLICE_BLOCKS * 1000),
    }
}

/// A small generator: the same numbers for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn record(&mut self) -> Record {
        let mut record = Record::default();
        for _ in 0..=self.roll(4) {
            let key = format!("key {}", self.roll(40)).into_bytes();
            // Now and then more than half of the journal.
            let length = self.roll(700) as usize * if self.roll(60) == 0 { 60 } else { 1 };
            let value = (self.roll(4) > 0).then(|| vec![self.roll(256) as u8; length]);
            record.changes.insert(key, value);
        }
        record
    }
}

fn new_store() -> Arc<MemoryBlocks> {
    let blocks = Arc::new(MemoryBlocks::new(SLICE_BLOCKS));
    let mut first = Record::default();
    first.changes.insert(b"first".to_vec(), Some(b"row".to_vec()));
    Store::format(&blocks, &superblock(), &first, CACHE).unwrap();
    blocks
}

fn open(blocks: MemoryBlocks) -> Store<MemoryBlocks> {
    Store::open(Arc::new(blocks), 2, CACHE).unwrap().0
}

fn rows(tree: &dyn Tree) -> Vec<(Vec<u8>, Vec<u8>)> {
    let all = KeyRange::all();
    let rows = tree.scan(&all, usize::MAX >> 8).unwrap();
    let mut back = tree.scan_back(&all, usize::MAX >> 8).unwrap();
    back.reverse();
    assert_eq!(rows, back);
    rows
}

/// What the store has promised, and every state that it was in.
struct Model {
    states: Vec<MemoryTree>,
    /// Index of the last state that was written, and of the last that was flushed after.
    written: usize,
    durable: usize,
}

impl Model {
    fn new() -> Self {
        let mut tree = MemoryTree::default();
        let mut first = Record::default();
        first.changes.insert(b"first".to_vec(), Some(b"row".to_vec()));
        tree.apply(&first.changes).unwrap();
        Self { states: vec![tree], written: 0, durable: 0 }
    }

    /// Runs until the blocks stop, or to the end.
    fn run(&mut self, store: &mut Store<MemoryBlocks>, seed: u64) -> Result<(), StoreError> {
        let mut dice = Dice(seed);
        for _ in 0..30 {
            let records: Vec<Record> = (0..=dice.roll(3)).map(|_| dice.record()).collect();
            let mut state = self.states[self.written].clone();
            for record in &records {
                state.apply(&record.changes).unwrap();
                store.apply(&record.changes).unwrap();
            }
            assert_eq!(rows(store), rows(&state), "what is applied is seen");
            self.states.truncate(self.written + 1);
            self.states.push(state);
            let bytes = records.iter().map(Record::bytes).sum();
            match store.room(bytes) {
                Room::Enough => drop(store.write(&records)?),
                Room::AfterCheckpoint => {
                    store.checkpoint()?;
                    store.write(&records)?;
                }
                Room::Never => {
                    // Whether it is done is known only if it doesn't fail.
                    store.checkpoint_applied()?;
                    self.durable = self.written + 1;
                }
            }
            self.written += 1;
            assert_eq!(rows(store), rows(&self.states[self.written]));
            match dice.roll(6) {
                0 => store.checkpoint()?,
                1 => store.flush()?,
                _ => continue,
            }
            self.durable = self.written;
        }
        Ok(())
    }

    /// The state that the store is in, which must be one from `least` on.
    fn recognize(&self, store: &Store<MemoryBlocks>, least: usize) -> usize {
        let found = rows(store);
        let index = (least..self.states.len()).rev().find(|&i| rows(&self.states[i]) == found);
        index.unwrap_or_else(|| panic!("no state from {least} on: {} rows", found.len()))
    }
}

#[test]
fn another_coordinator_finds_every_write_that_had_returned() {
    for seed in 0..3 {
        let blocks = new_store();
        let (mut store, _) = Store::open(blocks.clone(), 1, CACHE).unwrap();
        let begin = blocks.done();
        Model::new().run(&mut store, seed).unwrap();
        let steps = blocks.done() - begin;
        assert!(steps > 100, "{steps}");
        for stop in (0..steps).step_by(3) {
            let blocks = new_store();
            let mut model = Model::new();
            let (mut store, _) = Store::open(blocks.clone(), 1, CACHE).unwrap();
            blocks.stop_after(stop);
            let stopped = model.run(&mut store, seed);
            assert!(stopped.is_err(), "seed {seed}, stopped at {stop} of {steps}");
            let left_behind = blocks.after_crash();
            // Dropping it must not repair anything.
            drop(store);
            let mut again = open(left_behind);
            let index = model.recognize(&again, model.written);
            // And it goes on from there.
            (model.written, model.durable) = (index, index);
            model.run(&mut again, seed + 100).unwrap();
        }
    }
}

#[test]
fn a_power_cut_takes_nothing_that_was_flushed() {
    let mut went_back = 0;
    for seed in 0..60 {
        let mut dice = Dice(seed + 1000);
        let blocks = new_store();
        let mut model = Model::new();
        let (mut store, _) = Store::open(blocks.clone(), 1, CACHE).unwrap();
        blocks.stop_after(dice.roll(400));
        let _ = model.run(&mut store, seed);
        let found = blocks.after_power_cut(|_, count| dice.roll(count as u64 + 1) as usize);
        drop(store);
        let mut again = open(found);
        let index = model.recognize(&again, model.durable);
        went_back += usize::from(index < model.written);
        (model.written, model.durable) = (index, index);
        model.run(&mut again, seed + 100).unwrap();
    }
    assert!(went_back > 5, "only {went_back} cuts took anything");
}

#[test]
fn a_batch_is_read_only_behind_the_one_it_was_written_behind() {
    let write = |store: &mut Store<MemoryBlocks>, byte: u8| {
        let mut record = Record::default();
        record.changes.insert(b"key".to_vec(), Some(vec![byte]));
        store.apply(&record.changes).unwrap();
        store.write(&[record]).unwrap();
    };
    let blocks = new_store();
    let beside = Arc::new(blocks.after_crash());
    let mut store = Store::open(blocks.clone(), 1, CACHE).unwrap().0;
    write(&mut store, 1);
    write(&mut store, 2);
    // Another history, of which only the first batch comes to lie over this one's.
    write(&mut Store::open(beside.clone(), 1, CACHE).unwrap().0, 3);
    let mut block = vec![0; 4096];
    beside.read(BlockAddress(1), &mut block).unwrap();
    blocks.write(BlockAddress(1), &block).unwrap();
    let (store, opened) = Store::open(Arc::new(blocks.after_crash()), 2, CACHE).unwrap();
    assert_eq!(opened.replayed, 1);
    assert_eq!(store.get(b"key").unwrap(), Some(vec![3]));
}

#[test]
fn what_was_claimed_of_data_is_told_when_the_journal_is_replayed() {
    let blocks = new_store();
    let mut store = Store::open(blocks.clone(), 1, CACHE).unwrap().0;
    let claim = DataClaim {
        ino: Ino(5),
        block: FileBlock(6),
        run: Run::new(BlockAddress(70), 8),
        versions: Versions::of(std::iter::once(Version::new(Epoch(9), Sequence(10)))),
        otherwise: Otherwise::Hole,
    };
    store.write(&[Record { claims: vec![claim.clone()], ..Record::default() }]).unwrap();
    let (mut again, opened) = Store::open(Arc::new(blocks.after_crash()), 2, CACHE).unwrap();
    assert_eq!(opened.claims, [claim]);
    // A checkpoint comes after a flush of that data: it is there.
    again.checkpoint().unwrap();
    let found = again_after(again);
    assert_eq!(found.claims, []);
}

/// Drops a store and opens it again.
fn again_after(store: Store<MemoryBlocks>) -> Opened {
    let blocks = store.blocks().after_crash();
    drop(store);
    Store::open(Arc::new(blocks), 3, CACHE).unwrap().1
}

#[test]
fn the_journal_is_never_trimmed_by_itself() {
    let blocks = new_store();
    let mut store = Store::open(blocks.clone(), 1, CACHE).unwrap().0;
    let mut record = Record::default();
    record.changes.insert(b"key".to_vec(), Some(vec![1; 9000]));
    let mut written = 0;
    while store.room(record.bytes()) == Room::Enough {
        store.write(std::slice::from_ref(&record)).unwrap();
        written += 1;
    }
    assert!(matches!(store.write(std::slice::from_ref(&record)), Err(StoreError::TooLarge)));
    assert_eq!(again_after(store).replayed, written, "whoever flushes slices trims it");
}

#[test]
fn what_is_no_store_is_refused() {
    let empty = Arc::new(MemoryBlocks::new(SLICE_BLOCKS));
    assert!(matches!(Store::open(empty, 1, CACHE), Err(StoreError::Absent)));
    let blocks = new_store();
    let mut store = Store::open(blocks, 1, CACHE).unwrap().0;
    let mut record = Record::default();
    record.changes.insert(b"key".to_vec(), Some(vec![0; 100_000]));
    assert!(matches!(store.write(&[record]), Err(StoreError::TooLarge)));
}
