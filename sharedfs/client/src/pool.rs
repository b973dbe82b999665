//! Blocks that are reserved for this session: what accepted bytes are promised.

use std::collections::VecDeque;

use mooring_sharedfs_core::{BlockAddress, Run};

/// How many blocks are reserved at once: at first, and by whoever goes on and on.
const FEW: u64 = 256;
const MANY: u64 = 4096;

/// Reserved blocks that hold nothing yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool {
    /// And whether blocks of a run were taken already.
    runs: VecDeque<(Run, bool)>,
    /// How many blocks they have.
    count: u64,
    promised: u64,
    /// How many were asked for last.
    ahead: u64,
    /// Whether more were asked for.
    pub(crate) asked: bool,
    /// There are no more, for those who wait for them now.
    pub(crate) refused: bool,
}

impl Pool {
    /// How many blocks can still be promised.
    pub(crate) fn available(&self) -> u64 {
        self.count - self.promised
    }

    pub(crate) fn add(&mut self, runs: Vec<Run>) {
        let new = runs.into_iter().filter(|run| run.count > 0).map(|run| (run, false));
        self.runs.extend(new);
        self.count = self.runs.iter().map(|(run, _)| run.count).sum();
    }

    /// How many were asked for at once last; none at first.
    pub(crate) fn ahead(&self) -> u64 {
        self.ahead
    }

    /// How many to ask for now.
    pub(crate) fn ask_for_more(&mut self) -> u64 {
        self.ahead = (self.ahead * 2).clamp(FEW, MANY);
        self.ahead
    }

    /// There are no more, for those who wait; who doesn't wait asks no more.
    pub(crate) fn refuse(&mut self) {
        (self.refused, self.ahead) = (true, 0);
    }

    /// Where to look for more.
    pub(crate) fn near(&self) -> BlockAddress {
        self.runs.back().map_or(BlockAddress(0), |(run, _)| run.end())
    }

    /// Promises a block to bytes that are accepted.
    pub(crate) fn promise(&mut self, count: u64) {
        self.promised += count;
        debug_assert!(self.promised <= self.count, "more is promised than reserved");
    }

    /// Bytes that had a promise don't need it any more.
    pub(crate) fn release(&mut self, count: u64) {
        self.promised -= count.min(self.promised);
    }

    /// Takes a block for bytes that had a promise; and whether it goes on in the run of the one before.
    pub(crate) fn take(&mut self, before: Option<BlockAddress>) -> Option<(BlockAddress, bool)> {
        let (run, begun) = self.runs.front_mut()?;
        let block = run.start;
        let goes_on = *begun && before.is_some_and(|before| before.plus(1) == block);
        *begun = true;
        *run = Run::new(run.start.plus(1), run.count - 1);
        let over = run.count == 0;
        self.count -= 1;
        if over {
            self.runs.pop_front();
        }
        self.promised = self.promised.saturating_sub(1);
        Some((block, goes_on))
    }

    pub(crate) fn promised(&self) -> u64 {
        self.promised
    }
}
