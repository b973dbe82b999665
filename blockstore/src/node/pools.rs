//! The pools of this node: opened at the start, added and removed while everything goes on.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mooring_config::{Class, ClusterVersion, Command, Done, Pool as PoolRow, PoolState};
use mooring_terms::{ErrorKind, Incarnation, NodeId, PoolId, SliceId};
use parking_lot::{Mutex, RwLock};

use super::{Node, NodeError};
use crate::clock;
use crate::event_log::{About, Severity};
use crate::pool::{Pool, PoolWatch};
use crate::pool_store::{self, Opened, Progress, Tag};
use crate::speed::{Speed, class_of};

/// How long a pool may be in use by somebody who is going away.
const IN_USE_WAIT: Duration = Duration::from_secs(5);
const IN_USE_PAUSE: Duration = Duration::from_millis(50);

/// The open pools, and what their opening said.
#[derive(Default)]
pub struct Pools {
    open: RwLock<BTreeMap<PoolId, OpenPool>>,
    /// Openings that this process has drawn for pools which are being added, or which failed: rows
    /// that name them are not opened a second time.
    drawn: RwLock<BTreeSet<Incarnation>>,
    /// What the cluster is still to be told of each pool, in order.
    news: Mutex<BTreeMap<PoolId, VecDeque<Command>>>,
}

/// One open pool.
#[derive(Clone)]
pub struct OpenPool {
    /// The pool.
    pub pool: Arc<Pool>,
    /// The earlier openings since which the kernel has lost nothing that was handed to it.
    pub kept: Vec<Incarnation>,
    /// Whether durable records were found missing.
    pub damaged: bool,
    /// What was measured when it was added.
    pub speed: Option<Speed>,
}

impl Pools {
    /// An open pool.
    #[must_use]
    pub fn get(&self, id: PoolId) -> Option<OpenPool> {
        self.open.read().get(&id).cloned()
    }

    /// Every open pool.
    #[must_use]
    pub fn all(&self) -> Vec<OpenPool> {
        self.open.read().values().cloned().collect()
    }

    fn next_news(&self, pool: PoolId) -> Option<Command> {
        self.news.lock().get(&pool)?.front().cloned()
    }

    /// The first piece of news is known; the last one leaves nothing behind.
    fn told(&self, pool: PoolId) {
        if let Entry::Occupied(mut of_pool) = self.news.lock().entry(pool) {
            of_pool.get_mut().pop_front();
            if of_pool.get().is_empty() {
                of_pool.remove();
            }
        }
    }

    fn insert(&self, pool: OpenPool) {
        self.open.write().insert(pool.pool.id(), pool);
    }

    fn remove(&self, id: PoolId) -> Option<OpenPool> {
        self.open.write().remove(&id)
    }
}

impl Node {
    /// Opens the pools that the configuration gives to this node. One that can't be opened is an
    /// event, and marked failed, so that its replicas are placed elsewhere.
    pub(super) fn open_pools(self: &Arc<Self>) {
        let state = self.state();
        // Each reads its own log.
        std::thread::scope(|scope| {
            for row in state.pools().values().filter(|row| row.node == self.id) {
                scope.spawn(|| self.open_missing(row));
            }
        });
    }

    /// Opens a pool of this node's that this process hasn't opened or drawn an opening for.
    pub(super) fn open_missing(self: &Arc<Self>, row: &PoolRow) {
        if self.pools.get(row.id).is_some() || self.pools.drawn.read().contains(&row.incarnation) {
            return;
        }
        if let Err(error) = self.open_pool(row) {
            self.events.push(
                Severity::Error,
                "pool-failed",
                format!("pool {} ({}) can't be opened: {error}", row.id, row.path),
                About { pool: Some(row.id), node: Some(self.id), ..About::default() },
            );
            // Tried once in each of the daemon's lives.
            self.pools.drawn.write().insert(row.incarnation);
            self.report_failed(row.id, row.incarnation, error.to_string());
        } else {
            self.reconcile_again();
        }
    }

