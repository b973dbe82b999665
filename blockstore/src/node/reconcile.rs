//! Making this node what the configuration says: which replicas it holds, whom it talks to.
//!
//! One task follows the state that Raft applies, takes what differs from the state it last acted on,
//! and acts on that. Nothing can be missed, and an unchanged slice costs nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mooring_config::changes::{self, Change};
use mooring_config::{ClusterState, SliceConfig, Volume as VolumeRow};
use mooring_engine::EngineError;
use mooring_replication::{Event, Opened, Replica};
use mooring_terms::{NodeId, SliceId, VolumeId};

use super::pools::OpenPool;
use super::{ANNOUNCE_PAUSE, Node, config_events};
use crate::pool::Pool;
use crate::pool_store;
use crate::slice::Slice;

impl Node {
    /// Follows the configuration until the node stops.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut states = self.control.watch();
        let mut acted_on = Arc::new(ClusterState::default());
        let mut everything = false;
        let mut told: Option<Option<u64>> = None;
        loop {
            let state = Arc::clone(&states.borrow_and_update().state);
            let node = Arc::clone(&self);
            let before = Arc::clone(&acted_on);
            let after = Arc::clone(&state);
            // Acting opens files and sends: not on a thread of the runtime.
            let acted = tokio::task::spawn_blocking(move || {
                node.act_on(&before, &after);
                if everything {
                    node.act_on(&ClusterState::default(), &after);
                }
            })
            .await;
            if acted.is_err() {
                tracing::error!("acting on the configuration failed; the daemon can't go on");
                std::process::abort();
            }
            // What happened before this start was told then.
            let seen = told.unwrap_or_else(|| state.events().back().map(|event| event.number));
            told = Some(config_events::tell(&self.events, &state, seen));
            acted_on = state;
            everything = false;
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                () = self.again.notified() => everything = true,
            }
        }
    }

    /// Acts on the whole configuration again, as after the addition of a pool.
    pub(super) fn reconcile_again(&self) {
        self.again.notify_one();
    }

    fn act_on(self: &Arc<Self>, before: &ClusterState, after: &Arc<ClusterState>) {
        self.current.store(Arc::clone(after));
        if before.version() != after.version() {
            self.plane.may_write(after.version());
            self.let_pools_count();
        }
        for change in changes::between(before, after) {
            match change {
                Change::Node { node, before, after } => {
                    self.node_changed(node, before.is_some(), after.is_some());
                }
                Change::Pool { pool, after: None, .. } => self.close_pool(pool),
                Change::Pool { after: Some(row), .. } if row.node == self.id => {
                    self.open_missing(&row)
                }
                Change::Slice { slice, after: config, .. } => match config {
                    Some(config) => self.slice_changed(slice, &config),
                    None => self.drop_replica(slice),
                },
                Change::Volume { volume, after: row, .. } => {
                    self.volume_changed(volume, row.as_deref());
                }
                Change::GossipKeys
                | Change::Cluster
                | Change::CaKey
                | Change::Tokens
                | Change::Pool { .. } => {}
            }
        }
    }

    fn node_changed(&self, node: NodeId, was_there: bool, is_there: bool) {
        if node == self.id {
            if !is_there && was_there {
                tracing::error!("this node was removed from the cluster");
            }
            return;
        }
        self.endpoint.refresh();
        if is_there {
            self.plane.connect_peer(node);
        } else {
            self.plane.disconnect_peer(node);
        }
    }

    fn slice_changed(self: &Arc<Self>, id: SliceId, config: &Arc<SliceConfig>) {
        let member = config.member(self.id).copied();
        let existing = self.plane.slice(id);
        match (member, existing) {
            (Some(member), Some(slice)) if slice.pool().id() == member.pool => {
                self.plane.configured(id, config);
            }
            (Some(member), existing) => {
                if existing.is_some() {
                    self.drop_replica(id);
                }
                // Making a replica waits for the disk, and nothing else may wait for that. All that
                // makes and removes replicas in a pool is done by its own thread, in order.
                if let Some(open) = self.pools.get(member.pool) {
                    let (node, pool) = (Arc::clone(self), Arc::clone(&open.pool));
                    pool.run(move || node.hold_replica(id, &open));
                }
            }
            (None, Some(_)) => self.drop_replica(id),
            (None, None) => self.plane.configured(id, config),
        }
    }

    /// Begins to hold a replica, if the configuration (still) says so: made if it isn't there, gone
    /// on with if it is. One that was taken away since is not kept.
    pub(super) fn hold_replica(self: &Arc<Self>, id: SliceId, open: &OpenPool) {
        let state = self.state();
        let here = |config: &&Arc<SliceConfig>| {
            config.member(self.id).is_some_and(|member| member.pool == open.pool.id())
        };
        let Some(config) = state.slice(id).filter(here) else {
            if !self.serves_from(id, &open.pool) {
                Self::free_now(&open.pool, id);
            }
            return;
        };
        if self.plane.slice(id).is_some() {
            return self.plane.configured(id, config);
        }
        let engine = open.pool.engine();
        let info = match engine.replica(id) {
            Err(EngineError::NoReplica(_)) => {
                engine.create(id, Bytes::new()).and_then(|()| engine.replica(id))
            }
            found => found,
        };
        let info = match info {
            Ok(info) => info,
            Err(error) => {
                tracing::error!(slice = %id, %error, "the replica can't be made");
                return open.pool.fail(&error);
            }
        };
        let Some(member) = config.member(self.id) else { return };
        let me = mooring_config::Member { incarnation: open.pool.incarnation(), ..*member };
        let opened = Opened {
            state: info.state,
            last: info.last,
            kept: open.kept.clone(),
            damaged: open.damaged || info.damaged,
        };
        let replica = Replica::new(id, me, opened, None, self.options.replication.clone());
        let replica = match replica {
            Ok(replica) => replica,
            Err(error) => {
                tracing::error!(slice = %id, %error, "the replica's state can't be read; is the software older than the one that wrote it?");
                return;
            }
        };
        let slice = Slice::new(
            replica,
            id,
            Arc::clone(&open.pool),
            Arc::clone(self.plane.beacons()),
            Arc::clone(self.plane.slice_timers()),
            self.plane.slice_ports(),
        );
        self.plane.add_slice(Arc::clone(&slice), SliceConfig::clone(config));
        // What has changed since the configuration was looked at came before there was a slice to tell.
        let state = self.state();
        slice.deliver(Event::Version(state.version()));
        if let Some(config) = state.slice(id) {
            self.plane.configured(id, config);
        }
    }

    /// Lets go of a replica that the configuration gives to nobody here, and frees its space.
    fn drop_replica(&self, id: SliceId) {
        let Some(slice) = self.plane.slice(id) else { return };
        let pool = Arc::clone(slice.pool());
        self.plane.remove_slice(id);
        drop(slice);
        Self::free_replica(&pool, id);
    }

    fn serves_from(&self, id: SliceId, pool: &Pool) -> bool {
        self.plane.slice(id).is_some_and(|slice| slice.pool().id() == pool.id())
    }

    /// Has the pool's own thread free a replica's space.
    fn free_replica(pool: &Arc<Pool>, id: SliceId) {
        let freeing = Arc::clone(pool);
        pool.run(move || Self::free_now(&freeing, id));
    }

    /// Frees a replica's space, if there is one: on the pool's own thread.
    fn free_now(pool: &Pool, id: SliceId) {
        match pool.engine().remove(id) {
            Ok(()) => pool.wake_maintenance(),
            Err(EngineError::NoReplica(_)) => {}
            Err(error) => pool.fail(&error),
        }
    }

    fn volume_changed(&self, id: VolumeId, row: Option<&VolumeRow>) {
        let Some(volume) = self.plane.volume(id) else { return };
        match row {
            // After a restart the configuration here lags behind: what it doesn't know to be over isn't.
            Some(row) if !row.is_over(volume.epoch()) => {
                volume.resized(row.spec.size);
                if !row.spec.is_shared() {
                    volume.set_io_timeout(row.spec.io_timeout_ms.map(Duration::from_millis));
                }
            }
            // Ended by force, taken over, or the volume is gone: nothing more goes through here.
            _ => {
                // After an accepted loss it learns that first.
                let slices = row.into_iter().flat_map(VolumeRow::slices);
                for (slice, config) in slices.filter(|(_, config)| config.seal > volume.epoch()) {
                    volume.configured(slice.index, SliceConfig::clone(config));
                }
                match row {
                    Some(row) if row.last_attachment > volume.epoch() => {
                        volume.fence(row.last_attachment);
                    }
                    _ => volume.close(),
                }
            }
        }
    }

    /// Once the configuration here is known to be current: frees the replicas in a pool that nobody
    /// has any more, removed while this node or the pool was away.
    pub(super) async fn sweep_once_current(self: Arc<Self>, open: OpenPool) {
        loop {
            match self.control.read_linearizable().await {
                Ok(current) => {
                    let pool = Arc::clone(&open.pool);
                    // On the thread that also makes replicas: never between that and its first use.
                    return pool.run(move || self.sweep(&open, &current));
                }
                Err(mooring_control::Error::Stopped { .. }) => return,
                Err(_) => tokio::time::sleep(ANNOUNCE_PAUSE).await,
            }
        }
    }

    pub(super) fn sweep(&self, open: &OpenPool, current: &ClusterState) {
        let pool = open.pool.id();
        let lists = |state: &ClusterState, id: SliceId| {
            let member = state.slice(id).and_then(|config| config.member(self.id).copied());
            member.is_some_and(|member| member.pool == pool)
        };
        for id in pool_store::replicas(open.pool.engine()) {
            // What was assigned since is listed by the newer state.
            if lists(current, id) || lists(&self.state(), id) {
                continue;
            }
            if self.serves_from(id, &open.pool) {
                continue;
            }
            tracing::info!(slice = %id, %pool, "a replica that nobody needs any more is removed");
            // At once: behind what waits here, it could be one that was assigned again by then.
            Self::free_now(&open.pool, id);
        }
    }
}
