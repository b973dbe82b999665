//! Pools that run full, fail, rot, and are replaced, while the volumes in them are in use.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "real processes run in real time; in a test's functions too a panic is the report"
)]

use mooring_tests::hosts::{
    Cluster, FAILOVER, Failure, Fio, LoopDisk, POOL, Result, Volume, corrupt, on_cluster, on_hosts,
    seconds, wait_until,
};

/// How long an application writes while its pools change.
const LOAD_S: u64 = 12;

// -- full ------------------------------------------------------------------------------------------

/// Writes numbered MiB to a device until it is told to stop by an error, or has written `count` of
/// them; prints how many it has written, and the error.
fn fill(device: &str, count: u64) -> String {
    format!(
        "exec python3 -c \"
import errno, mmap, os, random
device = os.open('{device}', os.O_WRONLY | os.O_DIRECT)
block = mmap.mmap(-1, 1 << 20)
block.write(random.Random(7).randbytes(1 << 20))
done, why = 0, 'none'
try:
    while done < {count}:
        block[0:8] = done.to_bytes(8, 'little')
        os.pwrite(device, block, done << 20)
        done += 1
except OSError as error:
    why = errno.errorcode[error.errno]
print(done, why)\""
    )
}

/// Reads back so many of them.
fn compare(device: &str, count: u64) -> String {
    format!(
        "exec python3 -c \"
import random, sys
expected = bytearray(random.Random(7).randbytes(1 << 20))
device = open('{device}', 'rb')
for number in range({count}):
    expected[0:8] = number.to_bytes(8, 'little')
    if device.read(1 << 20) != expected: sys.exit('MiB %d is another' % number)\""
    )
}

#[test]
fn full_pool_refuses_writes_loses_nothing_and_goes_on_when_space_is_freed() {
    on_hosts(3, |hosts| {
        let small = |_: &_| vec!["--pool".into(), "/var/lib/mooring/pool,size=1G".into()];
        let cluster = Cluster::start(hosts, small)?;
        let volume = cluster.create("db --size 256M --replicas 3")?;
        volume.mount(1)?;
        volume.wait_for_primary(1, 1)?;
        let job = Fio::verify(volume.file("blocks")).rate(4000).seconds(1);
        assert_eq!(cluster[1].fio(&job)?.error, 0);
        cluster[1].run(format!("sync -f {}", volume.directory()))?;

        let ballast = cluster.create("ballast --size 2G --replicas 3 --fs raw")?;
        let device = ballast.attach(2)?;
        let told = cluster[2].run_for(seconds(120), fill(&device, 2048))?.stdout;
        let (count, why) = told.trim().split_once(' ').unwrap_or_default();
        let count: u64 = count.parse().unwrap_or_default();
        assert_eq!(why, "ENOSPC", "after {count} MiB");
        assert!(count > 600, "a pool of 1 GiB was full after {count} MiB");

        // Nothing is lost, and reads go on.
        assert_eq!(cluster[1].verify_again(&job)?.error, 0);
        cluster[2].run(compare(&device, count))?;
        let full: Vec<_> = (1..=3).flat_map(|host| cluster.pools_of(host, host).unwrap()).collect();
        assert!(full.iter().any(|pool| pool["state"] == "full"), "{full:?}");
        let told = cluster[2].run_for(seconds(60), fill(&device, 2048))?.stdout;
        assert!(told.contains("ENOSPC"), "it went on without any space having been freed: {told}");

        // A discard is enough.
        cluster[2].run(format!("blkdiscard -o 268435456 -l 268435456 {device}"))?;
        wait_until(seconds(20), "freed space can be written", || {
            match cluster[2].run(fill(&device, 64))?.stdout.trim() {
                "64 none" => Ok(true),
                other => Err(Failure::Wrong(format!("{other}: {}", cluster.json(1, "pool ls")?))),
            }
        })?;
        cluster[2].run(compare(&device, 64))?;
        ballast.detach(2)?;
        ballast.remove()?;
        let endured = volume.load(1, 3)?.finish()?;
        volume.unmount(1)?;
        volume.is_whole_everywhere(&endured.job, 1)?;
        volume.mount(2)?;
        assert_eq!(cluster[2].verify_again(&job)?.error, 0);
        volume.unmount(2)
    });
}

