//! Shared volumes on several hosts: one file system, mounted everywhere at once, through the loss of its
//! coordinator's daemon and node.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "real processes run in real time; in a test's functions too a panic is the report"
)]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mooring_tests::hosts::{
    Cluster, FAILOVER, Result, StallMeter, Volume, milliseconds, on_cluster, seconds, wait_until,
};

/// A shared volume that is mounted on every host.
fn mounted_everywhere<'a>(cluster: &'a Cluster) -> Result<Volume<'a>> {
    let volume = cluster.create("home --shared --size 1G --replicas 3")?;
    volume.wait_in_sync(3, 1)?;
    for host in 1..=cluster.count() {
        cluster[host].run(format!("mkdir -p {}", volume.directory()))?;
        volume.mount(host)?;
    }
    Ok(volume)
}

/// Somebody who makes, renames and removes small files in a directory that all hosts work in, and notes how long
/// that took at most.
struct Maker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, Duration, Vec<String>)>,
}

impl Maker {
    fn start(volume: &Volume, host: usize) -> Result<Self> {
        let directory = volume.cluster()[host].path(volume.directory())?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut rounds, mut longest, mut errors) = (0, Duration::ZERO, Vec::new());
            while !told.load(Ordering::Relaxed) {
                let began = Instant::now();
                if let Err(error) = Self::round(&directory, host, rounds) {
                    errors.push(format!("round {rounds}: {error}"));
                }
                longest = longest.max(began.elapsed());
                rounds += 1;
                std::thread::sleep(milliseconds(5));
            }
            (rounds, longest, errors)
        });
        Ok(Self { stop, thread })
    }

    /// What is there afterwards: a file with the round in it, under a name that tells both.
    fn round(directory: &Path, host: usize, round: u64) -> std::io::Result<()> {
        let (made, moved) =
            (directory.join(format!("m{host}")), directory.join(format!("n{host}")));
        fs::write(&made, round.to_string())?;
        fs::rename(&made, &moved)?;
        let read = fs::read_to_string(&moved)?;
        if read != round.to_string() || made.exists() {
            return Err(std::io::Error::other(format!("{read:?} was read in round {round}")));
        }
        fs::remove_file(&moved)
    }

    /// How many rounds there were, and the longest.
    fn stop(self, host: usize) -> (u64, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let (rounds, longest, errors) = self.thread.join().unwrap();
        assert!(errors.is_empty(), "host{host}: {errors:?}");
        (rounds, longest)
    }
}

/// The whole structure is what it must be.
fn is_sound(volume: &Volume, seen_from: usize) -> Result<()> {
    let said = volume.cluster().ctl(seen_from, &format!("fsck {}", volume.name()))?.stdout;
    assert!(said.contains("is sound"), "{said}");
    Ok(())
}

#[test]
fn new_shared_volume_is_a_file_system_before_anybody_mounts_it() {
    on_cluster(3, |cluster| {
        let volume = cluster.create("home --shared --size 1G --replicas 3")?;
        volume.wait_in_sync(3, 1)?;
        let primary = volume.primary(1)?;
        wait_until(seconds(20), "its coordinator is open", || {
            Ok(!cluster.events(primary, "formatted")?.is_empty())
        })?;
        for host in 1..=3 {
            is_sound(&volume, host)?;
            assert!(cluster.json(host, "leases home")?.as_array().unwrap().is_empty());
        }
        // It is found again by another coordinator, on another node.
        cluster[primary].kill_mountd()?;
        let heir = cluster.other_than(&[primary]);
        wait_until(seconds(20), "another node coordinates", || {
            Ok(volume.primary(heir)? != primary)
        })?;
        is_sound(&volume, heir)?;
        assert!(cluster.events(volume.primary(heir)?, "formatted")?.is_empty());
        cluster[primary].restart_mountd()?;
        volume.wait_in_sync(3, heir)?;
        assert!(cluster.ctl(heir, "attach home").is_err(), "it has no device");
        volume.remove()
    });
}

#[test]
fn what_one_host_writes_every_other_reads_at_once() {
    on_cluster(3, |cluster| {
        let volume = mounted_everywhere(cluster)?;
        for round in 0..20 {
            let (writer, name) = (round % 3 + 1, volume.file(&format!("file{}", round % 4)));
            cluster[writer].run(format!("echo round {round} >{name}"))?;
            for reader in 1..=3 {
                let read = cluster[reader].run(format!("cat {name}"))?.stdout;
                assert_eq!(read.trim(), format!("round {round}"), "host{reader}");
            }
        }
        let moved = volume.file("moved");
        cluster[1].run(format!("mv {} {moved}", volume.file("file0")))?;
        cluster[2].run(format!("test -e {moved} && ! test -e {}", volume.file("file0")))?;
        cluster[2].run(format!("rm {moved}"))?;
        cluster[3].run(format!("! test -e {moved}"))?;
        let clients = cluster.json(2, "leases home")?;
        assert_eq!(clients.as_array().unwrap().len(), 3, "{clients}");
        assert!(volume.remove().is_err(), "it is mounted");
        for host in 1..=3 {
            volume.unmount(host)?;
        }
        is_sound(&volume, 1)?;
        volume.remove()
    });
}

