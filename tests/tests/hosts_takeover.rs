//! A node that has a volume is lost, and the volume is mounted elsewhere: nothing acknowledged is gone,
//! and the lost node can't write any more, whatever it believes.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "real processes run in real time; in a test's functions too a panic is the report"
)]

use std::time::Instant;

use mooring_tests::hosts::{
    Cluster, FAILOVER, FileSystem, Fio, Result, StallMeter, Volume, judge, milliseconds,
    on_cluster, seconds, wait_until,
};

/// A volume with three replicas mounted on `host`, with a file of checked blocks that are on disk, and
/// a stall meter at work in a file whose blocks are all there already.
struct InUse<'a> {
    volume: Volume<'a>,
    job: Fio,
    meter: StallMeter,
}

fn in_use<'a>(cluster: &'a Cluster, host: usize) -> Result<InUse<'a>> {
    let volume = cluster.create("db --size 1G --replicas 3")?;
    volume.mount(host)?;
    volume.wait_for_primary(host, host)?;
    volume.wait_in_sync(3, host)?;
    let job = Fio::verify(volume.file("blocks")).rate(4000).seconds(1).sync_every(100);
    assert_eq!(cluster[host].fio(&job)?.error, 0);
    let meter = StallMeter::start(&cluster[host], volume.file("stall"), milliseconds(5))?;
    // Once round its file, and that on disk: from now on a write is its block and nothing else.
    wait_until(seconds(20), "the meter has been round", || Ok(meter.so_far().writes > 70))?;
    cluster[host].run(format!("sync -f {}", volume.directory()))?;
    let so_far = meter.so_far().writes;
    wait_until(seconds(20), "it goes on", || Ok(meter.so_far().writes > so_far + 20))?;
    Ok(InUse { volume, job, meter })
}

/// Mounts the volume on `host` and tells how long that took: whoever waits for it asks once.
fn taken_over(volume: &Volume, host: usize, since: Instant, what: &str) -> Result<()> {
    volume.mount(host)?;
    judge(since.elapsed(), FAILOVER, what)
}

#[test]
fn power_cut_of_leader_primary_and_attaching_node_at_once_loses_nothing() {
    on_cluster(3, |cluster| {
        let lost = cluster.leader(1)?;
        let heir = cluster.other_than(&[lost]);
        let InUse { volume, job, meter } = in_use(cluster, lost)?;
        let cut = Instant::now();
        cluster[lost].power_cut()?;
        taken_over(&volume, heir, cut, "takeover after a power cut of leader, primary and user")?;
        let seen = meter.stop(seconds(30))?;
        seen.is_kept_in(&cluster[heir], volume.file("stall"))?;
        assert_eq!(cluster[heir].verify_again(&job)?.error, 0);
        let load = volume.load(heir, 4)?;
        cluster[lost].boot()?;
        cluster[lost].mountd(&["--pool", mooring_tests::hosts::POOL])?;
        let endured = load.finish()?;
        endured.stalled_at_most(FAILOVER, "stall by the node's return")?;
        volume.unmount(heir)?;
        volume.is_whole_everywhere(&endured.job, heir)?;
        volume.mount(lost)?;
        assert_eq!(cluster[lost].verify_again(&job)?.error, 0);
        volume.unmount(lost)
    });
}

