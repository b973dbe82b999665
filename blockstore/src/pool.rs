//! An open pool: the engine with its threads.
//!
//! ```text
//!   slices ── append ──> engine            on the thread that has the entries, while all is well
//!   slices ── take over ─> [work thread]   what other threads must not wait for
//!   slices ── sync ────> [sync thread] ──> engine.sync ──> Durable to all that asked
//!   slices ── look ────> [readers]
//!                        [maintenance]  ──> checkpoints, reclaim, zeroing ahead
//! ```
//!
//! The first I/O error marks the pool failed: nothing more is asked of it, its slices are told, and
//! so is the node, which has its replicas placed elsewhere.
//!
//! A disk may also hang. [`Pool::look`], called again and again while there is work, sees it:
//! ```text
//!   well ── an append or sync is not back for long ──> slow: only the pool's own threads wait
//!   slow ── ... and nothing has moved for longer than a lease ──> hangs: the node is told
//!   hangs, slow ── all came back ──> well
//! ```

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use mooring_engine::{EngineError, Maintained, Pool as Engine};
use mooring_replication::{Event, Mark};
use mooring_terms::{Entry, ErrorKind, Incarnation, PoolId, SliceId, Time};
use parking_lot::{Condvar, Mutex};

use crate::clock;
use crate::disk_watch::Movement;
use crate::errands::{self, Cover};
use crate::readers::Readers;
use crate::slice::{Errand, Slice};

/// How long maintenance rests after a step that found nothing more to do, while writes go on.
const MAINTENANCE_PAUSE: Duration = Duration::from_millis(50);

/// Threads that read for whoever may not wait for the disk.
const READERS: usize = 4;

/// An append that takes longer holds up nobody else: from then on only the pool's threads append.
const SLOW_APPEND: Duration = Duration::from_millis(100);
/// As [`SLOW_APPEND`], for a sync, which takes its time on a busy disk: the next append may hang.
const SLOW_SYNC: Duration = Duration::from_millis(500);

/// Looks further apart than this say nothing about the time between them.
const LATE_LOOK: Duration = Duration::from_millis(500);

/// What hears of a pool.
pub trait PoolWatch: Send + Sync {
    /// The pool has failed, for good until it is opened again.
    fn pool_failed(&self, pool: PoolId, incarnation: Incarnation, reason: String);
    /// The pool refused an append of a replica, which is over until the pool is opened again.
    fn replica_failed(&self, pool: PoolId, slice: SliceId, reason: String);
    /// There is work again: [`Pool::look`] is to be called from now on.
    fn pool_busy(&self);
    /// The pool has begun to hang, or goes on.
    fn pool_hangs(&self, pool: PoolId, hangs: bool);
}

/// How a pool's disk answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Health {
    /// In time.
    Well,
    /// Not in time: nobody waits for it who has something else to do.
    Slow,
    /// Not at all: it vouches for nothing, and its primaries resign.
    Hangs,
}

/// One open pool.
pub struct Pool {
    id: PoolId,
    incarnation: Incarnation,
    path: PathBuf,
    engine: Arc<Engine>,
    watch: Weak<dyn PoolWatch>,
    failed: AtomicBool,
    sync: Queue<Waiting>,
    work: Queue<Work>,
    maintenance: Queue<()>,
    readers: Arc<Readers>,
    movement: Arc<Movement>,
    appends: Calls,
    syncs: Calls,
    /// Whether somebody looks.
    watched: AtomicBool,
    health: AtomicU8,
    seen: Mutex<Seen>,
}

/// Calls of the engine that have begun, and that have come back.
#[derive(Default)]
struct Calls {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// What was seen at the last look.
#[derive(Default)]
struct Seen {
    movement: u64,
    appends: Stretch,
    syncs: Stretch,
}

/// For how long calls have been waiting without one coming back.
#[derive(Default)]
struct Stretch {
    begun: u64,
    ended: u64,
    waits: bool,
    looked: Time,
    /// Since when none has come back.
    since: Time,
    /// Since when, beside that, nothing has moved on the disk.
    still_since: Time,
}

/// What the pool's own thread does.
enum Work {
    Lane(Errand),
    Other(Box<dyn FnOnce() + Send>),
}

/// A slice that waits for durability up to a mark.
struct Waiting {
    slice: Arc<Slice>,
    mark: Mark,
}

/// Work for one thread.
struct Queue<T> {
    state: Mutex<QueueState<T>>,
    more: Condvar,
}

struct QueueState<T> {
    items: Vec<T>,
    stopped: bool,
}

impl Pool {
    /// Starts the threads of an engine that was opened as `incarnation`.
    pub fn start(
        id: PoolId,
        incarnation: Incarnation,
        path: PathBuf,
        engine: Engine,
        movement: Arc<Movement>,
        watch: Weak<dyn PoolWatch>,
    ) -> Arc<Self> {
        let pool = Arc::new(Self {
            id,
            incarnation,
            path,
            engine: Arc::new(engine),
            watch,
            failed: AtomicBool::new(false),
            sync: Queue::new(),
            work: Queue::new(),
            maintenance: Queue::new(),
            readers: Readers::start(&format!("read-{id}"), READERS),
            movement,
            appends: Calls::default(),
            syncs: Calls::default(),
            watched: AtomicBool::new(false),
            health: AtomicU8::new(Health::Well as u8),
            seen: Mutex::new(Seen::default()),
        });
        let working = Arc::clone(&pool);
        let syncing = Arc::clone(&pool);
        let maintained = Arc::clone(&pool);
        spawn(format!("sync-{id}"), move || syncing.sync_loop());
        spawn(format!("work-{id}"), move || working.work_loop());
        spawn(format!("pool-{id}"), move || maintained.maintenance_loop());
        pool
    }

