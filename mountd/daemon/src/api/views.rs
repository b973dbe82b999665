//! From what the cluster is to what the API says about it.

use std::sync::Arc;

use blockstore::{Attachment as VolumeState, SliceReport};
use mooring_api as api;
use mooring_config::{
    AttachMode, Class, Filesystem, Node, NodeState, Pool, PoolState, SliceConfig, Volume,
};
use mooring_device::DeviceKind;
use mooring_terms::{BLOCK_SIZE, NodeId, SliceId};

use super::diagnosis;
use super::reading::Reading;
use crate::attachments::Attached;
use crate::daemon::{Daemon, Running};
use crate::error::DaemonError;
use crate::mounts::VolumeMount;

/// A name that the configuration has checked.
pub fn name(text: &str) -> api::NodeName {
    api::NodeName::new(text).or_else(|_| api::NodeName::new("unnamed")).expect("a valid name")
}

/// A name that the configuration has checked.
pub fn volume_name(text: &str) -> api::VolumeName {
    api::VolumeName::new(text).or_else(|_| api::VolumeName::new("unnamed")).expect("a valid name")
}

pub fn config_class(class: api::Class) -> Class {
    match class {
        api::Class::High => Class::High,
        api::Class::Medium => Class::Medium,
        api::Class::Low => Class::Low,
    }
}

fn api_class(class: Class) -> api::Class {
    match class {
        Class::High => api::Class::High,
        Class::Medium => api::Class::Medium,
        Class::Low => api::Class::Low,
    }
}

pub fn file_system(fs: Filesystem) -> api::FileSystem {
    match fs {
        Filesystem::Ext4 => api::FileSystem::Ext4,
        Filesystem::Xfs => api::FileSystem::Xfs,
        Filesystem::Raw => api::FileSystem::Raw,
        Filesystem::Shared => api::FileSystem::Shared,
    }
}

pub fn version(version: mooring_terms::Version) -> api::Version {
    api::Version { epoch: version.epoch.0, sequence: version.sequence.0 }
}

fn labels(labels: &mooring_config::Labels) -> api::Labels {
    labels
        .iter()
        .filter_map(|(k, v)| Some((api::LabelKey::new(k).ok()?, api::LabelValue::new(v).ok()?)))
        .collect()
}

pub fn node(reading: &Reading, row: &Node) -> api::Node {
    let pools = reading.state.pools().values().filter(|pool| pool.node == row.id);
    let (mut count, mut size, mut used) = (0, 0, 0);
    for pool in pools {
        count += 1;
        size += pool.size;
        used += reading.pool(row.id, pool.id).map_or(0, |report| report.live);
    }
    let holds = reading.state.slices().any(|(_, config)| config.member(row.id).is_some());
    let up = row.id == reading.me || reading.answers(row.id);
    api::Node {
        name: name(&row.name),
        id: row.id.0,
        address: row.addresses.first().map(ToString::to_string).unwrap_or_default(),
        state: match (up, row.state) {
            (false, _) => api::NodeState::Down,
            (true, NodeState::Active) => api::NodeState::Up,
            (true, NodeState::Draining) if holds => api::NodeState::Draining,
            (true, NodeState::Draining) => api::NodeState::Drained,
        },
        silent_for: reading.raft.silence.get(&row.id).map(|silence| span(*silence)),
        voter: reading.raft.voters.contains(&row.id),
        leader: reading.raft.leader == Some(row.id),
        labels: labels(&row.labels),
        version: reading.reports.get(&row.id).map(|r| r.version.clone()).unwrap_or_default(),
        pools: count,
        size: api::ByteSize(size),
        used: api::ByteSize(used),
    }
}

pub fn node_detail(reading: &Reading, row: &Node, drain: Option<api::TaskId>) -> api::NodeDetail {
    let held = reading.state.slices().filter(|(_, config)| config.member(row.id).is_some());
    let led = reading.state.slices().filter(|(_, config)| config.primary == row.id);
    let rows = reading.state.pools().values().filter(|pool| pool.node == row.id);
    api::NodeDetail {
        node: node(reading, row),
        fingerprint: row.fingerprint.to_string(),
        pools: rows.map(|pool| plain_pool(reading, pool)).collect(),
        replicas: u32::try_from(held.count()).unwrap_or(u32::MAX),
        primaries: u32::try_from(led.count()).unwrap_or(u32::MAX),
        attachments: reading
            .state
            .volumes()
            .iter()
            .filter(|(_, v)| v.attachment.is_some_and(|held| held.node == row.id))
            .filter_map(|(_, v)| attachment(reading, v))
            .collect(),
        drain,
    }
}

