//! Nodes: listed, labelled, drained, removed.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use mooring_api::{
    ApiError, ChangeLabels, ErrorKind, ForceQuery, Node, NodeDetail, ProgressUnit, Task, TaskId,
    TaskKind,
};
use mooring_config::{Command, Node as NodeRow};

use super::caller::Caller;
use super::reading::Reading;
use super::{Answer, Body, Failure, Query, done, list_of, lookup, stuck, views};
use crate::daemon::{Daemon, Running};
use crate::error::DaemonError;

/// How often a drain's progress is looked at.
const DRAIN_LOOK: Duration = Duration::from_secs(1);

pub async fn list(State(daemon): State<Arc<Daemon>>) -> Answer<Vec<Node>> {
    let running = daemon.running()?;
    let reading = Reading::take(&running, &[]).await;
    let mut nodes: Vec<Node> =
        reading.state.nodes().values().map(|row| views::node(&reading, row)).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list_of(nodes))
}

pub async fn inspect(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
) -> Answer<NodeDetail> {
    let running = daemon.running()?;
    let row = lookup::node(&running, &name).await?;
    let reading = Reading::take(&running, &[]).await;
    let drain = daemon.tasks().running(TaskKind::DrainNode, &row.name);
    Ok(Json(views::node_detail(&reading, &row, drain)))
}

pub async fn change(
    State(daemon): State<Arc<Daemon>>,
    caller: Caller,
    Path(name): Path<String>,
    Body(change): Body<ChangeLabels>,
) -> Answer<Node> {
    let running = daemon.running()?;
    let row = lookup::node(&running, &name).await?;
    let set = change.set.iter().map(|(k, v)| (k.to_string(), Some(v.to_string())));
    let remove = change.remove.iter().map(|key| (key.to_string(), None));
    let command = Command::LabelNode { node: row.id, labels: set.chain(remove).collect() };
    running.node.propose(caller.name(), command).await.map_err(DaemonError::Node)?;
    let reading = Reading::take(&running, &[]).await;
    Ok(Json(views::node(&reading, &*lookup::node(&running, &name).await?)))
}

pub async fn drain(
    State(daemon): State<Arc<Daemon>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Answer<Task> {
    let running = daemon.running()?;
    let row = lookup::node(&running, &name).await?;
    let command = Command::DrainNode { node: row.id, drain: true };
    running.node.propose(caller.name(), command).await.map_err(DaemonError::Node)?;
    let (task, new) = daemon.tasks().begin(
        TaskKind::DrainNode,
        views::name(daemon.name()),
        &row.name,
        ProgressUnit::Replicas,
    );
    if new {
        tokio::spawn(follow_drain(Arc::clone(&daemon), running, task.id, row));
    }
    Ok(Json(daemon.tasks().get(task.id).unwrap_or(task)))
}

pub async fn undrain(
    State(daemon): State<Arc<Daemon>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Failure> {
    let running = daemon.running()?;
    let row = lookup::node(&running, &name).await?;
    let command = Command::DrainNode { node: row.id, drain: false };
    running.node.propose(caller.name(), command).await.map_err(DaemonError::Node)?;
    Ok(done())
}

pub async fn remove(
    State(daemon): State<Arc<Daemon>>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<ForceQuery>,
) -> Result<StatusCode, Failure> {
    caller.may_force(query.force)?;
    let running = daemon.running()?;
    let row = lookup::node(&running, &name).await?;
    running
        .node
        .remove_node(caller.name(), row.id, query.force)
        .await
        .map_err(DaemonError::Node)?;
    Ok(done())
}

async fn follow_drain(daemon: Arc<Daemon>, running: Arc<Running>, task: TaskId, row: Arc<NodeRow>) {
    let mut first = None;
    loop {
        let state = running.node.state();
        let Some(now) = state.node(row.id) else {
            let gone = ApiError::new(ErrorKind::NotFound, format!("node {} was removed", row.name));
            return daemon.tasks().end(task, Err(gone));
        };
        let left =
            state.slices().filter(|(_, config)| config.member(row.id).is_some()).count() as u64;
        let total = *first.get_or_insert(left);
        daemon.tasks().progress(
            task,
            total.saturating_sub(left),
            Some(total.max(left)),
            &stuck::progress(&running, left, |config| config.member(row.id).is_some()).await,
        );
        if left == 0 {
            return daemon.tasks().end(task, Ok(()));
        }
        if now.state == mooring_config::NodeState::Active {
            let ended = ApiError::new(ErrorKind::Retry, "the drain was called off");
            return daemon.tasks().end(task, Err(ended));
        }
        tokio::time::sleep(DRAIN_LOOK).await;
    }
}
