//! Shared volumes: who has them mounted, ending one of those, checking.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use mooring_api::{Check, SharedClient};
use mooring_config::Volume;
use mooring_sharedfs_core::coordinator::ClientStatus;
use mooring_terms::NodeId;

use super::{Answer, Failure, done, list_of, lookup, views};
use crate::daemon::{Daemon, Running};
use crate::error::DaemonError;

pub async fn clients(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
) -> Answer<Vec<SharedClient>> {
    let running = daemon.running()?;
    let row = shared(&running, &name).await?;
    let clients = running.coordinators.clients(row.id, &name).await?;
    let state = running.node.state();
    Ok(list_of(clients.into_iter().map(|client| SharedClient {
        client: client.session.0,
        node: views::name(&state.node_name(NodeId(client.row.node))),
        reclaiming: client.reclaiming,
        open_files: client.open,
        read_leases: client.reading,
        write_leases: client.writing,
        recalled: client.recalled,
        locks: client.locked,
        lock_waits: client.lock_waits,
        requests: client.requests,
    })))
}

pub async fn evict(
    State(daemon): State<Arc<Daemon>>,
    Path((name, client)): Path<(String, u64)>,
) -> Result<StatusCode, Failure> {
    let running = daemon.running()?;
    let row = shared(&running, &name).await?;
    if running.coordinators.evict(row.id, &name, client).await? {
        Ok(done())
    } else {
        let name = client.to_string();
        Err(DaemonError::NotFound { what: "client", name }.into())
    }
}

pub async fn check(State(daemon): State<Arc<Daemon>>, Path(name): Path<String>) -> Answer<Check> {
    let running = daemon.running()?;
    let row = shared(&running, &name).await?;
    let found = running.coordinators.check(row.id, &name).await?;
    let findings = found.iter().map(|damage| format!("{damage:?}")).collect();
    Ok(Json(Check { volume: views::volume_name(&row.name), findings }))
}

/// A shared volume by its name.
async fn shared(running: &Running, name: &str) -> Result<Arc<Volume>, DaemonError> {
    let row = lookup::volume(running, name).await?;
    if row.spec.is_shared() {
        Ok(row)
    } else {
        Err(DaemonError::NotShared { volume: name.to_owned() })
    }
}

/// Refuses to go on with a shared volume that somebody has mounted.
pub async fn refuse_if_mounted(running: &Running, row: &Volume) -> Result<(), DaemonError> {
    let clients: Vec<ClientStatus> = running.coordinators.clients(row.id, &row.name).await?;
    if clients.is_empty() {
        return Ok(());
    }
    let state = running.node.state();
    let nodes = clients.iter().map(|client| state.node_name(NodeId(client.row.node)));
    let mut nodes: Vec<String> = nodes.collect();
    nodes.sort();
    nodes.dedup();
    Err(DaemonError::SharedInUse { volume: row.name.clone(), nodes: nodes.join(", ") })
}
