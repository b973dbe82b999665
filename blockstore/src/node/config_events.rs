//! The configuration's own events, as this node's event log tells them: what was changed, and by whom.

use std::collections::BTreeMap;

use mooring_config::{ClusterState, Event, What};
use mooring_terms::{NodeId, PoolId, VolumeId};

use crate::event_log::{About, EventLog, Severity};

/// Adds what has happened in the configuration since number `seen` (none: since ever). Gives the last
/// number there is.
pub(super) fn tell(log: &EventLog, state: &ClusterState, seen: Option<u64>) -> Option<u64> {
    for event in state.events().iter().filter(|event| Some(event.number) > seen) {
        let (severity, kind, message, about) = describe(state, event);
        log.push(severity, kind, message, about);
    }
    state.events().back().map(|event| event.number).or(seen)
}

fn describe(state: &ClusterState, event: &Event) -> (Severity, &'static str, String, About) {
    let (severity, kind, what, about) = what(state, &event.what);
    let mut message = what;
    let through = event.by.node.map(|node| state.node_name(node));
    match (event.by.name.as_str(), through) {
        // What the system does by itself.
        ("mooring", _) => {}
        (by, Some(node)) => message.push_str(&format!(" (by {by}, on {node})")),
        (by, None) => message.push_str(&format!(" (by {by})")),
    }
    let details = BTreeMap::from([("by", event.by.name.clone())]);
    (severity, kind, message, About { details, ..about })
}

