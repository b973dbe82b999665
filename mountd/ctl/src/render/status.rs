//! `mountctl status`

use mooring_api::{ClusterStatus, Health, NbdStatus, Status, TransportKind};

use super::{Look, optional, paint, word};

/// Health in one line; why, and what to do; then the rest.
pub fn status(status: &Status, look: Look) -> String {
    let mut text = paint(look, status.health, &status.summary);
    for reason in &status.reasons {
        text.push_str(&format!("\n\n  {}", paint(look, reason.health, &reason.what)));
        if !reason.remedy.is_empty() {
            text.push_str(&format!("\n    do: {}", reason.remedy));
        }
    }
    text.push_str("\n\n");
    let mut lines = vec![node_line(status)];
    match &status.cluster {
        Some(cluster) => lines.extend(cluster_lines(cluster, look)),
        None => lines.push(
            "cluster    none yet: mountctl cluster create, or mountctl cluster join ADDR"
                .to_owned(),
        ),
    }
    lines.push(transport_line(status, look));
    lines.push(format!("devices    {}", devices(status)));
    lines.extend(status.nbd.as_ref().map(|nbd| nbd_line(nbd, look)));
    text.push_str(&lines.join("\n"));
    text
}

fn node_line(status: &Status) -> String {
    let node = &status.node;
    format!(
        "node       {} ({}), mountd {}, process {}, since {}; {} attached, {} mounted here",
        node.name,
        node.address,
        node.version,
        node.pid,
        node.started_at,
        node.attachments,
        node.mounts
    )
}

fn cluster_lines(cluster: &ClusterStatus, look: Look) -> Vec<String> {
    let up = cluster.voters.iter().filter(|voter| voter.reachable).count();
    let silent: Vec<_> = cluster.voters.iter().filter(|voter| !voter.reachable).collect();
    let mut voters = format!(
        "voters     {up} of {} reachable, leader {}, term {}, applied {}",
        cluster.voters.len(),
        optional(cluster.leader.as_ref()),
        cluster.term,
        cluster.applied
    );
    for voter in silent {
        let silence = voter.silent_for.map_or("never heard".into(), |s| format!("silent for {s}"));
        voters.push_str(&format!("; {} {silence}", voter.node));
    }
    if !cluster.quorum {
        let text = "NO QUORUM: nothing can be changed, I/O goes on";
        voters.push_str(&format!("; {}", paint(look, Health::Down, text)));
    } else if !cluster.survives_a_failure {
        voters.push_str("; no voter may fail");
    }
    let counts = &cluster.counts;
    vec![
        format!("cluster    {}, version {}", cluster.id, cluster.version),
        voters,
        format!("nodes      {} of {} up", counts.nodes_up, counts.nodes),
        format!("pools      {} of {} ok", counts.pools_ok, counts.pools),
        format!(
            "volumes    {} of {} ok, {} degraded, {} down",
            counts.volumes_ok, counts.volumes, counts.volumes_degraded, counts.volumes_down
        ),
    ]
}

fn transport_line(status: &Status, look: Look) -> String {
    let kind = match status.transport.kind {
        TransportKind::Tls => "tls",
        TransportKind::Zeromq => "zeromq",
    };
    let text = "UNPROTECTED: data travels unauthenticated and in the clear";
    match status.transport.protected {
        true => format!("transport  {kind}, authenticated and encrypted"),
        false => format!("transport  {kind}, {}", paint(look, Health::Degraded, text)),
    }
}

fn nbd_line(nbd: &NbdStatus, look: Look) -> String {
    let text = "UNPROTECTED: whoever reaches it reads and writes";
    match nbd.protected {
        true => format!("nbd        {}, authenticated and encrypted", nbd.address),
        false => format!("nbd        {}, {}", nbd.address, paint(look, Health::Degraded, text)),
    }
}

fn devices(status: &Status) -> String {
    let each = status.backends.iter().map(|backend| {
        let name = word(&backend.backend);
        match (backend.chosen, backend.usable) {
            (true, _) => format!("{name} (chosen)"),
            (false, true) => name,
            (false, false) => format!("{name} (not here: {})", backend.why),
        }
    });
    let each: Vec<_> = each.collect();
    if each.is_empty() { "none".to_owned() } else { each.join(", ") }
}