    fn open_pool(self: &Arc<Self>, row: &PoolRow) -> Result<(), NodeError> {
        let path = Path::new(&row.path);
        let Opened { engine, tag, report, movement, .. } = self.open_patiently(path)?;
        // Without a tag and without replicas it was being added when the daemon died.
        let unused = tag.is_none() && pool_store::replicas(&engine).is_empty();
        let fresh = || Tag {
            cluster: self.cluster,
            pool: row.id,
            boot_id: String::new(),
            openings: Vec::new(),
        };
        let ours = |tag: &Tag| tag.cluster == self.cluster && tag.pool == row.id;
        let Some(tag) = tag.or_else(|| unused.then(fresh)).filter(ours) else {
            return Err(NodeError::OtherPool { path: row.path.clone(), pool: row.id });
        };
        let failed =
            matches!(row.state, PoolState::Failed { .. }) || self.store.pool_failed(row.id)?;
        let incarnation = draw_incarnation();
        let (kept, tag) = tag.open_again(incarnation, failed);
        pool_store::tag(path, &engine, &tag)?;
        self.store.set_pool_failed(row.id, false)?;
        let damaged = report.damaged;
        if damaged {
            self.events.push(
                Severity::Error,
                "pool-damaged",
                format!(
                    "pool {} ({}) lost records that were durable: its replicas rejoin",
                    row.id, row.path
                ),
                About { pool: Some(row.id), node: Some(self.id), ..About::default() },
            );
        }
        let size = engine.usage().size;
        let speed = self.store.pool_speed(row.id)?;
        // Before it can fail.
        self.announce_of_pool(row.id, Command::PoolOpened { pool: row.id, incarnation, size });
        let watch: std::sync::Weak<dyn PoolWatch> = self.this.clone();
        let pool = Pool::start(row.id, incarnation, path.to_owned(), engine, movement, watch);
        self.plane.beacons().watch(&pool);
        let open = OpenPool { pool, kept, damaged, speed };
        self.pools.insert(open.clone());
        self.runtime.spawn(Arc::clone(self).sweep_once_current(open));
        Ok(())
    }

    /// Opens a pool; a predecessor of this process may hold it for a moment longer.
    fn open_patiently(&self, path: &Path) -> Result<Opened, NodeError> {
        let deadline = clock::now() + IN_USE_WAIT;
        loop {
            match pool_store::open(path, self.how()) {
                Err(error) if error.kind() == ErrorKind::Unavailable && clock::now() < deadline => {
                    std::thread::sleep(IN_USE_PAUSE);
                }
                other => return Ok(other?),
            }
        }
    }

    /// Adds a pool; one whose path is a pool of this node already is answered as it is. Without a
    /// class it is measured, and `progress` told how long that has been going on; what can't be
    /// measured is taken for medium.
    ///
    /// # Errors
    /// [`NodeError`]; a device that holds something is refused unless `force`.
    pub async fn add_pool(
        self: &Arc<Self>,
        by: &str,
        path: &Path,
        size: Option<u64>,
        class: Option<Class>,
        force: bool,
        progress: Arc<Progress>,
    ) -> Result<PoolId, NodeError> {
        let name = path.display().to_string();
        let existing = |row: &&Arc<PoolRow>| row.node == self.id && row.path == name;
        if let Some(row) = self.state().pools().values().find(existing) {
            return Ok(row.id);
        }
        let (made, how) = (path.to_owned(), self.how());
        let made = tokio::task::spawn_blocking(move || {
            let measure = class.is_none().then_some(&*progress);
            pool_store::create(&made, size, force, how, measure)
        });
        let Opened { engine, tag, speed, movement, .. } =
            made.await.map_err(|_| NodeError::Unreadable(self.id))??;
        // A tag of ours without a row: an addition whose outcome was never learned, or a removed
        // pool; replicas in it would tell of the latter.
        let reusable = tag.as_ref().is_none_or(|tag| tag.cluster == self.cluster)
            && pool_store::replicas(&engine).is_empty();
        if !reusable {
            return Err(NodeError::ForeignPool { path: name });
        }
        let incarnation = draw_incarnation();
        self.pools.drawn.write().insert(incarnation);
        let size = engine.usage().size;
        let measured = class.is_none() && speed.is_some();
        let class = class.or(speed.as_ref().map(class_of)).unwrap_or(Class::Medium);
        let command =
            Command::AddPool { node: self.id, path: name, size, class, measured, incarnation };
        let added = self.propose(by, command).await;
        if added.is_err() {
            // If it is there after all, it is opened when its row arrives.
            self.pools.drawn.write().remove(&incarnation);
        }
        let Done::Pool(id) = added? else {
            return Err(NodeError::Unreadable(self.id));
        };
        let tag = Tag {
            cluster: self.cluster,
            pool: id,
            boot_id: pool_store::boot_id(),
            openings: vec![incarnation],
        };
        let place = path.to_owned();
        let (engine, tagged) = tokio::task::spawn_blocking(move || {
            let tagged = pool_store::tag(&place, &engine, &tag);
            (engine, tagged)
        })
        .await
        .map_err(|_| NodeError::Unreadable(self.id))?;
        tagged?;
        if let Some(speed) = speed {
            self.store.set_pool_speed(id, speed)?;
        }
        let watch: std::sync::Weak<dyn PoolWatch> = self.this.clone();
        let pool = Pool::start(id, incarnation, path.to_owned(), engine, movement, watch);
        self.plane.beacons().watch(&pool);
        self.pools.insert(OpenPool { pool, kept: Vec::new(), damaged: false, speed });
        self.let_pools_count();
        // Volumes may have been placed here before the pool was in the table.
        self.reconcile_again();
        Ok(id)
    }

