//! Shared volumes at their worst, on several hosts: no space left, the power of all of them gone at once, and a
//! node lost that was coordinator, leader of the configuration and client in one.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "real processes run in real time; in a test's functions too a panic is the report"
)]

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mooring_tests::hosts::{
    Cluster, FAILOVER, POOL, Result, StallMeter, Volume, milliseconds, on_cluster, seconds,
    wait_until,
};

const MIB: usize = 1 << 20;

/// Mounts a shared volume on every host.
fn mount_everywhere(volume: &Volume) -> Result<()> {
    volume.wait_in_sync(3, 1)?;
    for host in 1..=volume.cluster().count() {
        volume.cluster()[host].run(format!("mkdir -p {}", volume.directory()))?;
        volume.mount(host)?;
    }
    Ok(())
}

/// The machine's name for a file of the volume on a host.
fn path(volume: &Volume, host: usize, name: &str) -> PathBuf {
    volume.cluster()[host].path(volume.file(name)).unwrap()
}

fn is_sound(volume: &Volume, seen_from: usize) -> Result<()> {
    let said = volume.cluster().ctl(seen_from, &format!("fsck {}", volume.name()))?.stdout;
    assert!(said.contains("is sound"), "{said}");
    Ok(())
}

/// The byte at an offset of a file that was filled.
fn byte(seed: u8, mib: usize) -> u8 {
    seed.wrapping_add(u8::try_from(mib % 251).unwrap())
}

/// Writes a new file until the volume takes no more: how much it took whole, and the error. What it took can be
/// made durable.
fn fill(file: &Path, seed: u8) -> (usize, io::Error) {
    let file = File::create(file).unwrap();
    let mut taken = 0;
    let error = loop {
        let part = vec![byte(seed, taken); MIB];
        let offset = u64::try_from(taken * MIB).unwrap();
        match file.write_all_at(&part, offset) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 1000, "it is never full");
    };
    file.sync_all().expect("what was taken was paid for");
    (taken, error)
}

/// Whether a file begins with what [`fill`] said that the volume took.
fn is_filled(file: &Path, seed: u8, taken: usize) -> bool {
    let bytes = fs::read(file).unwrap();
    bytes.len() >= taken * MIB
        && bytes.chunks(MIB).take(taken).enumerate().all(|(mib, part)| {
            let expected = byte(seed, mib);
            part.iter().all(|&found| found == expected)
        })
}

#[test]
fn full_volume_says_so_on_every_host_loses_nothing_and_works_again_when_there_is_space() {
    on_cluster(3, |cluster| {
        let volume = cluster.create("home --shared --size 64M --replicas 3")?;
        mount_everywhere(&volume)?;
        let at = |host: usize, name: &str| path(&volume, host, name);
        let kept = vec![7; 4 * MIB];
        fs::write(at(3, "kept"), &kept).unwrap();
        File::open(at(3, "kept")).unwrap().sync_all().unwrap();
        let mut filled = Vec::new();
        for (host, name, seed) in [(1, "a", 10), (2, "b", 100)] {
            let (taken, error) = fill(&at(host, name), seed);
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "host{host}: {error}");
            println!("host{host} wrote {taken} MiB before it was full");
            filled.push((name, seed, taken));
        }
        assert!(filled[0].2 >= 48, "most of the volume is for data: {filled:?}");
        for host in 1..=3 {
            for &(name, seed, taken) in &filled {
                assert!(is_filled(&at(host, name), seed, taken), "{name} on host{host}");
            }
            assert!(fs::read(at(host, "kept")).unwrap() == kept, "host{host}");
        }
        // What has its place can be written.
        let file = File::options().write(true).open(at(3, "kept")).unwrap();
        file.write_all_at(&[8; 4096], 4096).unwrap();
        file.sync_all().unwrap();
        drop(file);
        assert_eq!(fs::read(at(1, "kept")).unwrap()[4096..8192], [8; 4096]);
        is_sound(&volume, 2)?;
        // Freed by a third host, it is there for those that were refused.
        fs::remove_file(at(3, "a")).unwrap();
        for host in [1, 2] {
            let mut file = File::create(at(host, &format!("again{host}"))).unwrap();
            file.write_all(&vec![9; 8 * MIB]).unwrap_or_else(|e| panic!("host{host}: {e}"));
            file.sync_all().unwrap();
        }
        assert!(is_filled(&at(3, "b"), filled[1].1, filled[1].2));
        assert!(fs::read(at(3, "again1")).unwrap() == vec![9; 8 * MIB]);
        for host in 1..=3 {
            volume.unmount(host)?;
        }
        is_sound(&volume, 1)?;
        volume.remove()
    });
}

