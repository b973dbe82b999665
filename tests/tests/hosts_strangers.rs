//! Who doesn't belong, and what nobody of ours sends: refused, logged, and nothing crashes, while those
//! who belong go on.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "real processes run in real time; in a test's functions too a panic is the report"
)]

use mooring_tests::hosts::{
    Cluster, FAILOVER, Host, POOL, Result, on_cluster, on_hosts, seconds, wait_until,
};

/// Three hosts, the first two a cluster with a volume in use on host 1; the third is a stranger. The
/// test is run under load; afterwards the same daemons run, nothing has panicked, and no data is lost.
fn beside_a_stranger(test: impl FnOnce(&Cluster, &Host) -> Result<()>) {
    on_hosts(3, |hosts| {
        hosts[1].mountd(&["--pool", POOL, "--create"])?;
        let token = wait_for_token(&hosts[1], "--uses 1")?;
        hosts[2].run(format!("umask 077; echo '{token}' >/run/token"))?;
        hosts[2].mountd(&["--pool", POOL, "--join", "host1:7700", "--token-file", "/run/token"])?;
        let cluster = Cluster::of(hosts);
        cluster.wait_until_whole(2, 2)?;
        let volume = cluster.create("db --size 512M --replicas 2")?;
        volume.mount(1)?;
        volume.wait_in_sync(2, 1)?;
        let pids = [hosts[1].mountd_pid()?, hosts[2].mountd_pid()?];
        let load = volume.load(1, 4)?;
        test(&cluster, &hosts[3])?;
        load.wait_for_writes(20)?;
        load.finish()?.stalled_at_most(FAILOVER, "stall beside a stranger")?;
        assert_eq!(pids, [hosts[1].mountd_pid()?, hosts[2].mountd_pid()?], "a daemon has died");
        assert_eq!(volume.in_sync(1)?.len(), 2);
        for host in [1, 2] {
            let log = std::fs::read_to_string(hosts[host].mountd_log()).unwrap();
            assert!(!log.contains("panicked"), "host{host} has panicked");
        }
        volume.unmount(1)
    });
}

fn wait_for_token(host: &Host, uses: &str) -> Result<String> {
    let mut token = String::new();
    wait_until(seconds(30), "a token is given", || {
        token = host.run(format!("mountctl cluster token --ttl 5m {uses}"))?.stdout;
        Ok(true)
    })?;
    Ok(token.trim().to_owned())
}

/// How many lines of a daemon's log have this in them.
fn logged(host: &Host, what: &str) -> usize {
    let log = std::fs::read_to_string(host.mountd_log()).unwrap_or_default();
    log.lines().filter(|line| line.contains(what)).count()
}

