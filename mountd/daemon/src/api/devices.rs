//! Attaching and mounting.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use mooring_api::{
    Attach, Attachment, ForceQuery, Mount, MountVolume, Mounted, UnmountQuery, Unmounted,
};
use mooring_config::{AttachMode, Command};

use super::caller::Caller;
use super::{Answer, Body, Failure, Query, done, list_of, lookup, views};
use crate::attachments::GrantRequest;
use crate::daemon::Daemon;
use crate::error::{DaemonError, InvalidRequest};
use crate::mounts::{MountRequest, VolumeMount};

pub async fn attach(
    State(daemon): State<Arc<Daemon>>,
    caller: Caller,
    Path(name): Path<String>,
    Body(request): Body<Attach>,
) -> Answer<Attachment> {
    caller.may_force(request.force)?;
    let running = daemon.running()?;
    let volume = lookup::volume(&running, &name).await?;
    let kind = request.backend.map(views::device_kind);
    let mode = if request.read_only { AttachMode::ReadOnly } else { AttachMode::ReadWrite };
    let by = caller.name().to_owned();
    let grant = GrantRequest { by, volume: volume.id, mode, kind, force: request.force };
    let attached = running.attachments.attach(grant, false).await?;
    Ok(Json(views::attached(daemon.name(), &attached)))
}

pub async fn detach(
    State(daemon): State<Arc<Daemon>>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<ForceQuery>,
) -> Result<StatusCode, Failure> {
    caller.may_force(query.force)?;
    let running = daemon.running()?;
    let volume = lookup::volume(&running, &name).await?;
    if running.attachments.detach(volume.id, query.force).await? {
        return Ok(done());
    }
    // Not attached here: by force, an attachment elsewhere is ended too, and its device turns to
    // errors.
    if query.force {
        let command = Command::Detach {
            volume: volume.id,
            epoch: None,
            node: running.node.id(),
            force: true,
        };
        running.node.propose(caller.name(), command).await.map_err(DaemonError::Node)?;
    }
    Ok(done())
}

pub async fn mounts(State(daemon): State<Arc<Daemon>>) -> Answer<Vec<Mount>> {
    let running = daemon.running()?;
    Ok(list_of(running.mounts.all()?.iter().map(views::mount)))
}

pub async fn mount(
    State(daemon): State<Arc<Daemon>>,
    caller: Caller,
    Body(request): Body<MountVolume>,
) -> Answer<Mounted> {
    caller.may_force(request.force)?;
    let running = daemon.running()?;
    let volume = lookup::volume(&running, request.volume.as_str()).await?;
    let outcome = running
        .mounts
        .mount(MountRequest {
            by: caller.name().to_owned(),
            volume: volume.id,
            dir: PathBuf::from(&request.dir),
            options: request.options,
            read_only: request.read_only,
            kind: request.backend.map(views::device_kind),
            force: request.force,
        })
        .await?;
    Ok(Json(Mounted {
        mount: views::mount(&outcome.mount),
        mounted: outcome.mounted,
        formatted: outcome.formatted,
        grown: false,
    }))
}

pub async fn unmount(
    State(daemon): State<Arc<Daemon>>,
    caller: Caller,
    Query(query): Query<UnmountQuery>,
) -> Answer<Vec<Unmounted>> {
    caller.may_force(query.force)?;
    let running = daemon.running()?;
    let all = running.mounts.all()?;
    let chosen: Vec<VolumeMount> = match (&query.volume, &query.dir, query.all) {
        (None, None, true) => all,
        (Some(volume), None, false) => {
            let name = volume.as_str();
            some(all.into_iter().filter(|m| m.volume == name).collect(), name)?
        }
        (None, Some(dir), false) => {
            let path = PathBuf::from(dir);
            // The upper of several mounts on one directory goes first.
            some(all.into_iter().rev().filter(|m| m.mount.dir == path).take(1).collect(), dir)?
        }
        _ => return Err(DaemonError::Invalid(InvalidRequest::UnmountWhat).into()),
    };
    let mut ended = Vec::new();
    for mount in chosen {
        let detached = running.mounts.unmount(&mount, query.force).await?;
        ended.push(Unmounted {
            volume: views::volume_name(&mount.volume),
            dir: mount.mount.dir.display().to_string(),
            detached,
        });
    }
    Ok(Json(ended))
}

fn some(mounts: Vec<VolumeMount>, what: &str) -> Result<Vec<VolumeMount>, DaemonError> {
    if mounts.is_empty() {
        return Err(DaemonError::NotMounted { what: what.to_owned() });
    }
    Ok(mounts)
}
