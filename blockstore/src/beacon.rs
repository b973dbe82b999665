//! The beacons of this node: a thread and streams of their own, which touch no disk.
//!
//! ```text
//!   slices ── vouch ──┐
//!   peers ── beacon ──┤─> core ── send ──> the beacon streams
//!   the thread ─ tick ┘        └─ wake ──> the timers, which tick the slices
//! ```
//!
//! A pool that hangs vouches for nothing: the thread looks at each pool before it sends, and while one
//! is at work every [`POOL_LOOK`]. It also has the transport go on where a thread of its own waits for a
//! slow disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::Duration;

use mooring_replication::{BeaconCommand, BeaconEvent, BeaconMessage, Beacons, Leases};
use mooring_terms::{Epoch, NodeId, PoolId, SliceId, Time};
use mooring_transport::{Channel, Message, Transport};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::clock;
use crate::pool::{Health, Pool};
use crate::timers::Timers;

/// Between two looks at pools that are at work.
const POOL_LOOK: Duration = Duration::from_millis(50);

/// The beacons of this node.
pub struct BeaconBoard {
    core: RwLock<Beacons>,
    transport: OnceLock<Weak<dyn Transport>>,
    timers: Arc<Timers<SliceId>>,
    watched: Mutex<BTreeMap<PoolId, Watched>>,
    pool_patience: Duration,
    alarm: Mutex<Alarm>,
    changed: Condvar,
    /// Until when the thread sleeps unless woken, in nanoseconds of [`Time`].
    sleeps_until: AtomicU64,
}

/// A pool and its slices that vouch, muted while it hangs.
struct Watched {
    pool: Weak<Pool>,
    slices: BTreeSet<SliceId>,
    muted: bool,
}

impl Watched {
    fn new(pool: &Arc<Pool>) -> Self {
        Self { pool: Arc::downgrade(pool), slices: BTreeSet::new(), muted: false }
    }
}

/// What the thread is to do when it is woken.
#[derive(PartialEq, Eq)]
enum Alarm {
    None,
    Look,
    Stop,
}

impl BeaconBoard {
    /// The beacons of a node. A pool that completes nothing for `pool_patience` is muted.
    #[must_use]
    pub fn new(core: Beacons, timers: Arc<Timers<SliceId>>, pool_patience: Duration) -> Arc<Self> {
        Arc::new(Self {
            core: RwLock::new(core),
            transport: OnceLock::new(),
            timers,
            watched: Mutex::new(BTreeMap::new()),
            pool_patience,
            alarm: Mutex::new(Alarm::None),
            changed: Condvar::new(),
            sleeps_until: AtomicU64::new(0),
        })
    }

    /// Starts the thread. Ends with [`BeaconBoard::stop`].
    pub fn start(self: &Arc<Self>, transport: Weak<dyn Transport>) {
        if self.transport.set(transport).is_err() {
            return;
        }
        let board = Arc::clone(self);
        thread::Builder::new()
            .name("beacons".to_owned())
            .spawn(move || board.run())
            .expect("a thread can be started");
    }

    /// Lets replicas ask who answered and who was heard.
    pub fn with<R>(&self, ask: impl FnOnce(&dyn Leases) -> R) -> R {
        ask(&*self.core.read())
    }

    /// From when this returns, beacons to `peers`, and to nobody else, vouch for `slice` at `epoch`.
    pub fn vouch(
        &self,
        slice: SliceId,
        pool: &Arc<Pool>,
        epoch: Option<Epoch>,
        peers: Vec<NodeId>,
    ) {
        // Held over both events, so that a mute and its end never pass each other.
        let mut watched = self.watched.lock();
        let entry = watched.entry(pool.id()).or_insert_with(|| Watched::new(pool));
        match epoch {
            Some(_) => entry.slices.insert(slice),
            None => entry.slices.remove(&slice),
        };
        self.handle(BeaconEvent::Mute { slice, muted: entry.muted });
        self.handle(BeaconEvent::Vouch { slice, epoch, peers });
        drop(watched);
        self.wake_if_earlier();
    }

