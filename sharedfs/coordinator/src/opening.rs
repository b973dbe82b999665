//! Taking a volume over: made if it is empty, replayed, and true again after a power cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::channel;

use mooring_sharedfs_core::file::{Base, BlockWrite, Lost, Recovery};
use mooring_sharedfs_core::format::{DataClaim, Otherwise, Record, Superblock};
use mooring_sharedfs_core::ops::{FormatOptions, format_volume};
use mooring_sharedfs_core::tree::{MemoryTree, TreeStore};
use mooring_sharedfs_core::{BlockAddress, Context, Damage, FsError, Ino, Mode, Run, Transaction};
use mooring_sharedfs_store::{Blocks, Opened, Room, Store, StoreError};
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

/// A file system that is open.
pub(crate) struct Ready<B> {
    pub(crate) store: Store<B>,
    /// How many batches of the journal were replayed.
    pub(crate) replayed: u64,
    /// The slices that records in the journal claim data of: to be flushed before the first checkpoint.
    pub(crate) claimed: BTreeSet<SliceIndex>,
    /// Files that are not as they were committed.
    pub(crate) lost: BTreeSet<Ino>,
}

/// Opens the file system, makes one first if there is none.
pub(crate) fn open<B: Blocks>(
    blocks: &Arc<B>,
    slices: &dyn Slices,
    observer: &dyn Observer,
    options: &Options,
) -> Result<Ready<B>, Stopped> {
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
    let mut claimed: BTreeSet<SliceIndex> =
        claims.iter().map(|claim| slice_of(claim, slice_blocks)).collect();
    let lost = recover(&mut store, slices, observer, slice_blocks, &claims)?;
    let grown = grow(&mut store, options)?;
    if !lost.is_empty() || store.room(grown.bytes()) != Room::Enough {
        // Without a record: however much it is, the next one finds all of it or the claims once more.
        claimed.insert(SliceIndex(0));
        wait_for(|done| slices.flush(Some(claimed.clone()), done))?;
        store.checkpoint_applied()?;
        claimed.clear();
    } else if !grown.changes.is_empty() {
        store.write(&[grown])?;
        store.flush()?;
    }
    Ok(Ready { store, replayed, claimed, lost })
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
    let superblock = geometry(options).ok_or(Stopped::TooSmall)?;
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

/// Where everything goes in a new file system; `None` if the volume or a slice is too small for one.
fn geometry(options: &Options) -> Option<Superblock> {
    let (part, least, most) = JOURNAL;
    let journal = (options.blocks / part).clamp(least, most).min(options.slice_blocks - 1);
    if journal < least {
        return None;
    }
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

/// Looks after what was committed and never reached its slice's disks: before anything is served. Gives the
/// files that it concerns; nothing of it is durable yet. Interrupted, it is begun again: what was written by then is
/// newer than was claimed, and every other claim is looked at as if nothing had been done.
fn recover<B: Blocks>(
    store: &mut Store<B>,
    slices: &dyn Slices,
    observer: &dyn Observer,
    slice_blocks: u64,
    claims: &[DataClaim],
) -> Result<BTreeSet<Ino>, Stopped> {
    let mut recovery = Recovery::default();
    let doubtful = doubtful(slices, slice_blocks, claims)?;
    let mut files = BTreeSet::new();
    for (claim, versions) in doubtful.iter().zip(versions(slices, &doubtful)?) {
        let tail_lost = slices.tail_lost(slice_of(claim, slice_blocks));
        for (run, version) in versions {
            if version < claim.versions.oldest {
                recovery.is_older(claim, run);
            } else if version.epoch >= tail_lost {
                // Nobody else writes before this is over: a recovery that was interrupted has.
                files.insert(claim.ino);
            }
        }
    }
    loop {
        let mut transaction = Transaction::new(store, Context { now: Clock::date() });
        let lost = match recovery.settle(&mut transaction) {
            Ok(Some(lost)) => lost,
            Ok(None) => return Ok(files),
            // Whoever needs it gets an error. The rest must be put right all the same.
            Err(FsError::Damaged(damage)) => {
                observer.report(Report::Damaged(damage));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let record = transaction.finish().record;
        store.apply(&record.changes)?;
        files.insert(lost.ino);
        put_right(store, slices, observer, lost)?;
    }
}

/// Writes what is to be written in the place of something lost, and reports it. What can't be written is
/// reported too, and doesn't keep the rest of the volume from being served.
fn put_right<B: Blocks>(
    store: &mut Store<B>,
    slices: &dyn Slices,
    observer: &dyn Observer,
    lost: Lost,
) -> Result<(), Stopped> {
    let Some(write) = &lost.write else {
        observer.report(Report::Lost(lost));
        return Ok(());
    };
    match rewrite(slices, write) {
        Ok(()) => observer.report(Report::Lost(lost)),
        // Reading it is an error, so that nothing of it is seen.
        Err(SliceError::Damaged(block)) => observer.report(Report::Damaged(Damage::Block(block))),
        // Beside what it gave up, the block holds bytes that must not be lost.
        Err(SliceError::NoSpace) if write.base == Base::Present => {
            observer.report(Report::NotMended(lost));
        }
        Err(SliceError::NoSpace) => {
            let mut transaction = Transaction::new(store, Context { now: Clock::date() });
            Recovery::leave_out(&mut transaction, &lost)?;
            let record = transaction.finish().record;
            store.apply(&record.changes)?;
            observer.report(Report::Lost(Lost { write: None, ..lost }));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Puts bytes into a block, beside what it holds.
fn rewrite(slices: &dyn Slices, write: &BlockWrite) -> Result<(), SliceError> {
    let mut block = vec![0; BLOCK_SIZE];
    if write.base == Base::Present {
        let read = wait_for(|done| slices.read(vec![write.address], done))?;
        block = read.into_iter().next().filter(|b| b.len() == BLOCK_SIZE).unwrap_or(block);
    }
    block[write.offset..write.offset + write.bytes.len()].copy_from_slice(&write.bytes);
    wait_for(|done| slices.write(vec![(write.address, block)], done))?;
    Ok(())
}

/// The claims that may be untrue: those of data written before its slice last began an epoch without all
/// that was acknowledged. An ordinary failover asks each slice one question, which makes sure of that epoch.
fn doubtful(
    slices: &dyn Slices,
    slice_blocks: u64,
    claims: &[DataClaim],
) -> Result<Vec<DataClaim>, Stopped> {
    let one_each: BTreeMap<SliceIndex, &DataClaim> =
        claims.iter().map(|claim| (slice_of(claim, slice_blocks), claim)).collect();
    let asked: Vec<DataClaim> = one_each
        .values()
        .map(|claim| DataClaim { run: Run::new(claim.run.start, 1), ..(*claim).clone() })
        .collect();
    versions(slices, &asked)?;
    let is_doubtful = |claim: &&DataClaim| {
        claim.versions.oldest.epoch < slices.tail_lost(slice_of(claim, slice_blocks))
    };
    Ok(claims.iter().filter(is_doubtful).cloned().collect())
}

/// A claim, as one for each of its blocks.
fn blocks_of(claim: &DataClaim) -> Vec<DataClaim> {
    let one = |i| DataClaim { run: Run::new(claim.run.start.plus(i), 1), ..claim.clone() };
    (0..claim.run.count).map(one).collect()
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
        let mut these = vec![Vec::new(); some.len()];
        for (i, of) in found {
            these[i] = match of {
                // One block may stand for all that were asked about: the others are asked by themselves.
                Err(SliceError::Damaged(_)) if some[i].run.count > 1 => {
                    versions(slices, &blocks_of(&some[i]))?.concat()
                }
                // Reading it is an error, and stays one.
                Err(SliceError::Damaged(_)) if some[i].otherwise == Otherwise::Hole => Vec::new(),
                // It is no older than this: what it must hold is known.
                Err(SliceError::Damaged(_)) => vec![(some[i].run, Version::ZERO)],
                of => of?,
            };
        }
        all.append(&mut these);
    }
    Ok(all)
}
