//! `mountctl volume ls`, `volume inspect`

use comfy_table::{Cell, Table};
use mooring_api::{
    Attachment, Health, Mount, Replica, Resync, Role, Slice, Volume, VolumeDetail, VolumePolicy,
};

use super::{
    Look, NONE, fields, finish, health_cell, labels, optional, or_none, paint, percent, section,
    table, word,
};

/// Every volume, a line each.
pub fn volumes(volumes: &[Volume], look: Look) -> String {
    let known = volumes.iter().any(|volume| volume.used.is_some());
    let mut columns = vec!["NAME", "SIZE", "IN SYNC", "FS", "HEALTH", "ATTACHED TO", "WHY"];
    if known {
        columns.insert(2, "USED");
    }
    let mut table = table(look, &columns);
    for volume in volumes {
        let mut row = vec![
            Cell::new(&volume.name),
            Cell::new(volume.size),
            Cell::new(format!("{}/{}", volume.in_sync, volume.policy.replicas)),
            Cell::new(word(&volume.fs)),
            health_cell(word(&volume.health), volume.health),
            Cell::new(optional(volume.attached_to.as_ref())),
            Cell::new(or_none(&volume.why)),
        ];
        if known {
            row.insert(2, Cell::new(optional(volume.used.as_ref())));
        }
        table.add_row(row);
    }
    finish(table)
}

/// One volume in full.
pub fn volume(detail: &VolumeDetail, look: Look) -> String {
    let volume = &detail.volume;
    let health = paint(look, volume.health, &word(&volume.health));
    let why = if volume.why.is_empty() { String::new() } else { format!(": {}", volume.why) };
    let mut all = vec![
        ("name", volume.name.to_string()),
        ("id", volume.id.to_string()),
        ("health", format!("{health}{why}")),
        ("size", size(volume)),
        ("fs", word(&volume.fs)),
        ("policy", policy(&volume.policy)),
        ("labels", labels(&volume.policy.labels)),
        ("created", volume.created_at.to_string()),
        ("attached", attachment(detail.attachment.as_ref())),
        ("mounted", mounts(&detail.mounts)),
    ];
    if !detail.mounted_on.is_empty() {
        all.push(("on nodes", words(&detail.mounted_on)));
    }
    let mut text = fields(&all);
    for reason in &detail.reasons {
        text.push_str(&format!("\n\n  {}", paint(look, reason.health, &reason.what)));
        if !reason.remedy.is_empty() {
            text.push_str(&format!("\n    do: {}", reason.remedy));
        }
    }
    text.push_str(&section("slices", &slices(&detail.slices, look)));
    text.push_str(&section("replicas", &replicas(&detail.slices, look)));
    text
}

/// How large it is; with what it takes up, where that is known.
fn size(volume: &Volume) -> String {
    match volume.used {
        Some(used) => format!("{}, {used} written", volume.size),
        None => volume.size.to_string(),
    }
}

/// What the volume's user decides, but for labels, on one line.
pub fn policy(policy: &VolumePolicy) -> String {
    let nodes: Vec<_> = policy.nodes.iter().map(ToString::to_string).collect();
    let timeout = policy.io_timeout.map_or_else(|| "none".to_owned(), |span| span.to_string());
    format!(
        "replicas={} min_in_sync={} class={} nodes={} replace_after={} io_timeout={timeout}",
        policy.replicas,
        policy.min_in_sync,
        policy.class.as_ref().map_or_else(|| "any".to_owned(), word),
        if nodes.is_empty() { "any".to_owned() } else { nodes.join(",") },
        policy.replace_after,
    )
}

fn attachment(attachment: Option<&Attachment>) -> String {
    let Some(attachment) = attachment else { return NONE.to_owned() };
    format!(
        "{} since {}, epoch {}, device {} ({}), {}{}",
        attachment.node,
        attachment.since,
        attachment.epoch,
        optional(attachment.device.as_ref()),
        optional(attachment.backend.as_ref()),
        attachment.state.as_ref().map_or_else(|| "state not known".to_owned(), word),
        if attachment.read_only { ", read-only" } else { "" }
    )
}

fn words(words: &[mooring_api::NodeName]) -> String {
    words.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn mounts(mounts: &[Mount]) -> String {
    let each = mounts.iter().map(|mount| {
        let mode = if mount.read_only { "ro" } else { "rw" };
        let options: Vec<_> =
            [mode].into_iter().chain(mount.options.iter().map(String::as_str)).collect();
        format!("{} ({})", mount.dir, options.join(","))
    });
    or_none(&each.collect::<Vec<_>>().join(", "))
}

fn slices(slices: &[Slice], look: Look) -> String {
    let columns = ["SLICE", "EPOCH", "PRIMARY", "IN SYNC", "LAST", "LEASE LEFT", "TAIL"];
    let mut table = table(look, &columns);
    for slice in slices {
        let in_sync: Vec<_> = slice
            .replicas
            .iter()
            .filter(|replica| matches!(replica.role, Role::Primary | Role::Secondary))
            .map(|replica| replica.node.as_str())
            .collect();
        table.add_row(vec![
            slice.index.to_string(),
            slice.epoch.to_string(),
            slice.primary.to_string(),
            or_none(&in_sync.join(",")),
            optional(slice.last.as_ref()),
            optional(slice.lease_left.as_ref()),
            if slice.tail_lost { "lost" } else { NONE }.to_owned(),
        ]);
    }
    finish(table)
}

fn replicas(slices: &[Slice], look: Look) -> String {
    let columns =
        ["SLICE", "NODE", "POOL", "ROLE", "USED", "RECEIVED", "DURABLE", "LAG", "PROGRESS"];
    let mut table = table(look, &columns);
    for slice in slices {
        for replica in &slice.replicas {
            add_replica(&mut table, slice.index, replica);
        }
    }
    finish(table)
}

fn add_replica(table: &mut Table, slice: u32, replica: &Replica) {
    let health = match replica.role {
        Role::Primary | Role::Secondary => Health::Ok,
        Role::Joining => Health::Degraded,
        Role::Lost => Health::Down,
    };
    table.add_row(vec![
        Cell::new(slice),
        Cell::new(&replica.node),
        Cell::new(replica.pool),
        health_cell(word(&replica.role), health),
        Cell::new(optional(replica.used.as_ref())),
        Cell::new(optional(replica.received.as_ref())),
        Cell::new(optional(replica.durable.as_ref())),
        Cell::new(optional(replica.lag_records.as_ref())),
        Cell::new(progress(replica)),
    ]);
}

fn progress(replica: &Replica) -> String {
    let mut parts: Vec<String> = replica.join.iter().map(resync).collect();
    if let Some(since) = replica.lost_since {
        parts.push(format!("lost since {since}"));
    }
    if let Some(at) = replica.replaced_at {
        parts.push(format!("replaced at {at}"));
    }
    or_none(&parts.join(", "))
}

/// One join on one line.
fn resync(resync: &Resync) -> String {
    format!(
        "{}: {} copied, {}% looked through",
        word(&resync.phase),
        resync.copied,
        percent(resync.seen.0, resync.of.0)
    )
}
