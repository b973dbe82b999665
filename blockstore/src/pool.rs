//! An open pool: the engine with its threads.
//!
//! ```text
//!   slices ── append ──> engine            on the thread that has the entries
//!   slices ── sync ────> [sync thread] ──> engine.sync ──> Durable to all that asked
//!                        [maintenance]  ──> checkpoints, reclaim, zeroing ahead
//! ```
//!
//! The first I/O error marks the pool failed: nothing more is asked of it, its slices are told, and
//! so is the node, which has its replicas placed elsewhere.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use mooring_engine::{EngineError, Maintained, Pool as Engine};
use mooring_replication::{Event, Mark};
use mooring_terms::{Entry, ErrorKind, Incarnation, PoolId, SliceId, Time};
use parking_lot::{Condvar, Mutex};

use crate::clock;
use crate::slice::Slice;

/// How long maintenance rests after a step that found nothing more to do, while writes go on.
const MAINTENANCE_PAUSE: Duration = Duration::from_millis(50);

/// What hears of a pool's failure.
pub trait PoolWatch: Send + Sync {
    /// The pool has failed, for good until it is opened again.
    fn pool_failed(&self, pool: PoolId, incarnation: Incarnation, reason: String);
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
    maintenance: Queue<()>,
    /// When the oldest append or sync that has not come back was handed to the engine, in
    /// nanoseconds of [`Time`]; 0 while there is none. Beacons look at it: a pool that hangs vouches
    /// for nothing.
    busy_since: AtomicU64,
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
            maintenance: Queue::new(),
            busy_since: AtomicU64::new(0),
        });
        let syncing = Arc::clone(&pool);
        let maintained = Arc::clone(&pool);
        spawn(format!("sync-{id}"), move || syncing.sync_loop());
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

    /// Whether it has had work for longer than `limit` without completing any.
    #[must_use]
    pub fn hangs(&self, now: Time, limit: Duration) -> bool {
        match self.busy_since.load(Ordering::Acquire) {
            0 => false,
            since => now.since(Time(Duration::from_nanos(since))) > limit,
        }
    }

    /// Appends entries of a slice: true once they are with the kernel, false if the pool has failed.
    pub fn append(&self, slice: SliceId, entries: &[Entry]) -> bool {
        if self.is_failed() {
            return false;
        }
        let result = self.timed(|| self.engine.append(slice, entries));
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
                tracing::error!(pool = %self.id, %slice, %error, "the engine refused an append");
                false
            }
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
        self.maintenance.stop();
    }

    fn timed<R>(&self, work: impl FnOnce() -> R) -> R {
        let now = u64::try_from(clock::now().0.as_nanos()).unwrap_or(u64::MAX).max(1);
        // Only the first of several at once is timed; when it comes back, others are young.
        let first =
            self.busy_since.compare_exchange(0, now, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        let result = work();
        if first {
            self.busy_since.store(0, Ordering::Release);
        }
        result
    }

    fn sync_loop(&self) {
        while let Some(waiting) = self.sync.take() {
            if self.is_failed() {
                continue;
            }
            match self.timed(|| self.engine.sync()) {
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

impl<T> Queue<T> {
    fn new() -> Self {
        Self {
            state: Mutex::new(QueueState { items: Vec::new(), stopped: false }),
            more: Condvar::new(),
        }
    }

    fn push(&self, item: T) {
        self.state.lock().items.push(item);
        self.more.notify_one();
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
        self.state.lock().stopped = true;
        self.more.notify_all();
    }
}

fn spawn(name: String, body: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name(name).spawn(body).expect("a thread can be started");
}
