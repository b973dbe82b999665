//! Making the journal durable, without anybody waiting who doesn't need it.
//!
//! One flush is on its way at a time; all that ask meanwhile share the next (group commit). It covers the
//! records that the journal had when it began, and no more.

use std::collections::BTreeSet;

use mooring_sharedfs_core::coordinator::{Event, RecordNumber};
use mooring_sharedfs_store::Blocks;
use mooring_terms::{SliceIndex, Time};

use crate::report::Stopped;
use crate::shell::{Arrival, Shell};

/// Where it stands.
#[derive(Debug, Default)]
pub(crate) struct Syncing {
    wanted: bool,
    under_way: bool,
    journaled: RecordNumber,
    durable: RecordNumber,
    /// When the oldest record that isn't durable was journaled.
    since: Option<Time>,
}

impl Syncing {
    /// Somebody waits.
    pub(crate) fn want(&mut self) {
        self.wanted = true;
    }

    /// Records up to this one are in the journal.
    pub(crate) fn journaled(&mut self, number: RecordNumber, now: Time) {
        self.journaled = number;
        self.since.get_or_insert(now);
    }

    /// The last record in the journal.
    pub(crate) fn last_journaled(&self) -> RecordNumber {
        self.journaled
    }

    fn durable(&mut self, number: RecordNumber, now: Time) {
        self.durable = self.durable.max(number);
        self.since = (self.durable < self.journaled).then_some(now);
    }
}

impl<B: Blocks> Shell<B> {
    /// When records are to be made durable that nobody has asked for.
    pub(crate) fn next_sync(&self) -> Option<Time> {
        let since = self.syncing.since.filter(|_| !self.syncing.under_way)?;
        Some(since + self.options.durable_after)
    }

    /// Begins a flush of the journal, if one is wanted or it is time.
    pub(crate) fn sync_if_due(&mut self) {
        let syncing = &self.syncing;
        let due = self.next_sync().is_some_and(|at| at <= self.now());
        if syncing.under_way || !(syncing.wanted || due) {
            return;
        }
        self.syncing.wanted = false;
        if self.syncing.durable == self.syncing.journaled {
            return;
        }
        self.syncing.under_way = true;
        let (number, sender) = (self.syncing.journaled, self.sender.clone());
        let done = move |flushed: Result<(), _>| {
            drop(sender.send(Arrival::Synced(flushed.map(|()| number))));
        };
        self.slices.flush(Some(BTreeSet::from([SliceIndex(0)])), Box::new(done));
    }

    /// A flush is done.
    pub(crate) fn synced(&mut self, number: RecordNumber) -> Result<(), Stopped> {
        self.syncing.under_way = false;
        self.all_durable(number)
    }

    /// Records up to this one are on media.
    pub(crate) fn all_durable(&mut self, number: RecordNumber) -> Result<(), Stopped> {
        let now = self.now();
        self.syncing.durable(number, now);
        self.handle(Event::Durable(number))
    }
}