fn what(state: &ClusterState, what: &What) -> (Severity, &'static str, String, About) {
    use Severity::{Error, Info, Warning};

    let name = |id: NodeId| state.node_name(id);
    let volume_name =
        |id: VolumeId| state.volume(id).map_or_else(|| id.to_string(), |row| row.name.clone());
    let node = |id: NodeId| About { node: Some(id), ..About::default() };
    let pool = |id: PoolId| About { pool: Some(id), ..About::default() };
    let volume = |id: VolumeId| About { volume: Some(id), ..About::default() };
    let forced = |forced: bool| if forced { " by force" } else { "" };
    let draining = |drain: bool| if drain { "is being drained" } else { "takes replicas again" };
    let plain = || what.to_string();
    let of = |count: u32, first: VolumeId| match count {
        1 => format!("volume {}", volume_name(first)),
        more => format!("volume {} and {} more slices", volume_name(first), more - 1),
    };
    match what {
        What::ClusterCreated { .. } => (Info, "cluster-created", plain(), About::default()),
        What::NodeAdmitted { node: id, name } => {
            (Info, "node-admitted", format!("node {name} has joined"), node(*id))
        }
        What::NodeStarted { node: id, released } => {
            let gave_up = match released.len() {
                0 => String::new(),
                count => format!(" and gave up {count} attachments"),
            };
            (Info, "node-started", format!("node {} started{gave_up}", name(*id)), node(*id))
        }
        What::NodeLabelled { node: id } => {
            (Info, "node-labelled", format!("labels of node {} changed", name(*id)), node(*id))
        }
        What::NodeDrain { node: id, drain } => {
            (Info, "node-drain", format!("node {} {}", name(*id), draining(*drain)), node(*id))
        }
        What::NodeRemoved { name, .. } => {
            (Warning, "node-removed", format!("node {name} was removed"), About::default())
        }
        What::VersionRaised { .. } => (Info, "version-raised", plain(), About::default()),
        What::Credential { .. } => (Info, "credential", plain(), About::default()),
        What::PoolAdded { pool: id, node, path } => {
            let message = format!("pool {id} added: {path} on {}", name(*node));
            (Info, "pool-added", message, pool(*id))
        }
        What::PoolOpened { pool: id } => (Info, "pool-opened", plain(), pool(*id)),
        What::PoolFailed { pool: id, .. } => (Error, "pool-marked-failed", plain(), pool(*id)),
        What::PoolDrain { pool: id, .. } => (Info, "pool-drain", plain(), pool(*id)),
        What::PoolRemoved { pool: id } => (Warning, "pool-removed", plain(), pool(*id)),
        What::VolumeCreated { volume: id, .. } => (Info, "volume-created", plain(), volume(*id)),
        What::VolumeRemoved { .. } => (Warning, "volume-removed", plain(), About::default()),
        What::VolumeResized { volume: id, size } => {
            let message = format!("volume {} grown to {size} bytes", volume_name(*id));
            (Info, "volume-resized", message, volume(*id))
        }
        What::VolumeSet { volume: id } => {
            let message = format!("settings of volume {} changed", volume_name(*id));
            (Info, "volume-set", message, volume(*id))
        }
        What::Attached { volume: id, node, fenced, forced: by } => {
            let mut message =
                format!("volume {} attached to {}{}", volume_name(*id), name(*node), forced(*by));
            let Some(old) = fenced else { return (Info, "volume-attached", message, volume(*id)) };
            message.push_str(&format!("; {} is fenced", name(*old)));
            let kind = if *by { "forced-takeover" } else { "takeover" };
            (Warning, kind, message, volume(*id))
        }
        What::Detached { volume: id, node, forced: by } => {
            let message =
                format!("volume {} detached from {}{}", volume_name(*id), name(*node), forced(*by));
            let severity = if *by { Warning } else { Info };
            (severity, "volume-detached", message, volume(*id))
        }
        What::SlicesChanged { reason, count, first } => {
            let message = format!("{} changed: {reason:?}", of(*count, first.volume));
            (Info, "slices-changed", message, volume(first.volume))
        }
        What::TailLost { slice } => {
            let message = format!(
                "volume {}: all replicas were restarted; what was not flushed may be gone",
                volume_name(slice.volume)
            );
            (Error, "tail-lost", message, volume(slice.volume))
        }
        What::ReplicasAssigned { count, first } => {
            let message = format!("replicas placed for {}", of(*count, first.volume));
            (Info, "replicas-placed", message, volume(first.volume))
        }
        What::ReplicasRemoved { count, first } => {
            let message = format!("replicas taken away from {}", of(*count, first.volume));
            (Info, "replicas-removed", message, volume(first.volume))
        }
        What::LossAccepted { volume: id, from } => {
            let message = format!(
                "loss accepted: volume {} goes on from the replicas on {}",
                volume_name(*id),
                name(*from)
            );
            (Error, "loss-accepted", message, volume(*id))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mooring_config::{
        Actor, AttachMode, Boot, ClusterId, Command, Genesis, NewNode, UnixMillis,
    };
    use mooring_config::{Fingerprint, NEWEST_VERSION, WrappedKey};

    use super::*;

    fn node(name: &str, byte: u8) -> NewNode {
        NewNode {
            name: name.to_owned(),
            addresses: Vec::new(),
            fingerprint: Fingerprint([byte; 32]),
            labels: BTreeMap::new(),
            version: NEWEST_VERSION,
        }
    }

    #[test]
    fn who_took_a_volume_by_force_is_said_and_nothing_is_said_twice() {
        let mut state = ClusterState::default();
        let mut must = |by: &str, command: Command| {
            let by = Actor { node: Some(NodeId(1)), name: by.to_owned() };
            state.apply(UnixMillis(1), &by, &command).expect("a test's command is accepted");
            state.clone()
        };
        must(
            "root",
            Command::Create(Box::new(Genesis {
                cluster: ClusterId([1; 16]),
                name: "c".to_owned(),
                ca_certificate: Vec::new(),
                ca_key: WrappedKey(Vec::new()),
                gossip_key: [1; 32],
                version: NEWEST_VERSION,
                first: node("alpha", 1),
            })),
        );
        let token = mooring_config::TokenHash([7; 32]);
        must("root", Command::CreateJoinToken { hash: token, expires: UnixMillis(9), uses: 1 });
        let admission = mooring_config::Admission { token, node: node("beta", 2) };
        let state = must("mooring", Command::AdmitNode(Box::new(admission)));
        let request = mooring_config::VolumeRequest {
            size: Some(1 << 30),
            replicas: Some(1),
            ..Default::default()
        };
        let pool = |node| Command::AddPool {
            node,
            path: "/pool".to_owned(),
            size: 100 << 30,
            class: mooring_config::Class::Medium,
            measured: false,
            incarnation: mooring_terms::Incarnation(1),
        };
        drop(state);
        let state = must("root", pool(NodeId(1)));
        let hints = mooring_config::placement::Hints::default();
        let create = mooring_config::placement::plan_create(&state, &hints, "db", &request);
        must("root", create.expect("there is room"));
        let attach = |node, force| Command::Attach {
            volume: VolumeId(1),
            node,
            boot: Boot(0),
            mode: AttachMode::ReadWrite,
            holder_gone: false,
            force,
        };
        let before = must("mooring", attach(NodeId(1), false));
        let log = Arc::new(EventLog::default());
        let seen = tell(&log, &before, None);
        let told = log.after(0, 100).0;
        assert!(told.iter().any(|event| event.message == "volume db created (by root, on alpha)"));
        assert!(told.iter().any(|event| event.message == "volume db attached to alpha"));
        let after = must("token ci", attach(NodeId(2), true));
        tell(&log, &after, seen);
        let new = log.after(told.last().expect("there are some").number, 100).0;
        assert_eq!(new.len(), 1, "{new:?}");
        assert_eq!(new[0].kind, "forced-takeover");
        assert_eq!(
            new[0].message,
            "volume db attached to beta by force; alpha is fenced (by token ci, on alpha)"
        );
        assert_eq!(new[0].about.details["by"], "token ci");
    }
}
