//! How the cluster is, what happened, what is being done.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use blockstore::{Happening, Severity};
use mooring_api::{
    Backend, BackendStatus, ClusterStatus, Counts, EVENTS_PAGE, EVENTS_WAIT, Event, Events,
    EventsQuery, Health, LocalNode, PoolId, Reason, Status, Task, Timestamp, TransportKind,
    TransportStatus, VoterStatus,
};
use mooring_config::{ClusterState, PoolState};

use super::reading::Reading;
use super::{Answer, Query, list_of, named, views};
use crate::daemon::{Daemon, Running};
use crate::error::DaemonError;

pub async fn status(State(daemon): State<Arc<Daemon>>) -> Answer<Status> {
    let running = daemon.running().ok();
    let mut reasons = Vec::new();
    let mut cluster = None;
    if let Some(running) = &running {
        let reading = Reading::take(running, &[]).await;
        cluster = Some(cluster_status(&reading, &mut reasons));
    } else {
        reasons.push(Reason {
            health: Health::Down,
            what: "this node belongs to no cluster".to_owned(),
            remedy: "`mountctl cluster create` makes one, `mountctl cluster join` joins one"
                .to_owned(),
        });
    }
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.health));
    let health = reasons.first().map_or(Health::Ok, |reason| reason.health);
    let summary = summary(health, &reasons, cluster.as_ref());
    Ok(Json(Status {
        health,
        summary,
        reasons,
        node: local_node(&daemon, running.as_deref()),
        cluster,
        transport: TransportStatus { kind: TransportKind::Tls, protected: true },
        backends: vec![BackendStatus {
            backend: Backend::Loop,
            usable: true,
            chosen: true,
            why: String::new(),
        }],
    }))
}

fn summary(health: Health, reasons: &[Reason], cluster: Option<&ClusterStatus>) -> String {
    let Some(cluster) = cluster else { return "no cluster yet".to_owned() };
    let counts = cluster.counts;
    let all =
        format!("{} of {} nodes up, {} volumes", counts.nodes_up, counts.nodes, counts.volumes);
    match (health, reasons.len()) {
        (Health::Ok, _) => format!("ok: {all}"),
        (Health::Degraded, 1) => format!("degraded: {all}"),
        (Health::Degraded, n) => format!("degraded ({n} reasons): {all}"),
        (Health::Down, _) => format!("down in part: {all}"),
    }
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

fn cluster_status(reading: &Reading, reasons: &mut Vec<Reason>) -> ClusterStatus {
    let state = &reading.state;
    let up = |node| node == reading.me || reading.answers(node);
    let mut counts = Counts {
        nodes: u32::try_from(state.nodes().len()).unwrap_or(u32::MAX),
        pools: u32::try_from(state.pools().len()).unwrap_or(u32::MAX),
        volumes: u32::try_from(state.volumes().len()).unwrap_or(u32::MAX),
        ..Counts::default()
    };
    for node in state.nodes().values() {
        if up(node.id) {
            counts.nodes_up += 1;
        } else {
            reasons.push(Reason {
                health: Health::Degraded,
                what: format!("node {} does not answer", node.name),
                remedy: format!(
                    "bring it back; if it is lost for good: mountctl node rm {} --force",
                    node.name
                ),
            });
        }
    }
    count_pools(state, &mut counts, reasons);
    for (_, volume) in state.volumes().iter() {
        let (health, why) = views::health(reading, volume);
        reasons.extend(why);
        match health {
            Health::Ok => counts.volumes_ok += 1,
            Health::Degraded => counts.volumes_degraded += 1,
            Health::Down => counts.volumes_down += 1,
        }
    }
    let voters = voters(reading);
    let reachable = voters.iter().filter(|voter| voter.reachable).count();
    let quorum = reading.raft.leader.is_some() && 2 * reachable > voters.len();
    if !quorum {
        let silent: Vec<String> =
            voters.iter().filter(|v| !v.reachable).map(|v| v.node.to_string()).collect();
        reasons.push(Reason {
            health: Health::Degraded,
            what: format!(
                "the configuration can't be changed: {} of {} voters don't answer ({}). I/O goes on",
                silent.len(),
                voters.len(),
                silent.join(", ")
            ),
            remedy: "bring back enough voters for a majority".to_owned(),
        });
    }
    for warning in &reading.raft.warnings {
        reasons.push(Reason {
            health: Health::Degraded,
            what: warning.clone(),
            remedy: "add nodes: mountctl cluster token, then mountd run --join on the new node"
                .to_owned(),
        });
    }
    ClusterStatus {
        id: state.identity().map(|identity| identity.cluster.to_string()).unwrap_or_default(),
        version: state.version().0,
        leader: reading.raft.leader.map(|id| views::name(&state.node_name(id))),
        term: reading.raft.term,
        applied: reading.raft.applied,
        survives_a_failure: voters.len() >= 3 && reachable > voters.len() / 2 + 1,
        voters,
        quorum,
        counts,
    }
}

fn count_pools(state: &ClusterState, counts: &mut Counts, reasons: &mut Vec<Reason>) {
    for pool in state.pools().values() {
        match &pool.state {
            PoolState::Failed { reason, .. } => reasons.push(Reason {
                health: Health::Degraded,
                what: format!(
                    "pool {} ({} on {}) has failed: {reason}",
                    pool.id,
                    pool.path,
                    state.node_name(pool.node)
                ),
                remedy: format!(
                    "replace the disk: mountctl pool rm {} --force, then mountctl pool add",
                    pool.id
                ),
            }),
            PoolState::Ok | PoolState::Draining => counts.pools_ok += 1,
        }
    }
}

fn voters(reading: &Reading) -> Vec<VoterStatus> {
    reading
        .raft
        .voters
        .iter()
        .map(|id| VoterStatus {
            node: views::name(&reading.state.node_name(*id)),
            reachable: *id == reading.me || reading.answers(*id),
            silent_for: reading.raft.silence.get(id).map(|silence| views::span(*silence)),
        })
        .collect()
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
