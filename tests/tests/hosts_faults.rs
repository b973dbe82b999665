//! Faults under an application that writes all the while: it sees a stall, and nothing else.
//!
//! Each test prints the stall it measured. Afterwards all three replicas are in sync, the file system is
//! clean, and each host reads back what was written.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "real processes run in real time; in a test's functions too a panic is the report"
)]

use std::thread::sleep;
use std::time::Instant;

use mooring_tests::hosts::{
    Cluster, FAILOVER, Load, RESTART, Result, Volume, judge, milliseconds, on_cluster, seconds,
    wait_until,
};

/// How long an application writes around one fault.
const LOAD_S: u64 = 9;

/// A volume with three replicas, mounted on `host`, which has the primary.
fn mounted<'a>(cluster: &'a Cluster, host: usize) -> Result<Volume<'a>> {
    let volume = cluster.create("db --size 1G --replicas 3")?;
    volume.mount(host)?;
    volume.wait_for_primary(host, host)?;
    volume.wait_in_sync(3, host)?;
    Ok(volume)
}

/// An application writes on a volume that is mounted on `host`, `fault` happens, and when it is over
/// everything is as if it had not been.
fn endures(
    volume: &Volume,
    host: usize,
    what: &str,
    fault: impl FnOnce(&Load) -> Result<()>,
) -> Result<()> {
    let load = volume.load(host, LOAD_S)?;
    fault(&load)?;
    let endured = load.finish()?;
    endured.stalled_at_most(FAILOVER, what)?;
    volume.unmount(host)?;
    volume.is_whole_everywhere(&endured.job, host)
}

#[test]
fn killed_secondary_costs_a_stall() {
    on_cluster(3, |cluster| {
        // Not the leader: that is a test of its own.
        let attaching = cluster.leader(1)?;
        let secondary = cluster.other_than(&[attaching]);
        let volume = mounted(cluster, attaching)?;
        endures(&volume, attaching, "stall by a killed secondary", |load| {
            cluster[secondary].kill_mountd()?;
            load.wait_for_writes(50)?;
            assert!(!volume.in_sync(attaching)?.contains(&secondary));
            cluster[secondary].restart_mountd()?;
            volume.wait_in_sync(3, attaching)?;
            assert!(load.goes_on(), "it came back only after the load");
            Ok(())
        })
    });
}

#[test]
fn killed_primary_on_another_node_costs_a_stall() {
    on_cluster(4, |cluster| {
        // Mounted where there is no replica, so that the primary is elsewhere.
        let leader = cluster.leader(1)?;
        let attaching = cluster.other_than(&[leader]);
        let nodes: Vec<_> = (1..=4).filter(|&host| host != attaching).collect();
        let named: String = nodes.iter().map(|host| format!(" --node host{host}")).collect();
        let volume = cluster.create(&format!("db --size 1G --replicas 3{named}"))?;
        volume.mount(attaching)?;
        volume.wait_in_sync(3, attaching)?;
        let primary = volume.primary(attaching)?;
        let load = volume.load(attaching, LOAD_S)?;
        cluster[primary].kill_mountd()?;
        load.wait_for_writes(50)?;
        assert_ne!(volume.primary(attaching)?, primary, "nobody took over");
        cluster[primary].restart_mountd()?;
        let endured = load.finish()?;
        endured.stalled_at_most(FAILOVER, "stall by a killed primary")?;
        volume.wait_in_sync(3, attaching)?;
        volume.unmount(attaching)?;
        volume.check(mooring_tests::hosts::FileSystem::Ext4, attaching)?;
        for host in nodes {
            volume.mount(host)?;
            volume.wait_for_primary(host, host)?;
            let report = cluster[host].verify_again(&endured.job)?;
            assert_eq!(report.error, 0, "host{host}: {report:?}");
            volume.unmount(host)?;
        }
        Ok(())
    });
}

#[test]
fn killed_raft_leader_costs_a_stall() {
    on_cluster(3, |cluster| {
        let leader = cluster.leader(1)?;
        let attaching = cluster.other_than(&[leader]);
        let volume = mounted(cluster, attaching)?;
        endures(&volume, attaching, "stall by a killed Raft leader and secondary", |load| {
            cluster[leader].kill_mountd()?;
            load.wait_for_writes(50)?;
            assert_ne!(cluster.leader(attaching)?, leader, "nobody leads");
            cluster[leader].restart_mountd()?;
            Ok(())
        })
    });
}

#[test]
fn daemon_of_the_attaching_node_is_killed_and_restarted_twenty_times() {
    const TIMES: usize = 20;
    on_cluster(3, |cluster| {
        let volume = mounted(cluster, 2)?;
        let load = volume.load(2, 40)?;
        let mut beyond = Vec::new();
        for _ in 0..TIMES {
            let killed = Instant::now();
            cluster[2].kill_mountd()?;
            cluster[2].restart_mountd()?;
            let start = killed.elapsed();
            load.wait_for_writes(10)?;
            beyond.push(killed.elapsed().saturating_sub(start));
            assert!(load.goes_on(), "the load ended before the kills did");
        }
        beyond.sort();
        let median = beyond[TIMES / 2].as_secs_f64();
        eprintln!("stall beyond the daemon's start: p50 {median:.2} s");
        let endured = load.finish()?;
        judge(beyond[TIMES - 1], RESTART, "longest stall beyond the daemon's start, of 20")?;
        volume.unmount(2)?;
        volume.is_whole_everywhere(&endured.job, 2)
    });
}

