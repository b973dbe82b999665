//! Volumes for programs that speak NBD, on several hosts: attached and exclusive as any other, and held
//! through failovers and restarts.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "real processes run in real time; in a test's functions too a panic is the report"
)]

use std::time::{Duration, Instant};

use mooring_tests::hosts::{
    Cluster, FAILOVER, Failure, Output, POOL, Process, Result, Volume, judge, milliseconds,
    on_cluster, on_hosts, seconds, wait_until,
};

fn attach(volume: &Volume, host: usize) -> Result<String> {
    let told = format!("attach {} --backend nbd-socket", volume.name());
    Ok(volume.cluster().ctl(host, &told)?.stdout.trim().to_owned())
}

/// qemu-io, which connects again for half a minute, and writes `rounds` times all over a volume of
/// 64 MiB, a request every few milliseconds; at the end it reads all of it back.
fn writer(cluster: &Cluster, host: usize, name: &str, rounds: usize) -> Result<Process> {
    let image = format!(
        "driver=nbd,server.type=unix,server.path=/run/mooring/nbd/{name}.sock,export={name},reconnect-delay=30"
    );
    let mut script = String::new();
    for i in 0..rounds {
        // Unaligned, too, and overlapping what was written before.
        let offset = i * 120_000 % (60 << 20) + i % 3 * 512;
        script.push_str(&format!("write -P {} {offset} 123k\nsleep 10\n", i % 250 + 1));
        if i % 20 == 19 {
            script.push_str(&format!("flush\nread -P {} {offset} 123k\n", i % 250 + 1));
        }
    }
    let file = cluster[host].path("/run/script")?;
    std::fs::write(file, script).map_err(|error| Failure::Wrong(error.to_string()))?;
    cluster[host]
        .spawn(format!("exec stdbuf -oL qemu-io --cache=none --image-opts '{image}' </run/script"))
}

/// It has written all, and read back what it wrote.
fn is_content(output: &Output, rounds: usize) -> Result<()> {
    let text = format!("{}{}", output.stdout, output.stderr);
    let wrote = output.stdout.matches("wrote 125952/125952").count();
    let read = output.stdout.matches("read 125952/125952").count();
    let wrong = ["failed", "error", "rror:"].iter().any(|word| text.contains(word));
    if output.succeeded() && !wrong && (wrote, read) == (rounds, rounds / 20) {
        return Ok(());
    }
    Err(Failure::Wrong(format!("{wrote} written, {read} read: {text}")))
}

#[test]
fn volume_written_over_nbd_on_one_host_is_read_on_another() {
    on_cluster(3, |cluster| {
        let volume = cluster.create("vm --size 64M --replicas 3 --fs raw")?;
        let uri = attach(&volume, 1)?;
        assert_eq!(uri, "nbd+unix:///vm?socket=/run/mooring/nbd/vm.sock");
        let inspected = volume.inspect(2)?;
        assert_eq!(inspected["attachment"]["node"], "host1");
        assert_eq!(volume.inspect(1)?["attachment"]["backend"], "nbd-socket");
        cluster[1].run(format!(
            "head -c 64M /dev/urandom >/run/image && nbdcopy --flush /run/image '{uri}'
             qemu-img compare -f raw -F raw /run/image '{uri}'"
        ))?;
        let wanted = cluster[1].run("sha256sum </run/image")?.stdout;
        // What was freed is told as a hole, by the primary's own map.
        volume.wait_for_primary(1, 1)?;
        let zeroed = "qemu-io -f raw -c 'write -z -u 16M 8M' -c 'discard 40M 4M'";
        cluster[1].run(format!("{zeroed} '{uri}'"))?;
        let map = cluster[1].run(format!("nbdinfo --map '{uri}'"))?.stdout;
        let words = |line: &str| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        let runs: Vec<String> = map.lines().map(words).collect();
        let expected = [(0, 16, "0"), (16, 8, "3"), (24, 16, "0"), (40, 4, "3"), (44, 20, "0")];
        let line =
            |(at, length, kind): (u64, u64, &str)| format!("{} {} {kind}", at << 20, length << 20);
        assert_eq!(runs, expected.map(line), "{map}");
        cluster[1].run(format!("nbdcopy --flush /run/image '{uri}'"))?;
        // As exclusive as any attachment, and nothing to be mounted.
        let refusal = attach(&volume, 2).expect_err("host1 has it").to_string();
        assert!(refusal.contains("host1"), "{refusal}");
        let refusal = volume.mount(1).expect_err("there is no block device").to_string();
        assert!(refusal.contains("nothing to mount"), "{refusal}");
        let refusal = cluster.ctl(1, "attach vm --backend loop").expect_err("it is attached");
        assert!(refusal.to_string().contains("backend nbd-socket"), "{refusal}");
        // Grown while attached: whoever connects is told.
        cluster.ctl(2, "volume resize vm 96M")?;
        wait_until(seconds(10), "the larger size is told", || {
            let told = cluster[1].run(format!("nbdinfo --size '{uri}'"))?.stdout;
            Ok(told.trim() == (96u64 << 20).to_string())
        })?;
        volume.detach(1)?;
        assert!(cluster[1].run(format!("nbdinfo '{uri}'")).is_err(), "it is served no more");
        attach(&volume, 2)?;
        let copy = format!("nbdcopy '{uri}' - | head -c 64M | sha256sum");
        assert_eq!(cluster[2].run(copy)?.stdout, wanted);
        volume.detach(2)?;
        // And as a block device.
        let device = volume.attach(3)?;
        let read = cluster[3].run(format!("head -c 64M {device} | sha256sum"))?.stdout;
        assert_eq!(read, wanted);
        volume.detach(3)
    });
}