#[test]
fn node_that_is_cut_off_loses_its_volume_and_cannot_write_any_more() {
    on_cluster(3, |cluster| {
        let InUse { volume, job, meter } = in_use(cluster, 1)?;
        let cut = Instant::now();
        cluster[1].cut_cable()?;
        taken_over(&volume, 2, cut, "takeover from a node whose cable was pulled")?;
        let before = meter.so_far();
        before.is_kept_in(&cluster[2], volume.file("stall"))?;
        assert_eq!(cluster[2].verify_again(&job)?.error, 0);
        // The new owner makes the file its own: no write of the old one may show in it again.
        cluster[2].run(format!(
            "dd if=/dev/zero of={} bs=4k count=64 conv=notrunc,fsync oflag=direct status=none",
            volume.file("stall")
        ))?;

        cluster[1].plug_cable()?;
        wait_until(seconds(15), "the first node's writes are refused", || {
            Ok(meter.so_far().errors > 0)
        })?;
        let refused = meter.so_far();
        assert_eq!(refused.writes, before.writes, "a write succeeded after the takeover");
        wait_until(seconds(10), "the first node tells that it is fenced", || {
            Ok(!cluster.events(1, "fenced")?.is_empty())
        })?;
        meter.stop(seconds(10))?;
        let zeros = format!("cmp -n 262144 {} /dev/zero", volume.file("stall"));
        cluster[2].run(&zeros)?;

        // What is left of it on the first node goes, and the node may have the volume again.
        cluster.ctl(1, "umount --force db")?;
        volume.unmount(2)?;
        volume.wait_in_sync(3, 2)?;
        volume.check(FileSystem::Ext4, 2)?;
        volume.mount(1)?;
        cluster[1].run(&zeros)?;
        assert_eq!(cluster[1].verify_again(&job)?.error, 0);
        volume.unmount(1)
    });
}

#[test]
fn forced_takeover_from_a_living_node_fences_it_at_once() {
    on_cluster(3, |cluster| {
        let InUse { volume, job, meter } = in_use(cluster, 1)?;
        let refusal = volume.mount(2).expect_err("host1 has it").to_string();
        assert!(refusal.contains("host1"), "{refusal}");
        let taken = Instant::now();
        cluster.ctl(2, &format!("mount --force db {}", volume.directory()))?;
        judge(taken.elapsed(), FAILOVER, "forced takeover from a living node")?;
        wait_until(seconds(10), "the first node's writes are refused", || {
            Ok(meter.so_far().errors > 0)
        })?;
        let seen = meter.stop(seconds(10))?;
        seen.is_kept_in(&cluster[2], volume.file("stall"))?;
        assert_eq!(cluster[2].verify_again(&job)?.error, 0);
        cluster.ctl(1, "umount --force db")?;
        volume.unmount(2)?;
        volume.is_whole_everywhere(&job, 2)
    });
}

#[test]
fn forced_detach_frees_who_waits_for_a_volume_that_is_gone() {
    on_cluster(3, |cluster| {
        let InUse { volume, meter, .. } = in_use(cluster, 1)?;
        for host in [2, 3] {
            cluster[host].kill_mountd()?;
        }
        // One of three is too few: I/O is held.
        let held = meter.so_far().writes;
        wait_until(seconds(15), "I/O is held", || {
            let seen = meter.so_far();
            Ok(seen.longest > seconds(2) && seen.errors == 0 && seen.writes < held + 2000)
        })?;
        cluster.ctl(1, "umount --force db")?;
        wait_until(
            seconds(10),
            "who waits is freed by an error",
            || Ok(meter.so_far().errors > 0),
        )?;
        meter.stop(seconds(10))?;
        for host in [2, 3] {
            cluster[host].restart_mountd()?;
        }
        volume.wait_in_sync(3, 1)?;
        wait_until(seconds(30), "it can be mounted again", || volume.mount(1).map(|()| true))?;
        volume.unmount(1)?;
        volume.check(FileSystem::Ext4, 1)
    });
}

#[test]
fn io_timeout_set_while_a_volume_is_in_use_bounds_how_long_io_is_held() {
    on_cluster(3, |cluster| {
        let volume = cluster.create("db --size 1G --replicas 3 --fs raw")?;
        let device = volume.attach(1)?;
        volume.wait_in_sync(3, 1)?;
        cluster.ctl(1, "volume set db io_timeout=2s")?;
        let write = format!("timeout 60 dd if=/dev/zero of={device} bs=4k count=1 oflag=direct");
        cluster[1].run(&write)?;
        for host in [2, 3] {
            cluster[host].kill_mountd()?;
        }
        // One of three is too few: I/O is held, but no longer than was said.
        let asked = Instant::now();
        let refusal = cluster[1].run(&write).expect_err("nobody takes it").to_string();
        assert!(refusal.contains("timed out"), "{refusal}");
        assert!(asked.elapsed() >= seconds(2), "given up after {:?}", asked.elapsed());
        judge(asked.elapsed(), seconds(4), "I/O held with an io_timeout of 2 s")?;
        for host in [2, 3] {
            cluster[host].restart_mountd()?;
        }
        wait_until(seconds(30), "it serves again", || Ok(cluster[1].run(&write).is_ok()))?;
        volume.detach(1)
    });
}

