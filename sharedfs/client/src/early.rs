//! Operations that were answered before the coordinator has heard of them: the queue of what it is still
//! to be told, in order, in batches.
//!
//! ```text
//!   step ──> unsent ──a batch is full, old, or needed──> on its way ──answered──> done
//! ```
//! A batch uses the slots of what a recall needs: it waits for nobody but the journal, as leases cover all
//! that it touches. Whatever else is asked goes behind what is unsent, so the coordinator does everything
//! in the order in which it was done here; an fsync therefore needs nothing but to be asked.

use std::collections::BTreeMap;
use std::time::Duration;

use mooring_sharedfs_core::coordinator::{Operation, Reply, Step};
use mooring_sharedfs_core::{Caller, Ino, Timestamp};
use mooring_terms::Time;

use crate::client::{Client, Turn};
use crate::link::Ask;
use crate::replies::Purpose;

/// No batch has more steps: one record of the journal.
const BATCH_STEPS: usize = 256;

/// Nor more bytes that lie in files, about.
const BATCH_BYTES: usize = 256 << 10;

/// As many steps are not done at the coordinator at most.
const STEPS_MAX: u64 = 4096;

/// As many batches are on their way before the next one waits until it is old.
const FLYING_MAX: usize = 2;

/// So old a step becomes before it is sent.
const AGE: Duration = Duration::from_millis(20);

/// As many numbers for inodes are asked for at once.
const NUMBERS: u64 = 2048;

/// The number of a step: 1, 2, ... in the life of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StepNumber(pub(crate) u64);

/// A batch on its way.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    first: StepNumber,
    /// What the steps changed, and which of them are commits.
    inos: Vec<(Vec<Ino>, bool)>,
}

/// What is not done at the coordinator.
#[derive(Debug, Default)]
pub(crate) struct Early {
    unsent: Vec<Step>,
    inos: Vec<(Vec<Ino>, bool)>,
    bytes: usize,
    since: Time,
    last: StepNumber,
    /// The batches on their way, by their first step, and their last.
    flying: BTreeMap<StepNumber, StepNumber>,
}

/// Numbers for what is made here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers {
    ranges: Vec<(Ino, u64)>,
    /// With no more than these left, more are asked for.
    enough: u64,
    asked: bool,
    /// There are none.
    refused: bool,
}

impl Numbers {
    /// Whether it is one of these.
    pub(crate) fn has(&self, ino: Ino) -> bool {
        self.ranges.iter().any(|&(first, count)| (first.0..first.0 + count).contains(&ino.0))
    }

    fn count(&self) -> u64 {
        self.ranges.iter().map(|(_, count)| count).sum()
    }

    /// The next.
    pub(crate) fn next(&self) -> Option<Ino> {
        self.ranges.first().map(|(first, _)| *first)
    }

    /// The next is used.
    pub(crate) fn take(&mut self) {
        if let Some((first, count)) = self.ranges.first_mut() {
            (*first, *count) = (Ino(first.0 + 1), *count - 1);
            if *count == 0 {
                self.ranges.remove(0);
            }
        }
    }
}

impl Early {
    /// Up to which step everything is done.
    pub(crate) fn done(&self) -> StepNumber {
        let unsent = StepNumber(self.last.0 + 1 - self.unsent.len() as u64);
        let first = self.flying.keys().next().copied().unwrap_or(unsent);
        StepNumber(first.min(unsent).0 - 1)
    }

    /// Whether nothing is unsent.
    pub(crate) fn is_sent(&self) -> bool {
        self.unsent.is_empty()
    }

    fn is_full(&self) -> bool {
        self.unsent.len() >= BATCH_STEPS || self.bytes >= BATCH_BYTES
    }

    /// When what is unsent is to be sent at the latest.
    pub(crate) fn due(&self) -> Option<Time> {
        (!self.unsent.is_empty()).then(|| self.since + AGE)
    }
}

impl Client {
    /// Whether no more can be done before some of it is done at the coordinator.
    pub(crate) fn is_far_ahead(&self) -> bool {
        self.early.last.0 - self.early.done().0 >= STEPS_MAX
    }

    /// Remembers a step that was done here, which changed these inodes.
    pub(crate) fn push_step(
        &mut self,
        turn: &mut Turn<'_>,
        (caller, date): (Caller, Timestamp),
        made: Option<Ino>,
        operation: Operation,
        inos: Vec<Ino>,
    ) {
        let early = &mut self.early;
        if early.unsent.is_empty() {
            early.since = turn.now;
        }
        early.last = StepNumber(early.last.0 + 1);
        let last = early.last;
        let is_commit = matches!(operation, Operation::Commit { .. });
        early.bytes += match &operation {
            Operation::Commit { commit, .. } => {
                64 + commit.inline.as_ref().map_or(0, Vec::len) + 64 * commit.extents.len()
            }
            _ => 0,
        };
        early.unsent.push(Step { caller, date, made, operation });
        early.inos.push((inos.clone(), is_commit));
        for ino in inos {
            self.inode(ino).early = last;
        }
        if self.early.is_full() && self.early.flying.len() < FLYING_MAX {
            self.send_early(turn);
        }
    }

