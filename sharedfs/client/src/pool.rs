//! Blocks that are reserved for this session: what accepted bytes are promised.

use mooring_sharedfs_core::{BlockAddress, Run};

/// Reserved blocks that hold nothing yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool {
    /// And whether blocks of a run were taken already.
    runs: Vec<(Run, bool)>,
    promised: u64,
    /// Whether more were asked for.
    pub(crate) asked: bool,
    /// There are no more, for those who wait for them now.
    pub(crate) refused: bool,
}

impl Pool {
    fn count(&self) -> u64 {
        self.runs.iter().map(|(run, _)| run.count).sum()
    }

    /// How many blocks can still be promised.
    pub(crate) fn available(&self) -> u64 {
        self.count() - self.promised
    }

    pub(crate) fn add(&mut self, runs: Vec<Run>) {
        let new = runs.into_iter().filter(|run| run.count > 0).map(|run| (run, false));
        self.runs.extend(new);
    }

    /// Where to look for more.
    pub(crate) fn near(&self) -> BlockAddress {
        self.runs.last().map_or(BlockAddress(0), |(run, _)| run.end())
    }

    /// Promises a block to bytes that are accepted.
    pub(crate) fn promise(&mut self, count: u64) {
        self.promised += count;
        debug_assert!(self.promised <= self.count(), "more is promised than reserved");
    }

    /// Bytes that had a promise don't need it any more.
    pub(crate) fn release(&mut self, count: u64) {
        self.promised -= count.min(self.promised);
    }

    /// Takes a block for bytes that had a promise; and whether it goes on in the run of the one before.
    pub(crate) fn take(&mut self, before: Option<BlockAddress>) -> Option<(BlockAddress, bool)> {
        let (run, begun) = self.runs.first_mut()?;
        let block = run.start;
        let goes_on = *begun && before.is_some_and(|before| before.plus(1) == block);
        *begun = true;
        *run = Run::new(run.start.plus(1), run.count - 1);
        if run.count == 0 {
            self.runs.remove(0);
        }
        self.promised = self.promised.saturating_sub(1);
        Some((block, goes_on))
    }

    pub(crate) fn promised(&self) -> u64 {
        self.promised
    }
}
