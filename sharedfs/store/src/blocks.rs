//! The volume as the store needs it, and its twin in memory.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::sync::Mutex;

use mooring_sharedfs_core::{BlockAddress, Run};
use mooring_terms::BLOCK_SIZE;

/// Blocks of 4 KiB that can be read and written. What was never written is zeros.
pub trait Blocks: Debug + Send + Sync + 'static {
    /// Reads blocks from `first` on; `out` is a number of whole blocks.
    ///
    /// # Errors
    /// The volume is fenced, or a block is corrupt on every replica.
    fn read(&self, first: BlockAddress, out: &mut [u8]) -> io::Result<()>;

    /// Writes whole blocks from `first` on. When it returns every in-sync replica has them.
    ///
    /// # Errors
    /// The volume is fenced.
    fn write(&self, first: BlockAddress, bytes: &[u8]) -> io::Result<()>;

    /// Makes zeros of blocks.
    ///
    /// # Errors
    /// The volume is fenced.
    fn discard(&self, run: Run) -> io::Result<()>;

    /// When it returns, every write that had returned is on media on every in-sync replica.
    ///
    /// # Errors
    /// The volume is fenced, or writes were lost with a power cut.
    fn flush(&self) -> io::Result<()>;
}

/// Blocks in memory that can be stopped in the middle of things: after a given number of writes and
/// flushes everything fails, as for a coordinator that is dead; and what was not flushed can be
/// lost, as in a power cut.
#[derive(Debug)]
pub struct MemoryBlocks {
    inner: Mutex<Inner>,
}

#[derive(Clone, Debug)]
struct Inner {
    slice_blocks: u64,
    flushed: BTreeMap<u64, Vec<u8>>,
    /// Writes since the last flush, in order; `None` is zeros.
    fresh: Vec<(u64, Option<Vec<u8>>)>,
    /// How many more writes and flushes succeed.
    left: Option<u64>,
    done: u64,
}

impl MemoryBlocks {
    /// Empty blocks, in slices of `slice_blocks`.
    #[must_use]
    pub fn new(slice_blocks: u64) -> Self {
        let (flushed, fresh) = (BTreeMap::new(), Vec::new());
        Self { inner: Mutex::new(Inner { slice_blocks, flushed, fresh, left: None, done: 0 }) }
    }

    /// Fails everything after `left` more writes and flushes.
    pub fn stop_after(&self, left: u64) {
        self.lock().left = Some(left);
    }

    /// How many writes and flushes there were.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.lock().done
    }

    /// What another coordinator finds: everything whose write had returned.
    #[must_use]
    pub fn after_crash(&self) -> Self {
        Self { inner: Mutex::new(Inner { left: None, ..self.lock().clone() }) }
    }

    /// What is found after a power cut: in every slice what was flushed, and of the rest the first
    /// few writes, as many as `kept` says for the slice (of how many there are).
    #[must_use]
    pub fn after_power_cut(&self, mut kept: impl FnMut(u64, usize) -> usize) -> Self {
        let mut inner = Inner { left: None, ..self.lock().clone() };
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        for (block, _) in &inner.fresh {
            *counts.entry(block / inner.slice_blocks).or_default() += 1;
        }
        for (slice, count) in &mut counts {
            *count = kept(*slice, *count);
        }
        for (block, bytes) in std::mem::take(&mut inner.fresh) {
            let left = counts.entry(block / inner.slice_blocks).or_default();
            if *left > 0 {
                *left -= 1;
                inner.put(block, bytes);
            }
        }
        Self { inner: Mutex::new(inner) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Inner {
    fn step(&mut self) -> io::Result<()> {
        self.done += 1;
        match &mut self.left {
            Some(0) => Err(io::Error::other("stopped")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn put(&mut self, block: u64, bytes: Option<Vec<u8>>) {
        match bytes {
            Some(bytes) => drop(self.flushed.insert(block, bytes)),
            None => drop(self.flushed.remove(&block)),
        }
    }

    fn get(&self, block: u64) -> Option<&[u8]> {
        let fresh = self.fresh.iter().rev().find(|(written, _)| *written == block);
        match fresh {
            Some((_, bytes)) => bytes.as_deref(),
            None => self.flushed.get(&block).map(Vec::as_slice),
        }
    }
}

impl Blocks for MemoryBlocks {
    fn read(&self, first: BlockAddress, out: &mut [u8]) -> io::Result<()> {
        let inner = self.lock();
        if inner.left == Some(0) {
            return Err(io::Error::other("stopped"));
        }
        for (i, part) in out.chunks_exact_mut(BLOCK_SIZE).enumerate() {
            match inner.get(first.0 + i as u64) {
                Some(bytes) => part.copy_from_slice(bytes),
                None => part.fill(0),
            }
        }
        Ok(())
    }

    fn write(&self, first: BlockAddress, bytes: &[u8]) -> io::Result<()> {
        assert!(bytes.len().is_multiple_of(BLOCK_SIZE), "whole blocks");
        let mut inner = self.lock();
        // Each block is a step of its own: a large write can be torn between blocks.
        for (i, part) in bytes.chunks_exact(BLOCK_SIZE).enumerate() {
            inner.step()?;
            inner.fresh.push((first.0 + i as u64, Some(part.to_vec())));
        }
        Ok(())
    }

    fn discard(&self, run: Run) -> io::Result<()> {
        let mut inner = self.lock();
        inner.step()?;
        let written: Vec<u64> = inner.flushed.keys().copied().collect();
        let fresh: Vec<u64> = inner.fresh.iter().map(|(block, _)| *block).collect();
        for block in written.into_iter().chain(fresh) {
            if (run.start.0..run.end().0).contains(&block) {
                inner.fresh.push((block, None));
            }
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.step()?;
        for (block, bytes) in std::mem::take(&mut inner.fresh) {
            inner.put(block, bytes);
        }
        Ok(())
    }
}
