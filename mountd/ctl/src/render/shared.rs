//! `mountctl leases`

use mooring_api::SharedClient;

use super::{Look, finish, table};

/// Every client of a shared volume, a line each.
pub fn shared_clients(clients: &[SharedClient], look: Look) -> String {
    let head =
        ["CLIENT", "NODE", "FILES", "READS", "WRITES", "RECALLED", "LOCKS", "WAITS", "REQUESTS"];
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
        table.add_row(row);
    }
    finish(table)
}