#[test]
fn detach_is_refused_while_a_client_is_connected_and_force_gives_errors_at_once() {
    on_cluster(3, |cluster| {
        let volume = cluster.create("vm --size 64M --replicas 3 --fs raw")?;
        attach(&volume, 1)?;
        volume.wait_for_primary(1, 1)?;
        let writing = writer(cluster, 1, "vm", 4000)?;
        wait_until(seconds(10), "it writes", || Ok(writing.printed().contains("wrote")))?;
        let refusal = volume.detach(1).expect_err("somebody is connected").to_string();
        assert!(refusal.contains("qemu-io"), "{refusal}");
        // Two of three are gone: what is written waits, and nothing fails.
        for host in [2, 3] {
            cluster[host].kill_mountd()?;
        }
        std::thread::sleep(seconds(3));
        assert!(writing.is_running() && !writing.printed().contains("failed"));
        let began = Instant::now();
        // It ends later: that the attachment is over can't be recorded without a majority.
        let detaching = cluster[1].spawn("exec mountctl detach --force vm")?;
        wait_until(seconds(5), "what waited has its error", || {
            Ok(writing.printed().contains("Input/output error"))
        })?;
        judge(began.elapsed(), seconds(1), "errors after a forced detach")?;
        detaching.succeed(seconds(20))?;
        assert!(!cluster[1].path("/run/mooring/nbd/vm.sock")?.exists());
        drop(writing);
        for host in [2, 3] {
            cluster[host].restart_mountd()?;
        }
        wait_until(seconds(30), "it is attached again", || attach(&volume, 1).map(|_| true))?;
        volume.detach(1)
    });
}

/// The longest time in which qemu-io wrote nothing, as long as it runs.
fn longest_pause(writing: &Process, limit: Duration) -> Result<Duration> {
    let (mut seen, mut since, mut longest) = (0, Instant::now(), Duration::ZERO);
    let end = Instant::now() + limit;
    while writing.is_running() && Instant::now() < end {
        let now = writing.printed().len();
        if now > seen {
            (seen, since) = (now, Instant::now());
        }
        longest = longest.max(since.elapsed());
        std::thread::sleep(milliseconds(20));
    }
    Ok(longest)
}