    /// Its number in the cluster.
    #[must_use]
    pub fn id(&self) -> PoolId {
        self.id
    }

    /// This opening of it.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Its directory or device.
    #[must_use]
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// The storage engine.
    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Whether an I/O error has stopped it.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// The threads that read.
    #[must_use]
    pub fn readers(&self) -> &Arc<Readers> {
        &self.readers
    }

    /// How its disk answers, as of the last look.
    #[must_use]
    pub fn health(&self) -> Health {
        match self.health.load(Ordering::Relaxed) {
            0 => Health::Well,
            1 => Health::Slow,
            _ => Health::Hangs,
        }
    }

    /// Whether its disk doesn't answer.
    #[must_use]
    pub fn hangs(&self) -> bool {
        self.health() == Health::Hangs
    }

    /// Whether a thread that has other things to do may wait for the disk all the same.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.health() == Health::Well
    }

    /// Looks how the disk answers; one that has completed nothing for `patience`, with work pending,
    /// hangs. `None` if nothing goes on: then there is no need to look again until the watch hears that
    /// there is work.
    pub fn look(&self, now: Time, patience: Duration) -> Option<Health> {
        let mut seen = self.seen.lock();
        let movement = self.movement.count();
        let moved = std::mem::replace(&mut seen.movement, movement) != movement;
        let appends = seen.appends.look(&self.appends, moved, now);
        // Writes go to the page cache, and say nothing about a sync.
        let syncs = seen.syncs.look(&self.syncs, false, now);
        let idle = appends.idle && syncs.idle;
        if idle {
            self.watched.store(false, Ordering::SeqCst);
            // Unless something began just now, without telling anybody.
            if self.appends.is_waiting() || self.syncs.is_waiting() {
                self.watched.store(true, Ordering::SeqCst);
                return Some(self.health());
            }
        }
        drop(seen);
        let health = if appends.still > patience || syncs.still > patience {
            Health::Hangs
        } else if appends.waiting > SLOW_APPEND || syncs.waiting > SLOW_SYNC {
            self.health().max(Health::Slow)
        } else {
            Health::Well
        };
        self.set_health(health);
        (!idle).then_some(health)
    }

    fn set_health(&self, health: Health) {
        let before = self.health.swap(health as u8, Ordering::Relaxed);
        let (hung, hangs) = (before == Health::Hangs as u8, health == Health::Hangs);
        if hung != hangs
            && let Some(watch) = self.watch.upgrade()
        {
            watch.pool_hangs(self.id, hangs);
        }
    }

    /// Has the pool's own thread work a slice's lane off.
    pub fn take_over(&self, errand: Errand) {
        self.work.push(Work::Lane(errand));
    }

    /// Has the pool's own thread do something that may wait for the disk, after what it was given
    /// before.
    pub fn run(&self, work: impl FnOnce() + Send + 'static) {
        self.work.push(Work::Other(Box::new(work)));
    }

    /// Appends entries of a slice: true once they are with the kernel, false if the pool has failed.
    pub fn append(&self, slice: SliceId, entries: &[Entry]) -> bool {
        if self.is_failed() {
            return false;
        }
        let result = self.counted(&self.appends, || self.engine.append(slice, entries));
        match result {
            Ok(_) => {
                self.maintenance.push_once(());
                true
            }
            // An I/O error ends the pool; anything else is one slice's trouble, and its end here.
            Err(error) if error.kind() == ErrorKind::Fatal => {
                self.fail(&error);
                false
            }
            Err(error) => {
                if let Some(watch) = self.watch.upgrade() {
                    watch.replica_failed(self.id, slice, error.to_string());
                }
                false
            }
        }
    }

    /// After an append, once everybody has been told: starts the disk on it if its sync is expected.
    pub fn write_out_early(&self) {
        if !self.is_failed() {
            // It may wait where a disk hangs, like the append itself.
            self.counted(&self.appends, || self.engine.write_out_early());
        }
    }

    /// Tells `slice` that it is durable up to `mark`, once it is.
    pub fn sync(&self, slice: Arc<Slice>, mark: Mark) {
        self.sync.push(Waiting { slice, mark });
    }