pub fn pool(daemon: &Daemon, reading: &Reading, row: &Pool) -> api::Pool {
    let task = daemon.tasks().running(api::TaskKind::RemovePool, &row.path);
    api::Pool { task, ..plain_pool(reading, row) }
}

fn plain_pool(reading: &Reading, row: &Pool) -> api::Pool {
    let report = reading.pool(row.node, row.id);
    let members = |config: &SliceConfig| {
        config.in_sync.iter().chain(&config.joining).any(|member| member.pool == row.id)
    };
    let (state, fault) = match (&row.state, report) {
        (PoolState::Failed { reason, .. }, _) => (api::PoolState::Failed, reason.clone()),
        (_, None) => (api::PoolState::Unreachable, "its node does not answer".to_owned()),
        (PoolState::Draining, _) => (api::PoolState::Draining, String::new()),
        (_, Some(report)) if report.failed => {
            (api::PoolState::Failed, "an I/O error has stopped it".to_owned())
        }
        (_, Some(report)) if report.damaged => (
            api::PoolState::Damaged,
            "it lost records that were durable; its replicas rejoin".to_owned(),
        ),
        (_, Some(report)) if report.free == 0 => {
            (api::PoolState::Full, "it is full: free space, or add a pool".to_owned())
        }
        (PoolState::Ok, _) => (api::PoolState::Ok, String::new()),
    };
    api::Pool {
        id: api::PoolId(row.id.0),
        node: name(&reading.state.node_name(row.node)),
        path: row.path.clone(),
        backing: if row.path.starts_with("/dev/") {
            api::PoolBacking::Device
        } else {
            api::PoolBacking::Directory
        },
        class: Some(api_class(row.class)),
        class_set: !row.class_measured,
        speed: report.and_then(|report| report.speed).map(speed),
        state,
        fault,
        size: api::ByteSize(report.map_or(row.size, |report| report.size)),
        used: api::ByteSize(report.map_or(0, |report| report.live)),
        live: api::ByteSize(report.map_or(0, |report| report.live)),
        replicas: u32::try_from(reading.state.slices().filter(|(_, c)| members(c)).count())
            .unwrap_or(u32::MAX),
        incarnation: row.opened().map(|i| format!("{:016x}", i.0)).unwrap_or_default(),
        task: None,
    }
}

fn speed(speed: blockstore::Speed) -> api::PoolSpeed {
    api::PoolSpeed {
        random_write_iops: speed.random_writes,
        random_read_iops: speed.random_reads,
        write_bandwidth: api::ByteSize(speed.write_bytes),
        read_bandwidth: api::ByteSize(speed.read_bytes),
    }
}

pub fn volume(reading: &Reading, row: &Volume) -> api::Volume {
    let (health, reasons) = diagnosis::volume(reading, row);
    let in_sync = row.slices.iter().map(|config| config.in_sync.len()).min().unwrap_or(0);
    api::Volume {
        name: volume_name(&row.name),
        id: row.id.0,
        size: api::ByteSize(row.spec.size),
        used: used(reading, row).map(api::ByteSize),
        fs: file_system(row.spec.fs),
        health,
        why: reasons.first().map(|reason| reason.what.clone()).unwrap_or_default(),
        policy: api::VolumePolicy {
            replicas: row.spec.replicas,
            min_in_sync: row.spec.effective_min_in_sync(),
            class: row.spec.class.map(|wish| api_class(wish.class)),
            nodes: row.spec.nodes.iter().map(|id| name(&reading.state.node_name(*id))).collect(),
            labels: labels(&row.spec.labels),
            replace_after: api::Span::from_ms(row.spec.replace_after_ms),
            io_timeout: row.spec.io_timeout_ms.map(api::Span::from_ms),
        },
        in_sync: u32::try_from(in_sync).unwrap_or(u32::MAX),
        // A shared volume's attachment is its coordinator's, and no place where it is used.
        attached_to: row
            .attachment
            .filter(|_| !row.spec.is_shared())
            .map(|held| name(&reading.state.node_name(held.node))),
        created_at: api::Timestamp(row.created.0),
    }
}

