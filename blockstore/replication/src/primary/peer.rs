//! Another replica, as the primary sees it.

use std::collections::VecDeque;

use mooring_terms::{Incarnation, Sequence, Time, Version};

use super::join::Join;
use crate::message::Position;

/// Another member of the slice.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// The opening that its last hello named.
    pub(super) incarnation: Option<Incarnation>,
    /// It has promised this epoch, durably, and this is where it was then.
    pub(super) promised: Option<Position>,
    /// Records flow to it, up to this version so far.
    pub(super) flow: Option<Version>,
    pub(super) received: Sequence,
    pub(super) durable: Sequence,
    /// The highest sequence it was asked to sync.
    pub(super) sync_asked: Sequence,
    /// When the newest raise was sent that it answered.
    pub(super) answered: Option<Time>,
    /// Since when something is asked of it without any progress.
    pub(super) waiting: Option<Time>,
    /// When it was last asked where it is.
    pub(super) poked: Option<Time>,
    /// Records are being read for it from the engine.
    pub(super) reading: bool,
    pub(super) credit: Credit,
    pub(super) failed: bool,
    pub(super) diverged: bool,
    pub(super) join: Option<Join>,
    /// What was sent to a joining replica and not acknowledged: sequence and bytes.
    pub(super) unacknowledged: VecDeque<(Sequence, u64)>,
    pub(super) unacknowledged_bytes: u64,
}

/// Space credit that a replica has granted in this epoch.
#[derive(Debug, Default)]
pub(super) struct Credit {
    pub(super) granted: u64,
    /// The want that it answered last.
    pub(super) answered: u64,
    pub(super) full: bool,
}

impl Peer {
    /// Forgets what held for the epoch before.
    pub(super) fn begin_epoch(&mut self) {
        self.promised = None;
        self.flow = None;
        self.sync_asked = Sequence(0);
        self.answered = None;
        self.waiting = None;
        self.poked = None;
        self.reading = false;
        self.credit = Credit::default();
        self.diverged = false;
        self.unacknowledged.clear();
        self.unacknowledged_bytes = 0;
    }

    /// Its stream is new or gone: what was sent may be lost.
    pub(super) fn interrupt(&mut self) {
        self.flow = None;
        self.reading = false;
        self.poked = None;
        self.unacknowledged.clear();
        self.unacknowledged_bytes = 0;
        if let Some(join) = &mut self.join {
            join.paused = true;
        }
    }

    /// It has acknowledged; tells whether anything moved.
    pub(super) fn acknowledged(&mut self, received: Sequence, durable: Sequence) -> bool {
        while let Some(&(sequence, bytes)) = self.unacknowledged.front() {
            if sequence > received {
                break;
            }
            self.unacknowledged.pop_front();
            self.unacknowledged_bytes -= bytes;
        }
        let moved = received > self.received || durable > self.durable;
        self.received = self.received.max(received);
        self.durable = self.durable.max(durable);
        moved
    }
}
