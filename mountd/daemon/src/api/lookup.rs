//! From the names in a request to the rows of the configuration.
//!
//! What this node has applied may be a moment behind what another node has answered. So a name that
//! isn't known here is looked up once more in a state that is certainly current, before anybody is
//! told that it doesn't exist.

use std::sync::Arc;

use blockstore::NodeError;
use mooring_config::{ClusterState, Node, Pool, Volume};
use mooring_terms::PoolId;

use crate::daemon::Running;
use crate::error::DaemonError;

/// A volume by its name.
///
/// # Errors
/// [`DaemonError::NotFound`]; without a quorum nobody can say that it doesn't exist.
pub async fn volume(running: &Running, name: &str) -> Result<Arc<Volume>, DaemonError> {
    look(running, "volume", name, |state| state.volume_by_name(name).cloned()).await
}

/// A node by its name.
///
/// # Errors
/// As [`volume`].
pub async fn node(running: &Running, name: &str) -> Result<Arc<Node>, DaemonError> {
    look(running, "node", name, |state| state.node_by_name(name).cloned()).await
}

/// A pool by its number.
///
/// # Errors
/// As [`volume`].
pub async fn pool(running: &Running, number: &str) -> Result<Arc<Pool>, DaemonError> {
    let id = number
        .parse()
        .map(PoolId)
        .map_err(|_| DaemonError::NotFound { what: "pool", name: number.to_owned() })?;
    look(running, "pool", number, |state| state.pool(id).cloned()).await
}

async fn look<T>(
    running: &Running,
    what: &'static str,
    name: &str,
    find: impl Fn(&ClusterState) -> Option<T>,
) -> Result<T, DaemonError> {
    if let Some(found) = find(&running.node.state()) {
        return Ok(found);
    }
    let current = running.node.control().read_linearizable().await.map_err(NodeError::from)?;
    find(&current).ok_or_else(|| DaemonError::NotFound { what, name: name.to_owned() })
}