    /// Sends what is unsent.
    pub(crate) fn send_early(&mut self, turn: &mut Turn<'_>) {
        while !self.early.unsent.is_empty() {
            let early = &mut self.early;
            let mut bytes = 0;
            let fits = |step: &&Step| {
                bytes += match &step.operation {
                    Operation::Commit { commit, .. } => commit.inline.as_ref().map_or(0, Vec::len),
                    _ => 0,
                };
                bytes <= BATCH_BYTES
            };
            let count = early.unsent.iter().take(BATCH_STEPS).take_while(fits).count().max(1);
            let first = StepNumber(early.last.0 + 1 - early.unsent.len() as u64);
            let steps: Vec<Step> = early.unsent.drain(..count).collect();
            let inos: Vec<(Vec<Ino>, bool)> = early.inos.drain(..count).collect();
            early.flying.insert(first, StepNumber(first.0 + count as u64 - 1));
            early.bytes = 0;
            let purpose = Purpose::Batch(Flight { first, inos });
            let (caller, wanted) = (Caller::ROOT, Vec::new());
            let operation = Operation::Batch { steps };
            self.link.ask(Ask { caller, operation, wanted, purpose, urgent: true }, turn.out);
        }
    }

    /// Sends what is old enough.
    pub(crate) fn look_after_early(&mut self, turn: &mut Turn<'_>) {
        if self.unmounting || self.early.due().is_some_and(|due| due <= turn.now) {
            self.send_early(turn);
        }
    }

    /// A batch is done, or some of it.
    pub(crate) fn batch_answered(&mut self, turn: &mut Turn<'_>, flight: Flight, reply: &Reply) {
        self.early.flying.remove(&flight.first);
        let done = match reply {
            Reply::Batch { done, .. } => usize::try_from(*done).unwrap_or(usize::MAX),
            _ => 0,
        };
        for (index, (inos, is_commit)) in flight.inos.into_iter().enumerate() {
            let good = index < done;
            if is_commit && let Some(&ino) = inos.first() {
                self.committed_early(turn, ino, good);
            }
            for ino in inos {
                if good {
                    self.bury(ino);
                } else {
                    self.diverged(ino);
                }
            }
        }
        if self.early.is_full() {
            self.send_early(turn);
        }
        self.poked = true;
    }

    /// The coordinator has an inode otherwise than this client: whoever has it open is told so, and
    /// nothing that is known of it here is good.
    fn diverged(&mut self, ino: Ino) {
        let inode = self.inode(ino);
        inode.errors += 1;
        inode.attributes = None;
        inode.known = None;
        inode.names.clear();
        inode.layout.clear();
    }

    /// The number of what is to be made next; more are asked for in time.
    pub(crate) fn number(&mut self, turn: &mut Turn<'_>) -> std::result::Result<Ino, NoNumber> {
        if self.numbers.count() <= self.numbers.enough
            && !self.numbers.asked
            && !self.numbers.refused
        {
            self.numbers.asked = true;
            let asked = Operation::Numbers { count: NUMBERS };
            self.ask(turn, Caller::ROOT, asked, Vec::new(), Purpose::Numbers);
        }
        match self.numbers.next() {
            Some(next) => Ok(next),
            None if self.numbers.asked => Err(NoNumber::Yet),
            None => {
                // Asked for again with the next operation: there may be room by then.
                self.numbers.refused = false;
                Err(NoNumber::None)
            }
        }
    }

    pub(crate) fn numbered(&mut self, reply: &Reply) {
        self.numbers.asked = false;
        match reply {
            Reply::Numbers(first, count) if *count > 0 => {
                self.numbers.ranges.push((*first, *count));
                self.numbers.enough = *count / 4;
            }
            _ => self.numbers.refused = true,
        }
    }

    /// All that was done here and not at the coordinator is lost with the session: whoever has what it
    /// touched open is told so.
    pub(crate) fn lose_early(&mut self) {
        let done = self.early.done();
        for inode in self.inodes.values_mut().filter(|inode| inode.early > done) {
            inode.errors += 1;
        }
        self.early = Early::default();
        self.numbers = Numbers::default();
    }
}

/// Why there is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoNumber {
    /// They are asked for.
    Yet,
    /// There is no room for more inodes.
    None,
}

/// Whether an operation may be asked for while steps before it are unsent: it has nothing to do with any
/// inode.
pub(crate) fn stands_alone(operation: &Operation) -> bool {
    matches!(operation, Operation::Reserve { .. } | Operation::Numbers { .. })
}
