//! A volume under test: made, mounted, looked at, and judged at the end.

use std::time::Duration;

use serde_json::Value;

use super::cluster::{Cluster, host_number};
use super::failure::{Failure, Result};
use super::fsck::FileSystem;
use super::load::Load;
use super::{Fio, seconds, wait_until};

/// How long a volume may take to be made whole again, once nothing is in its way.
const RESYNC_LIMIT: Duration = seconds(60);

/// A volume of a cluster.
#[derive(Debug, Clone)]
pub struct Volume<'a> {
    cluster: &'a Cluster<'a>,
    name: String,
}

impl<'a> Volume<'a> {
    pub(super) fn new(cluster: &'a Cluster<'a>, name: &str) -> Self {
        Self { cluster, name: name.into() }
    }

    /// The cluster it is in.
    pub fn cluster(&self) -> &'a Cluster<'a> {
        self.cluster
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where [`Volume::mount`] mounts it.
    pub fn directory(&self) -> String {
        format!("/mnt/{}", self.name)
    }

    /// A file in that directory.
    pub fn file(&self, name: &str) -> String {
        format!("/mnt/{}/{name}", self.name)
    }

    // -- in use ----------------------------------------------------------------------------------

    /// Mounts it on a host; its file system is made the first time.
    ///
    /// # Errors
    /// `mountctl` refuses.
    pub fn mount(&self, host: usize) -> Result<()> {
        let (name, directory) = (&self.name, self.directory());
        self.cluster.ctl(host, &format!("mount {name} {directory}")).map(drop)
    }

    /// Unmounts it there, which detaches it.
    ///
    /// # Errors
    /// `mountctl` refuses.
    pub fn unmount(&self, host: usize) -> Result<()> {
        self.cluster.ctl(host, &format!("umount {}", self.name)).map(drop)
    }

    /// Makes it a block device of a host, and gives the device.
    ///
    /// # Errors
    /// `mountctl` refuses.
    pub fn attach(&self, host: usize) -> Result<String> {
        let output = self.cluster.ctl(host, &format!("attach {}", self.name))?;
        Ok(output.stdout.trim().to_owned())
    }

    /// Ends that.
    ///
    /// # Errors
    /// `mountctl` refuses.
    pub fn detach(&self, host: usize) -> Result<()> {
        self.cluster.ctl(host, &format!("detach {}", self.name)).map(drop)
    }

    /// Removes it, with its data.
    ///
    /// # Errors
    /// `mountctl` refuses.
    pub fn remove(&self) -> Result<()> {
        self.cluster.ctl(1, &format!("volume rm {}", self.name)).map(drop)
    }

    /// Puts it under load where it is mounted, for so many seconds.
    ///
    /// # Errors
    /// As [`Load::start`].
    pub fn load(&self, host: usize, duration_s: u64) -> Result<Load> {
        Load::start(&self.cluster[host], &self.directory(), duration_s)
    }

    // -- as seen by a node -----------------------------------------------------------------------

    /// All that `mountctl volume inspect` tells on a host.
    ///
    /// # Errors
    /// As [`Cluster::json`].
    pub fn inspect(&self, seen_from: usize) -> Result<Value> {
        self.cluster.json(seen_from, &format!("volume inspect {}", self.name))
    }

    /// The host whose replica orders the writes.
    ///
    /// # Errors
    /// As [`Cluster::json`].
    pub fn primary(&self, seen_from: usize) -> Result<usize> {
        host_number(&self.inspect(seen_from)?["slices"][0]["primary"])
    }

    /// The hosts with a replica in sync.
    ///
    /// # Errors
    /// As [`Cluster::json`].
    pub fn in_sync(&self, seen_from: usize) -> Result<Vec<usize>> {
        let inspected = self.inspect(seen_from)?;
        let replicas = inspected["slices"][0]["replicas"].as_array().cloned().unwrap_or_default();
        let level = |role: &Value| role == "primary" || role == "secondary";
        let nodes = replicas.iter().filter(|one| level(&one["role"]));
        nodes.map(|one| host_number(&one["node"])).collect()
    }

    /// Waits until so many replicas are in sync.
    ///
    /// # Errors
    /// [`Failure::Timeout`] with what the volume was last like.
    pub fn wait_in_sync(&self, count: usize, seen_from: usize) -> Result<()> {
        let what = format!("{count} replicas of {} are in sync", self.name);
        wait_until(RESYNC_LIMIT, &what, || {
            if self.in_sync(seen_from)?.len() == count {
                return Ok(true);
            }
            Err(Failure::Wrong(self.inspect(seen_from)?["slices"].to_string()))
        })
    }

    /// Waits until the replica of a host orders the writes.
    ///
    /// # Errors
    /// [`Failure::Timeout`].
    pub fn wait_for_primary(&self, host: usize, seen_from: usize) -> Result<()> {
        let what = format!("host{host} has the primary of {}", self.name);
        wait_until(seconds(15), &what, || match self.primary(seen_from)? {
            found if found == host => Ok(true),
            found => Err(Failure::Wrong(format!("host{found} has it"))),
        })
    }

    // -- judged ----------------------------------------------------------------------------------

    /// Attaches it, not mounted, to a host and has the file system's own checker look at it.
    ///
    /// # Errors
    /// What the checker found.
    pub fn check(&self, kind: FileSystem, host: usize) -> Result<()> {
        let device = self.attach(host)?;
        self.cluster[host].check_file_system(kind, &device)?;
        self.detach(host)
    }

    /// After a fault on an ext4 volume with three replicas, not mounted now: once all are in sync again,
    /// the file system is clean, and each of the hosts reads back, from its own replica, all that `job`
    /// wrote.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn is_whole_everywhere(&self, job: &Fio, seen_from: usize) -> Result<()> {
        self.wait_in_sync(3, seen_from)?;
        self.check(FileSystem::Ext4, seen_from)?;
        for host in 1..=3 {
            self.mount(host)?;
            self.wait_for_primary(host, host)?;
            let report = self.cluster[host].verify_again(job)?;
            if report.error != 0 || report.verified == 0 {
                return Err(Failure::Wrong(format!("read back on host{host}: {report:?}")));
            }
            self.unmount(host)?;
        }
        Ok(())
    }
}
