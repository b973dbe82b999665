//! Blocks of a file as this client has them: clean copies, and bytes that were accepted and are not
//! yet part of the file.
//!
//! Bytes that come many blocks at a time, from a program or from the volume, stay where they are: pages
//! share them, and those that lie beside each other go on together. Pages of small ones have their own.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mooring_sharedfs_core::FileBlock;
use mooring_terms::BLOCK_SIZE;

/// From this many bytes on pages share what they come in: what is left of it, once others are
/// overwritten, is small beside what copying would cost.
pub(crate) const SHARED: usize = 256 << 10;

static ZEROS: [u8; BLOCK_SIZE] = [0; BLOCK_SIZE];

/// One block. Bytes behind the file's size are zeros.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// What holds its bytes, and where in it.
    whole: Bytes,
    at: usize,
    /// The number of the last write into it, if that is not committed.
    pub(crate) dirty: Option<u64>,
    /// The number of the first write into it that is in no round.
    first: u64,
    /// On its way to the volume.
    pub(crate) writing: bool,
    /// A reserved block is promised to it.
    pub(crate) promised: bool,
}

impl Page {
    fn clean(whole: Bytes, at: usize) -> Self {
        Self { whole, at, dirty: None, first: 0, writing: false, promised: false }
    }

    /// Its bytes: a block of them.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.whole[self.at..self.at + BLOCK_SIZE]
    }

    /// Puts bytes into it.
    fn patch(&mut self, at: usize, part: &[u8]) {
        let own = self.at == 0 && self.whole.len() == BLOCK_SIZE;
        let whole = std::mem::take(&mut self.whole);
        let unshared = if own { whole.try_into_mut() } else { Err(whole) };
        self.whole = match unshared {
            Ok(mut bytes) => {
                bytes[at..at + part.len()].copy_from_slice(part);
                bytes.freeze()
            }
            Err(whole) => {
                let mut bytes = whole[self.at..self.at + BLOCK_SIZE].to_vec();
                bytes[at..at + part.len()].copy_from_slice(part);
                self.at = 0;
                bytes.into()
            }
        };
    }
}

/// Bytes of blocks that lie beside each other in memory, as far as they do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pieces {
    done: Vec<Bytes>,
    last: Option<(Bytes, usize, usize)>,
}

impl Pieces {
    /// Whether a page lies behind the last one in the same memory.
    fn goes_on(&self, page: &Page, from: usize) -> bool {
        self.last.as_ref().is_some_and(|(whole, _, end)| {
            whole.as_ptr() == page.whole.as_ptr()
                && whole.len() == page.whole.len()
                && *end == page.at + from
        })
    }

    /// The bytes `from..to` of a page.
    pub(crate) fn push(&mut self, page: &Page, from: usize, to: usize) {
        if self.goes_on(page, from) {
            if let Some((_, _, end)) = &mut self.last {
                *end = page.at + to;
            }
            return;
        }
        self.end();
        self.last = Some((page.whole.clone(), page.at + from, page.at + to));
    }

    /// Zeros, at most a block.
    pub(crate) fn zeros(&mut self, count: usize) {
        self.end();
        self.done.push(Bytes::from_static(&ZEROS[..count]));
    }

    fn end(&mut self) {
        if let Some((whole, from, to)) = self.last.take() {
            self.done.push(whole.slice(from..to));
        }
    }

    /// All of them, in order.
    pub(crate) fn finish(mut self) -> Vec<Bytes> {
        self.end();
        self.done
    }
}

