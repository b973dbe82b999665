//! Taking a volume over: made if it is empty, replayed, and true again after a power cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::channel;

use mooring_sharedfs_core::file::{Base, BlockWrite, Recovery};
use mooring_sharedfs_core::format::{DataClaim, Record, Superblock};
use mooring_sharedfs_core::ops::{FormatOptions, format_volume};
use mooring_sharedfs_core::tree::{MemoryTree, TreeStore};
use mooring_sharedfs_core::{BlockAddress, Context, Mode, Run, Transaction};
use mooring_sharedfs_store::{Blocks, Opened, Store, StoreError};
use mooring_terms::{BLOCK_SIZE, SliceIndex, Version};

use crate::clock::Clock;
use crate::options::Options;
use crate::report::{Observer, Report, Stopped};
use crate::slices::{SliceError, Slices};

/// A journal has a part of the volume, within bounds, in blocks: 1 to 32 MiB. It is replayed when a
/// coordinator takes over, at most half of it and what came during a checkpoint.
const JOURNAL: (u64, u64, u64) = (64, 256, 8192);

/// As many questions after versions are on their way at once.
const ASKED: usize = 256;

/// Opens the file system, makes one first if there is none. The slices that replayed records claim data of come
/// with it: they are to be flushed before the first checkpoint.
pub(crate) fn open<B: Blocks>(
    blocks: &Arc<B>,
    slices: &dyn Slices,
    observer: &dyn Observer,
    options: &Options,
) -> Result<(Store<B>, u64, BTreeSet<SliceIndex>), Stopped> {
    let attachment = options.attachment.0;
    let (mut store, opened) = match Store::open(Arc::clone(blocks), attachment, options.cache_bytes)
    {
        Err(StoreError::Absent) => {
            format(blocks, options)?;
            observer.report(Report::Formatted);
            Store::open(Arc::clone(blocks), attachment, options.cache_bytes)?
        }
        opened => opened?,
    };
    // What the coordinator before wrote and nobody flushed: from here on it counts as durable.
    wait_for(|done| slices.flush(Some(BTreeSet::from([SliceIndex(0)])), done))?;
    let Opened { replayed, claims } = opened;
    let slice_blocks = options.slice_blocks;
    let claimed = claims.iter().map(|claim| slice_of(claim, slice_blocks)).collect();
    let record = recover(&mut store, slices, observer, slice_blocks, &claims)?;
    let grown = grow(&mut store, options)?;
    let records: Vec<Record> =
        [record, grown].into_iter().filter(|record| !record.changes.is_empty()).collect();
    if !records.is_empty() {
        store.write(&records)?;
        store.flush()?;
    }
    Ok((store, replayed, claimed))
}

/// Waits for something that is done with slices.
pub(crate) fn wait_for<T: Send + 'static>(
    begin: impl FnOnce(crate::slices::Done<T>),
) -> Result<T, SliceError> {
    let (done, outcome) = channel();
    // Nobody listens any more only if this thread is gone.
    begin(Box::new(move |result| drop(done.send(result))));
    outcome.recv().unwrap_or(Err(SliceError::Fenced))
}

fn format<B: Blocks>(blocks: &Arc<B>, options: &Options) -> Result<(), Stopped> {
    let mut first = vec![0; BLOCK_SIZE];
    blocks.read(BlockAddress(0), &mut first).map_err(StoreError::from)?;
    if first.iter().any(|&byte| byte != 0) {
        return Err(Stopped::Foreign);
    }
    let superblock = geometry(options).ok_or(Stopped::Foreign)?;
    // Somebody may have begun to make a file system here, and not come to the superblock.
    let tree = Run::new(superblock.tree_first, options.tree.1 - options.slice_blocks);
    blocks.discard(tree).map_err(StoreError::from)?;
    let data_first = superblock.data_first;
    let format = FormatOptions {
        data_first,
        capacity: options.blocks - data_first.0,
        slice_blocks: options.slice_blocks,
        root: (0, 0, Mode::new(0o755)),
        now: Clock::date(),
    };
    let record = format_volume(&MemoryTree::default(), &format)?;
    Ok(Store::format(blocks, &superblock, &record, options.cache_bytes)?)
}

/// Where everything goes in a new file system; `None` if the volume is too small for one.
fn geometry(options: &Options) -> Option<Superblock> {
    let (part, least, most) = JOURNAL;
    let journal = (options.blocks / part).clamp(least, most).min(options.slice_blocks - 1);
    let data_first = 1 + journal;
    let superblock = Superblock {
        tag: options.tag,
        slice_blocks: options.slice_blocks,
        journal: Run::new(BlockAddress(1), journal),
        data_first: BlockAddress(data_first),
        tree_first: BlockAddress(options.tree.0.next_multiple_of(options.slice_blocks)),
    };
    (superblock.is_sound() && data_first < options.blocks).then_some(superblock)
}