    /// Marks the pool failed; the first call tells the node.
    pub fn fail(&self, error: &EngineError) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            tracing::error!(pool = %self.id, path = %self.path.display(), %error, "the pool has failed");
            if let Some(watch) = self.watch.upgrade() {
                watch.pool_failed(self.id, self.incarnation, error.to_string());
            }
        }
    }

    /// There is something to reclaim.
    pub fn wake_maintenance(&self) {
        self.maintenance.push_once(());
    }

    /// Ends the threads. What was appended stays with the kernel.
    pub fn stop(&self) {
        self.sync.stop();
        self.work.stop();
        self.maintenance.stop();
        self.readers.stop();
    }

    fn counted<R>(&self, calls: &Calls, work: impl FnOnce() -> R) -> R {
        calls.begun.fetch_add(1, Ordering::SeqCst);
        if !self.watched.load(Ordering::SeqCst)
            && !self.watched.swap(true, Ordering::SeqCst)
            && let Some(watch) = self.watch.upgrade()
        {
            watch.pool_busy();
        }
        let result = work();
        calls.ended.fetch_add(1, Ordering::SeqCst);
        result
    }

    fn work_loop(&self) {
        while let Some(work) = self.work.take() {
            for work in work {
                errands::scope(Cover::Pool, || match work {
                    Work::Lane(errand) => errands::later(errand),
                    Work::Other(work) => work(),
                });
            }
        }
    }

    fn sync_loop(&self) {
        while let Some(waiting) = self.sync.take() {
            if self.is_failed() {
                continue;
            }
            match self.counted(&self.syncs, || self.engine.sync()) {
                Ok(_) => {
                    for Waiting { slice, mark } in waiting {
                        slice.deliver(Event::Durable { mark });
                    }
                }
                Err(error) => self.fail(&error),
            }
        }
    }

    fn maintenance_loop(&self) {
        while self.maintenance.take().is_some() {
            if self.is_failed() {
                continue;
            }
            loop {
                match self.engine.maintain() {
                    Ok(Maintained::Worked) => {}
                    Ok(Maintained::Idle) => break,
                    // A full pool has no room to clean in; freeing something wakes this again.
                    Err(error) if error.kind() == ErrorKind::NoSpace => break,
                    Err(error) => {
                        self.fail(&error);
                        break;
                    }
                }
            }
            self.maintenance.rest(MAINTENANCE_PAUSE);
        }
    }
}

/// For how long calls have been waiting.
struct Waited {
    /// None has begun or ended since the look before, and none waits.
    idle: bool,
    /// Without one coming back.
    waiting: Duration,
    /// Without one coming back, or anything else moving on the disk.
    still: Duration,
}

impl Calls {
    fn is_waiting(&self) -> bool {
        self.ended.load(Ordering::SeqCst) < self.begun.load(Ordering::SeqCst)
    }
}

impl Stretch {
    fn look(&mut self, calls: &Calls, moved: bool, now: Time) -> Waited {
        // In this order: what ends in between counts as waiting, and is seen to have ended next time.
        let ended = calls.ended.load(Ordering::SeqCst);
        let begun = calls.begun.load(Ordering::SeqCst);
        let waits = ended < begun;
        let idle = !waits && begun == self.begun;
        // Whoever looks late was stopped, and the disk perhaps with him.
        let late = now.since(self.looked) > LATE_LOOK;
        let anew = !waits || !self.waits || late || ended != self.ended;
        if anew {
            self.since = now;
        }
        if anew || moved {
            self.still_since = now;
        }
        (self.begun, self.ended, self.waits, self.looked) = (begun, ended, waits, now);
        Waited { idle, waiting: now.since(self.since), still: now.since(self.still_since) }
    }
}

impl<T> Queue<T> {
    fn new() -> Self {
        Self {
            state: Mutex::new(QueueState { items: Vec::new(), stopped: false }),
            more: Condvar::new(),
        }
    }

    fn push(&self, item: T) {
        let mut state = self.state.lock();
        if !state.stopped {
            state.items.push(item);
            drop(state);
            self.more.notify_one();
        }
    }

    /// Pushes only into an empty queue: a signal.
    fn push_once(&self, item: T) {
        let mut state = self.state.lock();
        if state.items.is_empty() {
            state.items.push(item);
            drop(state);
            self.more.notify_one();
        }
    }

    /// Waits for items, and takes all of them; `None` when stopped.
    fn take(&self) -> Option<Vec<T>> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            if !state.items.is_empty() {
                return Some(std::mem::take(&mut state.items));
            }
            self.more.wait(&mut state);
        }
    }

    /// Sleeps for `pause`, or until stopped.
    fn rest(&self, pause: Duration) {
        let mut state = self.state.lock();
        let deadline = clock::now() + pause;
        while !state.stopped {
            let now = clock::now();
            if now >= deadline {
                return;
            }
            self.more.wait_for(&mut state, deadline.since(now));
        }
    }

    fn stop(&self) {
        let mut state = self.state.lock();
        state.stopped = true;
        // Items may hold what holds the pool.
        let items = std::mem::take(&mut state.items);
        drop(state);
        self.more.notify_all();
        drop(items);
    }
}

fn spawn(name: String, body: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name(name).spawn(body).expect("a thread can be started");
}