#[test]
fn client_of_a_volume_whose_primary_dies_sees_a_stall_and_no_error() {
    on_cluster(3, |cluster| {
        // Host 1 has no replica of it: the primary is another's.
        let volume =
            cluster.create("vm --size 64M --replicas 2 --node host2 --node host3 --fs raw")?;
        attach(&volume, 1)?;
        let primary = volume.primary(1)?;
        let writing = writer(cluster, 1, "vm", 400)?;
        wait_until(seconds(10), "it writes", || Ok(writing.printed().contains("wrote")))?;
        cluster[primary].kill_mountd()?;
        let pause = longest_pause(&writing, seconds(60))?;
        judge(pause, FAILOVER, "an NBD client's pause when the primary dies")?;
        is_content(&writing.finish(seconds(10))?, 400)?;
        cluster[primary].restart_mountd()?;
        volume.detach(1)
    });
}

#[test]
fn clients_go_on_when_the_daemon_that_served_them_is_killed_and_started_again() {
    on_cluster(3, |cluster| {
        let volume = cluster.create("vm --size 64M --replicas 3 --fs raw")?;
        let uri = attach(&volume, 1)?;
        let writing = writer(cluster, 1, "vm", 600)?;
        wait_until(seconds(10), "it writes", || Ok(writing.printed().contains("wrote")))?;
        for _ in 0..3 {
            let before = writing.printed().len();
            cluster[1].kill_mountd()?;
            std::thread::sleep(milliseconds(300));
            // Somebody who connects meanwhile waits, too.
            let waiting = cluster[1].spawn(format!("exec nbdinfo --size '{uri}'"))?;
            std::thread::sleep(milliseconds(300));
            assert!(waiting.is_running(), "{}", waiting.printed());
            cluster[1].restart_mountd()?;
            assert_eq!(waiting.succeed(seconds(20))?.stdout.trim(), (64u64 << 20).to_string());
            wait_until(seconds(20), "it goes on", || Ok(writing.printed().len() > before + 200))?;
        }
        is_content(&writing.finish(seconds(60))?, 600)?;
        assert_eq!(volume.inspect(1)?["attachment"]["backend"], "nbd-socket");
        volume.detach(1)
    });
}

#[test]
fn client_of_a_volume_that_was_taken_over_gets_errors() {
    on_cluster(3, |cluster| {
        let volume = cluster.create("vm --size 64M --replicas 3 --fs raw")?;
        attach(&volume, 1)?;
        let writing = writer(cluster, 1, "vm", 4000)?;
        wait_until(seconds(10), "it writes", || Ok(writing.printed().contains("wrote")))?;
        cluster.ctl(2, "attach vm --backend nbd-socket --force")?;
        wait_until(seconds(10), "the first one's client has an error", || {
            Ok(writing.printed().contains("Input/output error"))
        })?;
        drop(writing);
        cluster[2].run(
            "qemu-io -f raw -c 'write -P 9 0 64k' 'nbd+unix:///vm?socket=/run/mooring/nbd/vm.sock'",
        )?;
        cluster.ctl(1, "detach --force vm")?;
        volume.detach(2)
    });
}

/// Leaves an authority, and what it signed for a server on host 1 and for a client, in a directory of
/// the machine, as libnbd and qemu want them.
fn certificates(directory: &std::path::Path) -> Result<()> {
    let script = r#"
        cd "$1"
        key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
        openssl req -x509 $key -keyout ca-key.pem -out ca-cert.pem -days 1 -subj '/CN=NBD clients'
        for name in server client; do
            openssl req $key -keyout $name-key.pem -out $name.csr -subj /CN=$name
            printf 'subjectAltName=DNS:host1\nextendedKeyUsage=%sAuth\n' $name >$name.ext
            openssl x509 -req -in $name.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial \
                -days 1 -extfile $name.ext -out $name-cert.pem
        done"#;
    let wrong = |why: String| Failure::Wrong(format!("making certificates: {why}"));
    std::fs::create_dir_all(directory).map_err(|error| wrong(error.to_string()))?;
    let made = std::process::Command::new("bash")
        .args(["-euc", script, "bash"])
        .arg(directory)
        .output()
        .map_err(|error| wrong(error.to_string()))?;
    let said = || wrong(String::from_utf8_lossy(&made.stderr).into_owned());
    made.status.success().then_some(()).ok_or_else(said)
}