#[test]
fn stranger_without_a_certificate_is_refused_and_logged() {
    beside_a_stranger(|cluster, stranger| {
        // No certificate at all, and one that it made itself; TLS of today and of yesterday.
        stranger.run(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
                      -keyout /run/key -out /run/cert -days 1 -subj /CN=host1 2>/dev/null",
        )?;
        let connect = r#"exec python3 -c "
import socket, ssl, sys
def connect(host, own, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = version
    if own: context.load_cert_chain('/run/cert', '/run/key')
    with socket.create_connection((host, 7700), timeout=10) as plain:
        with context.wrap_socket(plain, server_hostname='mooring') as stream:
            stream.sendall(b'let me in' * 1000)
            return stream.recv(100)
for host in ['host1', 'host2']:
    for own in [False, True]:
        for version in [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]:
            try: answer = connect(host, own, version)
            except OSError: continue
            if answer: sys.exit('%s answered %r' % (host, answer))
""#;
        stranger.run(connect)?;
        for host in [1, 2] {
            let host = &cluster[host];
            assert!(logged(host, "refused") > 0, "nothing is in the log:\n{}", host.last_lines(30));
        }
        Ok(())
    });
}

#[test]
fn garbage_and_oversized_frames_on_every_port_are_refused() {
    beside_a_stranger(|cluster, stranger| {
        let send = r#"exec python3 -c "
import os, random, socket
chance = random.Random(1)
def tcp(host, *pieces):
    try:
        with socket.create_connection((host, 7700), timeout=10) as stream:
            for piece in pieces: stream.sendall(piece)
            stream.shutdown(socket.SHUT_WR)
            while stream.recv(4096): pass
    except OSError: pass
for host in ['host1', 'host2']:
    tcp(host)
    tcp(host, b'GET / HTTP/1.1\r\nHost: x\r\n\r\n')
    tcp(host, b'\xff' * 100000)
    tcp(host, b'\x16\x03\x01\xff\xff' + bytes(70000))
    tcp(host, b'\x16\x03\x01\x40\x00\x01\xff\xff\xff' + bytes(16380), b'\x16\x03\x01\x40\x00' + bytes(16384))
    tcp(host, (1 << 31).to_bytes(4, 'little') + bytes(1000))
    for size in [1, 5, 6, 50, 500, 5000, 50000]:
        for _ in range(5): tcp(host, chance.randbytes(size))
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for size in [0, 1, 10, 100, 1000, 1400, 9000, 60000]:
        for _ in range(10): datagrams.sendto(chance.randbytes(size), (host, 7700))
# Many that say nothing and stay.
idle = [socket.create_connection((host, 7700), timeout=10) for host in ['host1', 'host2'] for _ in range(200)]
""#;
        stranger.run(send)?;
        for host in [1, 2] {
            let host = &cluster[host];
            assert!(logged(host, "refused") > 0, "nothing is in the log:\n{}", host.last_lines(30));
        }
        Ok(())
    });
}

#[test]
fn garbage_on_the_socket_of_the_api_is_refused() {
    beside_a_stranger(|cluster, _| {
        let send = r#"exec python3 -c "
import json, random, socket, sys
chance = random.Random(1)
def send(*pieces, end=True):
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(20)
    stream.connect('/run/mooring/mountd.sock')
    answer = b''
    # Who says too much is answered before he has said it all.
    try:
        for piece in pieces: stream.sendall(piece)
        if end: stream.shutdown(socket.SHUT_WR)
    except OSError: pass
    try:
        while piece := stream.recv(65536): answer += piece
    except OSError: pass
    return answer
def post(path, body, length=None):
    head = 'POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n'
    return send((head % (path, len(body) if length is None else length)).encode(), body, end=length is not None)
for size in [1, 10, 1000, 100000]: send(chance.randbytes(size))
send(b'GET /' + b'x' * 1000000 + b' HTTP/1.1\r\n\r\n')
send(b'GET / HTTP/1.1\r\n' + b'a: b\r\n' * 100000 + b'\r\n')
post('/v1/volumes', b'{}', length=1 << 60)
for body in [b'', b'{', b'[' * 100000, b'null', b'\xff\xfe', b'{\"name\": \"../../etc\"}', b'{\"name\": \"a\", \"size\": \"99E\", \"replicas\": 4000000000}', b'x' * 3000000]:
    answer = post('/v1/volumes', body)
    if answer[9:10] != b'4': sys.exit('%r was answered by %r' % (body[:40], answer[:200]))
""#;
        cluster[1].run(send)?;
        cluster.ctl(1, "volume ls").map(drop)
    });
}

#[test]
fn wrong_used_and_expired_tokens_let_nobody_in() {
    beside_a_stranger(|cluster, stranger| {
        let used = cluster[2].run("cat /run/token")?.stdout.trim().to_owned();
        let fresh = wait_for_token(&cluster[1], "--uses 1")?;
        // The same cluster's, and another secret.
        let (kept, last) = fresh.split_at(fresh.len() - 6);
        let altered: String = last.chars().rev().collect();
        let wrong = format!("{kept}{altered}");
        let expired = cluster[1].run("mountctl cluster token --ttl 1s")?.stdout.trim().to_owned();
        std::thread::sleep(seconds(2));
        stranger.mountd(&["--pool", POOL])?;
        for token in [used.as_str(), &wrong, &expired, "nonsense", ""] {
            let join = format!("mountctl --timeout 20s cluster join host1:7700 --token '{token}'");
            let output = stranger.attempt(join)?;
            assert_ne!(output.code, 0, "{token:?} let it in");
            assert!(!output.stderr.contains("panicked"), "{output:?}");
        }
        let nodes = cluster.json(1, "node ls")?;
        assert_eq!(nodes.as_array().map(Vec::len), Some(2), "{nodes}");
        // The right one does, after all that.
        stranger.run(format!("mountctl cluster join host1:7700 --token '{fresh}'"))?;
        cluster.wait_until_whole(3, 3)
    });
}

#[test]
fn removed_node_is_a_stranger() {
    on_cluster(4, |cluster| {
        let volume = cluster.create("db --size 512M --replicas 2 --node host1 --node host2")?;
        volume.mount(1)?;
        let load = volume.load(1, 5)?;
        cluster.ctl(1, "node rm --force host4")?;
        wait_until(seconds(20), "the others refuse it", || {
            Ok((1..=3).any(|host| logged(&cluster[host], "refused") > 0)
                || !cluster[4].attempt("mountctl volume create mine --size 1G")?.succeeded())
        })?;
        let refused = cluster[4].attempt("mountctl --timeout 10s volume create mine --size 1G")?;
        assert_ne!(refused.code, 0, "a removed node changed the configuration: {refused:?}");
        let volumes = cluster.json(1, "volume ls")?;
        assert_eq!(volumes.as_array().map(Vec::len), Some(1), "{volumes}");
        load.finish()?.stalled_at_most(FAILOVER, "stall by a node that is removed")?;
        volume.unmount(1)
    });
}
