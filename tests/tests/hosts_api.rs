//! The API over the network: who shows the right token gets as far as its rights go, and nobody else
//! gets anything.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "real processes run in real time; in a test's functions too a panic is the report"
)]

use mooring_tests::hosts::{Cluster, Host, Output, POOL, Result, on_hosts, seconds, wait_until};

/// Three hosts in a cluster, the first two with the API on their ports; the third is where its users
/// are.
fn with_the_api_over_the_network(test: impl FnOnce(&Cluster) -> Result<()>) {
    on_hosts(3, |hosts| {
        let cluster = Cluster::start(hosts, |host: &Host| {
            let mut told = vec!["--pool".to_owned(), POOL.to_owned()];
            told.extend((host.number() < 3).then(|| "--api-tcp".to_owned()));
            told
        })?;
        cluster[3].run("mountctl cluster ca >/run/ca.pem")?;
        test(&cluster)
    });
}

/// Makes a token on host 1, and leaves it in /run/NAME on host 3.
fn token(cluster: &Cluster, name: &str, how: &str) -> Result<()> {
    let made = cluster.ctl(1, &format!("token create {name} {how}"))?.stdout;
    cluster[3].run(format!("umask 077; echo '{}' >/run/{name}", made.trim())).map(drop)
}

/// Asks a host from host 3, with the token in a file there.
fn ask(cluster: &Cluster, host: usize, token: &str, what: &str) -> Result<Output> {
    let place = format!("--host host{host}:7700 --ca /run/ca.pem --token-file /run/{token}");
    cluster[3].attempt(format!("mountctl {place} {what}"))
}

#[track_caller]
fn refused(output: &Output, code: i32, says: &str) {
    assert_eq!(output.code, code, "{output:?}");
    assert!(output.stderr.contains(says), "{output:?}");
}

const DENIED: i32 = 8;

#[test]
fn tokens_open_the_api_over_the_network_as_far_as_their_rights_go() {
    with_the_api_over_the_network(|cluster| {
        let volume = cluster.create("db --size 512M --replicas 2 --node host1 --node host2")?;
        volume.mount(1)?;
        token(cluster, "watcher", "")?;
        token(cluster, "ci", "--rights operate")?;
        token(cluster, "admin", "--rights force --ttl 5m")?;
        for host in [1, 2] {
            let status = ask(cluster, host, "watcher", "--json status")?;
            assert!(status.stdout.contains(&format!("\"name\": \"host{host}\"")), "{status:?}");
            refused(&ask(cluster, host, "watcher", "volume create v")?, DENIED, "may read");
            refused(&ask(cluster, host, "ci", "attach db --force")?, DENIED, "right to force");
            refused(&ask(cluster, host, "ci", "token ls")?, DENIED, "right to force");
            refused(&ask(cluster, host, "ci", "mount db /mnt")?, DENIED, "right to force");
        }
        assert!(ask(cluster, 2, "ci", "volume create v --size 1G --replicas 1")?.succeeded());
        let events = cluster.events(3, "volume-created")?;
        assert!(events.iter().any(|event| event["details"]["by"] == "token ci"), "{events:?}");

        // A takeover by force: with the right to it, and audited on every node.
        refused(&ask(cluster, 2, "admin", "attach db")?, 4, "host1");
        let taken = ask(cluster, 2, "admin", "attach db --force")?;
        assert!(taken.succeeded(), "{taken:?}");
        for host in 1..=3 {
            let mut told = String::new();
            wait_until(seconds(10), "the takeover is an event", || {
                let events = cluster.events(host, "forced-takeover")?;
                told = events.last().map(ToString::to_string).unwrap_or_default();
                Ok(!told.is_empty())
            })?;
            assert!(told.contains("by token admin, on host2"), "host{host}: {told}");
            assert!(told.contains("host1 is fenced"), "host{host}: {told}");
        }
        assert!(ask(cluster, 2, "admin", "detach db")?.succeeded());
        cluster.ctl(1, "umount db --force")?;

        let listed = cluster.ctl(2, "token ls")?.stdout;
        for name in ["watcher", "ci", "admin"] {
            assert!(listed.contains(name), "{listed}");
            let secret = cluster[3].run(format!("cat /run/{name}"))?.stdout;
            assert!(!listed.contains(secret.trim()), "a secret was listed");
        }
        cluster.ctl(2, "token rm ci")?;
        for host in [1, 2] {
            wait_until(seconds(5), "a token that was ended is over", || {
                Ok(ask(cluster, host, "ci", "volume ls")?.code == DENIED)
            })?;
        }
        assert_eq!(cluster[1].attempt("mountctl token rm ci")?.code, 3);
        assert_eq!(cluster[1].attempt("mountctl token create admin")?.code, 4);
        Ok(())
    });
}

