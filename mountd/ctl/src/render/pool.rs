//! `mountctl pool ls`, `pool inspect`

use comfy_table::Cell;
use mooring_api::{Health, Pool, PoolState};

use super::{Look, fields, finish, health_cell, optional, or_none, table, word};

/// Every pool, a line each.
pub fn pools(pools: &[Pool], look: Look) -> String {
    let columns = ["ID", "NODE", "PATH", "CLASS", "STATE", "USED", "SIZE", "REPLICAS", "FAULT"];
    let mut table = table(look, &columns);
    for pool in pools {
        table.add_row(vec![
            Cell::new(pool.id),
            Cell::new(&pool.node),
            Cell::new(&pool.path),
            Cell::new(class(pool)),
            health_cell(word(&pool.state), health(pool.state)),
            Cell::new(pool.used),
            Cell::new(pool.size),
            Cell::new(pool.replicas),
            Cell::new(or_none(&pool.fault)),
        ]);
    }
    finish(table)
}

/// One pool in full.
pub fn pool(pool: &Pool, _look: Look) -> String {
    let mut lines = vec![
        ("id", pool.id.to_string()),
        ("node", pool.node.to_string()),
        ("path", format!("{} ({})", pool.path, word(&pool.backing))),
        ("state", word(&pool.state)),
        ("fault", or_none(&pool.fault)),
        ("class", format!("{}{}", class(pool), if pool.class_set { " (set by hand)" } else { "" })),
        ("used", format!("{} of {}, {} of it live", pool.used, pool.size, pool.live)),
        ("replicas", pool.replicas.to_string()),
        ("incarnation", or_none(&pool.incarnation)),
        ("task", optional(pool.task.as_ref())),
    ];
    if let Some(speed) = pool.speed {
        let write = (speed.random_write_iops, speed.write_bandwidth);
        let read = (speed.random_read_iops, speed.read_bandwidth);
        let line = |(iops, rate): (u64, _)| format!("{iops} random 4 KiB/s, {rate}/s sequential");
        lines.push(("writes", line(write)));
        lines.push(("reads", line(read)));
    }
    fields(&lines)
}

fn class(pool: &Pool) -> String {
    optional(pool.class.as_ref().map(word).as_ref())
}

fn health(state: PoolState) -> Health {
    match state {
        PoolState::Ok | PoolState::Measuring => Health::Ok,
        PoolState::Full | PoolState::Damaged | PoolState::Draining => Health::Degraded,
        PoolState::Failed | PoolState::Unreachable => Health::Down,
    }
}