/// Has every host write all the time, takes the coordinator away as `lose` does, and tells that nobody saw an
/// error, nobody waited too long, and nothing that was written is gone.
fn coordinator_is_lost(
    cluster: &Cluster,
    lose: impl FnOnce(usize) -> Result<()>,
    with_its_mount: bool,
    what: &str,
) -> Result<()> {
    let volume = mounted_everywhere(cluster)?;
    let coordinator = volume.primary(1)?;
    let hosts: Vec<usize> = (1..=3).filter(|host| with_its_mount || *host != coordinator).collect();
    let file = |host: usize| volume.file(&format!("stall{host}"));
    let (mut meters, mut makers) = (Vec::new(), Vec::new());
    for &host in &hosts {
        makers.push((host, Maker::start(&volume, host)?));
        meters.push((host, StallMeter::start(&cluster[host], file(host), milliseconds(10))?));
    }
    wait_until(seconds(20), "all meters write", || {
        Ok(meters.iter().all(|(_, meter)| meter.so_far().writes > 70))
    })?;
    lose(coordinator)?;
    let seen_from = cluster.other_than(&[coordinator]);
    let so_far: Vec<u64> = meters.iter().map(|(_, meter)| meter.so_far().writes).collect();
    wait_until(seconds(40), "all meters go on", || {
        let mut all = meters.iter().zip(&so_far);
        Ok(all.all(|((_, meter), before)| meter.so_far().writes > before + 200))
    })?;
    for (host, maker) in makers {
        let (rounds, longest) = maker.stop(host);
        println!("{what}: host{host}, names: {longest:?} at most, {rounds} rounds");
        assert!(longest <= FAILOVER * 2, "host{host} stalled {longest:?}");
    }
    for (host, meter) in meters {
        let seen = meter.stop(seconds(20))?;
        println!("{what}: host{host} stalled {:?} at most, {} writes", seen.longest, seen.writes);
        assert_eq!(seen.errors, 0, "host{host}: {:?}", seen.first_error);
        assert!(seen.longest <= FAILOVER * 2, "host{host} stalled {:?}", seen.longest);
        // Read where it was not written.
        let reader = hosts.iter().copied().find(|other| *other != host).unwrap();
        seen.is_kept_in(&cluster[reader], file(host))?;
    }
    is_sound(&volume, seen_from)
}

#[test]
fn kill_9_of_the_coordinators_daemon_is_a_stall_and_no_error_on_any_host() {
    on_cluster(3, |cluster| {
        let lose = |coordinator: usize| cluster[coordinator].kill_mountd();
        coordinator_is_lost(cluster, lose, true, "kill -9 of the coordinator's daemon")
    });
}

#[test]
fn loss_of_the_coordinators_node_is_a_stall_and_no_error_on_the_others() {
    on_cluster(3, |cluster| {
        let lose = |coordinator: usize| cluster[coordinator].power_cut();
        coordinator_is_lost(cluster, lose, false, "power cut of the coordinator's node")
    });
}

#[test]
fn mount_outlives_its_daemon_and_ends_with_umount() {
    on_cluster(3, |cluster| {
        let volume = mounted_everywhere(cluster)?;
        let other = cluster.other_than(&[volume.primary(1)?]);
        let meter = StallMeter::start(&cluster[other], volume.file("stall"), milliseconds(5))?;
        wait_until(seconds(20), "the meter writes", || Ok(meter.so_far().writes > 70))?;
        cluster[other].kill_mountd()?;
        cluster[other].restart_mountd()?;
        let so_far = meter.so_far().writes;
        wait_until(seconds(20), "it goes on", || Ok(meter.so_far().writes > so_far + 100))?;
        let seen = meter.stop(seconds(10))?;
        assert_eq!(seen.errors, 0, "{:?}", seen.first_error);
        // The daemon knows it still.
        let mounts = cluster.json(other, "volume inspect home")?;
        assert_eq!(mounts["mounts"][0]["dir"], volume.directory(), "{mounts}");
        volume.unmount(other)?;
        wait_until(seconds(10), "its session is given back", || {
            Ok(cluster.json(other, "leases home")?.as_array().unwrap().len() == 2)
        })?;
        is_sound(&volume, other)
    });
}

