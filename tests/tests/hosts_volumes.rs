//! Volumes as they are used when nothing fails: written on one host, read on another, grown, removed.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "real processes run in real time; in a test's functions too a panic is the report"
)]

use mooring_tests::hosts::{
    Cluster, Failure, FileSystem, Result, Volume, on_cluster, seconds, skip, wait_until,
};

/// What a file's bytes come to.
fn digest(cluster: &Cluster, host: usize, file: &str) -> Result<String> {
    let line = cluster[host].run(format!("sha256sum <'{file}'"))?.stdout;
    Ok(line.split(' ').next().unwrap_or_default().to_owned())
}

/// Writes files on one host and compares them on the others, for each number of replicas.
fn is_read_where_it_was_not_written(kind: FileSystem, name: &str) {
    on_cluster(3, |cluster| {
        for replicas in 1..=3 {
            let volume = cluster
                .create(&format!("{name}{replicas} --size 1G --replicas {replicas} --fs {name}"))?;
            volume.mount(1)?;
            let (random, small) = (volume.file("random"), volume.file("small"));
            cluster[1].run(format!(
                "dd if=/dev/urandom of={random} bs=1M count=16 status=none
                 mkdir {small}; for i in $(seq 100); do echo $i >{small}/$i; done"
            ))?;
            let written = digest(cluster, 1, &random)?;
            volume.unmount(1)?;
            volume.check(kind, 3)?;
            for host in [2, 3] {
                volume.mount(host)?;
                assert_eq!(digest(cluster, host, &random)?, written, "{replicas} replicas");
                let read = cluster[host].run(format!("cat {small}/* | sort -n | tail -n 1"))?;
                assert_eq!(read.stdout, "100\n");
                volume.unmount(host)?;
            }
            volume.remove()?;
        }
        Ok(())
    });
}

#[test]
fn ext4_volume_is_read_where_it_was_not_written() {
    is_read_where_it_was_not_written(FileSystem::Ext4, "ext4");
}

#[test]
fn xfs_volume_is_read_where_it_was_not_written() {
    is_read_where_it_was_not_written(FileSystem::Xfs, "xfs");
}

#[test]
fn raw_volume_is_a_block_device_and_nobody_formats_it() {
    on_cluster(3, |cluster| {
        for replicas in 1..=3 {
            let told = format!("raw{replicas} --size 64M --replicas {replicas} --fs raw");
            let volume = cluster.create(&told)?;
            let device = volume.attach(1)?;
            // Its edges, and what lies between and was never written.
            cluster[1].run(format!(
                "head -c 8M /dev/urandom >/run/edges
                 dd if=/run/edges of={device} bs=1M count=4 oflag=direct status=none
                 dd if=/run/edges of={device} bs=1M skip=4 seek=60 oflag=direct status=none"
            ))?;
            let written = digest(cluster, 1, &device)?;
            let size = cluster[1].run(format!("blockdev --getsize64 {device}"))?.stdout;
            assert_eq!(size.trim(), (64u64 << 20).to_string());
            volume.detach(1)?;
            let refusal = volume.mount(2).expect_err("a raw volume without a file system");
            assert!(refusal.to_string().contains("mkfs"), "{refusal}");
            for host in [2, 3] {
                let device = volume.attach(host)?;
                assert_eq!(digest(cluster, host, &device)?, written, "{replicas} replicas");
                volume.detach(host)?;
            }
            volume.remove()?;
        }
        Ok(())
    });
}

