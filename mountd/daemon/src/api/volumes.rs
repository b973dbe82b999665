//! Volumes: created, listed, changed, grown, removed.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use blockstore::NodeError;
use mooring_api::{
    AcceptLoss, AcceptedLoss, AcceptedSlice, ChangeVolume, Chosen, CreateVolume, CreatedVolume,
    FileSystem, ForceQuery, ResizeVolume, Resync, Version, Volume, VolumeDetail,
};
use mooring_config::placement::{plan_create, plan_resize, plan_set};
use mooring_config::{
    ClassWish, Command, Done, Filesystem, Refused, Setting, Volume as VolumeRow, VolumeRequest,
};
use mooring_terms::BLOCK_SIZE;

use super::caller::Caller;
use super::reading::Reading;
use super::{Answer, Body, Failure, Query, done, list_of, lookup, views};
use crate::daemon::{Daemon, Running};
use crate::error::{DaemonError, InvalidRequest};

/// Tries of a plan that another change has made stale.
const PLAN_TRIES: usize = 5;

pub async fn list(State(daemon): State<Arc<Daemon>>) -> Answer<Vec<Volume>> {
    let running = daemon.running()?;
    let reading = Reading::with_used(&running, &[]).await;
    let mut volumes: Vec<Volume> =
        reading.state.volumes().iter().map(|(_, row)| views::volume(&reading, row)).collect();
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list_of(volumes))
}

pub async fn inspect(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
) -> Answer<VolumeDetail> {
    let running = daemon.running()?;
    let row = lookup::volume(&running, &name).await?;
    let reading = Reading::with_used(&running, &[row.id]).await;
    let mounted_on = running.coordinators.mounted_on(&row).await;
    Ok(Json(views::volume_detail(&daemon, &running, &reading, &row, &mounted_on)?))
}

pub async fn create(
    State(daemon): State<Arc<Daemon>>,
    caller: Caller,
    Body(asked): Body<CreateVolume>,
) -> Answer<CreatedVolume> {
    let running = daemon.running()?;
    let request = request_of(&running, &asked).await?;
    let mut tries = 0;
    let done = loop {
        let hints = running.node.hints().await;
        let state = running.node.state();
        let command = plan_create(&state, &hints, asked.name.as_str(), &request)
            .map_err(|refused| DaemonError::Node(NodeError::Refused(refused)))?;
        tries += 1;
        match running.node.propose(caller.name(), command).await {
            Err(NodeError::Refused(Refused::PlacementStale { .. })) if tries < PLAN_TRIES => {}
            other => break other.map_err(DaemonError::Node)?,
        }
    };
    let Done::Volume { volume, existed } = done else {
        return Err(DaemonError::UnexpectedAnswer.into());
    };
    let reading = Reading::take(&running, &[volume]).await;
    let row = reading
        .state
        .volume(volume)
        .cloned()
        .ok_or_else(|| DaemonError::NotFound { what: "volume", name: asked.name.to_string() })?;
    Ok(Json(CreatedVolume {
        volume: views::volume(&reading, &row),
        created: !existed,
        chosen: if existed { Vec::new() } else { chosen(&running, &asked, &row) },
    }))
}

/// What was left open, and what became of it.
fn chosen(running: &Running, asked: &CreateVolume, row: &VolumeRow) -> Vec<Chosen> {
    let mut all = Vec::new();
    let mut add = |option: &str, value: String, why: String| {
        all.push(Chosen { option: option.to_owned(), value, why });
    };
    if asked.size.is_none() {
        let size = mooring_api::ByteSize(row.spec.size);
        add("size", size.to_string(), "thin: it takes space as it is written".to_owned());
    }
    if asked.replicas.is_none() {
        let nodes = running.node.state().nodes_with_pools();
        let why = format!(
            "{nodes} {} pools, and 3 copies are enough",
            if nodes == 1 { "node has" } else { "nodes have" }
        );
        add("replicas", row.spec.replicas.to_string(), why);
    }
    if asked.fs.is_none() {
        add("fs", "ext4".to_owned(), "made when it is first mounted".to_owned());
    }
    all
}

async fn request_of(running: &Running, asked: &CreateVolume) -> Result<VolumeRequest, DaemonError> {
    let mut named = Vec::new();
    for name in &asked.nodes {
        named.push(lookup::node(running, name.as_str()).await?.id);
    }
    Ok(VolumeRequest {
        size: asked.size.map(|size| size.bytes()),
        replicas: asked.replicas,
        min_in_sync: asked.min_in_sync,
        fs: asked.fs.map(|fs| match fs {
            FileSystem::Ext4 => Filesystem::Ext4,
            FileSystem::Xfs => Filesystem::Xfs,
            FileSystem::Raw => Filesystem::Raw,
            FileSystem::Shared => Filesystem::Shared,
        }),
        slice_blocks: asked.slice_size.map(|size| size.bytes().div_ceil(BLOCK_SIZE as u64)),
        class: asked.class.map(|class| wish(views::config_class(class))),
        labels: asked.labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        nodes: named,
        replace_after_ms: asked.replace_after.map(|span| span.ms()),
        io_timeout_ms: asked.io_timeout.map(|span| span.ms()),
        ..VolumeRequest::default()
    })
}

