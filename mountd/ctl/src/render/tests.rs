//! What people see, to the letter.

use mooring_api::{
    Event, Node, NodeDetail, Pool, SharedClient, Status, Task, Volume, VolumeDetail,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

fn of<T: DeserializeOwned>(json: Value) -> T {
    serde_json::from_value(json).unwrap()
}

fn volume_json(name: &str, health: &str, why: &str, in_sync: u32) -> Value {
    json!({
        "name": name, "id": 7, "size": 10_u64 << 30, "used": 4096, "fs": "ext4",
        "health": health, "why": why, "in_sync": in_sync, "attached_to": "alpha",
        "created_at": 0, "policy": {
            "replicas": 3, "min_in_sync": 2, "class": null, "nodes": [],
            "labels": {"app": "shop"}, "replace_after": "10m", "io_timeout": null,
        },
    })
}

fn node_json(name: &str, state: &str) -> Value {
    json!({
        "name": name, "id": 1, "address": "10.0.0.1:7700", "state": state,
        "silent_for": "1m30s", "voter": true, "leader": name == "alpha",
        "labels": {"rack": "3", "zone": "east"}, "version": "0.1.0", "pools": 1,
        "size": 1_u64 << 40, "used": 1_u64 << 30,
    })
}

fn pool_json(state: &str, fault: &str) -> Value {
    json!({
        "id": 3, "node": "alpha", "path": "/pool", "backing": "directory", "class": "high",
        "class_set": false, "speed": {"random_write_iops": 4000, "random_read_iops": 90_000,
        "write_bandwidth": 500 << 20, "read_bandwidth": 900 << 20}, "state": state,
        "fault": fault, "size": 1_u64 << 40, "used": 2_u64 << 30, "live": 1_u64 << 30,
        "replicas": 2, "incarnation": "00ff", "task": null,
    })
}

#[test]
fn volumes_are_a_table() {
    let list: Vec<Volume> = of(json!([
        volume_json("db", "ok", "", 3),
        volume_json("logs-of-the-shop", "degraded", "beta is joining", 2),
    ]));
    assert_eq!(
        volumes(&list, Look::Plain),
        "\
NAME              SIZE    USED   IN SYNC  FS    HEALTH    ATTACHED TO  WHY
db                10 GiB  4 KiB  3/3      ext4  ok        alpha        -
logs-of-the-shop  10 GiB  4 KiB  2/3      ext4  degraded  alpha        beta is joining"
    );
}

#[test]
fn a_list_of_nothing_is_its_header() {
    assert_eq!(nodes(&[], Look::Plain), "NAME  STATE  ADDRESS  ROLE  POOLS  USED  SIZE  LABELS");
}

#[test]
fn colour_is_for_terminals_only() {
    let list: Vec<Volume> = of(json!([volume_json("db", "down", "no primary", 0)]));
    assert!(!volumes(&list, Look::Plain).contains('\x1b'));
    assert!(volumes(&list, Look::Coloured).contains('\x1b'));
}

#[test]
fn nodes_are_a_table() {
    let list: Vec<Node> = of(json!([node_json("alpha", "up"), node_json("beta", "down")]));
    assert_eq!(
        nodes(&list, Look::Plain),
        "\
NAME   STATE           ADDRESS        ROLE    POOLS  USED   SIZE   LABELS
alpha  up              10.0.0.1:7700  leader  1      1 GiB  1 TiB  rack=3,zone=east
beta   down for 1m30s  10.0.0.1:7700  voter   1      1 GiB  1 TiB  rack=3,zone=east"
    );
}

#[test]
fn pools_are_a_table_and_a_page() {
    let list: Vec<Pool> = of(json!([pool_json("failed", "I/O error at segment 7")]));
    assert_eq!(
        pools(&list, Look::Plain),
        "\
ID  NODE   PATH   CLASS  STATE   USED   SIZE   REPLICAS  FAULT
3   alpha  /pool  high   failed  2 GiB  1 TiB  2         I/O error at segment 7"
    );
    let page = pool(&list[0], Look::Plain);
    assert!(page.contains("writes       4000 random 4 KiB/s, 500 MiB/s sequential"), "{page}");
}

#[test]
fn a_node_shows_its_pools_and_attachments() {
    let detail: NodeDetail = of(json!({
        "node": node_json("alpha", "draining"), "fingerprint": "ab12",
        "pools": [pool_json("ok", "")], "replicas": 2, "primaries": 1, "drain": 9,
        "attachments": [{"volume": "db", "node": "alpha", "epoch": 4, "state": "serving",
            "device": "/dev/loop0", "backend": "loop", "read_only": false, "since": 0}],
    }));
    let page = node(&detail, Look::Plain);
    for part in ["drain        task 9", "pools\n  ID  NODE", "attachments\n  VOLUME  DEVICE"] {
        assert!(page.contains(part), "{part}\n{page}");
    }
}

fn detail_json() -> Value {
    json!({
        "volume": volume_json("db", "degraded", "beta is joining", 1),
        "reasons": [{"health": "degraded", "what": "beta is joining",
            "remedy": "wait: it is copying"}],
        "slice_size": 10_u64 << 30, "mounts": [{"volume": "db", "dir": "/mnt",
            "device": "/dev/loop0", "fs": "ext4", "options": ["noatime"], "read_only": false}],
        "slices": [{"index": 0, "epoch": 4, "primary": "alpha", "tail_lost": true,
            "last": {"epoch": 4, "sequence": 120}, "lease_left": "900ms", "replicas": [
                {"node": "alpha", "pool": 3, "role": "primary", "received": 120, "durable": 118,
                 "lag_records": 0, "used": 4096, "lost_since": null, "replaced_at": null, "join": null},
                {"node": "beta", "pool": 5, "role": "joining", "received": 80, "durable": 80,
                 "lag_records": 40, "used": 2_u64 << 30, "lost_since": null, "replaced_at": null,
                 "join": {"slice": 0, "node": "beta", "phase": "copying", "copied": 4096,
                     "seen": 8192, "of": 32768}},
                {"node": "gamma", "pool": 6, "role": "lost", "received": null, "durable": null,
                 "lag_records": null, "used": null, "lost_since": 0, "replaced_at": 600_000, "join": null},
            ]}],
        "attachment": {"volume": "db", "node": "alpha", "epoch": 4, "state": "waiting",
            "device": "/dev/loop0", "backend": "loop", "read_only": false, "since": 0},
    })
}

#[test]
fn a_volume_shows_slices_epochs_and_lag() {
    let detail: VolumeDetail = of(detail_json());
    assert_eq!(
        volume(&detail, Look::Plain),
        "\
name      db
id        7
health    degraded: beta is joining
size      10 GiB, 4 KiB written
fs        ext4
policy    replicas=3 min_in_sync=2 class=any nodes=any replace_after=10m io_timeout=none
labels    app=shop
created   1970-01-01T00:00:00Z
attached  alpha since 1970-01-01T00:00:00Z, epoch 4, device /dev/loop0 (loop), waiting
mounted   /mnt (rw,noatime)

  beta is joining
    do: wait: it is copying

slices
  SLICE  EPOCH  PRIMARY  IN SYNC  LAST   LEASE LEFT  TAIL
  0      4      alpha    alpha    4.120  900ms       lost

replicas
  SLICE  NODE   POOL  ROLE     USED   RECEIVED  DURABLE  LAG  PROGRESS
  0      alpha  3     primary  4 KiB  120       118      0    -
  0      beta   5     joining  2 GiB  80        80       40   copying: 4 KiB copied, 25% looked through
  0      gamma  6     lost     -      -         -        -    \
lost since 1970-01-01T00:00:00Z, replaced at 1970-01-01T00:10:00Z"
    );
}

fn status_json() -> Value {
    json!({
        "health": "degraded", "summary": "degraded: db has 2 of 3 replicas in sync",
        "reasons": [{"health": "degraded", "what": "volume db: beta is down",
            "remedy": "start mountd on beta"}],
        "node": {"name": "alpha", "id": 1, "address": "10.0.0.1:7700", "version": "0.1.0",
            "started_at": 0, "pid": 77, "attachments": 1, "mounts": 1},
        "cluster": {"id": "6f1c", "version": 1, "leader": "alpha", "term": 12, "applied": 345,
            "voters": [{"node": "alpha", "reachable": true, "silent_for": null},
                {"node": "beta", "reachable": false, "silent_for": "1m30s"},
                {"node": "gamma", "reachable": true, "silent_for": "100ms"}],
            "quorum": true, "survives_a_failure": false,
            "counts": {"nodes": 3, "nodes_up": 2, "pools": 3, "pools_ok": 2, "volumes": 4,
                "volumes_ok": 3, "volumes_degraded": 1, "volumes_down": 0, "false_failovers": 0}},
        "transport": {"kind": "tls", "protected": true},
        "backends": [{"backend": "ublk", "usable": false, "chosen": false,
                "why": "no ublk_drv"},
            {"backend": "loop", "usable": true, "chosen": true, "why": ""}],
    })
}

#[test]
fn status_is_a_line_then_why_then_what_to_do() {
    let answer: Status = of(status_json());
    assert_eq!(
        status(&answer, Look::Plain),
        "\
degraded: db has 2 of 3 replicas in sync

  volume db: beta is down
    do: start mountd on beta

node       alpha (10.0.0.1:7700), mountd 0.1.0, process 77, since 1970-01-01T00:00:00Z; \
1 attached, 1 mounted here
cluster    6f1c, version 1
voters     2 of 3 reachable, leader alpha, term 12, applied 345; beta silent for 1m30s; \
no voter may fail
nodes      2 of 3 up
pools      2 of 3 ok
volumes    3 of 4 ok, 1 degraded, 0 down
transport  tls, authenticated and encrypted
devices    ublk (not here: no ublk_drv), loop (chosen)"
    );
}

#[test]
fn status_names_what_is_dangerous() {
    let mut json = status_json();
    json["transport"] = json!({"kind": "zeromq", "protected": false});
    json["cluster"]["quorum"] = json!(false);
    let text = status(&of(json.clone()), Look::Plain);
    assert!(text.contains("transport  zeromq, UNPROTECTED"), "{text}");
    assert!(text.contains("NO QUORUM"), "{text}");
    json["cluster"] = Value::Null;
    let text = status(&of(json), Look::Plain);
    assert!(text.contains("mountctl cluster create"), "{text}");
}

#[test]
fn leases_are_a_line_a_client_and_what_mounts_have_done_below() {
    let client = |number: u64, node: &str, mount: Value| {
        json!({"client": number, "node": node, "reclaiming": false, "open_files": 2,
            "read_leases": 30, "write_leases": 1, "recalled": 0, "locks": 1, "lock_waits": 0,
            "requests": 4, "mount": mount})
    };
    let mount = json!({"dir": "/srv/home", "options": [], "dirty_bytes": 8192,
        "operations": {"lookup": 5, "read": 2}, "at_once": 6, "read_bytes": 4096,
        "written_bytes": 1 << 20, "recalls": 1, "write_back_errors": 0});
    let clients: Vec<SharedClient> =
        of(json!([client(7, "alpha", mount), client(12, "beta", Value::Null)]));
    let lines = "\
CLIENT  NODE   FILES  READS  WRITES  RECALLED  LOCKS  WAITS  REQUESTS  DIRTY
7       alpha  2      30     1       0         1      0      4         8 KiB
12      beta   2      30     1       0         1      0      4         -";
    assert_eq!(shared_clients(&clients, false, Look::Plain), lines);
    let all = shared_clients(&clients, true, Look::Plain);
    assert_eq!(
        all,
        format!(
            "{lines}

client 7 on alpha
  /srv/home (rw)
  read 4 KiB, written 1 MiB, not stored yet 8 KiB
  7 requests, 6 answered at once; 1 recalls; 0 writes failed
  lookup 5, read 2

client 12 on beta
  its node does not answer"
        )
    );
}

#[test]
fn events_and_tasks_are_lines() {
    let happened: Event = of(json!({"number": 8, "at": 0, "severity": "warning",
        "kind": "replica-lost", "message": "db lost its replica on beta"}));
    assert_eq!(
        event(&happened),
        "8 1970-01-01T00:00:00Z warning replica-lost: db lost its replica on beta"
    );
    let work: Task = of(json!({"id": 9, "kind": "drain-node", "node": "alpha",
        "subject": "beta", "state": "running", "done": 3, "total": 5, "unit": "replicas",
        "message": "moving db", "error": null, "started_at": 0, "ended_at": null}));
    assert_eq!(
        task(&work, Look::Plain),
        "task 9, drain node beta, running, 3 replicas of 5 replicas: moving db"
    );
}
