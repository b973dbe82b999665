//! How the cluster is, what happened, what is being done.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use blockstore::{Happening, Severity};
use mooring_api::{
    BackendStatus, EVENTS_PAGE, EVENTS_WAIT, Event, Events, EventsQuery, LocalNode, NbdStatus,
    PoolId, Status, Task, Timestamp, TransportKind, TransportStatus,
};
use mooring_config::ClusterState;

use super::diagnosis::Diagnosis;
use super::reading::Reading;
use super::{Answer, Query, list_of, named, views};
use crate::config;
use crate::daemon::{Daemon, Running};
use crate::error::DaemonError;

pub async fn status(State(daemon): State<Arc<Daemon>>) -> Answer<Status> {
    let running = daemon.running().ok();
    let diagnosis = match &running {
        Some(running) => {
            let mut found = Diagnosis::of(&Reading::take(running, &[]).await);
            let events = running.node.events().counts();
            found.counts(|counts| {
                counts.false_failovers = events.get("false-failover").copied().unwrap_or(0);
            });
            found
        }
        None => Diagnosis::without_cluster(),
    };
    Ok(Json(Status {
        health: diagnosis.health(),
        summary: diagnosis.summary(),
        node: local_node(&daemon, running.as_deref()),
        cluster: diagnosis.cluster,
        reasons: diagnosis.reasons,
        transport: transport(&daemon),
        backends: running.as_deref().map(backends).unwrap_or_default(),
        nbd: running.as_deref().and_then(|running| running.nbd.as_ref()).map(|nbd| NbdStatus {
            address: nbd.address().to_string(),
            protected: !daemon.config().nbd.plain,
        }),
    }))
}

fn backends(running: &Running) -> Vec<BackendStatus> {
    let hosts = running.attachments.hosts();
    let usable = hosts.kinds().enumerate().map(|(i, kind)| BackendStatus {
        backend: views::backend(kind),
        usable: true,
        chosen: i == 0,
        why: String::new(),
    });
    let missing = hosts.missing().iter().map(|(kind, why)| BackendStatus {
        backend: views::backend(*kind),
        usable: false,
        chosen: false,
        why: why.clone(),
    });
    usable.chain(missing).collect()
}

fn transport(daemon: &Daemon) -> TransportStatus {
    let config = daemon.config().transport;
    let kind = match config.kind {
        config::TransportKind::Tls => TransportKind::Tls,
        config::TransportKind::Zeromq => TransportKind::Zeromq,
    };
    // Who takes data from anybody isn't protected, however it sends its own.
    TransportStatus { kind, protected: !config.unprotected }
}

fn local_node(daemon: &Daemon, running: Option<&Running>) -> LocalNode {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    LocalNode {
        name: views::name(daemon.name()),
        id: running.map(|running| running.node.id().0),
        address: daemon.config().listen.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: Timestamp(daemon.started_ms()),
        pid: std::process::id(),
        attachments: running.map_or(0, |running| count(running.attachments.all().len())),
        mounts: running
            .and_then(|running| running.mounts.all().ok())
            .map_or(0, |mounts| count(mounts.len())),
    }
}

pub async fn events(
    State(daemon): State<Arc<Daemon>>,
    Query(query): Query<EventsQuery>,
) -> Answer<Events> {
    let running = daemon.running()?;
    let log = running.node.events();
    let (found, gap) = if query.follow {
        log.wait_after(query.after, EVENTS_PAGE, EVENTS_WAIT).await
    } else {
        log.after(query.after, EVENTS_PAGE)
    };
    let state = running.node.state();
    let next = found.last().map_or(query.after, |event| event.number);
    let events = found.into_iter().map(|happening| event(&state, happening)).collect();
    Ok(Json(Events { events, next, gap }))
}

fn event(state: &ClusterState, happening: Happening) -> Event {
    let volume = happening.about.volume.and_then(|id| state.volume(id));
    let details: BTreeMap<String, String> =
        happening.about.details.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    Event {
        number: happening.number,
        at: Timestamp(happening.at_ms),
        severity: match happening.severity {
            Severity::Info => mooring_api::Severity::Info,
            Severity::Warning => mooring_api::Severity::Warning,
            Severity::Error => mooring_api::Severity::Error,
        },
        kind: happening.kind.to_owned(),
        message: happening.message,
        node: happening.about.node.map(|id| views::name(&state.node_name(id))),
        volume: volume.map(|volume| views::volume_name(&volume.name)),
        pool: happening.about.pool.map(|id| PoolId(id.0)),
        details,
    }
}

pub async fn tasks(State(daemon): State<Arc<Daemon>>) -> Answer<Vec<Task>> {
    Ok(list_of(daemon.tasks().all()))
}

pub async fn task(State(daemon): State<Arc<Daemon>>, Path(id): Path<String>) -> Answer<Task> {
    let number: u64 = named("task", &id)?;
    let task = daemon
        .tasks()
        .get(mooring_api::TaskId(number))
        .ok_or(DaemonError::NotFound { what: "task", name: id })?;
    Ok(Json(task))
}
