//! Pools: added, listed, removed.

use std::path::Path as FilePath;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use blockstore::MEASURE_TIME;
use mooring_api::{
    AddPool, ApiError, Class, ErrorKind, ForceQuery, Pool, ProgressUnit, Task, TaskId, TaskKind,
};
use mooring_config::{Class as ConfigClass, Command};
use mooring_terms::PoolId;

use super::caller::Caller;
use super::reading::Reading;
use super::{Answer, Body, Query, list_of, lookup, stuck, views};
use crate::config::PoolConfig;
use crate::daemon::{Daemon, Running};
use crate::error::{DaemonError, InvalidRequest};

/// How often a removal's progress is looked at.
const REMOVAL_LOOK: Duration = Duration::from_secs(1);

pub async fn list(State(daemon): State<Arc<Daemon>>) -> Answer<Vec<Pool>> {
    let running = daemon.running()?;
    let reading = Reading::take(&running, &[]).await;
    let mut pools: Vec<Pool> =
        reading.state.pools().values().map(|row| views::pool(&daemon, &reading, row)).collect();
    pools.sort_by(|a, b| (&a.node, &a.path).cmp(&(&b.node, &b.path)));
    Ok(list_of(pools))
}

pub async fn inspect(State(daemon): State<Arc<Daemon>>, Path(id): Path<String>) -> Answer<Pool> {
    let running = daemon.running()?;
    let row = lookup::pool(&running, &id).await?;
    let reading = Reading::take(&running, &[]).await;
    Ok(Json(views::pool(&daemon, &reading, &row)))
}

pub async fn create(
    State(daemon): State<Arc<Daemon>>,
    caller: Caller,
    Body(request): Body<AddPool>,
) -> Answer<Pool> {
    caller.may_force(request.force)?;
    let running = daemon.running()?;
    let path = FilePath::new(&request.path);
    if !path.is_absolute() {
        return Err(DaemonError::Invalid(InvalidRequest::RelativePath(path.to_owned())).into());
    }
    let class = request.class.map(views::config_class);
    let size = request.size.map(|size| size.bytes());
    let id = add(&daemon, &running, caller.name(), path, size, class, request.force).await?;
    let row = lookup::pool(&running, &id.0.to_string()).await?;
    let reading = Reading::take(&running, &[]).await;
    Ok(Json(views::pool(&daemon, &reading, &row)))
}

/// Adds a pool of this node. Without a class it is measured, which is a task meanwhile.
///
/// # Errors
/// [`DaemonError`].
pub async fn add(
    daemon: &Arc<Daemon>,
    running: &Running,
    by: &str,
    path: &FilePath,
    size: Option<u64>,
    class: Option<ConfigClass>,
    force: bool,
) -> Result<PoolId, DaemonError> {
    let tasks = Arc::clone(daemon);
    let (name, subject) = (views::name(daemon.name()), path.display().to_string());
    // Not before it begins: a pool that is there already isn't measured.
    let task = Arc::new(OnceLock::new());
    let began = Arc::clone(&task);
    let progress = move |done: Duration| {
        let begin = || {
            let kind = TaskKind::MeasurePool;
            tasks.tasks().begin(kind, name.clone(), &subject, ProgressUnit::Milliseconds).0.id
        };
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let total = ms(MEASURE_TIME);
        tasks.tasks().progress(*began.get_or_init(begin), ms(done).min(total), Some(total), "");
    };
    let id = running.node.add_pool(by, path, size, class, force, Arc::new(progress)).await;
    if let Some(task) = task.get() {
        let end = id
            .as_ref()
            .map(drop)
            .map_err(|error| ApiError::new(ErrorKind::Invalid, error.to_string()));
        daemon.tasks().end(*task, end);
    }
    let id = id?;
    tracing::info!(node = daemon.name(), path = %path.display(), pool = %id, "pool");
    Ok(id)
}

/// The class that a configuration gives to a pool.
///
/// # Errors
/// If it is none; the configuration was checked for that.
pub fn class_of(pool: &PoolConfig) -> Result<Option<ConfigClass>, DaemonError> {
    match pool.class.as_deref() {
        None => Ok(None),
        Some("high") => Ok(Some(views::config_class(Class::High))),
        Some("medium") => Ok(Some(views::config_class(Class::Medium))),
        Some("low") => Ok(Some(views::config_class(Class::Low))),
        Some(other) => {
            Err(DaemonError::Invalid(InvalidRequest::Body(format!("{other:?} is no class"))))
        }
    }
}

pub async fn remove(
    State(daemon): State<Arc<Daemon>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<ForceQuery>,
) -> Answer<Task> {
    caller.may_force(query.force)?;
    let running = daemon.running()?;
    let row = lookup::pool(&running, &id).await?;
    let command = if query.force {
        Command::RemovePool { pool: row.id, force: true }
    } else {
        Command::DrainPool { pool: row.id, drain: true }
    };
    running.node.propose(caller.name(), command).await.map_err(DaemonError::Node)?;
    let (task, new) = daemon.tasks().begin(
        TaskKind::RemovePool,
        views::name(daemon.name()),
        &row.path,
        ProgressUnit::Replicas,
    );
    if query.force {
        daemon.tasks().end(task.id, Ok(()));
    } else if new {
        let by = caller.name().to_owned();
        tokio::spawn(follow_removal(Arc::clone(&daemon), running, task.id, row.id, by));
    }
    Ok(Json(daemon.tasks().get(task.id).unwrap_or(task)))
}

async fn follow_removal(
    daemon: Arc<Daemon>,
    running: Arc<Running>,
    task: TaskId,
    pool: PoolId,
    by: String,
) {
    let mut first = None;
    loop {
        let state = running.node.state();
        if state.pool(pool).is_none() {
            return daemon.tasks().end(task, Ok(()));
        }
        let holds = |config: &mooring_config::SliceConfig| {
            config.in_sync.iter().chain(&config.joining).any(|member| member.pool == pool)
        };
        let left = state.slices().filter(|(_, config)| holds(config)).count() as u64;
        let total = *first.get_or_insert(left);
        daemon.tasks().progress(
            task,
            total.saturating_sub(left),
            Some(total.max(left)),
            &stuck::progress(&running, left, holds).await,
        );
        if left == 0 {
            let command = Command::RemovePool { pool, force: false };
            match running.node.propose(&by, command).await {
                Ok(_) => return daemon.tasks().end(task, Ok(())),
                Err(error) if error.kind() == mooring_terms::ErrorKind::Invalid => {
                    return daemon.tasks().end(task, Err(DaemonError::Node(error).into()));
                }
                Err(error) => tracing::debug!(%pool, %error, "the pool is not removed yet"),
            }
        }
        if state.pool(pool).is_some_and(|row| row.state == mooring_config::PoolState::Ok) {
            let ended = ApiError::new(ErrorKind::Retry, "the removal was called off");
            return daemon.tasks().end(task, Err(ended));
        }
        tokio::time::sleep(REMOVAL_LOOK).await;
    }
}
