//! The program itself against a daemon that isn't one: what it prints where, and how it exits.

// Helpers outside a test function are tests too; a wait for a process is real time.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "../../api/tests/fake/mod.rs"]
mod fake;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use fake::{Asked, Fake, Reply};
use mooring_api::{ApiError, ErrorKind};
use serde_json::json;

/// A run of the program, and what it left.
struct Run {
    code: i32,
    out: String,
    err: String,
}

fn command(socket: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mountctl"));
    command.args(words).env_clear().env("MOORING_SOCKET", socket).stdin(Stdio::null());
    command
}

fn finished(output: Output) -> Run {
    Run {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn ctl(socket: &Path, words: &[&str]) -> Run {
    finished(command(socket, words).output().unwrap())
}

fn mount_helper(socket: &Path, words: &[&str]) -> Run {
    finished(command(socket, words).arg0("/sbin/mount.mooring").output().unwrap())
}

fn volume(name: &str) -> serde_json::Value {
    json!({
        "name": name, "id": 7, "size": 10_u64 << 30, "used": null, "fs": "ext4", "health": "ok",
        "why": "", "in_sync": 2, "attached_to": null, "created_at": 0, "policy": {
            "replicas": 2, "min_in_sync": 1, "class": null, "nodes": [], "labels": {},
            "replace_after": "10m", "io_timeout": null},
    })
}

fn attachment() -> serde_json::Value {
    json!({"volume": "db", "node": "alpha", "epoch": 4, "state": "serving",
        "device": "/dev/loop7", "backend": "loop", "read_only": false, "since": 0})
}

fn mounted() -> serde_json::Value {
    json!({"mount": {"volume": "db", "dir": "/mnt", "device": "/dev/loop7", "fs": "ext4",
        "options": [], "read_only": false}, "mounted": true, "formatted": true, "grown": false})
}

fn task(state: &str, done: u64) -> serde_json::Value {
    json!({"id": 9, "kind": "drain-node", "node": "alpha", "subject": "beta", "state": state,
        "done": done, "total": 2, "unit": "replicas", "message": "", "error": null,
        "started_at": 0, "ended_at": null})
}

fn error(kind: ErrorKind) -> Reply {
    let error =
        ApiError::new(kind, "db is on beta").hint("unmount it there").detail("node", "beta");
    Reply::Json(kind.status().as_u16(), serde_json::to_string(&error).unwrap())
}

#[test]
fn a_listing_is_a_table_or_json() {
    let fake = Fake::start(|_| Reply::ok(json!([volume("db")])));
    let run = ctl(fake.socket(), &["volume", "ls"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.starts_with("NAME  SIZE"), "{}", run.out);
    assert!(run.err.is_empty() && !run.out.contains('\x1b'), "{}{}", run.err, run.out);
    let run = ctl(fake.socket(), &["volume", "ls", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(list, json!([volume("db")]));
}

#[test]
fn attach_prints_the_device_and_nothing_else() {
    let fake = Fake::start(|_| Reply::ok(attachment()));
    let run = ctl(fake.socket(), &["attach", "db"]);
    assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (0, "/dev/loop7\n", ""));
    assert_eq!(fake.asked()[0].target, "/v1/volumes/db/attachment");
}

#[test]
fn create_says_what_it_chose() {
    let fake = Fake::start(|_| {
        let why = "2 nodes have pools";
        let chosen = json!([{"option": "replicas", "value": "2", "why": why}]);
        Reply::ok(json!({"volume": volume("db"), "created": true, "chosen": chosen}))
    });
    let run = ctl(fake.socket(), &["volume", "create", "db", "--size", "10G"]);
    let text = "db created: 10 GiB, 2 replicas, ext4\n  replicas = 2 (2 nodes have pools)\n";
    assert_eq!((run.code, run.out.as_str()), (0, text));
    let body: serde_json::Value = serde_json::from_str(&fake.asked()[0].body).unwrap();
    assert_eq!(body["size"], 10_u64 << 30);
    assert_eq!(body["replicas"], json!(null));
}

#[test]
fn each_kind_of_error_has_its_exit_code_and_says_what_to_do() {
    for kind in ErrorKind::ALL {
        let fake = Fake::start(move |_| error(kind));
        let run = ctl(fake.socket(), &["volume", "rm", "db"]);
        assert_eq!(run.code, i32::from(kind.exit_code()), "{kind}");
        assert_eq!(run.err, "error: db is on beta\n  hint: unmount it there\n");
        assert!(run.out.is_empty(), "{}", run.out);
        let run = ctl(fake.socket(), &["volume", "rm", "db", "--json"]);
        assert_eq!(run.code, i32::from(kind.exit_code()), "{kind}");
        let said: ApiError = serde_json::from_str(&run.err).unwrap();
        assert_eq!((said.kind, said.details["node"].as_str()), (kind, "beta"));
    }
}

#[test]
fn a_wrong_call_is_exit_code_2() {
    let run = ctl(Path::new("/nowhere"), &["volume", "create", "db", "--size", "ten"]);
    assert_eq!(run.code, 2);
    assert!(run.err.contains("10G or 512MiB"), "{}", run.err);
}

#[test]
fn a_daemon_that_is_not_running_is_named_with_how_to_start_it() {
    let fake = Fake::absent();
    let run = ctl(fake.socket(), &["status"]);
    assert_eq!(run.code, 5);
    assert!(run.err.starts_with("error: mountd is not running on this machine (no socket at /"));
    assert!(run.err.contains("hint: start it with: systemctl start mountd"), "{}", run.err);
}

#[test]
fn a_daemon_that_hangs_is_not_waited_for_for_ever() {
    let fake = Fake::start(|_| Reply::Hang);
    let run = ctl(fake.socket(), &["status", "--timeout", "200ms"]);
    assert_eq!(run.code, 5);
    assert!(run.err.contains("no answer to GET /v1/status within 200ms"), "{}", run.err);
    assert!(run.err.contains("journalctl -u mountd"), "{}", run.err);
}

#[test]
fn garbage_is_an_error_and_no_panic() {
    let html = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>";
    for bytes in [&b"\x00\x01\x02"[..], b"", html] {
        let fake = Fake::start(move |_| Reply::Bytes(bytes.to_vec()));
        let run = ctl(fake.socket(), &["volume", "ls"]);
        assert!(run.code == 1 || run.code == 5, "{}", run.code);
        assert!(run.err.starts_with("error: ") && run.err.contains("hint: "), "{}", run.err);
        assert!(!run.err.contains("panicked"), "{}", run.err);
    }
}

#[test]
fn a_token_for_the_api_is_printed_alone_and_sent_nowhere_unchecked() {
    let fake = Fake::start(|_| {
        Reply::ok(json!({"token": "s3cret", "name": "ci", "rights": "operate", "expires_at": 0,
            "expired": false}))
    });
    let run = ctl(fake.socket(), &["token", "create", "ci", "--rights", "operate", "--ttl", "30d"]);
    assert_eq!((run.code, run.out.as_str()), (0, "s3cret\n"));
    assert!(run.err.contains("ci may operate") && !run.err.contains("s3cret"), "{}", run.err);
    let body = fake.asked().pop().unwrap().body;
    assert_eq!(body, r#"{"name":"ci","rights":"operate","ttl":"30d"}"#);
    let run = ctl(fake.socket(), &["token", "create", "ci", "--for-ever"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(fake.asked().pop().unwrap().body.contains(r#""ttl":null"#));
    // Over the network only to a node that can be checked.
    let socket = std::path::Path::new("https://127.0.0.1:1");
    let run = ctl(socket, &["status"]);
    assert_eq!(run.code, 2);
    assert!(run.err.contains("mountctl cluster ca"), "{}", run.err);
}

#[test]
fn a_token_is_printed_by_cluster_token_only() {
    let answer = |asked: &Asked| match asked.target.as_str() {
        "/v1/cluster/token" => Reply::ok(json!({"token": "s3cret", "expires_at": 0, "uses": 1,
            "address": "10.0.0.1:7700"})),
        _ => error(ErrorKind::Denied),
    };
    let fake = Fake::start(answer);
    let run = ctl(fake.socket(), &["cluster", "token"]);
    assert_eq!((run.code, run.out.as_str()), (0, "s3cret\n"));
    assert!(run.err.contains("cluster join 10.0.0.1:7700") && !run.err.contains("s3cret"));
    let file = fake.socket().with_file_name("token");
    std::fs::write(&file, "  s3cret\n").unwrap();
    let from_file = ["cluster", "join", "10.0.0.1:7700", "--token-file", file.to_str().unwrap()];
    for words in [&from_file[..], &["cluster", "join", "10.0.0.1:7700", "--token", "s3cret"]] {
        let run = ctl(fake.socket(), words);
        assert_eq!(run.code, 8);
        assert!(!run.err.contains("s3cret") && !run.out.contains("s3cret"), "{}", run.err);
        let body = fake.asked().pop().unwrap().body;
        assert_eq!(body, r#"{"address":"10.0.0.1:7700","token":"s3cret"}"#);
    }
    std::fs::write(&file, "\n").unwrap();
    let run = ctl(fake.socket(), &from_file);
    assert_eq!(run.code, 2);
    assert!(run.err.contains("holds no token"), "{}", run.err);
}

#[test]
fn a_task_is_followed_to_its_end() {
    let asked = AtomicUsize::new(0);
    let fake = Fake::start(move |request| match request.method.as_str() {
        "PUT" => Reply::ok(task("running", 0)),
        _ => match asked.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::ok(task("running", 1)),
            // A restart of the daemon in the middle looks like this.
            1 => Reply::Bytes(Vec::new()),
            _ => Reply::ok(task("done", 2)),
        },
    });
    let run = ctl(fake.socket(), &["node", "drain", "beta"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert_eq!(run.out, "task 9, drain node beta, done, 2 replicas of 2 replicas\n");
    let lines: Vec<_> = run.err.lines().collect();
    assert_eq!(lines[0], "drain node beta: 0%, 0 replicas of 2 replicas");
    assert_eq!(lines[2], "drain node beta: 100%, 2 replicas of 2 replicas");
}

#[test]
fn a_task_that_fails_fails_the_command() {
    let fake = Fake::start(|_| {
        let mut failed = task("failed", 1);
        failed["error"] = json!({"kind": "no-space", "message": "no room", "hint": "add a pool"});
        Reply::ok(failed)
    });
    let run = ctl(fake.socket(), &["node", "drain", "beta"]);
    assert_eq!(run.code, 6);
    assert!(
        run.err.ends_with("error: task 9 failed: no room\n  hint: add a pool\n"),
        "{}",
        run.err
    );
}

#[test]
fn a_pool_that_was_measured_says_so() {
    let pool = |class: Option<&str>| {
        json!({"id": 3, "node": "alpha", "path": "/pool", "backing": "directory", "class": class,
            "class_set": false, "speed": null, "state": "ok", "fault": "", "size": 100_u64 << 30,
            "used": 0, "live": 0, "replicas": 0, "incarnation": "", "task": null})
    };
    let cases = [(Some("high"), "class high (measured)"), (None, "class not known yet")];
    for (class, said) in cases {
        let fake = Fake::start(move |asked| match (asked.method.as_str(), asked.target.as_str()) {
            ("POST", "/v1/pools") => Reply::ok(pool(class)),
            other => panic!("{other:?}"),
        });
        let run = ctl(fake.socket(), &["pool", "add", "/pool", "--size", "100G"]);
        assert_eq!(run.code, 0, "{}", run.err);
        assert_eq!(run.out, format!("pool 3 on alpha: /pool, 100 GiB, {said}\n"));
    }
}

#[test]
fn a_resync_is_followed_until_all_replicas_are_in_sync() {
    let asked = AtomicUsize::new(0);
    let fake = Fake::start(move |request| {
        let joined = asked.load(Ordering::SeqCst) >= 2;
        if request.target.ends_with("/resync") {
            asked.fetch_add(1, Ordering::SeqCst);
            let join = json!({"slice": 0, "node": "beta", "phase": "copying", "copied": 4096,
                "seen": 8192, "of": 16384});
            return Reply::ok(if joined { json!([]) } else { json!([join]) });
        }
        let mut volume = volume("db");
        volume["in_sync"] = json!(if joined { 2 } else { 1 });
        Reply::ok(json!({"volume": volume, "reasons": [], "slice_size": 1, "slices": [],
            "attachment": null, "mounts": []}))
    });
    let run = ctl(fake.socket(), &["volume", "inspect", "db", "--follow"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert_eq!(run.err, "db slice 0 on beta: 50%, copying, 4 KiB copied\n");
    assert!(run.out.starts_with("name      db\n"), "{}", run.out);
}

#[test]
fn mount_options_are_sorted_out() {
    let fake = Fake::start(|_| Reply::ok(mounted()));
    let words = ["mount", "db", "/mnt", "-o", "ro,noatime,_netdev", "-o", "backend=nbd"];
    let run = ctl(fake.socket(), &words);
    assert_eq!((run.code, run.out.as_str()), (0, ""), "{}", run.err);
    assert_eq!(run.err, "db mounted on /mnt, formatted just now\n");
    let body: serde_json::Value = serde_json::from_str(&fake.asked()[0].body).unwrap();
    let wanted = json!({"volume": "db", "dir": "/mnt", "options": ["noatime"], "read_only": true,
        "backend": "nbd", "force": false});
    assert_eq!(body, wanted);
}

#[test]
fn umount_takes_a_name_a_directory_or_all() {
    let fake =
        Fake::start(|_| Reply::ok(json!([{"volume": "db", "dir": "/mnt", "detached": true}])));
    for (word, query) in [
        ("db", "all=false&force=false&volume=db"),
        ("/mnt", "all=false&dir=/mnt&force=false"),
        ("--all", "all=true&force=false"),
    ] {
        let run = ctl(fake.socket(), &["umount", word]);
        assert_eq!((run.code, run.err.as_str()), (0, "db unmounted from /mnt, and detached\n"));
        assert_eq!(fake.asked().pop().unwrap().target, format!("/v1/mounts?{query}"));
    }
}

#[test]
fn events_are_read_to_their_end() {
    let event = |number: u64| {
        json!({"number": number, "at": 0, "severity": "info", "kind": "attached",
            "message": format!("event {number}")})
    };
    let fake = Fake::start(move |asked| {
        let events: Vec<_> = match asked.target.as_str() {
            "/v1/events?after=0&follow=false" => vec![event(1), event(2)],
            "/v1/events?after=2&follow=false" => vec![event(3)],
            _ => Vec::new(),
        };
        let next = if asked.target.contains("after=0") { 2 } else { 3 };
        Reply::ok(json!({"events": events, "next": next, "gap": false}))
    });
    let run = ctl(fake.socket(), &["events"]);
    assert_eq!((run.code, run.out.lines().count()), (0, 3), "{}{}", run.out, run.err);
    let run = ctl(fake.socket(), &["events", "--json"]);
    assert!(run.out.lines().all(|line| line.starts_with("{\"number\":")), "{}", run.out);
}

#[test]
fn status_of_a_cluster_that_is_down_is_exit_code_5() {
    let status = |health: &str| {
        json!({"health": health, "summary": format!("{health}: see below"), "reasons": [],
            "node": {"name": "alpha", "id": null, "address": "10.0.0.1:7700", "version": "0",
            "started_at": 0, "pid": 1, "attachments": 0, "mounts": 0}, "cluster": null,
            "transport": {"kind": "tls", "protected": true}, "backends": []})
    };
    for (health, code) in [("ok", 0), ("degraded", 0), ("down", 5)] {
        let fake = Fake::start(move |_| Reply::ok(status(health)));
        let run = ctl(fake.socket(), &["status"]);
        assert_eq!(run.code, code);
        assert_eq!(run.out.lines().next().unwrap(), format!("{health}: see below"));
    }
}

#[test]
fn a_pool_can_be_named_by_its_path_on_this_node() {
    let pool = |id: u64, node: &str| {
        json!({"id": id, "node": node, "path": "/pool", "backing": "directory", "class": "high",
            "class_set": true, "speed": null, "state": "ok", "fault": "", "size": 1, "used": 0,
            "live": 0, "replicas": 0, "incarnation": "", "task": null})
    };
    let fake = Fake::start(move |asked| match asked.target.as_str() {
        "/v1/status" => Reply::ok(json!({"health": "ok", "summary": "ok", "reasons": [],
            "node": {"name": "beta", "id": 2, "address": "10.0.0.2:7700", "version": "0",
            "started_at": 0, "pid": 1, "attachments": 0, "mounts": 0}, "cluster": null,
            "transport": {"kind": "tls", "protected": true}, "backends": []})),
        "/v1/pools" => Reply::ok(json!([pool(3, "alpha"), pool(5, "beta")])),
        "/v1/pools/5" => Reply::ok(pool(5, "beta")),
        other => panic!("{other}"),
    });
    let run = ctl(fake.socket(), &["pool", "inspect", "/pool"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let run = ctl(fake.socket(), &["pool", "inspect", "/other"]);
    assert_eq!(run.code, 3, "{}", run.err);
}

#[test]
fn completion_needs_no_daemon() {
    for (shell, sign) in [("bash", "_mountctl"), ("zsh", "#compdef"), ("fish", "complete -c")] {
        let run = ctl(Path::new("/nowhere"), &["completion", shell]);
        assert_eq!(run.code, 0);
        assert!(run.out.contains(sign) && run.out.contains("accept-loss"), "{shell}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let fake = Fake::start(|_| Reply::ok(json!(vec![volume("db"); 2_000])));
    let mut child = command(fake.socket(), &["volume", "ls"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let run = finished(child.wait_with_output().unwrap());
    assert!(run.err.is_empty(), "{}", run.err);
}

#[test]
fn fstab_lines_mount() {
    let fake = Fake::start(|_| Reply::ok(mounted()));
    let run = mount_helper(fake.socket(), &["db", "/mnt", "-o", "rw,_netdev,noatime"]);
    assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (0, "", ""));
    let body: serde_json::Value = serde_json::from_str(&fake.asked()[0].body).unwrap();
    assert_eq!(body["options"], json!(["noatime"]));
    let run = mount_helper(fake.socket(), &["db", "/mnt", "-fv"]);
    assert_eq!(run.code, 0);
    assert_eq!(fake.asked().len(), 1, "-f asks for nothing");
    let run = mount_helper(fake.socket(), &["db"]);
    assert_eq!(run.code, 1);
}

#[test]
fn a_mount_at_boot_waits_for_the_daemon() {
    let fake = Fake::absent();
    let socket = fake.socket().to_owned();
    let words = ["db", "/mnt", "-o", "wait=20s"];
    let waiting = thread::spawn(move || mount_helper(&socket, &words));
    thread::sleep(Duration::from_millis(700));
    assert!(!waiting.is_finished());
    let asked = AtomicUsize::new(0);
    fake.listen(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => error(ErrorKind::Unavailable),
        _ => Reply::ok(mounted()),
    });
    let run = waiting.join().unwrap();
    assert_eq!(run.code, 0, "{}", run.err);
}

#[test]
fn a_mount_that_is_refused_or_waits_too_long_says_why() {
    let fake = Fake::start(|_| error(ErrorKind::InUse));
    let run = mount_helper(fake.socket(), &["db", "/mnt"]);
    assert_eq!(run.code, 32);
    assert!(run.err.contains("db on /mnt: error: db is on beta"), "{}", run.err);
    let fake = Fake::absent();
    let run = mount_helper(fake.socket(), &["db", "/mnt", "-o", "wait=1ms"]);
    assert_eq!(run.code, 32);
    assert!(run.err.contains("mountd is not running"), "{}", run.err);
}
