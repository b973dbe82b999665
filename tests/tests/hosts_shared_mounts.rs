//! The processes that serve mounts of shared volumes, and the daemons that start them: whatever becomes of the
//! one, no mount is without somebody who knows it, and no unmount says that all is well when it isn't.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "real processes run in real time; in a test's functions too a panic is the report"
)]

use std::ffi::c_void;
use std::fs::File;
use std::time::Instant;

use mooring_tests::hosts::{
    Cluster, Result, Volume, milliseconds, on_cluster, seconds, wait_until,
};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

/// A shared volume, its coordinator's host, and another.
fn shared_volume<'a>(cluster: &'a Cluster) -> Result<(Volume<'a>, usize, usize)> {
    let volume = cluster.create("home --shared --size 1G --replicas 3")?;
    volume.wait_in_sync(3, 1)?;
    for host in 1..=cluster.count() {
        cluster[host].run(format!("mkdir -p {}", volume.directory()))?;
    }
    let coordinator = volume.primary(1)?;
    Ok((volume, coordinator, cluster.other_than(&[coordinator])))
}

/// How many mounts there are on the volume's directory, and processes that serve mounts.
fn counted(volume: &Volume, host: usize) -> Result<(usize, usize)> {
    let host = &volume.cluster()[host];
    let mounts = format!("grep -c ' {} ' /proc/self/mountinfo || true", volume.directory());
    let processes = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o 'mountd [m]ount --door' | wc -l";
    let number =
        |command: &str| -> Result<usize> { Ok(host.run(command)?.stdout.trim().parse().unwrap()) };
    Ok((number(&mounts)?, number(processes)?))
}

#[test]
fn daemon_killed_in_the_middle_of_a_mount_leaves_none_that_nobody_knows() {
    on_cluster(3, |cluster| {
        let (volume, coordinator, host) = shared_volume(cluster)?;
        let seen_from = cluster.other_than(&[coordinator, host]);
        for round in 0..10_u64 {
            let mounting = cluster[host].spawn(format!(
                "mountctl mount {} {}",
                volume.name(),
                volume.directory()
            ))?;
            std::thread::sleep(milliseconds(round * 3));
            cluster[host].kill_mountd()?;
            // It may have been done before; then that is what it says.
            let said = mounting.finish(seconds(20))?;
            let (mounts, processes) = counted(&volume, host)?;
            println!("round {round}: {}, {mounts} mounts, {processes} processes", said.code);
            cluster[host].restart_mountd()?;
            wait_until(seconds(20), "it is mounted", || volume.mount(host).map(|()| true))?;
            assert_eq!(counted(&volume, host)?, (1, 1), "round {round}");
            cluster[host].run(format!("echo {round} >{}", volume.file("a")))?;
            volume.unmount(host)?;
            // At once: umount has waited for it.
            assert_eq!(counted(&volume, host)?, (0, 0), "round {round}");
            let left = cluster[host].run("ls -A /run/mooring/mounts")?.stdout;
            assert_eq!(left, "", "round {round}");
            let clients = cluster.json(seen_from, "leases home")?;
            assert!(clients.as_array().unwrap().is_empty(), "round {round}: {clients}");
        }
        Ok(())
    });
}

/// A page of a file that is mapped and not open: what is written into it goes to the mount when the mapping ends, and
/// nobody waits until it is stored.
struct MappedPage(*mut c_void);

impl MappedPage {
    fn of(volume: &Volume, host: usize) -> Result<Self> {
        let path = volume.cluster()[host].path(volume.file("a"))?;
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(path).unwrap();
        file.set_len(4096).unwrap();
        let (both, kind) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping, of a page that the file has.
        let page = unsafe { mmap(std::ptr::null_mut(), 4096, both, kind, &file, 0) }.unwrap();
        let this = Self(page);
        this.write(b"first");
        // SAFETY: it is the mapping of above.
        unsafe { msync(page, 4096, MsyncFlags::SYNC) }.unwrap();
        file.sync_all().unwrap();
        Ok(this)
    }

    fn write(&self, text: &[u8]) {
        // SAFETY: the page is mapped for writing, and nobody else in this process knows of it.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), self.0.cast(), text.len()) }
    }

    /// Writes, and is gone.
    fn write_and_unmap(self, text: &[u8]) {
        self.write(text);
        let began = Instant::now();
        // SAFETY: it is not used any more.
        unsafe { munmap(self.0, 4096) }.unwrap();
        assert!(began.elapsed() < seconds(1), "the mount has not taken it: {:?}", began.elapsed());
    }
}

