//! One replica of one slice.

use bytes::Bytes;
use mooring_config::{Member, SliceConfig};
use mooring_terms::{SliceId, Time, Version};

use crate::command::Command;
use crate::event::Event;
use crate::lease::Leases;
use crate::options::Options;

/// What the engine knows about a replica when its pool is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The replica's opaque state; empty if the replica is new.
    pub state: Bytes,
    /// The version of its last record; `Version::ZERO` if it has none.
    pub last: Version,
    /// Whether all that was ever handed to the kernel for this pool is still there: the machine was
    /// not restarted since the pool's opening before this one (compare boot ids), only the process.
    pub kept_tail: bool,
    /// Whether the engine found durable records missing: the replica can't be elected and rejoins.
    pub damaged: bool,
}

/// One replica of one slice: a pure core. Feed it events, run its commands in their order.
#[derive(Debug)]
pub struct Replica {
    slice: SliceId,
    me: Member,
    opened: Opened,
    config: Option<SliceConfig>,
    options: Options,
}

impl Replica {
    /// A replica whose pool has just been opened; `me` has the incarnation of this opening, and
    /// `config` is what Raft's local state says now, if it knows the slice yet. The first event may
    /// be anything; until one comes, nothing happens.
    #[must_use]
    pub fn new(
        slice: SliceId,
        me: Member,
        opened: Opened,
        config: Option<SliceConfig>,
        options: Options,
    ) -> Self {
        Self { slice, me, opened, config, options }
    }

    /// Takes an event and says what is to be done.
    pub fn handle(&mut self, now: Time, leases: &dyn Leases, event: Event, out: &mut Vec<Command>) {
        let _ = (now, leases, event, out, &self.me, &self.opened, &self.config, &self.options);
    }

    /// When [`Event::Tick`] is due; `None` while nothing is pending: an idle slice costs nothing.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        None
    }

    /// The slice.
    #[must_use]
    pub fn slice(&self) -> SliceId {
        self.slice
    }
}