#[test]
fn power_cut_of_all_nodes_loses_nothing_that_was_synced() {
    on_cluster(3, |cluster| {
        let InUse { volume, job, meter } = in_use(cluster, 2)?;
        cluster.hosts().power_cut_all()?;
        let seen = meter.stop(seconds(30))?;
        for host in cluster.hosts().iter() {
            host.boot()?;
        }
        for host in cluster.hosts().iter() {
            host.mountd(&["--pool", mooring_tests::hosts::POOL])?;
        }
        let began = Instant::now();
        wait_until(seconds(60), "the volume is mounted again", || volume.mount(3).map(|()| true))?;
        judge(began.elapsed(), seconds(10), "first mount after a power cut of all nodes")?;
        // The page cache outlives a simulated power cut: not a single write may be missing.
        seen.is_kept_in(&cluster[3], volume.file("stall"))?;
        assert_eq!(cluster[3].verify_again(&job)?.error, 0);
        volume.unmount(3)?;
        volume.is_whole_everywhere(&job, 3)
    });
}

#[test]
fn volume_detached_by_force_while_its_daemon_was_down_gives_errors_when_that_returns() {
    on_cluster(3, |cluster| {
        let InUse { volume, job, meter } = in_use(cluster, 1)?;
        cluster[1].kill_mountd()?;
        // Given to nobody afterwards: no seal of another one keeps the first one out.
        cluster.ctl(2, "detach --force db")?;
        wait_until(seconds(10), "its attachment is over", || {
            Ok(volume.inspect(2)?["attachment"].is_null())
        })?;
        let held = meter.so_far();
        assert_eq!(held.errors, 0, "while the daemon is away, nothing is answered");
        let returned = Instant::now();
        cluster[1].restart_mountd()?;
        wait_until(seconds(15), "its device gives errors", || Ok(meter.so_far().errors > 0))?;
        judge(returned.elapsed(), FAILOVER, "errors after the return of a detached volume's node")?;
        assert_eq!(meter.so_far().writes, held.writes, "it wrote, though it was detached");
        let seen = meter.stop(seconds(10))?;
        volume.mount(2)?;
        seen.is_kept_in(&cluster[2], volume.file("stall"))?;
        assert_eq!(cluster[2].verify_again(&job)?.error, 0);
        cluster.ctl(1, "umount --force db")?;
        volume.unmount(2)?;
        volume.mount(1)?;
        assert_eq!(cluster[1].verify_again(&job)?.error, 0);
        volume.unmount(1)
    });
}

#[test]
fn volume_taken_over_while_its_daemon_was_down_gives_errors_when_that_returns() {
    on_cluster(3, |cluster| {
        let InUse { volume, job, meter } = in_use(cluster, 1)?;
        let cut = Instant::now();
        cluster[1].kill_mountd()?;
        taken_over(&volume, 2, cut, "takeover from a node whose daemon was killed")?;
        let held = meter.so_far();
        // The new owner makes the file its own, and goes.
        cluster[2].run(format!(
            "dd if=/dev/zero of={} bs=4k count=64 conv=notrunc,fsync oflag=direct status=none",
            volume.file("stall")
        ))?;
        volume.unmount(2)?;
        cluster[1].restart_mountd()?;
        wait_until(seconds(15), "its device gives errors", || Ok(meter.so_far().errors > 0))?;
        assert_eq!(meter.so_far().writes, held.writes, "a write succeeded after the takeover");
        meter.stop(seconds(10))?;
        cluster.ctl(1, "umount --force db")?;
        volume.mount(3)?;
        cluster[3].run(format!("cmp -n 262144 {} /dev/zero", volume.file("stall")))?;
        assert_eq!(cluster[3].verify_again(&job)?.error, 0);
        volume.unmount(3)
    });
}