// -- failed ----------------------------------------------------------------------------------------

/// Four hosts, of which `failing` has its pool on a disk that can fail, and the fourth has no pool yet.
fn with_a_disk(failing: usize, test: impl FnOnce(&Cluster, &LoopDisk) -> Result<()>) {
    on_hosts(4, |hosts| {
        let disk = hosts[failing].disk_device("pool", 3 << 30)?;
        let device = format!("{},class=high", disk.device().display());
        let cluster = Cluster::start(hosts, |host| match host.number() {
            4 => vec![],
            number if number == failing => vec!["--pool".into(), device.clone()],
            _ => vec!["--pool".into(), POOL.into()],
        })?;
        test(&cluster, &disk)
    });
}

/// A volume with replicas on hosts 1 to 3, mounted on host 1; and from now on host 4 has room for one.
fn on_three_of_four<'a>(cluster: &'a Cluster) -> Result<Volume<'a>> {
    let volume = cluster.create("db --size 1G --replicas 3")?;
    volume.mount(1)?;
    volume.wait_for_primary(1, 1)?;
    volume.wait_in_sync(3, 1)?;
    cluster.ctl(4, "pool add /var/lib/mooring/pool --size 3G --class high")?;
    Ok(volume)
}

/// Waits until hosts 1 to 4 less `without` have the three replicas.
fn replaced(volume: &Volume, without: usize, seen_from: usize) -> Result<()> {
    let expected: Vec<_> = (1..=4).filter(|&host| host != without).collect();
    wait_until(seconds(40), &format!("the replica of host{without} is elsewhere"), || {
        let mut found = volume.in_sync(seen_from)?;
        found.sort_unstable();
        if found == expected {
            return Ok(true);
        }
        Err(Failure::Wrong(volume.inspect(seen_from)?["slices"].to_string()))
    })
}

/// Every host that has a replica reads back what `job` wrote, and the file system is clean.
fn is_whole_on(volume: &Volume, hosts: &[usize], job: &Fio) -> Result<()> {
    volume.check(mooring_tests::hosts::FileSystem::Ext4, hosts[0])?;
    for &host in hosts {
        volume.mount(host)?;
        volume.wait_for_primary(host, host)?;
        let report = volume.cluster()[host].verify_again(job)?;
        assert_eq!(report.error, 0, "on host{host}: {report:?}");
        volume.unmount(host)?;
    }
    Ok(())
}

#[test]
fn failed_disk_of_a_secondary_is_replaced_while_writing_goes_on() {
    with_a_disk(2, |cluster, disk| {
        let volume = on_three_of_four(cluster)?;
        let load = volume.load(1, LOAD_S)?;
        disk.fail()?;
        replaced(&volume, 2, 1)?;
        let pools = cluster.pools_of(2, 1)?;
        assert_eq!(pools[0]["state"], "failed", "{pools:?}");
        // A new disk is put in, and the pool made anew.
        let device = disk.device().display();
        cluster.ctl(2, &format!("pool rm --force {device}"))?;
        disk.replace()?;
        cluster.ctl(2, &format!("pool add {device} --class high --force"))?;
        let endured = load.finish()?;
        endured.stalled_at_most(FAILOVER, "stall by a failed disk of a secondary")?;
        let pools = cluster.pools_of(2, 1)?;
        assert_eq!((pools.len(), &pools[0]["state"]), (1, &"ok".into()), "{pools:?}");
        volume.unmount(1)?;
        is_whole_on(&volume, &[1, 3, 4], &endured.job)
    });
}

#[test]
fn failed_disk_of_the_primary_moves_it_and_writing_goes_on() {
    with_a_disk(1, |cluster, disk| {
        let volume = on_three_of_four(cluster)?;
        let load = volume.load(1, LOAD_S)?;
        disk.fail()?;
        load.wait_for_writes(50)?;
        replaced(&volume, 1, 1)?;
        let endured = load.finish()?;
        endured.stalled_at_most(FAILOVER, "stall by a failed disk of the primary")?;
        volume.unmount(1)?;
        is_whole_on(&volume, &[2, 3, 4], &endured.job)
    });
}