/// What its slices hold, as their primaries say, or whoever else is in sync and answers.
fn used(reading: &Reading, row: &Volume) -> Option<u64> {
    let of_slice = |(id, config): (SliceId, &Arc<SliceConfig>)| {
        let others = config.in_sync.iter().map(|member| member.node);
        std::iter::once(config.primary).chain(others).find_map(|node| reading.used(node, id))
    };
    row.slices().map(of_slice).sum()
}

pub fn volume_detail(
    daemon: &Daemon,
    running: &Running,
    reading: &Reading,
    row: &Arc<Volume>,
    mounted_on: &[NodeId],
) -> Result<api::VolumeDetail, DaemonError> {
    let attached = running.attachments.get(row.id);
    let mounts = running.mounts.all()?;
    Ok(api::VolumeDetail {
        volume: volume(reading, row),
        reasons: diagnosis::volume(reading, row).1,
        slice_size: api::ByteSize(row.spec.slice_bytes().min(row.spec.size)),
        slices: row.slices().map(|(id, config)| slice(reading, row, id, config)).collect(),
        attachment: match attached {
            Some(here) => Some(self::attached(daemon.name(), &here)),
            None => attachment(reading, row),
        },
        mounts: mounts.iter().filter(|m| m.id == row.id).map(mount).collect(),
        mounted_on: mounted_on.iter().map(|node| name(&reading.state.node_name(*node))).collect(),
    })
}

fn slice(reading: &Reading, row: &Volume, id: SliceId, config: &SliceConfig) -> api::Slice {
    let primary = slice_report(reading, config.primary, id).filter(|report| report.serves);
    let mut members: Vec<_> = config.in_sync.iter().chain(&config.joining).collect();
    members.sort_unstable();
    let replicas = members.into_iter().map(|member| {
        let in_sync = config.in_sync_member(member.node).is_some();
        let own = slice_report(reading, member.node, id);
        let seen = primary.and_then(|p| p.others.iter().find(|other| other.node == member.node));
        // Only Raft's leader knows for how long a node has been silent.
        let silence = reading.raft.silence.get(&member.node).filter(|_| own.is_none());
        let lost_since = silence.map(|s| blockstore::unix_ms().saturating_sub(span(*s).ms()));
        let role = match (in_sync, own) {
            (_, None) => api::Role::Lost,
            (true, _) if member.node == config.primary => api::Role::Primary,
            (true, _) => api::Role::Secondary,
            (false, _) => api::Role::Joining,
        };
        api::Replica {
            node: name(&reading.state.node_name(member.node)),
            pool: api::PoolId(member.pool.0),
            role,
            received: seen.map(|o| o.received.0).or(own.map(|report| report.last.sequence.0)),
            durable: seen.map(|o| o.durable.0).or(own.map(|report| report.durable.0)),
            lag_records: seen.map(|other| other.lag),
            used: reading.used(member.node, id).map(api::ByteSize),
            lost_since: lost_since.map(api::Timestamp),
            replaced_at: lost_since
                .map(|since| api::Timestamp(since.saturating_add(row.spec.replace_after_ms))),
            join: resyncs(reading, row).into_iter().find(|r| {
                r.slice == id.index.0 && r.node == name(&reading.state.node_name(member.node))
            }),
        }
    });
    api::Slice {
        index: id.index.0,
        epoch: config.epoch.0,
        primary: name(&reading.state.node_name(config.primary)),
        tail_lost: config.tail_lost == config.epoch,
        last: primary.map(|report| version(report.last)),
        lease_left: primary.and_then(|p| p.lease_left_ms).map(api::Span::from_ms),
        replicas: replicas.collect(),
    }
}

