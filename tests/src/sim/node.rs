//! One node: its daemon, its clock and its pool, through all restarts.
//!
//! ```text
//!            kill, power cut                 start
//!   Running ─────────────────> Down ──────────────────> Running (another boot, another incarnation)
//!      │  ^
//! stop │  │ go on: everything that came in between is there at once, and all timers are late
//!      v  │
//!    Stopped
//! ```
//!
//! The daemon's shell is modelled in full: cores, streams, two lanes to the pool. One lane is in
//! order (append, read, query); the other makes durable what was appended before. A hung disk
//! stops both without an error.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mooring_config::Boot;
use mooring_replication::{Beacons, Mark, Options, Query, Replica, Token};
use mooring_terms::{
    BlockIndex, BlockRange, Entry, Incarnation, NodeId, PoolId, Sequence, SliceId, Time, Version,
};

use super::network::Connection;
use super::store::Pool;
use super::time::Clock;

/// Whether a node's daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It runs.
    Running,
    /// It was stopped by a signal and will go on.
    Stopped,
    /// It is gone.
    Down,
}

/// What the pool is asked to do for one slice, in order.
#[derive(Debug)]
pub enum Io {
    /// Append entries.
    Append { mark: Mark, entries: Vec<Entry> },
    /// Make durable what was appended.
    Sync { mark: Mark },
    /// Forget the addresses of records.
    Committed { sequence: Sequence },
    /// Read blocks.
    Read { token: Token, range: BlockRange },
    /// Search the map.
    Query { token: Token, query: Query, from: BlockIndex, limit_blocks: u64 },
    /// Read records.
    ReadRecords { token: Token, after: Sequence, limit_bytes: u64 },
    /// Set space aside.
    Reserve { bytes: u64 },
    /// Give space back.
    Release { bytes: u64 },
}

/// One replica's core, and the timer that was set for it.
#[derive(Debug)]
pub struct Slot {
    /// The core.
    pub replica: Replica,
    /// When its tick is due, if one was scheduled.
    pub tick: Option<Time>,
    /// The name of its state when it was last looked at.
    pub state: &'static str,
}

/// One node.
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// Its only pool.
    pub pool_id: PoolId,
    /// Whether it runs.
    pub power: Power,
    /// Counts its starts; what was scheduled for an earlier one is dropped.
    pub boot: Boot,
    /// This opening of the pool.
    pub incarnation: Incarnation,
    /// The openings of the pool since the machine came up, and since no sync has failed: nothing
    /// that was handed to the kernel under them is lost.
    pub kept: Vec<Incarnation>,
    /// Whether Raft has this start of the daemon, and this opening of the pool.
    pub told: (bool, bool),
    /// Its clock.
    pub clock: Clock,
    /// Its pool.
    pub pool: Box<dyn Pool>,
    /// When its power was last cut, and what each log had then.
    pub cut: Option<(Time, BTreeMap<SliceId, Version>)>,
    /// How often a segment of the pool had been written again when it was last looked at.
    pub reused: u64,
    /// Whether the disk hangs.
    pub hung: bool,
    /// Whether the pool has failed since it was opened.
    pub failed: bool,
    /// The replicas' cores.
    pub slots: BTreeMap<SliceId, Slot>,
    /// What its cores are set to.
    pub options: Options,
    /// When the beacons' tick is due, if one was scheduled.
    pub beacon_tick: Option<Time>,
    /// The beacons' core.
    pub beacons: Beacons,
    /// My outgoing stream to each peer.
    pub outgoing: BTreeMap<NodeId, Connection>,
    /// My outgoing stream for beacons to each peer.
    pub beacon_streams: BTreeMap<NodeId, Connection>,
    /// The lane in order.
    pub lane: VecDeque<(SliceId, Io)>,
    /// Whether the first of the lane is under way.
    pub lane_busy: bool,
    /// What waits for the next sync.
    pub unsynced: Vec<(SliceId, Mark)>,
    /// What the sync under way covers.
    pub syncing: Vec<(SliceId, Mark)>,
    /// Since when the pool has completed nothing although there was work.
    pub stuck_since: Option<Time>,
    /// Whether the replicas were told to resign since the pool hangs.
    pub resigned: bool,
}

impl Node {
    /// A node that was never started.
    #[must_use]
    pub fn new(
        id: NodeId,
        pool_id: PoolId,
        clock: Clock,
        pool: Box<dyn Pool>,
        options: Options,
    ) -> Self {
        Self {
            id,
            pool_id,
            power: Power::Down,
            boot: Boot(0),
            incarnation: Incarnation(0),
            kept: Vec::new(),
            told: (false, false),
            clock,
            pool,
            cut: None,
            reused: 0,
            hung: false,
            failed: false,
            slots: BTreeMap::new(),
            beacons: Beacons::new(&options),
            options,
            beacon_tick: None,
            outgoing: BTreeMap::new(),
            beacon_streams: BTreeMap::new(),
            lane: VecDeque::new(),
            lane_busy: false,
            unsynced: Vec::new(),
            syncing: Vec::new(),
            stuck_since: None,
            resigned: false,
        }
    }

    /// Whether its daemon exists, stopped or not.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.power != Power::Down
    }

    /// Whether Raft knows that it is here.
    #[must_use]
    pub fn registered(&self) -> bool {
        self.told == (true, true)
    }

    /// Whether the pool has work that it hasn't completed.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.lane.is_empty() || !self.unsynced.is_empty() || !self.syncing.is_empty()
    }

    /// For how long the pool has completed nothing with work pending.
    #[must_use]
    pub fn stuck_for(&self, now: Time) -> Duration {
        self.stuck_since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// Drops all that a dying process takes with it.
    pub fn drop_process(&mut self) {
        self.power = Power::Down;
        self.slots.clear();
        self.beacons = Beacons::new(&self.options);
        self.beacon_tick = None;
        self.outgoing.clear();
        self.beacon_streams.clear();
        self.lane.clear();
        self.lane_busy = false;
        self.unsynced.clear();
        self.syncing.clear();
        self.stuck_since = None;
        self.resigned = false;
        self.told = (false, false);
    }
}