// -- replaced --------------------------------------------------------------------------------------

/// Four hosts with a pool in a directory, but for the fourth.
fn three_with_pools(test: impl FnOnce(&Cluster) -> Result<()>) {
    on_hosts(4, |hosts| {
        let cluster = Cluster::start(hosts, |host| match host.number() {
            4 => vec![],
            _ => vec!["--pool".into(), POOL.into()],
        })?;
        test(&cluster)
    });
}

#[test]
fn pool_is_replaced_by_another_while_writing_goes_on() {
    three_with_pools(|cluster| {
        let volume = on_three_of_four(cluster)?;
        let load = volume.load(1, LOAD_S)?;
        cluster.ctl(2, "pool rm /var/lib/mooring/pool")?;
        assert!(cluster.pools_of(2, 1)?.is_empty(), "it is still listed");
        replaced(&volume, 2, 1)?;
        cluster.ctl(2, "pool add /var/lib/mooring/other --size 3G --class high")?;
        assert!(load.goes_on(), "the load ended before the pool was replaced");
        // And the one under the primary itself.
        cluster.ctl(1, "pool rm /var/lib/mooring/pool")?;
        replaced(&volume, 1, 1)?;
        let endured = load.finish()?;
        endured.stalled_at_most(FAILOVER, "stall by two pools that are replaced")?;
        volume.unmount(1)?;
        is_whole_on(&volume, &[2, 3, 4], &endured.job)
    });
}

#[test]
fn replica_that_stays_lost_is_placed_elsewhere_by_itself() {
    three_with_pools(|cluster| {
        let volume = on_three_of_four(cluster)?;
        cluster.ctl(1, "volume set db replace_after=3s")?;
        let load = volume.load(1, LOAD_S)?;
        cluster[3].power_cut()?;
        replaced(&volume, 3, 1)?;
        wait_until(seconds(20), "the lost replica is given up", || {
            let slices = volume.inspect(1)?["slices"].take();
            match slices[0]["replicas"].as_array().map(Vec::len) {
                Some(3) => Ok(true),
                _ => Err(Failure::Wrong(slices.to_string())),
            }
        })?;
        cluster[3].boot()?;
        cluster[3].mountd(&["--pool", POOL])?;
        let endured = load.finish()?;
        endured.stalled_at_most(FAILOVER, "stall by a replica that is replaced")?;
        // The one that returns too late has nothing to give, and nothing to keep.
        wait_until(seconds(20), "the old replica is gone from its pool", || {
            let pool = &cluster.pools_of(3, 3)?[0];
            if pool["replicas"] == 0 && pool["live"].as_u64() < Some(1 << 20) {
                return Ok(true);
            }
            Err(Failure::Wrong(format!("{pool} {}", volume.inspect(1)?["slices"])))
        })?;
        volume.unmount(1)?;
        is_whole_on(&volume, &[1, 2, 4], &endured.job)
    });
}

#[test]
fn volume_that_is_removed_while_a_node_is_away_gives_its_space_back_there_too() {
    on_cluster(3, |cluster| {
        let volume = cluster.create("db --size 512M --replicas 3")?;
        volume.mount(1)?;
        let file = volume.file("random");
        cluster[1].run(format!("dd if=/dev/urandom of={file} bs=1M count=32 conv=fsync"))?;
        cluster[3].power_cut()?;
        volume.unmount(1)?;
        volume.remove()?;
        cluster[3].boot()?;
        cluster[3].mountd(&["--pool", POOL])?;
        wait_until(seconds(20), "all pools are empty", || {
            let pools = cluster.json(3, "pool ls")?;
            let empty = |pool: &serde_json::Value| pool["live"].as_u64() < Some(1 << 20);
            match pools.as_array() {
                Some(all) if all.len() == 3 && all.iter().all(empty) => Ok(true),
                _ => Err(Failure::Wrong(pools.to_string())),
            }
        })
    });
}