#[test]
fn umount_waits_as_long_as_it_takes_until_everything_is_stored() {
    on_cluster(3, |cluster| {
        let (volume, coordinator, other) = shared_volume(cluster)?;
        volume.mount(coordinator)?;
        let page = MappedPage::of(&volume, coordinator)?;
        let others: Vec<usize> = (1..=3).filter(|host| *host != coordinator).collect();
        for host in &others {
            cluster[*host].kill_mountd()?;
        }
        page.write_and_unmap(b"second");
        let began = Instant::now();
        let unmount = cluster[coordinator].spawn("mountctl umount home")?;
        // Longer than any process gave a volume that did not answer.
        std::thread::sleep(seconds(12));
        assert!(unmount.is_running(), "nothing can be stored: {}", unmount.printed());
        assert_eq!(counted(&volume, coordinator)?, (0, 1));
        for host in &others {
            cluster[*host].restart_mountd()?;
        }
        unmount.succeed(seconds(30))?;
        println!("umount took {:?}, 12 s of which nothing could be stored", began.elapsed());
        volume.mount(other)?;
        let read = cluster[other].run(format!("head -c 6 {}", volume.file("a")))?.stdout;
        assert_eq!(read, "second");
        Ok(())
    });
}

#[test]
fn umount_says_what_is_lost_with_a_session_that_is_over() {
    on_cluster(3, |cluster| {
        let (volume, coordinator, host) = shared_volume(cluster)?;
        volume.mount(host)?;
        let page = MappedPage::of(&volume, host)?;
        cluster[host].cut_cable()?;
        page.write_and_unmap(b"second");
        let unmount = cluster[host].spawn("mountctl umount home")?;
        // The others end its session meanwhile.
        wait_until(seconds(20), "its session is over", || {
            Ok(cluster.json(coordinator, "leases home")?.as_array().unwrap().is_empty())
        })?;
        assert!(unmount.is_running(), "nothing can be stored: {}", unmount.printed());
        cluster[host].plug_cable()?;
        let said = unmount.finish(seconds(30))?;
        assert!(!said.succeeded() && said.stderr.contains("lost"), "{said:?}");
        assert_eq!(cluster.events(host, "mount-lost-data")?.len(), 1);
        assert_eq!(counted(&volume, host)?, (0, 0));
        Ok(())
    });
}

#[test]
fn signal_that_ends_a_mount_leaves_alone_what_lies_over_it() {
    on_cluster(3, |cluster| {
        let (volume, _, host) = shared_volume(cluster)?;
        volume.mount(host)?;
        let (node, directory) = (&cluster[host], volume.directory());
        node.run(format!("mount -t tmpfs over {directory} && echo mine >{directory}/theirs"))?;
        assert!(volume.unmount(host).is_err(), "it would unmount somebody else's");
        node.run(r#"kill -TERM $(sed -n 's/.*"pid":\([0-9]*\).*/\1/p' /run/mooring/mounts/*)"#)?;
        wait_until(seconds(20), "its process has ended", || Ok(counted(&volume, host)?.1 == 0))?;
        assert_eq!(node.run(format!("cat {directory}/theirs"))?.stdout, "mine\n");
        // What lay under it gives errors, so it goes as soon as it can be seen.
        node.run(format!("umount {directory}"))?;
        wait_until(seconds(10), "nothing dead is left", || Ok(counted(&volume, host)?.0 == 0))?;
        volume.mount(host)
    });
}

#[test]
fn what_each_mount_does_is_told_on_every_host() {
    on_cluster(3, |cluster| {
        let (volume, coordinator, host) = shared_volume(cluster)?;
        let asked = cluster.other_than(&[coordinator, host]);
        volume.mount(coordinator)?;
        let directory = volume.directory();
        cluster.ctl(host, &format!("mount home {directory} -o soft=20s,nodev"))?;
        cluster[host].run(format!("head -c 100000 /dev/zero >{}", volume.file("a")))?;
        cluster[coordinator].run(format!("echo x >>{}", volume.file("a")))?;
        wait_until(seconds(10), "it is told", || {
            let clients = cluster.json(asked, "leases home")?;
            let of =
                clients.as_array().unwrap().iter().find(|one| one["node"] == format!("host{host}"));
            let mount = &of.unwrap()["mount"];
            assert_eq!(mount["dir"], directory.as_str(), "{clients}");
            assert_eq!(mount["options"][0], "soft=20s", "{clients}");
            Ok(mount["written_bytes"] == 100_000
                && mount["dirty_bytes"] == 0
                && mount["operations"]["create"] == 1
                && mount["recalls"].as_u64() > Some(0))
        })?;
        let said = cluster.ctl(asked, "leases home --statistics")?.stdout;
        assert!(said.contains("written 97.7 KiB") && said.contains("create 1"), "{said}");
        // The host that is not asked is left out, and holds nobody up.
        cluster[host].kill_mountd()?;
        let clients = cluster.json(asked, "leases home")?;
        let of =
            clients.as_array().unwrap().iter().find(|one| one["node"] == format!("host{host}"));
        assert!(of.unwrap()["mount"].is_null(), "{clients}");
        cluster[host].restart_mountd()?;
        let client = of.unwrap()["client"].as_u64().unwrap();
        cluster.ctl(asked, &format!("evict home {client}"))?;
        assert_eq!(cluster.events(asked, "mount-evicted")?.len(), 1);
        Ok(())
    });
}