/// A file's pages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pages {
    pages: BTreeMap<FileBlock, Page>,
    dirty: usize,
    /// Those that were written since their last round began, or in none.
    unwritten: BTreeSet<FileBlock>,
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

    /// A clean copy, unless there is a page already: a block of `whole`, from byte `at` on.
    pub(crate) fn load(&mut self, block: FileBlock, whole: Bytes, at: usize) {
        self.pages.entry(block).or_insert_with(|| Page::clean(whole, at));
    }

    /// The same, of a block of which only the first bytes are not zeros.
    pub(crate) fn load_part(&mut self, block: FileBlock, bytes: &[u8]) {
        let mut whole = bytes.to_vec();
        whole.resize(BLOCK_SIZE, 0);
        self.load(block, whole.into(), 0);
    }

    /// Puts the bytes `from..to` of `source` into a block, at byte `at` of it, which begins as zeros if it
    /// isn't there. Says whether it lacked a promise, which it has from now on if `promise`.
    pub(crate) fn write(
        &mut self,
        block: FileBlock,
        at: usize,
        (source, from, to): (&Bytes, usize, usize),
        number: u64,
        promise: bool,
    ) -> bool {
        let page = self.pages.entry(block).or_insert_with(|| {
            let zeros = Bytes::from_static(&ZEROS);
            Page::clean(zeros, 0)
        });
        let shared = source.len() >= SHARED || source.len() == BLOCK_SIZE;
        if to - from == BLOCK_SIZE && shared {
            (page.whole, page.at) = (source.clone(), from);
        } else if from < to {
            page.patch(at, &source[from..to]);
        }
        if page.dirty.is_none() {
            self.dirty += 1;
        }
        page.dirty = Some(number);
        if self.unwritten.insert(block) {
            page.first = number;
        }
        let lacked = promise && !page.promised;
        page.promised |= promise;
        self.promised += u64::from(lacked);
        lacked
    }

    /// How many pages could be taken into a round.
    pub(crate) fn unwritten(&self) -> usize {
        self.unwritten.len()
    }

    /// Whether a page could be taken into a round.
    pub(crate) fn is_unwritten(&self, block: FileBlock) -> bool {
        self.unwritten.contains(&block)
    }

    /// Takes all that are dirty into a round, but for those that are on their way, which were written
    /// once more, and one that is to be left: the number of the first such write is returned, too.
    pub(crate) fn take_unwritten(
        &mut self,
        leave: Option<FileBlock>,
    ) -> (Vec<FileBlock>, Option<u64>) {
        let (mut taken, mut first) = (Vec::with_capacity(self.unwritten.len()), None);
        let pages = &self.pages;
        self.unwritten.retain(|block| match pages.get(block) {
            Some(page) if page.writing || leave == Some(*block) => {
                first = Some(first.map_or(page.first, |before: u64| before.min(page.first)));
                true
            }
            _ => {
                taken.push(*block);
                false
            }
        });
        (taken, first)
    }

    /// These don't go into a round after all.
    pub(crate) fn put_back(&mut self, blocks: Vec<FileBlock>) {
        self.unwritten.extend(blocks);
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

    /// What was begun with these blocks is part of the file, as far as it was not written again. Pages that
    /// share what they came in are forgotten then, unless an older copy of the block is being read, which
    /// would take the place. How many promises are not needed any more.
    pub(crate) fn committed(&mut self, blocks: &[FileBlock], loading: &BTreeSet<FileBlock>) -> u64 {
        let mut freed = 0;
        for block in blocks {
            let Some(page) = self.pages.get_mut(block) else { continue };
            page.writing = false;
            if self.unwritten.contains(block) {
                continue;
            }
            self.dirty -= usize::from(page.dirty.take().is_some());
            freed += u64::from(std::mem::take(&mut page.promised));
            if page.whole.len() >= SHARED && !loading.contains(block) {
                self.pages.remove(block);
            }
        }
        self.promised -= freed;
        freed
    }

    /// Forgets a page, whatever it holds.
    pub(crate) fn lose(&mut self, block: FileBlock) {
        self.unwritten.remove(&block);
        if let Some(page) = self.pages.remove(&block) {
            self.dirty -= usize::from(page.dirty.is_some());
            self.promised -= u64::from(page.promised);
        }
    }

    /// What was begun with these blocks failed: it is gone, but for what was written again. How many
    /// promises are not needed any more.
    pub(crate) fn failed(&mut self, blocks: &[FileBlock]) -> u64 {
        let mut freed = 0;
        for block in blocks {
            let Some(page) = self.pages.get_mut(block) else { continue };
            page.writing = false;
            if self.unwritten.contains(block) {
                continue;
            }
            freed += u64::from(page.promised);
            self.lose(*block);
        }
        freed
    }

    /// Forgets what is not dirty.
    pub(crate) fn drop_clean(&mut self) {
        self.pages.retain(|_, page| page.dirty.is_some());
        self.promised = self.pages.values().filter(|page| page.promised).count() as u64;
    }

    /// Forgets these blocks, as far as they are not dirty, and no older copies of them are being read.
    pub(crate) fn drop_clean_of(
        &mut self,
        from: FileBlock,
        count: u64,
        loading: &BTreeSet<FileBlock>,
    ) {
        let clean: Vec<FileBlock> = self
            .pages
            .range(from..from.plus(count))
            .filter(|(block, page)| page.dirty.is_none() && !loading.contains(*block))
            .map(|(&block, _)| block)
            .collect();
        for block in clean {
            self.lose(block);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.pages.clear();
        self.unwritten.clear();
        (self.dirty, self.promised) = (0, 0);
    }

    /// Panics if it has miscounted.
    pub(crate) fn check(&self) {
        let promised = self.pages.values().filter(|page| page.promised).count() as u64;
        let dirty = self.pages.values().filter(|page| page.dirty.is_some()).count();
        assert_eq!((promised, dirty), (self.promised, self.dirty), "pages are miscounted");
        for (block, page) in &self.pages {
            let unwritten = self.unwritten.contains(block);
            assert!(
                page.dirty.is_some() == (unwritten || page.writing),
                "{block:?} is dirty, and nobody writes it back"
            );
        }
        assert!(self.unwritten.iter().all(|block| self.pages.contains_key(block)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(count: usize, byte: u8) -> Bytes {
        vec![byte; count * BLOCK_SIZE].into()
    }

    fn write(pages: &mut Pages, block: u64, source: &Bytes, number: u64) {
        for i in 0..source.len() / BLOCK_SIZE {
            let (from, to) = (i * BLOCK_SIZE, (i + 1) * BLOCK_SIZE);
            pages.write(FileBlock(block + i as u64), 0, (source, from, to), number, false);
        }
        pages.check();
    }

    #[test]
    fn bytes_that_came_together_go_on_together_without_a_copy() {
        let mut pages = Pages::default();
        let (long, short) = (blocks(64, 1), blocks(1, 2));
        write(&mut pages, 0, &long, 1);
        write(&mut pages, 64, &short, 2);
        pages.write(FileBlock(3), 100, (&Bytes::from_static(b"x"), 0, 1), 3, false);
        let mut pieces = Pieces::default();
        for block in 0..65 {
            pieces.push(pages.get(FileBlock(block)).unwrap(), 0, BLOCK_SIZE);
        }
        let pieces = pieces.finish();
        let lengths: Vec<usize> = pieces.iter().map(|piece| piece.len() / BLOCK_SIZE).collect();
        assert_eq!(lengths, [3, 1, 60, 1]);
        assert_eq!(pieces[0].as_ptr(), long.as_ptr());
        assert_eq!((pieces[1][99], pieces[1][100]), (1, b'x'));
        assert_eq!(long[3 * BLOCK_SIZE + 100], 1, "who gave the bytes still has them");
    }

    #[test]
    fn an_older_copy_that_is_still_being_read_never_takes_the_place_of_what_was_written() {
        let mut pages = Pages::default();
        let loading = BTreeSet::from([FileBlock(3), FileBlock(70)]);
        write(&mut pages, 0, &blocks(64, 2), 1);
        write(&mut pages, 70, &blocks(1, 2), 2);
        let (round, _) = pages.take_unwritten(None);
        round.iter().for_each(|&block| pages.begin(block, false));
        pages.committed(&round, &loading);
        pages.drop_clean_of(FileBlock(0), 100, &loading);
        assert!(pages.get(FileBlock(2)).is_none());
        for block in loading {
            pages.load(block, blocks(1, 1), 0);
            assert_eq!(pages.get(block).unwrap().bytes()[0], 2);
        }
        pages.check();
    }

    #[test]
    fn a_page_on_its_way_that_is_written_again_waits_for_the_next_round() {
        let mut pages = Pages::default();
        write(&mut pages, 0, &blocks(2, 1), 1);
        let (first, none) = pages.take_unwritten(None);
        assert_eq!((first.len(), none), (2, None));
        first.iter().for_each(|&block| pages.begin(block, false));
        pages.check();
        write(&mut pages, 1, &blocks(2, 2), 2);
        write(&mut pages, 1, &blocks(1, 3), 3);
        let (second, waits) = pages.take_unwritten(None);
        assert_eq!((second, waits), (vec![FileBlock(2)], Some(2)));
        pages.begin(FileBlock(2), false);
        pages.committed(&first, &BTreeSet::new());
        pages.check();
        assert_eq!(pages.dirty(), 2, "what was written again is not in the file");
        let (third, none) = pages.take_unwritten(None);
        assert_eq!((third, none), (vec![FileBlock(1)], None));
    }
}
