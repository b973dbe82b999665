//! `mountctl leases`

use mooring_api::{ByteSize, SharedClient, SharedMount};

use super::{Look, NONE, finish, section, table};

/// Every client of a shared volume, a line each; with `statistics`, what each mount has done below that.
pub fn shared_clients(clients: &[SharedClient], statistics: bool, look: Look) -> String {
    let head = [
        "CLIENT", "NODE", "FILES", "READS", "WRITES", "RECALLED", "LOCKS", "WAITS", "REQUESTS",
        "DIRTY",
    ];
    let mut table = table(look, &head);
    for client in clients {
        let note = if client.reclaiming { " (reclaims)" } else { "" };
        let mut row = vec![client.client.to_string(), format!("{}{note}", client.node)];
        let counts = [
            client.open_files,
            client.read_leases,
            client.write_leases,
            client.recalled,
            client.locks,
            client.lock_waits,
            client.requests,
        ];
        row.extend(counts.map(|count| count.to_string()));
        let dirty = client.mount.as_ref().map(|mount| bytes(mount.dirty_bytes));
        row.push(dirty.unwrap_or_else(|| NONE.to_owned()));
        table.add_row(row);
    }
    let mut text = finish(table);
    for client in clients.iter().filter(|_| statistics) {
        let title = format!("client {} on {}", client.client, client.node);
        let body = client.mount.as_ref().map_or_else(|| "its node does not answer".into(), done);
        text += &section(&title, &body);
    }
    text
}

/// What one mount has done.
fn done(mount: &SharedMount) -> String {
    let options = if mount.options.is_empty() { "rw".into() } else { mount.options.join(",") };
    let kinds: Vec<_> =
        mount.operations.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    let all: u64 = mount.operations.values().sum();
    format!(
        "{} ({options})\nread {}, written {}, not stored yet {}\n{all} requests, {} answered at once; {} recalls; {} writes failed\n{}",
        mount.dir,
        bytes(mount.read_bytes),
        bytes(mount.written_bytes),
        bytes(mount.dirty_bytes),
        mount.at_once,
        mount.recalls,
        mount.write_back_errors,
        kinds.join(", "),
    )
}

fn bytes(count: u64) -> String {
    ByteSize(count).to_string()
}
