//! A replica's own log, as the core sees it: where it ends, what of it is with the kernel, what is
//! on media.
//!
//! ```text
//!   durable <= received <= last           sequences
//!      │          │          │
//!   Durable    Received    Append         events and commands, by marks that only rise
//! ```
//!
//! At most one sync is under way; what is asked for meanwhile goes into the next one: that is the
//! group commit of FLUSH.

use std::collections::VecDeque;

use bytes::Bytes;
use mooring_terms::{AttachmentEpoch, Body, Entry, Record, Sequence, Version};

use crate::command::Command;
use crate::control::Control;
use crate::event::Mark;
use crate::history;
use crate::message::{EpochStart, Standing};
use crate::state::State;

/// How far back a command list is searched for an append that can take one more entry.
const MERGE_REACH: usize = 8;

/// The replica's log.
#[derive(Debug)]
pub(crate) struct Log {
    /// As of the last entry appended.
    pub(crate) state: State,
    /// The last version appended.
    pub(crate) last: Version,
    /// The last sequence that is with the kernel.
    pub(crate) received: Sequence,
    /// The last sequence that is known to be on media.
    pub(crate) durable: Sequence,
    /// What the engine was told it may forget.
    pub(crate) forgotten: Sequence,
    appended: Mark,
    received_mark: Mark,
    durable_mark: Mark,
    /// Where the log ended after each mark that is not received yet.
    ends: VecDeque<(Mark, Sequence)>,
    /// The sync under way, and where the log ended when it was asked for.
    syncing: Option<(Mark, Sequence)>,
    /// What the next sync must cover.
    sync_next: Option<Mark>,
}

impl Log {
    /// The log as the engine opened it. Nothing of it is known to be durable: it may have been
    /// recovered from the kernel's memory.
    pub(crate) fn new(state: State, last: Version) -> Self {
        Self {
            state,
            last,
            received: last.sequence,
            durable: Sequence(0),
            forgotten: Sequence(0),
            appended: Mark(0),
            received_mark: Mark(0),
            durable_mark: Mark(0),
            ends: VecDeque::new(),
            syncing: None,
            sync_next: None,
        }
    }

    /// Appends the next record.
    ///
    /// # Panics
    /// If it isn't the next one: going on would lose data.
    pub(crate) fn append(&mut self, out: &mut Vec<Command>, record: Record) -> Mark {
        let version = record.version;
        assert_eq!(version.sequence, self.last.sequence.next(), "records are dense");
        assert!(version.epoch >= self.last.epoch, "epochs never go back");
        let control = match &record.body {
            Body::Control(bytes) => Control::decode(bytes).ok(),
            Body::Write { .. } | Body::Discard(_) => None,
        };
        let state = control.map(|control| {
            self.state.apply(version, control);
            self.state.encode()
        });
        self.last = version;
        self.push(out, Entry::Record { record, state })
    }

    /// Appends an entry that doesn't move the log's end.
    pub(crate) fn append_aside(&mut self, out: &mut Vec<Command>, entry: Entry) -> Mark {
        self.push(out, entry)
    }

    /// Changes the state by `change` and appends it.
    pub(crate) fn note(&mut self, out: &mut Vec<Command>, change: impl FnOnce(&mut State)) -> Mark {
        change(&mut self.state);
        let state = self.state.encode();
        self.push(out, Entry::State(state))
    }

    /// This replica is the history now, with whatever it has. What a join has brought of what is newer
    /// than the version up to which it is whole is not all of it: nobody may think to have it in common.
    pub(crate) fn give_tail_up(&mut self, out: &mut Vec<Command>) {
        if self.is_whole() {
            return;
        }
        let complete_to = self.state.complete_to(self.last);
        history::truncate(&mut self.state.epochs, complete_to.sequence);
        self.last = complete_to;
        if !history::is_sound(&self.state.epochs, complete_to) {
            self.state.epochs.clear();
            self.last = Version::ZERO;
        }
        self.cut(self.last.sequence);
        let (last, state) = (self.last, self.state.encode());
        self.push(out, Entry::Position { last, state });
    }

    /// Every block is here, or is never to be copied: a join that was under way is over. The state
    /// is written with the next note.
    pub(crate) fn end_join(&mut self, out: &mut Vec<Command>) {
        if self.state.standing != Standing::Complete {
            self.state.standing = Standing::Complete;
            self.push(out, Entry::Joined);
        }
    }

    /// Marks missing all that is newer than `after`; `keep` (a deliberate bug) leaves it.
    pub(crate) fn supersede(&mut self, out: &mut Vec<Command>, after: Version, keep: bool) -> Mark {
        let complete_to = self.state.complete_to(self.last).min(after);
        self.state.standing = Standing::Joining { complete_to };
        history::truncate(&mut self.state.epochs, after.sequence);
        self.cut(after.sequence);
        self.last = after;
        let state = self.state.encode();
        self.push(out, if keep { Entry::State(state) } else { Entry::Supersede { after, state } })
    }