/// The volume may have grown.
fn grow<B: Blocks>(store: &mut Store<B>, options: &Options) -> Result<Record, Stopped> {
    let data_first = store.superblock().data_first.0;
    let mut transaction = Transaction::new(store, Context { now: Clock::date() });
    let has = transaction.statfs()?.blocks;
    let more = options.blocks.saturating_sub(data_first).saturating_sub(has);
    if more == 0 {
        return Ok(Record::default());
    }
    transaction.grow(more)?;
    let record = transaction.finish().record;
    store.apply(&record.changes)?;
    Ok(record)
}

fn slice_of(claim: &DataClaim, slice_blocks: u64) -> SliceIndex {
    SliceIndex(u32::try_from(claim.run.start.0 / slice_blocks).unwrap_or(u32::MAX))
}

/// Looks after what was committed and never reached its slice's disks: before anything is served.
fn recover<B: Blocks>(
    store: &mut Store<B>,
    slices: &dyn Slices,
    observer: &dyn Observer,
    slice_blocks: u64,
    claims: &[DataClaim],
) -> Result<Record, Stopped> {
    let mut recovery = Recovery::default();
    let short = short_slices(slices, slice_blocks, claims)?;
    let doubtful: Vec<DataClaim> = claims
        .iter()
        .filter(|claim| short.contains(&slice_of(claim, slice_blocks)))
        .cloned()
        .collect();
    for (claim, versions) in doubtful.iter().zip(versions(slices, &doubtful)?) {
        for (run, _) in versions.iter().filter(|(_, version)| *version < claim.versions.oldest) {
            recovery.is_older(claim, *run);
        }
    }
    let mut all = Record::default();
    loop {
        let mut transaction = Transaction::new(store, Context { now: Clock::date() });
        let lost = recovery.settle(&mut transaction)?;
        let record = transaction.finish().record;
        store.apply(&record.changes)?;
        all.changes.append(&record.changes);
        let Some(lost) = lost else { return Ok(all) };
        if let Some(write) = &lost.write {
            rewrite(slices, write)?;
        }
        observer.report(Report::Lost(lost));
    }
}

/// Puts bytes into a block, beside what it holds.
fn rewrite(slices: &dyn Slices, write: &BlockWrite) -> Result<(), Stopped> {
    let mut block = vec![0; BLOCK_SIZE];
    if write.base == Base::Present {
        let read = wait_for(|done| slices.read(vec![write.address], done))?;
        block = read.into_iter().next().filter(|b| b.len() == BLOCK_SIZE).unwrap_or(block);
    }
    block[write.offset..write.offset + write.bytes.len()].copy_from_slice(&write.bytes);
    wait_for(|done| slices.write(vec![(write.address, block)], done))?;
    Ok(())
}

/// The slices that lack something of what was claimed. A slice's log is cut at one place: whichever has
/// the newest that was claimed has everything that was.
fn short_slices(
    slices: &dyn Slices,
    slice_blocks: u64,
    claims: &[DataClaim],
) -> Result<BTreeSet<SliceIndex>, Stopped> {
    let mut newest: BTreeMap<SliceIndex, &DataClaim> = BTreeMap::new();
    for claim in claims {
        let newest = newest.entry(slice_of(claim, slice_blocks)).or_insert(claim);
        if claim.versions.newest > newest.versions.newest {
            *newest = claim;
        }
    }
    let claims: Vec<DataClaim> = newest.values().map(|claim| (*claim).clone()).collect();
    let has = versions(slices, &claims)?;
    let lacks = |(claim, has): &(&DataClaim, Vec<(Run, Version)>)| {
        has.iter().all(|(_, version)| *version < claim.versions.newest)
    };
    let short = claims.iter().zip(has).filter(lacks);
    Ok(short.map(|(claim, _)| slice_of(claim, slice_blocks)).collect())
}

/// Which versions the blocks of claims have.
fn versions(
    slices: &dyn Slices,
    claims: &[DataClaim],
) -> Result<Vec<Vec<(Run, Version)>>, Stopped> {
    let mut all = Vec::new();
    for some in claims.chunks(ASKED) {
        let (told, found) = channel();
        for (i, claim) in some.iter().enumerate() {
            let told = told.clone();
            // Nobody listens any more only if another has failed already.
            let done = move |versions| told.send((i, versions)).unwrap_or_default();
            slices.versions(claim.run, Box::new(done));
        }
        drop(told);
        let mut versions = vec![Vec::new(); some.len()];
        for (i, of) in found {
            versions[i] = of?;
        }
        all.append(&mut versions);
    }
    Ok(all)
}