#[test]
fn what_a_volume_holds_is_told_to_the_block() {
    on_cluster(3, |cluster| {
        let volume =
            cluster.create("raw --size 1G --replicas 2 --node host1 --node host2 --fs raw")?;
        let device = volume.attach(1)?;
        volume.wait_for_primary(1, 1)?;
        volume.wait_in_sync(2, 1)?;
        let holds = |mebibytes: u64| {
            let bytes = mebibytes << 20;
            wait_until(seconds(10), &format!("it holds {mebibytes} MiB"), || {
                let told = volume.inspect(3)?;
                let replicas =
                    told["slices"][0]["replicas"].as_array().cloned().unwrap_or_default();
                Ok(told["volume"]["used"] == bytes
                    && replicas.len() == 2
                    && replicas.iter().all(|replica| replica["used"] == bytes))
            })
        };
        holds(0)?;
        let fill = |at: u64, count: u64| {
            let told = format!("bs=1M seek={at} count={count} oflag=direct status=none");
            cluster[1].run(format!("dd if=/dev/urandom of={device} {told}"))
        };
        fill(0, 8)?;
        fill(512, 4)?;
        holds(12)?;
        // What is written again is there once, and what is discarded no more.
        fill(4, 8)?;
        cluster[1].run(format!("blkdiscard --offset 512M --length 2M {device}"))?;
        holds(14)?;
        let listed = cluster.ctl(2, "volume ls")?.stdout;
        assert!(listed.contains("USED") && listed.contains("14 MiB"), "{listed}");
        let metrics = "curl -s --unix-socket /run/mooring/mountd.sock http://mountd/metrics";
        for (host, line) in [
            (1, "mooring_volume_used_bytes{volume=\"raw\"} 14680064"),
            (2, "mooring_slice_used_bytes{volume=\"raw\",slice=\"0\"} 14680064"),
        ] {
            let told = cluster[host].run(metrics)?.stdout;
            assert!(told.contains(line), "host{host}: {told}");
        }
        cluster[2].kill_mountd()?;
        wait_until(seconds(10), "the other's replica is not counted", || {
            let told = volume.inspect(3)?;
            let replicas = &told["slices"][0]["replicas"];
            Ok(told["volume"]["used"] == 14 << 20 && replicas[1]["used"].is_null())
        })?;
        cluster[2].restart_mountd()?;
        volume.detach(1)
    });
}

#[test]
fn raw_volume_with_a_file_system_of_its_users_is_mounted_as_what_it_is() {
    on_cluster(1, |cluster| {
        let volume = cluster.create("own --size 1G --fs raw")?;
        let device = volume.attach(1)?;
        cluster[1].run(format!("mkfs.xfs -q {device}"))?;
        volume.detach(1)?;
        volume.mount(1)?;
        let listed = cluster[1].run(format!("stat -f -c %T {}", volume.directory()))?.stdout;
        assert_eq!(listed.trim(), "xfs");
        volume.unmount(1)
    });
}

#[test]
fn mounted_volume_is_refused_to_another_host_by_the_name_of_the_one_that_has_it() {
    on_cluster(3, |cluster| {
        let volume = cluster.create("db --size 1G --replicas 2")?;
        volume.mount(1)?;
        let refusal = volume.mount(2).expect_err("host1 is alive and has it").to_string();
        assert!(refusal.contains("host1"), "{refusal}");
        cluster[1].run(format!("echo mine >{}", volume.file("note")))?;
        volume.unmount(1)?;
        volume.mount(2)?;
        assert_eq!(cluster[2].run(format!("cat {}", volume.file("note")))?.stdout, "mine\n");
        volume.unmount(2)
    });
}

#[test]
fn volume_created_on_one_node_is_known_to_every_node_at_once() {
    on_cluster(3, |cluster| {
        for number in 0..20 {
            cluster.ctl(1, &format!("volume create v{number} --size 1G --replicas 1"))?;
            cluster.ctl(3, &format!("volume inspect v{number}"))?;
        }
        Ok(())
    });
}

/// How large the mounted file system is, in MiB.
fn size_mib(volume: &Volume, host: usize) -> Result<u64> {
    let command = format!("df --output=size -BM {} | tail -n 1 | tr -dc 0-9", volume.directory());
    let text = volume.cluster()[host].run(command)?.stdout;
    text.parse().map_err(|_| Failure::Unreadable { what: "df".into(), because: text })
}