#[test]
fn killed_holder_is_replaced_and_the_next_kill_of_the_daemon_costs_a_stall() {
    on_cluster(3, |cluster| {
        let volume = mounted(cluster, 2)?;
        endures(&volume, 2, "stall by a killed holder, then a killed daemon", |load| {
            // The brackets keep the pattern from matching the shell that it stands in.
            cluster[2].run("pkill -9 -f 'mountd hol[d]er'")?;
            wait_until(seconds(10), "the holder is replaced", || {
                Ok(!cluster.events(2, "holder-replaced")?.is_empty())
            })?;
            load.wait_for_writes(50)?;
            cluster[2].kill_mountd()?;
            cluster[2].restart_mountd()?;
            load.wait_for_writes(50)?;
            assert!(load.goes_on(), "the load ended before the kills did");
            Ok(())
        })
    });
}

#[test]
fn stopped_and_started_daemon_costs_a_stall() {
    on_cluster(3, |cluster| {
        let volume = mounted(cluster, 2)?;
        endures(&volume, 2, "stall by an upgrade", |load| {
            cluster[2].stop_mountd()?;
            cluster[2].restart_mountd()?;
            load.wait_for_writes(50)
        })
    });
}

#[test]
fn pulled_cable_of_a_secondary_costs_a_stall() {
    on_cluster(3, |cluster| {
        let volume = mounted(cluster, 1)?;
        endures(&volume, 1, "stall by the pulled cable of a secondary", |load| {
            cluster[3].cut_cable()?;
            load.wait_for_writes(50)?;
            sleep(seconds(1));
            cluster[3].plug_cable()?;
            Ok(())
        })
    });
}

#[test]
fn partition_between_primary_and_a_secondary_costs_a_stall() {
    on_cluster(3, |cluster| {
        let volume = mounted(cluster, 2)?;
        endures(&volume, 2, "stall by a partition of primary and secondary", |load| {
            cluster.hosts().partition(2, 3)?;
            load.wait_for_writes(50)?;
            sleep(seconds(3));
            assert_eq!(volume.primary(2)?, 2, "the primary moved away from who uses it");
            cluster.hosts().heal(2, 3)?;
            Ok(())
        })
    });
}

#[test]
fn hanging_secondary_costs_a_stall() {
    on_cluster(3, |cluster| {
        let volume = mounted(cluster, 1)?;
        endures(&volume, 1, "stall by a hanging secondary", |load| {
            cluster[2].stop_processes()?;
            load.wait_for_writes(50)?;
            sleep(seconds(1));
            cluster[2].resume_processes()
        })
    });
}

#[test]
fn replica_that_was_away_gets_only_what_changed() {
    const MIB: u64 = 1 << 20;
    on_cluster(3, |cluster| {
        let volume = mounted(cluster, 1)?;
        let (old, new) = (volume.file("old"), volume.file("new"));
        let write = |file: &str, mib: u64| {
            let told = format!("of={file} bs=1M count={mib} oflag=direct conv=notrunc,fsync");
            cluster[1].run(format!("dd if=/dev/urandom {told} status=none"))
        };
        write(&old, 128)?;
        write(&new, 32)?;
        cluster[1].run(format!("sync -f {}", volume.directory()))?;
        cluster[3].kill_mountd()?;
        wait_until(seconds(10), "the volume goes on without host3", || {
            Ok(volume.in_sync(1)?.len() == 2)
        })?;
        // Overwritten in place: what changes is this, and a little of the file system's own.
        write(&new, 32)?;
        let before = cluster.events(1, "replica-joined")?.len();
        cluster[3].restart_mountd()?;
        volume.wait_in_sync(3, 1)?;
        let mut copied = None;
        wait_until(seconds(5), "an event says what was copied", || {
            let events = cluster.events(1, "replica-joined")?;
            copied = events.get(before).and_then(|event| bytes_copied(event["message"].as_str()?));
            Ok(copied.is_some())
        })?;
        let copied = copied.unwrap_or_default();
        eprintln!("resync: {copied} bytes copied, {} changed", 32 * MIB);
        assert!(copied >= 32 * MIB, "{copied}");
        assert!(copied <= 32 * MIB * 11 / 10, "{copied}");
        let digest = |host: usize| cluster[host].run(format!("sha256sum {old} {new}"));
        let written = digest(1)?.stdout;
        volume.unmount(1)?;
        volume.mount(3)?;
        volume.wait_for_primary(3, 3)?;
        assert_eq!(digest(3)?.stdout, written);
        volume.unmount(3)
    });
}

/// The number before "bytes were copied".
fn bytes_copied(message: &str) -> Option<u64> {
    let words: Vec<_> = message.split_whitespace().collect();
    let place = words.iter().position(|word| *word == "bytes")?;
    words.get(place.checked_sub(1)?)?.parse().ok()
}

#[test]
fn cluster_without_a_quorum_goes_on_writing() {
    on_cluster(3, |cluster| {
        // Both others lose each other and nothing else: no configuration can change, no replica is lost.
        let leader = cluster.leader(1)?;
        let volume = cluster.create(&format!("one --size 1G --replicas 1 --node host{leader}"))?;
        volume.mount(leader)?;
        let load = volume.load(leader, 5)?;
        for host in (1..=3).filter(|&host| host != leader) {
            cluster[host].kill_mountd()?;
        }
        load.wait_for_writes(100)?;
        sleep(milliseconds(1500));
        load.wait_for_writes(50)?;
        let status = cluster.hosts()[leader].attempt("mountctl --json status")?;
        assert!(status.stdout.contains("\"quorum\": false"), "{}", status.stdout);
        load.finish()?.stalled_at_most(FAILOVER, "stall by a lost quorum")
    });
}