#[test]
fn nobody_without_a_good_token_gets_anything_over_the_network() {
    with_the_api_over_the_network(|cluster| {
        let user = &cluster[3];
        let ask_with = |how: &str| user.attempt(format!("mountctl {how} status"));
        refused(&ask_with("--host host1:7700 --ca /run/ca.pem")?, DENIED, "needs a token");
        refused(&ask_with("--host host1:7700")?, 2, "mountctl cluster ca");
        // It is off unless the configuration says otherwise.
        assert_eq!(ask_with("--host host3:7700 --ca /run/ca.pem")?.code, 5);

        token(cluster, "short", "--ttl 1s")?;
        token(cluster, "good", "")?;
        std::thread::sleep(seconds(2));
        refused(&ask(cluster, 1, "short", "status")?, DENIED, "short is over");
        user.run("tr 0-9 1-90 </run/good >/run/altered")?;
        refused(&ask(cluster, 1, "altered", "status")?, DENIED, "not known");
        let join = cluster.ctl(1, "cluster token")?.stdout;
        user.run(format!("echo '{}' >/run/join; echo nonsense >/run/nonsense", join.trim()))?;
        for wrong in ["join", "nonsense"] {
            refused(&ask(cluster, 1, wrong, "status")?, DENIED, "no token of the API");
        }
        // A token is shown to nobody but a node of the cluster that is meant.
        user.run(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
                      -keyout /run/key -out /run/other.pem -days 1 -subj /CN=other 2>/dev/null",
        )?;
        let other = ask_with("--host host1:7700 --ca /run/other.pem --token-file /run/good")?;
        refused(&other, DENIED, "can't be trusted");
        // And by the environment, as everything else can be told.
        let told = "MOORING_SOCKET=https://host2:7700 MOORING_CA=/run/ca.pem";
        assert!(
            user.attempt(format!("{told} MOORING_TOKEN_FILE=/run/good mountctl status"))?.code
                != DENIED
        );

        let plain = user.run(
            r#"exec python3 -c "
import socket
stream = socket.create_connection(('host1', 7700), timeout=10)
stream.sendall(b'GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n')
answer = b''
try:
    while piece := stream.recv(4096): answer += piece
except ConnectionResetError: pass
print(answer.decode())
""#,
        )?;
        assert!(plain.stdout.contains("400") && plain.stdout.contains("https"), "{plain:?}");
        let log = std::fs::read_to_string(cluster[1].mountd_log()).unwrap();
        for line in
            ["needs a token", "short is over", "not known", "no token of the API", "without TLS"]
        {
            assert!(log.contains(line), "{line} is not in the log");
        }
        let secret = user.run("cat /run/good")?.stdout;
        assert!(!log.contains(secret.trim()), "a secret is in the log");
        Ok(())
    });
}

#[test]
fn slow_and_oversized_requests_take_nobody_elses_place() {
    with_the_api_over_the_network(|cluster| {
        token(cluster, "good", "")?;
        let slow = cluster[2].spawn(
            r#"exec python3 -c "
import socket, ssl, sys, time
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
def connect():
    plain = socket.create_connection(('host1', 7700), timeout=30)
    return context.wrap_socket(plain)
# Heads that never end: those that find no seat are closed at once, the others soon.
began, held = time.time(), []
for _ in range(60):
    try:
        stream = connect()
        stream.sendall(b'GET /v1/status HTTP/1.1\r\nX: ')
        held.append(stream)
    except OSError: pass
print(len(held), 'held', flush=True)
for stream in held:
    try:
        while stream.recv(4096): pass
    except OSError: pass
took = time.time() - began
if took > 25: sys.exit('a request that never ends was held for %d s' % took)
# A head without end, and a body of which more is promised than anybody takes.
for piece in [b'GET /v1/status HTTP/1.1\r\n' + b'a: b\r\n' * 100000 + b'\r\n',
              b'GET /' + b'x' * 1000000 + b' HTTP/1.1\r\n\r\n',
              b'POST /v1/volumes HTTP/1.1\r\nContent-Length: 1152921504606846976\r\n\r\n']:
    answer = b''
    try:
        stream = connect()
        try: stream.sendall(piece)
        except OSError: pass
        while more := stream.recv(4096): answer += more
    except OSError: pass
    if b' 200 ' in answer: sys.exit('%r was answered by %r' % (piece[:40], answer[:100]))
print('bounded')
""#,
        )?;
        wait_until(seconds(20), "they hold their places", || Ok(slow.printed().contains("held")))?;
        // From elsewhere it answers all the while.
        for _ in 0..5 {
            let status = ask(cluster, 1, "good", "--timeout 5s status")?;
            assert!(status.code != 5 && status.code != DENIED, "{status:?}");
        }
        let ended = slow.succeed(seconds(60))?;
        assert!(ended.stdout.contains("bounded"), "{ended:?}");
        assert!(ask(cluster, 1, "good", "volume ls")?.succeeded());
        Ok(())
    });
}