fn wish(class: mooring_config::Class) -> ClassWish {
    ClassWish { class, required: true }
}

pub async fn change(
    State(daemon): State<Arc<Daemon>>,
    caller: Caller,
    Path(name): Path<String>,
    Body(change): Body<ChangeVolume>,
) -> Answer<Volume> {
    let running = daemon.running()?;
    let row = lookup::volume(&running, &name).await?;
    let mut settings = Vec::new();
    settings.extend(change.replicas.map(Setting::Replicas));
    settings.extend(change.min_in_sync.map(|min| Setting::MinInSync(Some(min))));
    settings.extend(change.replace_after.map(|span| Setting::ReplaceAfter(span.ms())));
    settings
        .extend(change.class.map(|c| Setting::Class(c.class().map(views::config_class).map(wish))));
    settings.extend(change.io_timeout.map(|t| Setting::IoTimeout(t.span().map(|span| span.ms()))));
    let labels = change.set_labels.iter().map(|(k, v)| (k.to_string(), Some(v.to_string())));
    let removed = change.remove_labels.iter().map(|key| (key.to_string(), None));
    settings.extend(labels.chain(removed).map(|(key, value)| Setting::Label(key, value)));
    let hints = running.node.hints().await;
    let command = plan_set(&running.node.state(), &hints, &row, &settings)
        .map_err(|refused| DaemonError::Node(NodeError::Refused(refused)))?;
    running.node.propose(caller.name(), command).await.map_err(DaemonError::Node)?;
    answer_with(&running, &name).await
}

pub async fn resize(
    State(daemon): State<Arc<Daemon>>,
    caller: Caller,
    Path(name): Path<String>,
    Body(request): Body<ResizeVolume>,
) -> Answer<Volume> {
    let running = daemon.running()?;
    let row = lookup::volume(&running, &name).await?;
    let hints = running.node.hints().await;
    let command = plan_resize(&running.node.state(), &hints, &row, request.size.bytes())
        .map_err(|refused| DaemonError::Node(NodeError::Refused(refused)))?;
    running.node.propose(caller.name(), command).await.map_err(DaemonError::Node)?;
    // Attached elsewhere, that node grows its device as soon as it learns of the size.
    if let Some(attached) = running.attachments.get(row.id) {
        attached.volume.resized(request.size.bytes());
        running.mounts.grow(row.id).await?;
    }
    answer_with(&running, &name).await
}

pub async fn remove(
    State(daemon): State<Arc<Daemon>>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<ForceQuery>,
) -> Result<StatusCode, Failure> {
    caller.may_force(query.force)?;
    let running = daemon.running()?;
    let row = lookup::volume(&running, &name).await?;
    if row.spec.is_shared() && !query.force {
        super::shared::refuse_if_mounted(&running, &row).await?;
    }
    let command = Command::RemoveVolume { volume: row.id, force: query.force };
    running.node.propose(caller.name(), command).await.map_err(DaemonError::Node)?;
    Ok(done())
}

pub async fn accept_loss(
    State(daemon): State<Arc<Daemon>>,
    caller: Caller,
    Path(name): Path<String>,
    Body(request): Body<AcceptLoss>,
) -> Answer<AcceptedLoss> {
    caller.may_force(request.force)?;
    let running = daemon.running()?;
    let row = lookup::volume(&running, &name).await?;
    let from = lookup::node(&running, request.from.as_str()).await?;
    let report = running.node.reports(&[row.id]).await.remove(&from.id);
    let kept = |slice| {
        let last = report.as_ref().and_then(|report| Some(report.slices.get(&slice)?.last));
        last.map_or(Version { epoch: 0, sequence: 0 }, views::version)
    };
    if !request.force {
        let upto: Vec<String> = row.slices().map(|(slice, _)| kept(slice).to_string()).collect();
        return Err(DaemonError::Invalid(InvalidRequest::NeedsForce(format!(
            "node {} has volume {name} up to version {}; what other replicas have beyond would be lost for good. If that is what you want, say --force",
            request.from,
            upto.join(", ")
        )))
        .into());
    }
    let command = Command::AcceptLoss {
        volume: row.id,
        from: from.id,
        gone: std::collections::BTreeSet::new(),
        force: true,
    };
    let accepted = running.node.propose(caller.name(), command).await.map_err(DaemonError::Node)?;
    let Done::LossAccepted(losses) = accepted else {
        return Err(DaemonError::UnexpectedAnswer.into());
    };
    Ok(Json(AcceptedLoss {
        volume: views::volume_name(&row.name),
        from: request.from,
        slices: losses
            .iter()
            .map(|loss| AcceptedSlice { slice: loss.slice.index.0, kept: kept(loss.slice) })
            .collect(),
    }))
}

pub async fn resync(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
) -> Answer<Vec<Resync>> {
    let running = daemon.running()?;
    let row = lookup::volume(&running, &name).await?;
    let reading = Reading::take(&running, &[row.id]).await;
    Ok(list_of(views::resyncs(&reading, &row)))
}

async fn answer_with(running: &Running, name: &str) -> Answer<Volume> {
    let row = lookup::volume(running, name).await?;
    let reading = Reading::take(running, &[row.id]).await;
    Ok(Json(views::volume(&reading, &row)))
}