#[test]
fn evicted_client_gives_errors_and_no_other_does() {
    on_cluster(3, |cluster| {
        let volume = mounted_everywhere(cluster)?;
        cluster[1].run(format!("echo kept >{}", volume.file("a")))?;
        let clients = cluster.json(1, "leases home")?;
        let of_2 = clients.as_array().unwrap().iter().find(|one| one["node"] == "host2").unwrap();
        cluster.ctl(3, &format!("evict home {}", of_2["client"]))?;
        wait_until(seconds(10), "it gives errors", || {
            Ok(!cluster[2].attempt(format!("cat {}", volume.file("a")))?.succeeded())
        })?;
        assert_eq!(cluster[3].run(format!("cat {}", volume.file("a")))?.stdout.trim(), "kept");
        cluster.ctl(2, "umount --force home")?;
        volume.mount(2)?;
        assert_eq!(cluster[2].run(format!("cat {}", volume.file("a")))?.stdout.trim(), "kept");
        is_sound(&volume, 2)
    });
}

/// What a shell has to send to the process that serves the only mount on a host.
fn its_process(signal: &str) -> String {
    let pid = r#"sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' /run/mooring/mounts/*"#;
    format!("kill -{signal} $({pid})")
}

#[test]
fn mount_process_that_is_killed_is_reported_and_its_mount_is_gone() {
    on_cluster(3, |cluster| {
        let volume = mounted_everywhere(cluster)?;
        cluster[2].run(format!("echo kept >{}", volume.file("a")))?;
        cluster[2].run(its_process("KILL"))?;
        wait_until(seconds(10), "it is reported", || {
            Ok(!cluster.events(2, "mount-died")?.is_empty())
        })?;
        cluster[2].run(format!("! mountpoint -q {}", volume.directory()))?;
        // What it held is given away, and the others have heard nothing of it.
        cluster[3].run(format!("echo new >>{}", volume.file("a")))?;
        volume.mount(2)?;
        assert_eq!(cluster[2].run(format!("cat {}", volume.file("a")))?.stdout, "kept\nnew\n");
        assert_eq!(cluster.json(1, "leases home")?.as_array().unwrap().len(), 3);
        is_sound(&volume, 1)
    });
}

#[test]
fn client_that_is_stopped_holding_leases_stalls_the_others_no_longer_than_its_lease() {
    on_cluster(3, |cluster| {
        let volume = mounted_everywhere(cluster)?;
        // Kept open for writing, so that it has a lease that others want.
        cluster[2].run(format!("exec 3>{0}; echo first >&3", volume.file("a")))?;
        cluster[2].run(its_process("STOP"))?;
        let began = Instant::now();
        cluster[3].run(format!("echo second >{}", volume.file("a")))?;
        println!("beside a stopped client: {:?}", began.elapsed());
        assert!(began.elapsed() < FAILOVER * 2, "it took {:?}", began.elapsed());
        cluster[2].run(its_process("CONT"))?;
        wait_until(seconds(10), "it gives errors", || {
            Ok(!cluster[2].attempt(format!("cat {}", volume.file("a")))?.succeeded())
        })?;
        for host in [1, 3] {
            let read = cluster[host].run(format!("cat {}", volume.file("a")))?.stdout;
            assert_eq!(read.trim(), "second", "host{host}");
        }
        cluster.ctl(2, "umount --force home")?;
        volume.mount(2)?;
        assert_eq!(cluster[2].run(format!("cat {}", volume.file("a")))?.stdout.trim(), "second");
        is_sound(&volume, 2)
    });
}

#[test]
fn client_whose_cable_is_pulled_is_fenced_and_its_umount_returns() {
    on_cluster(3, |cluster| {
        let volume = mounted_everywhere(cluster)?;
        let coordinator = volume.primary(1)?;
        let cut = cluster.other_than(&[coordinator]);
        let stays = cluster.other_than(&[coordinator, cut]);
        cluster[cut].run(format!("echo first >{}", volume.file("a")))?;
        let (maker, meter) = (
            Maker::start(&volume, stays)?,
            StallMeter::start(&cluster[stays], volume.file("stall"), milliseconds(10))?,
        );
        wait_until(seconds(20), "the meter writes", || Ok(meter.so_far().writes > 70))?;
        cluster[cut].cut_cable()?;
        cluster[stays].run(format!("echo second >{}", volume.file("a")))?;
        let so_far = meter.so_far().writes;
        wait_until(seconds(40), "it goes on", || Ok(meter.so_far().writes > so_far + 200))?;
        let (rounds, longest) = maker.stop(stays);
        let seen = meter.stop(seconds(10))?;
        println!("beside a client without cable: names {longest:?}, data {:?}", seen.longest);
        assert_eq!(seen.errors, 0, "{:?}", seen.first_error);
        assert!(rounds > 0 && longest <= FAILOVER * 2 && seen.longest <= FAILOVER * 2);
        let began = Instant::now();
        cluster.ctl(cut, "umount --force home")?;
        assert!(began.elapsed() < seconds(20), "umount took {:?}", began.elapsed());
        cluster[cut].plug_cable()?;
        volume.wait_in_sync(3, coordinator)?;
        volume.mount(cut)?;
        assert_eq!(cluster[cut].run(format!("cat {}", volume.file("a")))?.stdout.trim(), "second");
        is_sound(&volume, cut)
    });
}
