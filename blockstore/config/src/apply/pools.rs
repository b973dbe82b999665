//! Pools: added, opened anew, failed, drained, removed.

use std::sync::Arc;

use mooring_terms::{Incarnation, NodeId, PoolId};

use super::What;
use crate::{Actor, Class, ClusterState, Done, Pool, PoolState, Refused, Response};

impl ClusterState {
    pub(super) fn add_pool(
        &mut self,
        by: &Actor,
        node: NodeId,
        path: &str,
        size: u64,
        (class, measured): (Class, bool),
        incarnation: Incarnation,
    ) -> Response {
        let name = self.nodes.get(&node).ok_or(Refused::NoNode(node))?.name.clone();
        if let Some(pool) = self.pools.values().find(|p| p.node == node && p.path == path) {
            return Err(Refused::PoolExists { node: name, path: path.to_owned(), pool: pool.id });
        }
        let id = PoolId(self.next_pool);
        self.next_pool += 1;
        let pool = Pool {
            id,
            node,
            path: path.to_owned(),
            class,
            class_measured: measured,
            size,
            incarnation,
            state: PoolState::Ok,
            added: self.now,
        };
        self.pools.insert(id, Arc::new(pool));
        self.record(by, What::PoolAdded { pool: id, node, path: path.to_owned() });
        Ok(Done::Pool(id))
    }

    pub(super) fn pool_opened(
        &mut self,
        by: &Actor,
        id: PoolId,
        incarnation: Incarnation,
        size: u64,
    ) -> Response {
        let pool = self.pools.get_mut(&id).ok_or(Refused::NoPool(id))?;
        if pool.incarnation == incarnation && pool.size == size {
            return Ok(Done::Ok);
        }
        let anew = pool.incarnation != incarnation;
        let pool = Arc::make_mut(pool);
        pool.incarnation = incarnation;
        pool.size = size;
        if anew && matches!(pool.state, PoolState::Failed { .. }) {
            pool.state = PoolState::Ok;
        }
        if anew {
            self.record(by, What::PoolOpened { pool: id });
        }
        Ok(Done::Ok)
    }

    pub(super) fn set_pool_class(&mut self, id: PoolId, class: Class, measured: bool) -> Response {
        let pool = Arc::make_mut(self.pools.get_mut(&id).ok_or(Refused::NoPool(id))?);
        pool.class = class;
        pool.class_measured = measured;
        Ok(Done::Ok)
    }

    /// Marks the pool failed. Its in-sync secondaries leave the in-sync sets at once, as far as the
    /// minimum allows; where it is primary, the primary itself resigns or is succeeded.
    pub(super) fn pool_failed(
        &mut self,
        by: &Actor,
        id: PoolId,
        incarnation: Incarnation,
        reason: &str,
    ) -> Response {
        let now = self.now;
        let pool = self.pools.get_mut(&id).ok_or(Refused::NoPool(id))?;
        if pool.incarnation != incarnation || matches!(pool.state, PoolState::Failed { .. }) {
            return Ok(Done::Ok);
        }
        let node = pool.node;
        Arc::make_mut(pool).state = PoolState::Failed { reason: reason.to_owned(), since: now };
        for (slice, _) in self.replicas_where(|member| member.pool == id) {
            if let Some(config) = self.slice_mut(slice) {
                // Refused for a primary, and where too few would be left: then nothing changes.
                let _ = config.demote(node);
            }
        }
        self.record(by, What::PoolFailed { pool: id, reason: reason.to_owned() });
        Ok(Done::Ok)
    }

    pub(super) fn drain_pool(&mut self, by: &Actor, id: PoolId, drain: bool) -> Response {
        let pool = self.pools.get_mut(&id).ok_or(Refused::NoPool(id))?;
        let state = match (&pool.state, drain) {
            (PoolState::Ok, true) => PoolState::Draining,
            (PoolState::Draining, false) => PoolState::Ok,
            // A failed pool is emptied anyway.
            _ => return Ok(Done::Ok),
        };
        Arc::make_mut(pool).state = state;
        self.record(by, What::PoolDrain { pool: id, drain });
        Ok(Done::Ok)
    }

    pub(super) fn remove_pool(&mut self, by: &Actor, id: PoolId, force: bool) -> Response {
        let path = self.pools.get(&id).ok_or(Refused::NoPool(id))?.path.clone();
        let held = self.replicas_where(|member| member.pool == id);
        if !held.is_empty() && !force {
            let volumes = self.names_of(&held);
            let replicas = held.len() as u64;
            return Err(Refused::PoolHoldsReplicas { pool: id, replicas, volumes });
        }
        self.take_away(&held, &path)?;
        self.pools.remove(&id);
        self.record(by, What::PoolRemoved { pool: id });
        Ok(Done::Ok)
    }
}