/// The joins that are running.
pub fn resyncs(reading: &Reading, row: &Volume) -> Vec<api::Resync> {
    let mut all = Vec::new();
    for (id, config) in row.slices() {
        let Some(primary) = slice_report(reading, config.primary, id) else { continue };
        for member in &config.joining {
            let seen = primary.others.iter().find(|other| other.node == member.node);
            let join = seen.and_then(|other| other.join);
            let of = slice_bytes(row, id);
            let at = join.map(|join| join.at.map_or(of, |at| at.0 * BLOCK_SIZE as u64));
            all.push(api::Resync {
                slice: id.index.0,
                node: name(&reading.state.node_name(member.node)),
                phase: match join {
                    None => api::ResyncPhase::Waiting,
                    Some(join) if join.at.is_some() => api::ResyncPhase::Copying,
                    Some(_) => api::ResyncPhase::Syncing,
                },
                copied: api::ByteSize(join.map_or(0, |join| join.copied_bytes)),
                seen: api::ByteSize(at.unwrap_or(0).min(of)),
                of: api::ByteSize(of),
            });
        }
    }
    all
}

/// Bytes of the volume that lie in one of its slices.
fn slice_bytes(row: &Volume, id: SliceId) -> u64 {
    let each = row.spec.slice_blocks.saturating_mul(BLOCK_SIZE as u64);
    row.spec.size.saturating_sub(u64::from(id.index.0).saturating_mul(each)).min(each)
}

pub fn slice_report(reading: &Reading, node: NodeId, slice: SliceId) -> Option<&SliceReport> {
    reading.reports.get(&node)?.slices.get(&slice)
}

fn attachment(reading: &Reading, row: &Volume) -> Option<api::Attachment> {
    let held = row.attachment?;
    Some(api::Attachment {
        volume: volume_name(&row.name),
        node: name(&reading.state.node_name(held.node)),
        epoch: held.epoch.0,
        state: None,
        device: None,
        backend: None,
        read_only: held.mode == AttachMode::ReadOnly,
        since: api::Timestamp(held.since.0),
    })
}

pub fn attached(node: &str, attached: &Attached) -> api::Attachment {
    let state = match *attached.volume.state().borrow() {
        // Aborted by somebody: `umount -f` of its file, or the end of a holder that forwards.
        VolumeState::Opening | VolumeState::Serving if !attached.device.is_serving() => {
            api::AttachmentState::Fenced
        }
        VolumeState::Opening => api::AttachmentState::Opening,
        VolumeState::Serving => api::AttachmentState::Serving,
        VolumeState::Fenced { .. } | VolumeState::TailLost | VolumeState::Closed => {
            api::AttachmentState::Fenced
        }
    };
    api::Attachment {
        volume: volume_name(&attached.name),
        node: name(node),
        epoch: attached.volume.epoch().0,
        state: Some(state),
        device: Some(attached.device.address()),
        backend: Some(backend(attached.device.kind())),
        read_only: attached.volume.is_read_only(),
        since: api::Timestamp(attached.since_ms),
    }
}

pub fn backend(kind: DeviceKind) -> api::Backend {
    match kind {
        DeviceKind::Loop => api::Backend::Loop,
        DeviceKind::Nbd => api::Backend::Nbd,
        DeviceKind::NbdSocket => api::Backend::NbdSocket,
        DeviceKind::Ublk => api::Backend::Ublk,
    }
}

pub fn device_kind(backend: api::Backend) -> DeviceKind {
    match backend {
        api::Backend::Loop => DeviceKind::Loop,
        api::Backend::Nbd => DeviceKind::Nbd,
        api::Backend::NbdSocket => DeviceKind::NbdSocket,
        api::Backend::Ublk => DeviceKind::Ublk,
    }
}

pub fn mount(mount: &VolumeMount) -> api::Mount {
    let options: Vec<String> = mount.mount.options.split(',').map(str::to_owned).collect();
    api::Mount {
        volume: volume_name(&mount.volume),
        dir: mount.mount.dir.display().to_string(),
        device: mount.device.display().to_string(),
        fs: match mount.mount.file_system.as_str() {
            "ext4" => api::FileSystem::Ext4,
            "xfs" => api::FileSystem::Xfs,
            crate::shared::FILE_SYSTEM => api::FileSystem::Shared,
            _ => api::FileSystem::Raw,
        },
        read_only: options.iter().any(|option| option == "ro"),
        options,
    }
}

pub fn span(duration: std::time::Duration) -> api::Span {
    api::Span::from_ms(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
