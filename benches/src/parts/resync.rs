//! How fast a replica that was away is brought level, as a share of what disk and network could do.
//!
//! ```text
//!   host3 is away ── MIB are overwritten on host1 ── host3 returns ── join-started ... replica-joined
//! ```

use std::time::{Duration, Instant};

use mooring_tests::hosts::{Cluster, Failure, Hosts, Result, Volume, seconds, wait_until};

use super::Plan;
use crate::figure::{Figure, Floor, Goal};
use crate::report::Report;

/// What changes while the replica is away.
const MIB: u64 = 768;

/// The slow network, in tc's words.
const SLOW: &str = "1gbit";

/// Measures once over the bare network, where the disk is the limit, and once over a slow one.
///
/// # Errors
/// The cluster can't be made, or the replica doesn't return.
pub fn run(_: &Plan, report: &mut Report) -> Result<()> {
    let hosts = Hosts::up(3)?;
    let pool = "/var/lib/mooring/pool,size=4G,class=high";
    let cluster = Cluster::start(&hosts, |_| vec!["--pool".into(), pool.into()])?;
    let volume = cluster.create("v --size 1G --replicas 3 --fs raw")?;
    let device = volume.attach(1)?;
    volume.wait_for_primary(1, 1)?;
    volume.wait_in_sync(3, 1)?;
    write(&cluster, &device)?;
    let disk = copy_on_disk(&cluster)?;
    let figure = once(&cluster, &volume, &device, ("bare network", disk), report)?;
    report.add(figure);
    for host in hosts.iter() {
        host.limit_network(SLOW)?;
    }
    let figure = once(&cluster, &volume, &device, ("1 Gbit/s", disk), report)?;
    report.add(figure);
    volume.detach(1)
}

/// One resync beside what network and disk can do.
fn once(
    cluster: &Cluster,
    volume: &Volume,
    device: &str,
    (target, disk): (&str, f64),
    report: &Report,
) -> Result<Figure> {
    let network = network(cluster)?;
    report.progress(&format!(
        "resync: {target}: the disk copies {disk:.0} MiB/s, the network carries {network:.0} MiB/s"
    ));
    let rate = resync(cluster, volume, device)?;
    let (name, value) = if network < disk { ("network", network) } else { ("disk copies", disk) };
    Ok(figure(target, rate, Floor { name, value, ratio: rate / value }))
}

fn figure(target: &str, rate: f64, floor: Floor) -> Figure {
    Figure {
        part: "resync",
        name: "resync of a replica".into(),
        target: target.into(),
        value: rate,
        unit: "MiB/s",
        floor: Some(floor),
        goal: Some(Goal::RatioAtLeast(0.8)),
        processor_us: None,
        command: None,
    }
}

fn write(cluster: &Cluster, device: &str) -> Result<()> {
    let command = format!(
        "fio --name=bench --filename={device} --rw=write --bs=1M --iodepth=4 --direct=1 \
         --ioengine=libaio --size={MIB}M --end_fsync=1 --eta=never"
    );
    cluster[1].run_for(seconds(120), command).map(drop)
}

/// What a copy of as many bytes from file to file gives, made durable: the job of a resync without
/// network, maps or checksums.
fn copy_on_disk(cluster: &Cluster) -> Result<f64> {
    let (from, to) = ("/var/lib/mooring/from", "/var/lib/mooring/to");
    let host = &cluster[1];
    host.run_for(
        seconds(120),
        format!(
            "dd if=/dev/urandom of={from} bs=1M count={MIB} conv=fsync status=none; \
                 cp {from} {to}; sync -d {to}"
        ),
    )?;
    let began = Instant::now();
    host.run_for(
        seconds(120),
        format!("dd if={from} of={to} bs=1M conv=notrunc,fdatasync status=none"),
    )?;
    let rate = MIB as f64 / began.elapsed().as_secs_f64();
    host.run(format!("rm {from} {to}"))?;
    Ok(rate)
}

/// MiB a second of plain TCP from host 1 to host 3.
fn network(cluster: &Cluster) -> Result<f64> {
    let server = cluster[3].spawn(
        "exec python3 -c \"
import socket, time
listener = socket.create_server(('', 7799))
listener.settimeout(20)
stream, _ = listener.accept()
room, count, began = bytearray(1 << 20), 0, None
while got := stream.recv_into(room):
    began = began or time.monotonic()
    count += got
print(count / (time.monotonic() - began) / (1 << 20))\"",
    )?;
    let client = "exec python3 -c \"
import socket, time
stream = socket.create_connection(('host3', 7799))
piece, until = bytes(1 << 20), time.monotonic() + 1.5
while time.monotonic() < until: stream.sendall(piece)\"";
    wait_until(seconds(20), "host3 takes a stream", || {
        Ok(cluster[1].attempt(client)?.succeeded())
    })?;
    let told = server.succeed(seconds(30))?.stdout;
    told.trim()
        .parse()
        .map_err(|_| Failure::Unreadable { what: "what the network carries".into(), because: told })
}

/// MiB a second from the moment at which the primary begins until the replica is in sync.
fn resync(cluster: &Cluster, volume: &Volume, device: &str) -> Result<f64> {
    cluster[3].kill_mountd()?;
    wait_until(seconds(10), "the volume goes on without host3", || {
        Ok(volume.in_sync(1)?.len() == 2)
    })?;
    write(cluster, device)?;
    cluster[3].restart_mountd()?;
    volume.wait_in_sync(3, 1)?;
    let (began, ended) =
        (last_time(cluster, "join-started")?, last_time(cluster, "replica-joined")?);
    let took = ended.checked_sub(began).filter(|took| !took.is_zero());
    let took = took.ok_or_else(|| Failure::Wrong("a resync took no time".into()))?;
    Ok(MIB as f64 / took.as_secs_f64())
}

/// When host 1 last saw such an event, since the Epoch.
fn last_time(cluster: &Cluster, kind: &str) -> Result<Duration> {
    let mut at = None;
    wait_until(seconds(5), &format!("an event {kind}"), || {
        at = cluster.events(1, kind)?.last().and_then(|event| event["at"].as_u64());
        Ok(at.is_some())
    })?;
    Ok(Duration::from_millis(at.unwrap_or_default()))
}
