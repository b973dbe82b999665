//! Shared volumes: who has them mounted, ending one of those, checking.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use blockstore::{About, Severity};
use mooring_api::{Check, SharedClient, SharedMount};
use mooring_config::Volume;
use mooring_sharedfs_core::coordinator::ClientStatus;
use mooring_terms::NodeId;

use super::caller::Caller;
use super::{Answer, Failure, done, list_of, lookup, views};
use crate::daemon::{Daemon, Running};
use crate::error::DaemonError;
use crate::mount_files::Said;
use crate::shared::mounts_of;

pub async fn clients(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
) -> Answer<Vec<SharedClient>> {
    let running = daemon.running()?;
    let row = shared(&running, &name).await?;
    let clients = running.coordinators.clients(row.id, &name).await?;
    let state = running.node.state();
    let nodes = clients.iter().map(|client| NodeId(client.row.node)).collect();
    let said = mounts_of(&running.node, row.id, nodes).await;
    let by_session = said.into_iter().filter_map(|said| Some((said.session?, said)));
    let mut said: BTreeMap<_, _> = by_session.collect();
    Ok(list_of(clients.into_iter().map(move |client| SharedClient {
        mount: said.remove(&client.session.0).map(mount_of),
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

/// What a mount says of itself.
fn mount_of(said: Said) -> SharedMount {
    let Said { asked, unwritten, done, .. } = said;
    SharedMount {
        dir: asked.dir.display().to_string(),
        options: asked.options,
        dirty_bytes: unwritten.unwrap_or(done.dirty_bytes),
        operations: done.operations,
        at_once: done.at_once,
        read_bytes: done.read_bytes,
        written_bytes: done.written_bytes,
        recalls: done.recalls,
        write_back_errors: done.write_back_errors,
    }
}

pub async fn evict(
    State(daemon): State<Arc<Daemon>>,
    caller: Caller,
    Path((name, client)): Path<(String, u64)>,
) -> Result<StatusCode, Failure> {
    let running = daemon.running()?;
    let row = shared(&running, &name).await?;
    if running.coordinators.evict(row.id, &name, client).await? {
        let message = format!("volume {name}: client {client} was evicted by {}", caller.name());
        let about = About { volume: Some(row.id), ..About::default() };
        running.node.events().push(Severity::Warning, "mount-evicted", message, about);
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