/// Asks a host with the certificate in /run/NAME.pem on host 3 and perhaps a token: the status of the
/// answer, or `refused` if there was none, and its text.
fn ask_as(cluster: &Cluster, host: usize, name: &str, token: &str) -> Result<String> {
    let script = format!(
        r#"exec python3 -c "
import http.client, ssl
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.load_cert_chain('/run/{name}.pem', '/run/{name}.key')
headers = {{'Authorization': 'Bearer ' + open('/run/{token}').read().strip()}} if '{token}' else {{}}
try:
    connection = http.client.HTTPSConnection('host{host}', 7700, timeout=10, context=context)
    connection.request('GET', '/v1/volumes', headers=headers)
    answer = connection.getresponse()
    print(answer.status, answer.read().decode())
except OSError as error: print('refused', error)
""#
    );
    Ok(cluster[3].run(script)?.stdout)
}

/// Leaves the certificate of host 3, as a node, and its key in /run/node.pem and .key there.
fn show_own_certificate(cluster: &Cluster) -> Result<()> {
    let host = &cluster[3];
    host.stop_mountd()?;
    let store = blockstore::NodeStore::open(&host.disk()).unwrap();
    let identity = store.identity().unwrap().unwrap();
    std::fs::write(host.path("/run/node.der")?, identity.certificate()).unwrap();
    std::fs::write(host.path("/run/node.p8")?, &*identity.key().to_bytes()).unwrap();
    drop(store);
    host.run(
        "openssl x509 -inform DER -in /run/node.der -out /run/node.pem
         openssl pkey -inform DER -in /run/node.p8 -out /run/node.key",
    )?;
    host.restart_mountd()
}

#[test]
fn certificate_of_somebody_that_is_no_node_opens_nothing() {
    with_the_api_over_the_network(|cluster| {
        token(cluster, "good", "")?;
        let user = &cluster[3];
        show_own_certificate(cluster)?;
        cluster.wait_until_whole(3, 3)?;
        // Made by themselves: one, and one by an authority that calls itself what the cluster's does.
        user.run(
            r#"key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
            name=/$(openssl x509 -in /run/ca.pem -noout -subject -nameopt compat | sed 's/^subject=//; s,^/,,')
            openssl req -x509 $key -keyout /run/own.key -out /run/own.pem -days 1 -subj /CN=host1
            openssl req -x509 $key -keyout /run/false-ca.key -out /run/false-ca.pem -days 1 -subj "$name"
            openssl req $key -keyout /run/false.key -out /run/false.csr -subj /CN=host3
            openssl x509 -req -in /run/false.csr -CA /run/false-ca.pem -CAkey /run/false-ca.key \
                -CAcreateserial -days 1 -out /run/false.pem"#,
        )?;
        for host in [1, 2] {
            let answer = ask_as(cluster, host, "node", "")?;
            assert!(answer.starts_with("200 "), "a node is root everywhere: {answer}");
            for stranger in ["own", "false"] {
                // A token saves nobody whose certificate isn't believed.
                for token in ["", "good"] {
                    let answer = ask_as(cluster, host, stranger, token)?;
                    assert!(answer.starts_with("refused"), "{stranger} {token}: {answer}");
                }
            }
        }
        // Who shows a token is who the token says, whatever else he shows.
        user.run("echo nonsense >/run/nonsense")?;
        assert!(ask_as(cluster, 1, "node", "nonsense")?.starts_with("403 "));

        // A certificate that the cluster signed, of a node that is no more.
        cluster.ctl(1, "node rm --force host3")?;
        for host in [1, 2] {
            let mut answer = String::new();
            wait_until(seconds(10), "the removed node gets nothing", || {
                answer = ask_as(cluster, host, "node", "")?;
                Ok(!answer.starts_with("200 "))
            })?;
            assert!(answer.starts_with("403 ") && answer.contains("no node"), "{answer}");
            assert!(ask_as(cluster, host, "node", "good")?.starts_with("200 "));
            let log = std::fs::read_to_string(cluster[host].mountd_log()).unwrap();
            assert!(log.contains("the certificate is of no node of this cluster"));
            assert!(!log.contains("panicked"));
        }
        Ok(())
    });
}