#[test]
fn volume_is_used_over_tls_from_another_host_and_by_nobody_without_a_certificate() {
    on_hosts(3, |hosts| {
        for host in [1, 3] {
            for directory in ["ours", "theirs"] {
                hosts[host].run(format!("mkdir -p /run/{directory}"))?;
            }
        }
        certificates(&hosts[1].path("/run/ours")?)?;
        certificates(&hosts[3].path("/run/theirs")?)?;
        for name in ["ca-cert.pem", "client-cert.pem", "client-key.pem"] {
            let read = |path: std::path::PathBuf| {
                std::fs::read(path).map_err(|error| Failure::Wrong(error.to_string()))
            };
            let text = read(hosts[1].path(format!("/run/ours/{name}"))?)?;
            std::fs::write(hosts[3].path(format!("/run/ours/{name}"))?, &text).unwrap();
            // They trust our server, and show what their own authority has signed.
            if name == "ca-cert.pem" {
                std::fs::write(hosts[3].path("/run/theirs/ca-cert.pem")?, text).unwrap();
            }
        }
        hosts[1].run(
            "printf '[nbd]\nlisten = \"0.0.0.0:10809\"\ncertificate = \"/run/ours/server-cert.pem\"
             key = \"/run/ours/server-key.pem\"\nauthority = \"/run/ours/ca-cert.pem\"\n' >/run/nbd.toml",
        )?;
        let cluster = Cluster::start(hosts, |host| {
            let mut told = vec!["--pool".to_owned(), POOL.to_owned()];
            if host.number() == 1 {
                told.extend(["--config".to_owned(), "/run/nbd.toml".to_owned()]);
            }
            told
        })?;
        let volume = cluster.create("vm --size 64M --replicas 3 --fs raw")?;
        attach(&volume, 1)?;

        // Host 3 has a part in the volume, but uses it as any machine would that has none.
        let user = &cluster[3];
        let uri = |shown: &str| format!("nbds://host1/vm?tls-certificates=/run/{shown}");
        let ours = uri("ours");
        let told = user.run(format!("nbdinfo '{ours}'"))?.stdout;
        assert!(told.contains("with TLS") && told.contains("export-size: 67108864"), "{told}");
        user.run(format!(
            "head -c 64M /dev/urandom >/run/image && nbdcopy --flush /run/image '{ours}'
             nbdcopy '{ours}' - | cmp - /run/image"
        ))?;
        let credentials = "tls-creds-x509,id=tls0,dir=/run/ours,endpoint=client,verify-peer=on";
        let image = "driver=nbd,host=host1,port=10809,export=vm,tls-creds=tls0,reconnect-delay=30";
        let io = |commands: &str| {
            let told =
                format!("qemu-io --object '{credentials}' --image-opts '{image}' {commands}");
            let said = user.run(told)?.stdout;
            assert!(!said.contains("failed"), "{said}");
            Ok::<(), Failure>(())
        };
        io("-c 'write -P 7 1000 3M' -c flush -c 'read -P 7 1000 3M'")?;

        // In the clear, with another authority's certificate, with none: not a byte.
        user.run("mkdir /run/none && cp /run/ours/ca-cert.pem /run/none")?;
        for stranger in ["nbd://host1/vm".to_owned(), uri("theirs"), uri("none")] {
            let refused = user.attempt(format!("nbdinfo --size '{stranger}'"))?;
            assert!(!refused.succeeded() && refused.stdout.trim().is_empty(), "{refused:?}");
        }
        let log = std::fs::read_to_string(cluster[1].mountd_log()).unwrap();
        assert!(
            log.contains("NBD") && !log.contains("panicked"),
            "the refusals are not in the log"
        );

        // Fenced there, the volume is used here, with what was written over the network.
        cluster.ctl(2, "attach vm --backend nbd-socket --force")?;
        let refused = user.attempt(format!("nbdcopy '{ours}' -  >/dev/null"))?;
        assert!(!refused.succeeded(), "host 1 was fenced");
        cluster[2].run(
            "qemu-io -r -f raw -c 'read -P 7 1000 3M' 'nbd+unix:///vm?socket=/run/mooring/nbd/vm.sock' |
             grep -q '3 MiB' ",
        )?;
        cluster.ctl(1, "detach --force vm")?;
        volume.detach(2)
    });
}
