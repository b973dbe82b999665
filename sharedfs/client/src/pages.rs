//! Blocks of a file as this client has them: clean copies, and bytes that were accepted and are not
//! yet part of the file.

use std::collections::BTreeMap;

use mooring_sharedfs_core::FileBlock;
use mooring_terms::BLOCK_SIZE;

/// One block. Bytes behind the file's size are zeros.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) bytes: Vec<u8>,
    /// The number of the last write into it, if that is not committed.
    pub(crate) dirty: Option<u64>,
    /// On its way to the volume.
    pub(crate) writing: bool,
    /// A reserved block is promised to it.
    pub(crate) promised: bool,
}

/// A file's pages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pages {
    pages: BTreeMap<FileBlock, Page>,
    dirty: usize,
    /// How many have a promise. Asked for with every look at the file.
    promised: u64,
}

impl Pages {
    pub(crate) fn len(&self) -> usize {
        self.pages.len()
    }

    pub(crate) fn dirty(&self) -> usize {
        self.dirty
    }

    pub(crate) fn get(&self, block: FileBlock) -> Option<&Page> {
        self.pages.get(&block)
    }

    /// A clean copy, unless there is a page already.
    pub(crate) fn load(&mut self, block: FileBlock, mut bytes: Vec<u8>) {
        bytes.resize(BLOCK_SIZE, 0);
        let page = Page { bytes, dirty: None, writing: false, promised: false };
        self.pages.entry(block).or_insert(page);
    }

    /// Puts bytes into a block, which begins as zeros if it isn't there. Says whether it lacked a
    /// promise, which it has from now on if `promise`.
    pub(crate) fn write(
        &mut self,
        block: FileBlock,
        at: usize,
        bytes: &[u8],
        number: u64,
        promise: bool,
    ) -> bool {
        self.load(block, Vec::new());
        let Some(page) = self.pages.get_mut(&block) else { return false };
        page.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        if page.dirty.is_none() {
            self.dirty += 1;
        }
        page.dirty = Some(number);
        let lacked = promise && !page.promised;
        page.promised |= promise;
        self.promised += u64::from(lacked);
        lacked
    }

    pub(crate) fn dirty_blocks(&self) -> Vec<FileBlock> {
        let dirty = self.pages.iter().filter(|(_, page)| page.dirty.is_some());
        dirty.map(|(&block, _)| block).collect()
    }

    pub(crate) fn promised(&self) -> u64 {
        self.promised
    }

    /// A page goes to the volume; its promise is kept by whoever takes a block for it.
    pub(crate) fn begin(&mut self, block: FileBlock, keep_promise: bool) {
        if let Some(page) = self.pages.get_mut(&block) {
            page.writing = true;
            if !keep_promise {
                self.promised -= u64::from(std::mem::take(&mut page.promised));
            }
        }
    }

    /// A page's promise is used for something else.
    pub(crate) fn unpromise(&mut self, block: FileBlock) {
        if let Some(page) = self.pages.get_mut(&block) {
            self.promised -= u64::from(std::mem::take(&mut page.promised));
        }
    }

    /// What was begun is part of the file, as far as it was not written again. How many promises are
    /// not needed any more.
    pub(crate) fn committed(&mut self, up_to: u64) -> u64 {
        let mut freed = 0;
        for page in self.pages.values_mut().filter(|page| page.writing) {
            page.writing = false;
            if page.dirty.is_some_and(|number| number <= up_to) {
                page.dirty = None;
                self.dirty -= 1;
                freed += u64::from(std::mem::take(&mut page.promised));
            }
        }
        self.promised -= freed;
        freed
    }

    /// Forgets a page, whatever it holds.
    pub(crate) fn lose(&mut self, block: FileBlock) {
        if let Some(page) = self.pages.remove(&block) {
            self.dirty -= usize::from(page.dirty.is_some());
            self.promised -= u64::from(page.promised);
        }
    }

    /// What was begun failed: it is gone. How many promises are not needed any more.
    pub(crate) fn failed(&mut self, up_to: u64) -> u64 {
        let mut freed = 0;
        self.pages.retain(|_, page| {
            let gone = page.writing && page.dirty.is_some_and(|number| number <= up_to);
            page.writing = false;
            freed += u64::from(gone && page.promised);
            !gone
        });
        self.promised -= freed;
        self.dirty = self.pages.values().filter(|page| page.dirty.is_some()).count();
        freed
    }

    /// Forgets what is not dirty.
    pub(crate) fn drop_clean(&mut self) {
        self.pages.retain(|_, page| page.dirty.is_some());
        self.promised = self.pages.values().filter(|page| page.promised).count() as u64;
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.pages.clear();
        (self.dirty, self.promised) = (0, 0);
    }

    /// Panics if it has miscounted.
    pub(crate) fn check(&self) {
        let promised = self.pages.values().filter(|page| page.promised).count() as u64;
        let dirty = self.pages.values().filter(|page| page.dirty.is_some()).count();
        assert_eq!((promised, dirty), (self.promised, self.dirty), "pages are miscounted");
    }
}
