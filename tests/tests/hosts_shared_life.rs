//! Shared mounts among everything else on a host: containers that come and go, daemons that are restarted,
//! users, thousands of opens, the end of a mount in use, and space that is given back.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "real processes run in real time; in a test's functions too a panic is the report"
)]

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mooring_tests::hosts::{
    Cluster, Result, Volume, judge, milliseconds, on_cluster, seconds, wait_until,
};

fn mounted_everywhere<'a>(cluster: &'a Cluster) -> Result<(Volume<'a>, Vec<PathBuf>)> {
    let volume = cluster.create("home --shared --size 1G --replicas 3")?;
    volume.wait_in_sync(3, 1)?;
    let mut roots = Vec::new();
    for host in 1..=cluster.count() {
        cluster[host].run(format!("mkdir -p {}", volume.directory()))?;
        volume.mount(host)?;
        roots.push(cluster[host].path(volume.directory())?);
    }
    Ok((volume, roots))
}

fn is_sound(volume: &Volume, seen_from: usize) -> Result<()> {
    let said = volume.cluster().ctl(seen_from, &format!("fsck {}", volume.name()))?.stdout;
    assert!(said.contains("is sound"), "{said}");
    Ok(())
}

/// Sends a signal to the process that serves the mount on a host.
fn signal_its_process(cluster: &Cluster, host: usize, signal: &str) -> Result<()> {
    cluster[host].run(format!("pkill -{signal} -f '^mountd mount '")).map(drop)
}

fn it_serves(cluster: &Cluster, host: usize) -> Result<bool> {
    Ok(cluster[host].attempt("pgrep -f '^mountd mount '")?.succeeded())
}

/// Calls `work` all the time, on a thread for each of the hosts, while `meanwhile` runs; no call may fail.
fn without_an_error(
    roots: &[PathBuf],
    work: impl Fn(&PathBuf, u64) -> std::io::Result<()> + Sync,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = roots
            .iter()
            .map(|root| {
                let (stop, work) = (&stop, &work);
                scope.spawn(move || {
                    let (mut rounds, mut longest) = (0, Duration::ZERO);
                    while !stop.load(Ordering::Relaxed) {
                        let began = Instant::now();
                        let done = work(root, rounds);
                        assert!(done.is_ok(), "round {rounds} in {}: {done:?}", root.display());
                        longest = longest.max(began.elapsed());
                        rounds += 1;
                        std::thread::sleep(milliseconds(2));
                    }
                    (rounds, longest)
                })
            })
            .collect();
        let done = meanwhile();
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            let (rounds, longest) = worker.join().unwrap();
            println!("{rounds} rounds, the longest {longest:?}");
            assert!(rounds > 3);
        }
        done
    })
}

/// Looks at the mount itself, and makes, reads and removes a file there.
fn uses(root: &PathBuf, round: u64) -> std::io::Result<()> {
    fs::metadata(root)?;
    let file = root.join(format!("of {:?} {}", std::thread::current().id(), round % 7));
    fs::write(&file, round.to_string())?;
    if fs::read_to_string(&file)? != round.to_string() {
        return Err(std::io::Error::other("something else was read"));
    }
    fs::read_dir(root)?.try_for_each(|entry| entry.map(drop))?;
    fs::remove_file(&file)
}

/// Every call in between would say "transport endpoint is not connected" if the mount went with its daemon.
#[test]
fn restarts_of_all_daemons_in_turn_give_no_call_an_error() {
    on_cluster(3, |cluster| {
        let (volume, roots) = mounted_everywhere(cluster)?;
        without_an_error(&roots, uses, || {
            for host in [1, 2, 3, 1, 2, 3] {
                cluster[host].stop_mountd()?;
                cluster[host].restart_mountd()?;
                volume.wait_in_sync(3, host)?;
                std::thread::sleep(milliseconds(500));
            }
            Ok(())
        })?;
        is_sound(&volume, 1)
    });
}

/// Containers see the volume through a mount namespace of their own, in which it is bound somewhere else.
#[test]
fn end_of_a_container_touches_no_other_on_its_host() {
    on_cluster(3, |cluster| {
        let (volume, roots) = mounted_everywhere(cluster)?;
        let container = |propagation: &str, work: &str| {
            format!(
                "mkdir -p /tmp/inside && exec unshare --mount --pid --fork --kill-child \
                 --propagation {propagation} sh -c 'mount --bind {} /tmp/inside && cd /tmp/inside && {work}'",
                volume.directory()
            )
        };
        let busy = "exec 3>held; flock 3; echo started >of-container; while :; do echo x >>log; sleep 0.01; done";
        let stays = cluster[2]
            .spawn(container("slave", "while :; do ls >/dev/null || exit 1; sleep 0.05; done"))?;
        without_an_error(&roots[1..2], uses, || {
            for propagation in ["private", "slave", "shared"] {
                let dies = cluster[2].spawn(container(propagation, busy))?;
                wait_until(seconds(10), "the container works", || {
                    Ok(fs::exists(roots[0].join("of-container")).unwrap())
                })?;
                cluster[2].run(format!("kill -KILL {}", child_in_host(cluster, 2)?))?;
                wait_until(seconds(10), "it is gone", || Ok(!dies.is_running()))?;
                fs::remove_file(roots[0].join("of-container")).unwrap();
                // One that unmounts all it sees before it ends.
                let leaves = format!("cd / && umount /tmp/inside && umount {}", volume.directory());
                if propagation != "shared" {
                    cluster[2].run(container(propagation, &leaves))?;
                }
                assert!(it_serves(cluster, 2)? && stays.is_running(), "{propagation}");
                // What it had locked is free.
                cluster[3].run(format!("flock -w 5 {} true", volume.file("held")))?;
            }
            Ok(())
        })?;
        is_sound(&volume, 1)
    });
}

