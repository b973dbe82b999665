//! A model of the kernel of one host: what it caches and for how long, and the locks that a request
//! holds while it waits.
//!
//! - names and attributes are kept for as long as they were given, on the host's own clock, even if the
//!   mount's process is stopped; an answer to a question older than an invalidation is not kept;
//! - a read through the page cache first wants attributes; if size or date differ, its pages go;
//! - a page is locked while it is being read in or written back; an invalidation writes what is dirty, and
//!   waits for locked pages;
//! - a directory is locked while something is made or removed in it, and a file while it is written.

use std::collections::{BTreeMap, BTreeSet};

use mooring_sharedfs_client::{Entry, InvalidationNumber};
use mooring_sharedfs_core::{Attributes, FileBlock, Ino};
use mooring_terms::Time;

/// A store into a page that is not yet written back: whose, and how much of the page is the file's.
#[derive(Clone, Copy, Debug)]
pub struct Dirty {
    pub program: usize,
    pub call: u64,
    pub length: usize,
}

/// The caches and locks.
#[derive(Default)]
pub struct Kernel {
    attributes: BTreeMap<Ino, (Attributes, Time)>,
    names: BTreeMap<u8, (Option<Ino>, Time, u64)>,
    epoch: u64,
    /// Raised by every invalidation of an inode's attributes.
    versions: BTreeMap<Ino, u64>,
    pub pages: BTreeMap<(Ino, FileBlock), Vec<u8>>,
    pub folios: BTreeSet<(Ino, FileBlock)>,
    /// Stores into pages since these were last written,
    pub dirty: BTreeMap<(Ino, FileBlock), Vec<Dirty>>,
    /// and those that are being written.
    writing: BTreeMap<(Ino, FileBlock), Vec<Dirty>>,
    pub locked: BTreeMap<Ino, usize>,
    /// Invalidations that wait for pages.
    pub waiting: Vec<(InvalidationNumber, Ino)>,
}

impl Kernel {
    pub fn name(&self, now: Time, name: u8) -> Option<Option<Ino>> {
        let &(ino, until, epoch) = self.names.get(&name)?;
        (now < until && epoch == self.epoch).then_some(ino)
    }

    /// What a question about names has to remember.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub fn version(&self, ino: Ino) -> u64 {
        self.versions.get(&ino).copied().unwrap_or(0)
    }

    pub fn keep_name(&mut self, name: u8, ino: Option<Ino>, until: Time, asked_at: u64) {
        self.names.insert(name, (ino, until, asked_at));
    }

    pub fn forget_name(&mut self, name: u8) {
        self.names.remove(&name);
    }

    pub fn attributes(&self, now: Time, ino: Ino) -> Option<Attributes> {
        let &(attributes, until) = self.attributes.get(&ino)?;
        (now < until).then_some(attributes)
    }

    /// Attributes come: pages of an older state go, as far as size and date tell.
    pub fn keep_attributes(&mut self, attributes: Attributes, until: Time, asked_at: u64) {
        let ino = attributes.ino;
        if asked_at != self.version(ino) {
            return;
        }
        if let Some((before, _)) = self.attributes.get(&ino)
            && (before.mtime, before.size) != (attributes.mtime, attributes.size)
        {
            self.drop_pages(ino);
        }
        self.attributes.insert(ino, (attributes, until));
    }

    pub fn keep_entry(&mut self, now: Time, name: u8, entry: &Entry, epoch: u64) {
        let ino = entry.attributes.ino;
        self.keep_name(name, Some(ino), now + entry.entry_time, epoch);
        let version = self.version(ino);
        self.keep_attributes(entry.attributes, now + entry.attr_time, version);
    }

    /// A change of the host itself: its attributes are asked for anew.
    pub fn stale_attributes(&mut self, ino: Ino) {
        if let Some((_, until)) = self.attributes.get_mut(&ino) {
            *until = Time::ZERO;
        }
        *self.versions.entry(ino).or_default() += 1;
    }

    /// What is dirty stays until it is written.
    pub fn drop_pages(&mut self, ino: Ino) {
        let (folios, dirty, writing) = (&self.folios, &self.dirty, &self.writing);
        let stays = |page: &(Ino, FileBlock)| {
            folios.contains(page) || dirty.contains_key(page) || writing.contains_key(page)
        };
        self.pages.retain(|page, _| page.0 != ino || stays(page));
    }

    /// Whether a page is being read or written.
    pub fn is_locked(&self, ino: Ino, block: FileBlock) -> bool {
        self.folios.contains(&(ino, block)) || self.writing.contains_key(&(ino, block))
    }

    /// Whether anything of an inode is still to be written back.
    pub fn is_dirty(&self, ino: Ino) -> bool {
        self.dirty.keys().chain(self.writing.keys()).any(|&(of, _)| of == ino)
    }

    /// What of an inode is dirty is being written from now on, as far as it is the file's.
    pub fn begin_writing(&mut self, ino: Ino) -> Vec<(FileBlock, Vec<u8>)> {
        let mut begun = Vec::new();
        let free = |block: &FileBlock| !self.writing.contains_key(&(ino, *block));
        let dirty = self.dirty.keys().filter(|page| page.0 == ino).map(|page| page.1);
        let blocks: Vec<FileBlock> = dirty.filter(free).collect();
        for block in blocks {
            let stores = self.dirty.remove(&(ino, block)).unwrap_or_default();
            let length = stores.last().map_or(0, |last| last.length);
            if let Some(page) = self.pages.get(&(ino, block)) {
                begun.push((block, page[..length].to_vec()));
            }
            self.writing.insert((ino, block), stores);
        }
        begun
    }

    /// A page is written; the stores that are in it.
    pub fn end_writing(&mut self, ino: Ino, block: FileBlock) -> Vec<Dirty> {
        self.writing.remove(&(ino, block)).unwrap_or_default()
    }

    pub fn raise_epoch(&mut self) {
        self.epoch += 1;
    }

    /// Whether an invalidation of an inode's pages has to wait.
    pub fn is_busy(&self, ino: Ino) -> bool {
        self.folios.iter().any(|&(of, _)| of == ino) || self.is_dirty(ino)
    }

    /// Invalidations that can end by now.
    pub fn ready(&mut self) -> Vec<(InvalidationNumber, Ino)> {
        let waiting = std::mem::take(&mut self.waiting);
        let (still, ready) = waiting.into_iter().partition(|&(_, ino)| self.is_busy(ino));
        self.waiting = still;
        ready
    }
}