    /// Looks at a pool from now on.
    pub fn watch(&self, pool: &Arc<Pool>) {
        self.watched.lock().entry(pool.id()).or_insert_with(|| Watched::new(pool));
    }

    /// There is work: pools are to be looked at.
    pub fn pool_busy(&self) {
        self.wake(Alarm::Look);
    }

    /// A pool is closed: it is no longer looked at.
    pub fn forget(&self, pool: PoolId) {
        self.watched.lock().remove(&pool);
    }

    /// A message from `from`'s beacons. Says whether it was one.
    #[must_use]
    pub fn receive(&self, from: NodeId, message: &Message) -> bool {
        let Ok(message) = BeaconMessage::decode(&message.header) else { return false };
        self.handle(BeaconEvent::Message { from, message });
        self.wake_if_earlier();
        true
    }

    /// Wakes the thread where something is due before it would wake by itself.
    fn wake_if_earlier(&self) {
        let due = self.core.read().deadline().map_or(u64::MAX, nanoseconds);
        if due < self.sleeps_until.load(Ordering::Acquire) {
            self.wake(Alarm::Look);
        }
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.wake(Alarm::Stop);
    }

    fn wake(&self, why: Alarm) {
        let mut alarm = self.alarm.lock();
        if *alarm != Alarm::Stop {
            *alarm = why;
        }
        self.changed.notify_one();
    }

    fn run(&self) {
        loop {
            let busy = self.look_at_pools();
            self.handle(BeaconEvent::Tick);
            let look_again = busy.then(|| clock::now() + POOL_LOOK);
            let deadline = self.core.read().deadline();
            let deadline = deadline.into_iter().chain(look_again).min();
            self.sleeps_until.store(deadline.map_or(u64::MAX, nanoseconds), Ordering::Release);
            // What became due before that was stored has woken nobody.
            let deadline = deadline.into_iter().chain(self.core.read().deadline()).min();
            let mut alarm = self.alarm.lock();
            if *alarm == Alarm::None {
                match deadline {
                    Some(deadline) => {
                        let left = deadline.since(clock::now());
                        self.changed.wait_for(&mut alarm, left);
                    }
                    None => self.changed.wait(&mut alarm),
                }
            }
            if *alarm == Alarm::Stop {
                return;
            }
            *alarm = Alarm::None;
        }
    }

    /// Mutes the slices of pools that began to hang, and lets those speak whose pool goes on. Says
    /// whether any pool is at work.
    fn look_at_pools(&self) -> bool {
        let now = clock::now();
        let mut table = self.watched.lock();
        let (mut busy, mut slow) = (false, false);
        for watched in table.values_mut() {
            let Some(pool) = watched.pool.upgrade() else { continue };
            let health = pool.look(now, self.pool_patience);
            busy |= health.is_some();
            let health = health.unwrap_or_else(|| pool.health());
            slow |= health != Health::Well;
            let mute = health == Health::Hangs || pool.is_failed();
            if mute == watched.muted {
                continue;
            }
            watched.muted = mute;
            for slice in &watched.slices {
                self.handle(BeaconEvent::Mute { slice: *slice, muted: mute });
            }
        }
        drop(table);
        if slow && let Some(transport) = self.transport.get().and_then(Weak::upgrade) {
            transport.relieve();
        }
        busy
    }

    fn handle(&self, event: BeaconEvent) {
        let mut out = Vec::new();
        self.core.write().handle(clock::now(), event, &mut out);
        for command in out {
            match command {
                BeaconCommand::Send { to, message } => {
                    if let Some(transport) = self.transport.get().and_then(Weak::upgrade) {
                        // Lost where there is no stream: the next one follows soon.
                        let _ = transport.send(to, Channel::Beacon, Message::new(message.encode()));
                    }
                }
                BeaconCommand::Wake { slices } => {
                    for slice in slices {
                        self.timers.wake(slice);
                    }
                }
            }
        }
    }
}

fn nanoseconds(time: Time) -> u64 {
    u64::try_from(time.0.as_nanos()).unwrap_or(u64::MAX)
}