    /// Jumps to `last` in the history `epochs`: the records in between come as copied blocks.
    pub(crate) fn jump(
        &mut self,
        out: &mut Vec<Command>,
        last: Version,
        epochs: Vec<EpochStart>,
        seal: AttachmentEpoch,
    ) -> Mark {
        let complete_to = self.state.complete_to(self.last);
        self.state.standing = Standing::Joining { complete_to };
        self.state.epochs = epochs;
        self.state.seal = seal;
        self.cut(last.sequence);
        self.last = last;
        let state: Bytes = self.state.encode();
        self.push(out, Entry::Position { last, state })
    }

    /// Asks that all appended so far becomes durable; it is when the mark returned is.
    pub(crate) fn sync(&mut self, out: &mut Vec<Command>) -> Mark {
        let mark = self.appended;
        match self.syncing {
            Some((under_way, _)) if under_way >= mark => {}
            Some(_) => self.sync_next = Some(mark),
            None => self.start_sync(out),
        }
        mark
    }

    /// The mark of the last entry.
    pub(crate) fn end(&self) -> Mark {
        self.appended
    }

    /// Whether every block up to the end is there.
    pub(crate) fn is_whole(&self) -> bool {
        self.state.standing.is_whole(self.last)
    }

    /// Whether all up to `mark` is with the kernel.
    pub(crate) fn is_received(&self, mark: Mark) -> bool {
        self.received_mark >= mark
    }

    /// Whether all up to `mark` is on media.
    pub(crate) fn is_durable(&self, mark: Mark) -> bool {
        self.durable_mark >= mark
    }

    /// The engine has handed all up to `mark` to the kernel.
    pub(crate) fn on_received(&mut self, mark: Mark) {
        self.received_mark = self.received_mark.max(mark.min(self.appended));
        while let Some(&(end, sequence)) = self.ends.front() {
            if end > self.received_mark {
                break;
            }
            self.received = sequence;
            self.ends.pop_front();
        }
    }

    /// All up to `mark` is on media.
    pub(crate) fn on_durable(&mut self, out: &mut Vec<Command>, mark: Mark) {
        self.on_received(mark);
        self.durable_mark = self.durable_mark.max(mark.min(self.appended));
        let Some((under_way, sequence)) = self.syncing else { return };
        if self.durable_mark < under_way {
            return;
        }
        self.durable = self.durable.max(sequence);
        self.syncing = None;
        if self.sync_next.take().is_some_and(|next| next > self.durable_mark) {
            self.start_sync(out);
        }
    }

    /// Tells the engine once what it may forget.
    pub(crate) fn forget(&mut self, out: &mut Vec<Command>, sequence: Sequence) {
        let sequence = sequence.min(self.last.sequence);
        if sequence > self.forgotten {
            self.forgotten = sequence;
            out.push(Command::Committed { sequence });
        }
    }

    /// Checks the order of the positions.
    pub(crate) fn check_invariants(&self) {
        assert!(self.durable <= self.received, "durable is received: {self:?}");
        assert!(self.received <= self.last.sequence, "received is appended: {self:?}");
        let epochs = &self.state.epochs;
        assert!(history::is_sound(epochs, self.last), "{epochs:?} lead to {:?}", self.last);
    }

    fn start_sync(&mut self, out: &mut Vec<Command>) {
        self.syncing = Some((self.appended, self.last.sequence));
        out.push(Command::Sync { mark: self.appended });
    }

    /// No position lies behind `end` any more.
    fn cut(&mut self, end: Sequence) {
        self.received = self.received.min(end);
        self.durable = self.durable.min(end);
        self.forgotten = self.forgotten.min(end);
        for (_, sequence) in &mut self.ends {
            *sequence = (*sequence).min(end);
        }
        if let Some((_, sequence)) = &mut self.syncing {
            *sequence = (*sequence).min(end);
        }
    }

    /// Hands one entry out, with an earlier append of the same turn where nothing forbids it.
    fn push(&mut self, out: &mut Vec<Command>, entry: Entry) -> Mark {
        self.appended = Mark(self.appended.0 + 1);
        self.ends.push_back((self.appended, self.last.sequence));
        for command in out.iter_mut().rev().take(MERGE_REACH) {
            match command {
                Command::Append { mark, entries } => {
                    *mark = self.appended;
                    entries.push(entry);
                    return self.appended;
                }
                // Neither waits for the log, so the entry may go before them.
                Command::Send { .. } | Command::Reply { .. } => {}
                _ => break,
            }
        }
        out.push(Command::Append { mark: self.appended, entries: vec![entry] });
        self.appended
    }
}
