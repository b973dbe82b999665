//! One slice, as the volume's client sees it: what waits for its primary, and in what order.
//!
//! ```text
//!   seal ──> what was lost and is sent again ──> the device's requests      classes, one after another
//! ```
//!
//! Within a class requests go out at once, but for overlapping ones: each waits until the earlier
//! one is answered. So a request that has to be sent again can neither overtake nor be overtaken by
//! a later one on the same blocks, whatever happens to streams and primaries.

use std::collections::BTreeMap;

use mooring_terms::{BlockRange, Epoch, NodeId, Sequence, SliceId, Time};

use super::admissions::Admissions;
use super::event::IoId;
use super::kept::Kept;
use super::options::ClientRole;
use crate::request::{Operation, StreamId};

/// What is sent before what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// The attachment's beginning.
    Seal,
    /// Acknowledged writes that were lost with all replicas.
    Again,
    /// What the device asks.
    Device,
}

/// The place of a request in its slice's order.
pub(super) type Place = (Class, u64);

/// A request that is not answered.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) operation: Operation,
    /// Whose it is: the device's I/O, and which part of it. None for the client's own.
    pub(super) io: Option<(IoId, usize)>,
    /// The stream that it was sent on last; none if it has to be sent.
    pub(super) sent: Option<StreamId>,
    /// Not before.
    pub(super) again: Option<Time>,
    /// How often a node refused it that has not heard of the epoch yet.
    pub(super) early: u32,
    /// What a flush covers: this many acknowledged writes.
    pub(super) covers: u64,
}

/// One slice.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) slice: SliceId,
    pub(super) epoch: Epoch,
    /// The newest epoch that began without all that was acknowledged before, as far as it is known here.
    pub(super) tail_lost: Epoch,
    /// A coordinator's: once what is sent again is answered the attachment ends, so that the next one looks
    /// after what sessions lost.
    pub(super) ends_after_again: bool,
    pub(super) primary: Option<NodeId>,
    pub(super) sealed: bool,
    pub(super) parts: BTreeMap<Place, Part>,
    pub(super) kept: Kept,
    /// Acknowledged writes, counted; and how many of them a completed flush covered.
    pub(super) acknowledged: u64,
    pub(super) flushed: u64,
    pub(super) last_sequence: Sequence,
    /// When to ask for the configuration, while something is unanswered.
    pub(super) ask_again: Option<Time>,
    /// A coordinator's sessions here.
    pub(super) admissions: Admissions,
    /// A session's: when it last asked the coordinator to be let in here.
    pub(super) knocked: Option<Time>,
    /// Acknowledged writes are gone, and the next flush has to say so.
    pub(super) lost: bool,
}

impl Lane {
    pub(super) fn new(slice: SliceId, role: ClientRole) -> Self {
        Self {
            slice,
            epoch: Epoch(0),
            tail_lost: Epoch(0),
            ends_after_again: false,
            primary: None,
            sealed: false,
            parts: BTreeMap::new(),
            kept: Kept::default(),
            // What an earlier process of this attachment was acknowledged: the first flush, or the
            // seal (durable everywhere, with all before it), covers it. Sessions and coordinators
            // have no earlier process.
            acknowledged: u64::from(role == ClientRole::Device),
            flushed: 0,
            last_sequence: Sequence(0),
            ask_again: None,
            admissions: Admissions::default(),
            knocked: None,
            lost: false,
        }
    }

    /// Whether a flush would have something to do here.
    pub(super) fn needs_flush(&self) -> bool {
        self.acknowledged > self.flushed
    }

    /// Everything has to be sent anew.
    pub(super) fn unsend(&mut self) {
        for part in self.parts.values_mut() {
            part.sent = None;
            part.again = None;
        }
    }

    /// The requests that may go out now, in order.
    pub(super) fn ready(&self, now: Time) -> Vec<Place> {
        let mut ready = Vec::new();
        let Some((&(class, _), _)) = self.parts.first_key_value() else { return ready };
        let mut earlier: Vec<(BlockRange, bool)> = Vec::new();
        for (&place, part) in self.parts.iter().take_while(|((own, _), _)| *own == class) {
            let (range, writes) = touches(&part.operation);
            let clashes = |(other, other_writes): &(BlockRange, bool)| {
                (writes || *other_writes) && range.is_some_and(|range| range.overlaps(other))
            };
            let waits = part.again.is_some_and(|again| again > now);
            if part.sent.is_none() && !waits && !earlier.iter().any(clashes) {
                ready.push(place);
            }
            earlier.extend(range.map(|range| (range, writes)));
        }
        ready
    }

    /// The request with this number.
    pub(super) fn find(&self, number: u64) -> Option<Place> {
        let classes = [Class::Seal, Class::Again, Class::Device];
        classes.into_iter().map(|class| (class, number)).find(|at| self.parts.contains_key(at))
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Time> {
        if self.parts.is_empty() {
            return None;
        }
        let again = self.parts.values().filter_map(|part| part.again).min();
        again.into_iter().chain(self.ask_again).min()
    }
}

/// The blocks that a request touches, and whether it changes them.
pub(super) fn touches(operation: &Operation) -> (Option<BlockRange>, bool) {
    match operation {
        Operation::Read(range) | Operation::Versions(range) => (Some(*range), false),
        Operation::Write { first, data, .. } => {
            (Some(BlockRange::new(*first, data.blocks())), true)
        }
        Operation::Discard { range, .. } => (Some(*range), true),
        Operation::Flush | Operation::Seal | Operation::Register(_) => (None, false),
    }
}