/// Somebody who appends numbered lines, to a file of its own and to one that all hosts append to, and makes each
/// durable before the next.
struct Appender {
    stop: Arc<AtomicBool>,
    /// The last line that was fsynced in both.
    durable: Arc<AtomicU64>,
    thread: JoinHandle<(Duration, Option<io::Error>)>,
}

impl Appender {
    fn start(volume: &Volume, host: usize) -> Self {
        let append = |name: &str| {
            File::options().append(true).create(true).open(path(volume, host, name)).unwrap()
        };
        let files = [append(&format!("own{host}")), append("all")];
        let (stop, durable) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, done) = (Arc::clone(&stop), Arc::clone(&durable));
        let thread = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !told.load(Ordering::Relaxed) {
                let began = Instant::now();
                let line = done.load(Ordering::Relaxed) + 1;
                if let Err(error) = Self::round(&files, host, line) {
                    return (longest, Some(error));
                }
                longest = longest.max(began.elapsed());
                done.store(line, Ordering::Relaxed);
                std::thread::sleep(milliseconds(2));
            }
            (longest, None)
        });
        Self { stop, durable, thread }
    }

    fn round(files: &[File], host: usize, line: u64) -> io::Result<()> {
        for mut file in files {
            file.write_all(format!("host{host} {line}\n").as_bytes())?;
            file.sync_all()?;
        }
        Ok(())
    }

    fn durable(&self) -> u64 {
        self.durable.load(Ordering::Relaxed)
    }

    /// The last durable line, the longest round, and the error that it has met.
    fn stop(self) -> (u64, Duration, Option<io::Error>) {
        self.stop.store(true, Ordering::Relaxed);
        let (longest, error) = self.thread.join().unwrap();
        (self.durable.load(Ordering::Relaxed), longest, error)
    }
}

/// Every line that was fsynced is there, once, in order and whole; read on `reader`.
fn is_appended(volume: &Volume, reader: usize, host: usize, durable: u64) {
    for name in [format!("own{host}"), "all".to_owned()] {
        let text = fs::read_to_string(path(volume, reader, &name)).unwrap();
        let mut lines = Vec::new();
        for line in text.lines() {
            let (of, number) = line.split_once(' ').unwrap_or_else(|| panic!("{name}: {line:?}"));
            assert!(["host1", "host2", "host3"].contains(&of), "{name}: {line:?}");
            let number: u64 = number.parse().unwrap_or_else(|_| panic!("{name}: {line:?}"));
            lines.extend((of == format!("host{host}")).then_some(number));
        }
        let expected: Vec<u64> = (1..=lines.len() as u64).collect();
        assert!(lines == expected, "{name} of host{host}, on host{reader}: {lines:?}");
        // One more may have come through without its answer.
        let most = durable + 1;
        let found = lines.len() as u64;
        assert!((durable..=most).contains(&found), "{name} of host{host}: {found} of {durable}");
    }
}

#[test]
// A child of the test's process that is to cut the last host's cable closes the writers' files first: that is a
// request to a mount which nobody answers any more, and the host is never cut. Run by hand, it passes.
#[ignore = "one run in ten does not end: the harness waits for a mount before it cuts its host's power"]
fn power_cut_of_all_hosts_under_writers_takes_nothing_that_was_fsynced() {
    on_cluster(3, |cluster| {
        let volume = cluster.create("home --shared --size 1G --replicas 3")?;
        mount_everywhere(&volume)?;
        let writers: Vec<Appender> = (1..=3).map(|host| Appender::start(&volume, host)).collect();
        wait_until(seconds(30), "all hosts append", || {
            Ok(writers.iter().all(|writer| writer.durable() > 50))
        })?;
        cluster.hosts().power_cut_all()?;
        let durable: Vec<u64> = writers.into_iter().map(|writer| writer.stop().0).collect();
        for host in cluster.hosts().iter() {
            host.boot()?;
            host.mountd(&["--pool", POOL])?;
        }
        cluster.wait_until_whole(3, 3)?;
        volume.wait_in_sync(3, 1)?;
        for host in 1..=3 {
            cluster[host].run(format!("mkdir -p {}", volume.directory()))?;
            volume.mount(host)?;
        }
        for (host, &durable) in (1..=3).zip(&durable) {
            println!("host{host} had {durable} lines on media");
            (1..=3).for_each(|reader| is_appended(&volume, reader, host, durable));
        }
        is_sound(&volume, 1)?;
        // And it goes on.
        for host in 1..=3 {
            cluster[host].run(format!("echo on >{0}; sync {0}", volume.file("on")))?;
        }
        is_sound(&volume, 2)
    });
}