/// The host's own number of the last container's first process.
fn child_in_host(cluster: &Cluster, host: usize) -> Result<String> {
    let found = cluster[host].run("pgrep -n -f '^unshare --mount.*of-container'")?;
    Ok(found.stdout.trim().to_owned())
}

#[test]
fn users_and_groups_are_the_same_numbers_on_all_hosts() {
    on_cluster(3, |cluster| {
        let (volume, roots) = mounted_everywhere(cluster)?;
        cluster[1].run(format!("chmod 1777 {}", volume.directory()))?;
        for (uid, gid) in [(1234, 5678), (1, 4_000_000_000_u32), (4_000_000_001, 65_534)] {
            let (file, dir) = (format!("file{uid}"), format!("dir{uid}"));
            let whose = format!("setpriv --reuid {uid} --regid {gid} --clear-groups");
            let make =
                format!("cd {} && umask 027 && echo x >{file} && mkdir {dir}", volume.directory());
            cluster[1].run(format!("{whose} sh -c '{make}'"))?;
            for root in &roots {
                let of = |name: &str| fs::metadata(root.join(name)).unwrap();
                for (told, mode) in [(of(&file), 0o640), (of(&dir), 0o750)] {
                    assert_eq!((told.uid(), told.gid(), told.mode() & 0o7777), (uid, gid, mode));
                }
            }
            // The same user may on another host, and another user may not.
            let append = format!("sh -c 'echo y >>{}'", volume.file(&file));
            cluster[2].run(format!("{whose} {append}"))?;
            let other = format!("setpriv --reuid 77 --regid 77 --clear-groups {append}");
            assert!(!cluster[2].attempt(other)?.succeeded());
            assert_eq!(fs::read_to_string(roots[2].join(&file)).unwrap(), "x\ny\n");
        }
        is_sound(&volume, 1)
    });
}

/// Descriptors and resident KiB of the process that serves the mount on a host.
fn holds(cluster: &Cluster, host: usize) -> Result<(u64, u64)> {
    let script = "pid=$(pgrep -f '^mountd mount '); ls /proc/$pid/fd | wc -l; \
                  sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\) kB/\\1/p' /proc/$pid/status";
    let said = cluster[host].run(script)?.stdout;
    let mut numbers = said.split_whitespace().map(|number| number.parse().unwrap());
    Ok((numbers.next().unwrap(), numbers.next().unwrap()))
}

#[test]
fn ten_thousand_opens_leave_no_descriptor_and_no_memory_behind() {
    const OPENS: usize = 10_000;
    on_cluster(3, |cluster| {
        let (volume, roots) = mounted_everywhere(cluster)?;
        let round = |opens: usize| {
            for i in 0..opens {
                let name = format!("f{}", i % 100);
                let root = &roots[i / 100 % 2];
                fs::write(root.join(&name), "text").unwrap();
                // Now and then on the other host, which takes the file away from the first.
                let reader = if i % 10 == 0 { &roots[1] } else { root };
                drop(File::open(reader.join(&name)).unwrap());
            }
        };
        // Caches and pools of threads are full from here on.
        round(1_000);
        let before = [holds(cluster, 1)?, holds(cluster, 2)?];
        round(OPENS / 2);
        for (host, before) in [1, 2].into_iter().zip(before) {
            let after = holds(cluster, host)?;
            println!("host{host}: {before:?}, after {OPENS} opens {after:?} (descriptors, KiB)");
            assert!(after.0 <= before.0 + 4, "host{host}: descriptors");
            assert!(after.1 <= before.1 + 8 * 1024, "host{host}: memory");
        }
        is_sound(&volume, 1)
    });
}