#[test]
fn drained_node_gives_its_replicas_away_and_can_be_removed() {
    three_with_pools(|cluster| {
        let volume = on_three_of_four(cluster)?;
        let load = volume.load(1, LOAD_S)?;
        cluster.hosts()[1].run_for(seconds(60), "mountctl node drain host2")?;
        replaced(&volume, 2, 1)?;
        cluster.ctl(1, "node rm host2")?;
        let endured = load.finish()?;
        endured.stalled_at_most(FAILOVER, "stall by a node that is drained and removed")?;
        volume.unmount(1)?;
        is_whole_on(&volume, &[1, 3, 4], &endured.job)
    });
}

// -- rotten ----------------------------------------------------------------------------------------

/// Sixteen characters that are nowhere else.
const MARKER: &str = "m@rker-of-a-test";

/// Writes a file of eight blocks that begin with the marker.
fn write_marked(cluster: &Cluster, volume: &Volume, host: usize) -> Result<String> {
    let file = volume.file("marked");
    cluster[host]
        .run(format!(
        "for i in $(seq 8); do echo {MARKER}; head -c 4079 /dev/zero | tr '\\0' $i; done >{file}
         sync -f {file}; sha256sum <{file}"
    ))
        .map(|output| output.stdout)
}

/// Flips bits in each block of that file, wherever it lies in the pool of a host.
fn rot(cluster: &Cluster, host: usize) -> Result<()> {
    let find = format!("cd /var/lib/mooring/pool; grep -obUaF {MARKER} segment.* /dev/null");
    let found = cluster[host].attempt(find)?.stdout;
    let places: Vec<(&str, u64)> = found
        .lines()
        .filter_map(|line| {
            let mut parts = line.split(':');
            Some((parts.next()?, parts.next()?.parse().ok()?))
        })
        .collect();
    assert!(places.len() >= 8, "only {} blocks are in the pool of host{host}", places.len());
    for (file, offset) in places {
        corrupt(&cluster[host].disk().join("pool").join(file), offset + 100, 3)?;
    }
    Ok(())
}

#[test]
fn rotten_block_is_repaired_from_another_replica() {
    on_cluster(3, |cluster| {
        let volume = cluster.create("db --size 512M --replicas 3")?;
        volume.mount(1)?;
        volume.wait_for_primary(1, 1)?;
        let written = write_marked(cluster, &volume, 1)?;
        volume.unmount(1)?;
        rot(cluster, 1)?;
        let read = format!("sha256sum <{}", volume.file("marked"));
        volume.mount(1)?;
        volume.wait_for_primary(1, 1)?;
        assert_eq!(cluster[1].run(&read)?.stdout, written);
        wait_until(seconds(5), "an event tells of the repair", || {
            Ok(!cluster.events(1, "block-repaired")?.is_empty())
        })?;
        // Repaired for good: also when the others are gone and only this replica can answer.
        volume.unmount(1)?;
        let repairs = cluster.events(1, "block-repaired")?.len();
        volume.mount(1)?;
        assert_eq!(cluster[1].run(&read)?.stdout, written);
        assert_eq!(cluster.events(1, "block-repaired")?.len(), repairs, "repaired again");
        volume.unmount(1)
    });
}

#[test]
fn rotten_block_without_another_replica_is_an_error_and_never_wrong_data() {
    on_cluster(1, |cluster| {
        let volume = cluster.create("db --size 512M --replicas 1")?;
        volume.mount(1)?;
        write_marked(cluster, &volume, 1)?;
        cluster[1].run(format!("echo fine >{}", volume.file("other")))?;
        volume.unmount(1)?;
        rot(cluster, 1)?;
        volume.mount(1)?;
        let read = cluster[1].attempt(format!("cat {} | wc -c", volume.file("marked")))?;
        assert!(read.stderr.contains("Input/output error"), "{read:?}");
        assert_eq!(read.stdout.trim(), "0", "bytes of rotten blocks were read");
        wait_until(seconds(5), "an event names the block", || {
            Ok(!cluster.events(1, "block-lost")?.is_empty())
        })?;
        let other = cluster[1].run(format!("cat {}", volume.file("other")))?;
        assert_eq!(other.stdout, "fine\n");
        volume.unmount(1)
    });
}