fn grows_while_it_is_written(kind: &str) {
    on_cluster(3, |cluster| {
        let volume = cluster.create(&format!("{kind} --size 512M --fs {kind}"))?;
        volume.mount(1)?;
        let load = volume.load(1, 4)?;
        // Asked for on another host than the one that has it mounted.
        cluster.ctl(2, &format!("volume resize {kind} 1536M"))?;
        wait_until(seconds(15), "the file system has grown", || Ok(size_mib(&volume, 1)? > 1200))?;
        assert!(load.goes_on(), "it grew only when nobody wrote any more");
        load.finish()?;
        // More than it had room for.
        let file = volume.file("large");
        cluster[1].run(format!("dd if=/dev/zero of={file} bs=1M count=600 status=none"))?;
        volume.unmount(1)
    });
}

#[test]
fn xfs_volume_grows_while_it_is_written() {
    grows_while_it_is_written("xfs");
}

#[test]
fn ext4_volume_grows_while_it_is_written() {
    // CAP_SYS_RESOURCE, which some containers take from root; the kernel asks for it here alone.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    if u64::from_str_radix(capabilities, 16).unwrap() & 1 << 24 == 0 {
        return skip("a mounted ext4 grows only with CAP_SYS_RESOURCE, which root lacks here");
    }
    grows_while_it_is_written("ext4");
}

#[test]
fn ext4_volume_that_was_resized_has_grown_when_it_is_mounted_again() {
    on_cluster(3, |cluster| {
        let volume = cluster.create("db --size 512M --replicas 2")?;
        volume.mount(1)?;
        let file = volume.file("random");
        cluster[1].run(format!("dd if=/dev/urandom of={file} bs=1M count=16 status=none"))?;
        let written = digest(cluster, 1, &file)?;
        cluster.ctl(1, "volume resize db 1536M")?;
        volume.unmount(1)?;
        volume.mount(2)?;
        assert!(size_mib(&volume, 2)? > 1200);
        assert_eq!(digest(cluster, 2, &file)?, written);
        volume.unmount(2)?;
        volume.check(FileSystem::Ext4, 3)
    });
}

/// What the pools of all hosts hold, in bytes of live data.
fn live(cluster: &Cluster) -> Result<u64> {
    let mut live = 0;
    for host in 1..=cluster.count() {
        for pool in cluster.pools_of(host, host)? {
            live += pool["live"].as_u64().unwrap_or_default();
        }
    }
    Ok(live)
}

#[test]
fn removed_volume_and_deleted_file_give_their_space_back() {
    const MIB: u64 = 1 << 20;
    on_cluster(3, |cluster| {
        let before = live(cluster)?;
        let volume = cluster.create("db --size 2G --replicas 3")?;
        volume.mount(1)?;
        let file = volume.file("large");
        let write = format!("dd if=/dev/urandom of={file} bs=1M count=128 conv=fsync status=none");
        cluster[1].run(&write)?;
        let full = live(cluster)?;
        assert!(full >= before + 3 * 128 * MIB, "{before} -> {full}: less than three copies");
        cluster[1].run(format!("rm {file}; sync; fstrim {}", volume.directory()))?;
        wait_until(seconds(15), "the deleted file's space is free", || match live(cluster)? {
            now if now < before + 3 * 32 * MIB => Ok(true),
            now => Err(Failure::Wrong(format!("{before} -> {full} -> {now}"))),
        })?;
        cluster[1].run(&write)?;
        volume.unmount(1)?;
        volume.remove()?;
        wait_until(seconds(15), "the removed volume's space is free", || match live(cluster)? {
            now if now < before + 3 * MIB => Ok(true),
            now => Err(Failure::Wrong(format!("{before} -> {full} -> {now}"))),
        })
    });
}