/// What was accepted is there when a mount is ended in the middle of its work.
#[test]
fn mount_that_is_told_to_end_writes_back_what_it_has_accepted() {
    on_cluster(3, |cluster| {
        let (volume, roots) = mounted_everywhere(cluster)?;
        let held = File::create(roots[1].join("held")).unwrap();
        let expected: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        std::io::Write::write_all(&mut &held, &expected).unwrap();
        let said = cluster.ctl(2, "umount home");
        assert!(said.is_err(), "it is in use");
        signal_its_process(cluster, 2, "TERM")?;
        let began = Instant::now();
        wait_until(seconds(60), "it ends", || Ok(!it_serves(cluster, 2)?))?;
        println!("told to end while in use: it took {:?}", began.elapsed());
        assert!(held.metadata().is_err(), "nobody serves it");
        assert!(fs::read(roots[2].join("held")).unwrap() == expected, "all of it is there");
        drop(held);
        // And where nobody has it open.
        fs::write(roots[0].join("other"), &expected).unwrap();
        signal_its_process(cluster, 1, "TERM")?;
        let began = Instant::now();
        wait_until(seconds(10), "it ends", || Ok(!it_serves(cluster, 1)?))?;
        println!("told to end: it took {:?}", began.elapsed());
        assert!(fs::read(roots[2].join("other")).unwrap() == expected, "all of it is there");
        cluster[1].run(format!("! mountpoint -q {}", volume.directory()))?;
        volume.mount(1)?;
        assert!(fs::read(roots[0].join("other")).unwrap() == expected);
        is_sound(&volume, 1)
    });
}

/// A host can't reach the volume: whoever waits for it can be interrupted and killed, and it can be unmounted.
#[test]
fn who_waits_for_a_volume_out_of_reach_dies_of_signals_and_umount_returns() {
    on_cluster(3, |cluster| {
        let (volume, roots) = mounted_everywhere(cluster)?;
        fs::write(roots[0].join("file"), "text").unwrap();
        let coordinator = volume.primary(1)?;
        let cut = cluster.other_than(&[coordinator]);
        let stays = cluster.other_than(&[cut]);
        // All the others are gone for this host; it is told of nothing, so its calls wait.
        cluster[cut].cut_cable()?;
        std::thread::sleep(seconds(2));
        for (what, signal) in [("cat", "INT"), ("cat", "KILL"), ("touch", "KILL"), ("ls -l", "INT")]
        {
            let file = if what == "ls -l" { volume.directory() } else { volume.file("file") };
            let waits = cluster[cut].spawn(format!("exec {what} {file}"))?;
            std::thread::sleep(milliseconds(600));
            assert!(waits.is_running(), "{what} did not wait: {}", waits.printed());
            let began = Instant::now();
            cluster[cut].run(format!("pkill -{signal} -f '^{what} {file}'"))?;
            wait_until(seconds(5), "it dies", || Ok(!waits.is_running()))?;
            println!("{what}: died {:?} after SIG{signal}", began.elapsed());
        }
        let began = Instant::now();
        let said = cluster[cut].attempt("timeout -s KILL 50 mountctl umount home")?;
        println!("umount out of reach: {:?}, {}", began.elapsed(), said.stderr.trim());
        assert!(began.elapsed() < seconds(45), "umount took {:?}", began.elapsed());
        if !said.succeeded() {
            cluster.ctl(cut, "umount --force home")?;
        }
        cluster[cut].run(format!("! mountpoint -q {}", volume.directory()))?;
        cluster[cut].plug_cable()?;
        volume.wait_in_sync(3, stays)?;
        volume.mount(cut)?;
        assert_eq!(cluster[cut].run(format!("cat {}", volume.file("file")))?.stdout, "text");
        is_sound(&volume, stays)
    });
}

/// Live bytes in the pool of a host.
fn live(cluster: &Cluster, host: usize) -> Result<u64> {
    let pools = cluster.pools_of(host, 1)?;
    Ok(pools.iter().filter_map(|pool| pool["live"].as_u64()).sum())
}

#[test]
fn deletes_and_truncates_give_space_back_to_the_pools() {
    const FILE: u64 = 120 << 20;
    on_cluster(3, |cluster| {
        let (volume, roots) = mounted_everywhere(cluster)?;
        let before = live(cluster, 1)?;
        let bytes: Vec<u8> = (0..1_u32 << 20).map(|i| (i * 7 % 251) as u8 + 1).collect();
        for name in ["removed", "cut"] {
            let mut file = File::create(roots[0].join(name)).unwrap();
            for _ in 0..FILE / 2 / bytes.len() as u64 {
                std::io::Write::write_all(&mut file, &bytes).unwrap();
            }
            file.sync_all().unwrap();
        }
        for i in 0..500 {
            fs::write(roots[1].join(format!("small{i}")), &bytes[..20_000]).unwrap();
        }
        wait_until(seconds(20), "the pools hold the files", || {
            Ok(live(cluster, 1)? >= before + FILE)
        })?;
        let began = Instant::now();
        fs::remove_file(roots[1].join("removed")).unwrap();
        fs::File::options().write(true).open(roots[2].join("cut")).unwrap().set_len(0).unwrap();
        (0..500).for_each(|i| fs::remove_file(roots[0].join(format!("small{i}"))).unwrap());
        for host in 1..=3 {
            wait_until(seconds(30), "the space is given back", || {
                let now = live(cluster, host)?;
                // The journal and the tree have grown a little.
                Ok(now < before + FILE / 10)
            })?;
        }
        judge(began.elapsed(), seconds(10), "giving space back")?;
        is_sound(&volume, 1)
    });
}
