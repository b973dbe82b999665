//! Snapshots: frozen roots, made in constant time.
//!
//! Taking one seals the fresh layer and remembers the root with the layers over it; the next
//! checkpoint merges the layers, and from then on live map and snapshot share nodes and blocks.
//! Removing one marks it; at the next freeze its tree is compared with its neighbours', and what
//! neither names is freed.

use mooring_terms::{SliceId, SnapshotId, Version};

use crate::format::record::{Logged, Operation};
use crate::pool::Pool;
use crate::{EngineError, Result};

/// More layers than this over one tree, and a checkpoint merges them.
pub(crate) const MAX_SEALED: usize = 8;

impl Pool {
    /// Freezes the replica as it is. Durable after the next [`Pool::sync`].
    ///
    /// # Errors
    /// [`EngineError::SnapshotExists`], [`EngineError::NoReplica`], and those of [`Pool::append`].
    pub fn snapshot(&self, slice: SliceId, id: SnapshotId) -> Result<()> {
        let version = self.replica(slice)?.last;
        let logged = Logged { slice, version, operation: Operation::Snapshot(id), state: None };
        self.log_one(logged, |pool| match pool.find(slice)?.inner.read().snapshot(id) {
            Some(_) => Err(EngineError::SnapshotExists(slice, id)),
            None => Ok(()),
        })?;
        let sealed = self.find(slice)?.inner.read().sealed.len();
        if sealed > MAX_SEALED { self.checkpoint() } else { Ok(()) }
    }

    /// Removes a snapshot; what only it held is freed in the background. Durable after the next
    /// [`Pool::sync`].
    ///
    /// # Errors
    /// [`EngineError::NoSnapshot`], [`EngineError::NoReplica`], and those of [`Pool::append`].
    pub fn remove_snapshot(&self, slice: SliceId, id: SnapshotId) -> Result<()> {
        let operation = Operation::RemoveSnapshot(id);
        let logged = Logged { slice, version: Version::ZERO, operation, state: None };
        self.log_one(logged, |pool| {
            let replica = pool.find(slice)?;
            let state = replica.inner.read();
            state.snapshot(id).map(|_| ()).ok_or(EngineError::NoSnapshot(slice, id))
        })
    }

    /// The replica's snapshots, oldest first, each with the position at which it was taken.
    ///
    /// # Errors
    /// [`EngineError::NoReplica`].
    pub fn snapshots(&self, slice: SliceId) -> Result<Vec<(SnapshotId, Version)>> {
        let replica = self.find(slice)?;
        let state = replica.inner.read();
        Ok(state
            .snapshots
            .values()
            .filter(|(_, snapshot)| !snapshot.dying)
            .map(|(id, snapshot)| (*id, snapshot.version))
            .collect())
    }
}