/// A shared volume whose coordinator is on this host.
fn coordinated_on<'a>(cluster: &'a Cluster, host: usize) -> Result<Volume<'a>> {
    for name in ["one", "two", "three", "four", "five", "six"] {
        let volume = cluster.create(&format!("{name} --shared --size 1G --replicas 3"))?;
        volume.wait_in_sync(3, 1)?;
        if volume.primary(1)? == host {
            return Ok(volume);
        }
    }
    panic!("no volume has its primary on host{host}");
}

#[test]
fn loss_of_a_node_that_is_coordinator_leader_and_client_is_a_stall_for_the_others() {
    on_cluster(3, |cluster| {
        let lost = cluster.leader(1)?;
        let volume = coordinated_on(cluster, lost)?;
        mount_everywhere(&volume)?;
        let others: Vec<usize> = (1..=3).filter(|host| *host != lost).collect();
        let writers: Vec<Appender> = (1..=3).map(|host| Appender::start(&volume, host)).collect();
        let mut meters = Vec::new();
        for &host in &others {
            let file = volume.file(&format!("stall{host}"));
            meters.push((host, StallMeter::start(&cluster[host], file, milliseconds(10))?));
        }
        wait_until(seconds(30), "all write", || {
            Ok(writers.iter().all(|writer| writer.durable() > 30)
                && meters.iter().all(|(_, meter)| meter.so_far().writes > 70))
        })?;
        assert_eq!((cluster.leader(others[0])?, volume.primary(others[0])?), (lost, lost));
        cluster[lost].power_cut()?;
        let before: Vec<u64> = writers.iter().map(Appender::durable).collect();
        let goes_on = |host: usize, writer: &Appender, before: &u64| {
            host == lost || writer.durable() > before + 50
        };
        wait_until(seconds(40), "the others go on", || {
            let mut all = (1..=3).zip(writers.iter().zip(&before));
            Ok(all.all(|(host, (writer, before))| goes_on(host, writer, before)))
        })?;
        for (host, writer) in (1..=3).zip(writers) {
            let (durable, longest, error) = writer.stop();
            println!("host{host}: {durable} lines, {longest:?} at most, {error:?}");
            if host != lost {
                assert!(error.is_none(), "host{host}: {error:?}");
                assert!(longest <= FAILOVER * 2, "host{host} stalled {longest:?}");
            }
            others.iter().for_each(|&reader| is_appended(&volume, reader, host, durable));
        }
        for (host, meter) in meters {
            let seen = meter.stop(seconds(20))?;
            println!("host{host}: stalled {:?} at most, {} writes", seen.longest, seen.writes);
            assert_eq!(seen.errors, 0, "host{host}: {:?}", seen.first_error);
            assert!(seen.longest <= FAILOVER * 2, "host{host} stalled {:?}", seen.longest);
            let reader = others.iter().copied().find(|other| *other != host).unwrap();
            seen.is_kept_in(&cluster[reader], volume.file(&format!("stall{host}")))?;
        }
        is_sound(&volume, others[0])
    });
}

#[test]
fn io_timeout_of_a_shared_volume_does_not_end_its_coordinator() {
    on_cluster(3, |cluster| {
        let volume = cluster.create("home --shared --size 1G --replicas 3")?;
        cluster.ctl(1, "volume set home io_timeout=1s")?;
        mount_everywhere(&volume)?;
        let coordinator = volume.primary(1)?;
        let others: Vec<usize> = (1..=3).filter(|host| *host != coordinator).collect();
        let writer = Appender::start(&volume, coordinator);
        wait_until(seconds(20), "it appends", || Ok(writer.durable() > 20))?;
        // Nobody else is there, and nobody can say so: its journal waits, several times as long.
        others.iter().try_for_each(|&host| cluster[host].stop_processes())?;
        std::thread::sleep(seconds(4));
        others.iter().try_for_each(|&host| cluster[host].resume_processes())?;
        let before = writer.durable();
        wait_until(seconds(30), "it goes on", || Ok(writer.durable() > before + 20))?;
        let (durable, longest, error) = writer.stop();
        println!("held up for {longest:?}");
        assert!(error.is_none(), "{error:?}");
        assert!(longest >= seconds(3), "nothing was held up: {longest:?}");
        for host in 1..=3 {
            let failed = cluster.events(host, "coordinator-failed")?;
            assert!(failed.is_empty(), "host{host}: {failed:?}");
        }
        is_appended(&volume, coordinator, coordinator, durable);
        is_sound(&volume, coordinator)
    });
}