    fn how(&self) -> pool_store::How {
        let counts = self.state().version() >= ClusterVersion::COUNTS;
        pool_store::How { memory_bytes: self.options.pool_memory, counts }
    }

    /// Lets the maps of all pools say how many blocks hold data, if every node can read that.
    pub(super) fn let_pools_count(&self) {
        if self.how().counts {
            self.pools.all().iter().for_each(|open| open.pool.engine().write_counts());
        }
    }

    /// Closes a pool that was removed from the configuration.
    pub(super) fn close_pool(&self, id: PoolId) {
        let Some(open) = self.pools.remove(id) else { return };
        for slice in self.plane.slices_in(&open.pool) {
            self.plane.remove_slice(slice.id());
        }
        self.plane.beacons().forget(id);
        open.pool.stop();
        tracing::info!(pool = %id, path = %open.pool.path().display(), "the pool is closed");
    }

    pub(super) fn report_failed(
        self: &Arc<Self>,
        pool: PoolId,
        incarnation: Incarnation,
        reason: String,
    ) {
        self.announce_of_pool(pool, Command::PoolFailed { pool, incarnation, reason });
    }

    /// Tells the cluster what has become of a pool, after what it was told before: a failure that
    /// came first would be undone by the opening.
    pub(super) fn announce_of_pool(self: &Arc<Self>, pool: PoolId, command: Command) {
        let mut news = self.pools.news.lock();
        let of_pool = news.entry(pool).or_default();
        of_pool.push_back(command);
        if of_pool.len() > 1 {
            return;
        }
        let node = Arc::downgrade(self);
        self.runtime.spawn(async move {
            loop {
                let Some(this) = node.upgrade() else { return };
                let Some(next) = this.pools.next_news(pool) else { return };
                drop(this);
                Self::announce(&node, next).await;
                let Some(this) = node.upgrade() else { return };
                this.pools.told(pool);
            }
        });
    }

    /// The pools of a node, as the configuration lists them.
    #[must_use]
    pub fn pool_rows(&self, node: NodeId) -> Vec<Arc<PoolRow>> {
        self.state().pools().values().filter(|row| row.node == node).cloned().collect()
    }
}

impl PoolWatch for Node {
    fn pool_failed(&self, pool: PoolId, incarnation: Incarnation, reason: String) {
        self.events.push(
            Severity::Error,
            "pool-failed",
            format!("pool {pool} has failed: {reason}. Its replicas are placed elsewhere; replace it with `mountctl pool rm {pool}` and `mountctl pool add`"),
            About { pool: Some(pool), node: Some(self.id), ..About::default() },
        );
        if let Err(error) = self.store.set_pool_failed(pool, true) {
            tracing::error!(%pool, %error, "the failure of the pool could not be remembered");
        }
        let Some(this) = self.this.upgrade() else { return };
        // Slices are told on another thread: this one may be in the middle of one of them.
        std::thread::spawn(move || {
            this.plane.pool_failed(pool);
            this.report_failed(pool, incarnation, reason);
        });
    }

    fn replica_failed(&self, pool: PoolId, slice: SliceId, reason: String) {
        self.events.push(
            Severity::Error,
            "replica-failed",
            format!("the replica of slice {slice} in pool {pool} has failed: {reason}"),
            About {
                pool: Some(pool),
                node: Some(self.id),
                volume: Some(slice.volume),
                ..About::default()
            },
        );
    }

    fn pool_busy(&self) {
        self.plane.beacons().pool_busy();
    }

    fn pool_hangs(&self, pool: PoolId, hangs: bool) {
        let (severity, kind, message) = if hangs {
            let message = "doesn't answer: it vouches for nothing, and its primaries resign";
            (Severity::Error, "pool-hangs", message)
        } else {
            (Severity::Info, "pool-answers", "answers again")
        };
        let about = About { pool: Some(pool), node: Some(self.id), ..About::default() };
        let (Some(this), Some(open)) = (self.this.upgrade(), self.pools.get(pool)) else { return };
        // Not on the thread that sends beacons.
        std::thread::spawn(move || {
            this.events.push(severity, kind, format!("pool {pool} {message}"), about);
            if hangs {
                this.plane.resign_while_hung(&open.pool);
            } else {
                this.plane.go_on_after_hang(&open.pool, this.options.replication.grace);
            }
        });
    }
}

fn draw_incarnation() -> Incarnation {
    Incarnation(crate::random::u64())
}
