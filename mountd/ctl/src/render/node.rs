//! `mountctl node ls`, `node inspect`

use comfy_table::Cell;
use mooring_api::{Health, Node, NodeDetail, NodeState};

use super::{
    Look, fields, finish, health_cell, labels, optional, or_none, pool, section, table, word,
};

/// Every node, a line each.
pub fn nodes(nodes: &[Node], look: Look) -> String {
    let columns = ["NAME", "STATE", "ADDRESS", "ROLE", "POOLS", "USED", "SIZE", "LABELS"];
    let mut table = table(look, &columns);
    for node in nodes {
        table.add_row(vec![
            Cell::new(&node.name),
            health_cell(state(node), health(node.state)),
            Cell::new(&node.address),
            Cell::new(role(node)),
            Cell::new(node.pools),
            Cell::new(node.used),
            Cell::new(node.size),
            Cell::new(labels(&node.labels)),
        ]);
    }
    finish(table)
}

/// One node in full.
pub fn node(detail: &NodeDetail, look: Look) -> String {
    let node = &detail.node;
    let mut text = fields(&[
        ("name", node.name.to_string()),
        ("id", node.id.to_string()),
        ("state", state(node)),
        ("address", node.address.clone()),
        ("role", role(node).to_owned()),
        ("version", or_none(&node.version)),
        ("labels", labels(&node.labels)),
        ("fingerprint", detail.fingerprint.clone()),
        ("used", format!("{} of {}", node.used, node.size)),
        ("replicas", format!("{}, {} of them primary", detail.replicas, detail.primaries)),
        ("drain", detail.drain.map_or_else(|| super::NONE.into(), |task| format!("task {task}"))),
    ]);
    if !detail.pools.is_empty() {
        text.push_str(&section("pools", &pool::pools(&detail.pools, look)));
    }
    if !detail.attachments.is_empty() {
        let mut table = table(look, &["VOLUME", "DEVICE", "BACKEND", "STATE"]);
        for attachment in &detail.attachments {
            table.add_row(vec![
                attachment.volume.to_string(),
                optional(attachment.device.as_ref()),
                optional(attachment.backend.as_ref()),
                optional(attachment.state.as_ref().map(word).as_ref()),
            ]);
        }
        text.push_str(&section("attachments", &finish(table)));
    }
    text
}

fn state(node: &Node) -> String {
    match (node.state, node.silent_for) {
        (NodeState::Down, Some(silence)) => format!("down for {silence}"),
        (state, _) => word(&state),
    }
}

fn health(state: NodeState) -> Health {
    match state {
        NodeState::Up | NodeState::Drained => Health::Ok,
        NodeState::Draining => Health::Degraded,
        NodeState::Down => Health::Down,
    }
}

fn role(node: &Node) -> &'static str {
    match (node.leader, node.voter) {
        (true, _) => "leader",
        (false, true) => "voter",
        (false, false) => "learner",
    }
}
