//! A cluster: `mountd` on every host, set up as the README says, and asked through `mountctl`.

use std::ops::Index;
use std::time::Duration;

use serde_json::Value;

use super::failure::{Failure, Result};
use super::host::Host;
use super::process::Output;
use super::set::{Hosts, on_hosts};
use super::volume::Volume;
use super::{seconds, wait_until};

/// How long a cluster may take to come together, a pool to be opened, a configuration to settle.
const SETTLE_LIMIT: Duration = seconds(60);

/// What a host's daemon is started with, beside the way into the cluster.
pub const POOL: &str = "/var/lib/mooring/pool,size=3G,class=high";

/// Hosts with a daemon each, that form one cluster.
#[derive(Debug)]
pub struct Cluster<'a> {
    hosts: &'a Hosts,
}

/// Makes a cluster of `count` hosts with a pool of 3 GiB each, and gives it to `test`.
///
/// # Panics
/// If `test` fails, or the cluster can't be made.
pub fn on_cluster(count: usize, test: impl FnOnce(&Cluster) -> Result<()>) {
    on_hosts(count, |hosts| {
        let cluster = Cluster::start(hosts, |_| vec!["--pool".into(), POOL.into()])?;
        test(&cluster)
    });
}

impl<'a> Cluster<'a> {
    /// Hosts whose daemons a test starts by itself.
    pub fn of(hosts: &'a Hosts) -> Self {
        Self { hosts }
    }

    /// Starts a daemon on every host, the first one creating the cluster and the others joining it.
    /// `arguments` says what else each is started with.
    ///
    /// # Errors
    /// A daemon ends, or the cluster isn't whole within a minute.
    pub fn start(hosts: &'a Hosts, arguments: impl Fn(&Host) -> Vec<String>) -> Result<Self> {
        let cluster = Self { hosts };
        let others = hosts.count() - 1;
        for host in hosts.iter() {
            let mut told = arguments(host);
            if host.number() == 1 {
                told.push("--create".into());
            } else {
                let (join, file) = (format!("{}:7700", hosts[1].address()), "/run/token");
                told.extend(["--join".into(), join, "--token-file".into(), file.into()]);
            }
            let told: Vec<&str> = told.iter().map(String::as_str).collect();
            host.mountd(&told)?;
            if host.number() == 1 && others > 0 {
                cluster.hand_out_token(others)?;
            }
        }
        let pools = hosts.iter().filter(|host| arguments(host).contains(&"--pool".into())).count();
        cluster.wait_until_whole(hosts.count(), pools)?;
        Ok(cluster)
    }

    fn hand_out_token(&self, uses: usize) -> Result<()> {
        let token = format!("cluster token --ttl 10m --uses {uses}");
        let mut output = None;
        wait_until(SETTLE_LIMIT, "the first node gives a token", || {
            output = Some(self.ctl(1, &token)?);
            Ok(true)
        })?;
        let token = output.map(|output| output.stdout).unwrap_or_default();
        for host in self.hosts.iter().skip(1) {
            host.run(format!("umask 077; echo '{}' >/run/token", token.trim()))?;
        }
        Ok(())
    }

    /// Waits until the first `nodes` hosts know each other, and so many pools, and those that vote.
    ///
    /// # Errors
    /// [`Failure::Timeout`] with what the last of them said.
    pub fn wait_until_whole(&self, nodes: usize, pools: usize) -> Result<()> {
        let voters = if nodes >= 3 { 3 } else { 1 };
        let what = format!("{nodes} nodes, {pools} pools and {voters} voters are known to all");
        wait_until(SETTLE_LIMIT, &what, || {
            for host in 1..=nodes {
                let status = self.json(host, "status")?;
                let counts = &status["cluster"]["counts"];
                let voting = status["cluster"]["voters"].as_array().map_or(0, Vec::len);
                if counts["nodes_up"] != nodes || counts["pools_ok"] != pools || voting < voters {
                    return Err(Failure::Wrong(format!("host{host}: {status}")));
                }
            }
            Ok(true)
        })
    }

    /// The hosts.
    pub fn hosts(&self) -> &'a Hosts {
        self.hosts
    }

    /// How many hosts there are.
    pub fn count(&self) -> usize {
        self.hosts.count()
    }

    /// Runs `mountctl ARGUMENTS` on a host.
    ///
    /// # Errors
    /// It refuses or fails; the message has what it printed.
    pub fn ctl(&self, host: usize, arguments: &str) -> Result<Output> {
        self.hosts[host].run(format!("mountctl {arguments}"))
    }

    /// The same, with the answer as the API gives it.
    ///
    /// # Errors
    /// Also if the answer is no JSON.
    pub fn json(&self, host: usize, arguments: &str) -> Result<Value> {
        let output = self.ctl(host, &format!("--json {arguments}"))?;
        serde_json::from_str(&output.stdout).map_err(|error| Failure::Unreadable {
            what: format!("mountctl --json {arguments}"),
            because: format!("{error}: {}", output.stdout),
        })
    }

    /// Creates a volume as `mountctl volume create` is told, from host 1: `db --size 1G`; and waits
    /// until every node has heard of it.
    ///
    /// # Errors
    /// As [`Cluster::ctl`].
    pub fn create(&self, told: &str) -> Result<Volume<'_>> {
        self.ctl(1, &format!("volume create {told}"))?;
        let volume = Volume::new(self, told.split(' ').next().unwrap_or_default());
        for host in self.hosts.iter().filter(|host| host.mountd_is_running()) {
            wait_until(SETTLE_LIMIT, &format!("{} knows the volume", host.name()), || {
                volume.inspect(host.number()).map(|_| true)
            })?;
        }
        Ok(volume)
    }

    /// The host that leads the configuration, as another host sees it.
    ///
    /// # Errors
    /// There is none, or `seen_from` can't tell.
    pub fn leader(&self, seen_from: usize) -> Result<usize> {
        let status = self.json(seen_from, "status")?;
        host_number(&status["cluster"]["leader"])
    }

    /// A host that is none of these.
    pub fn other_than(&self, hosts: &[usize]) -> usize {
        (1..=self.count()).find(|host| !hosts.contains(host)).expect("there are more hosts")
    }

    /// The events of one kind that a host has seen since its daemon was started, oldest first.
    ///
    /// # Errors
    /// As [`Cluster::json`].
    pub fn events(&self, host: usize, kind: &str) -> Result<Vec<Value>> {
        let output = self.ctl(host, "--json events")?;
        let mut found = Vec::new();
        for value in serde_json::Deserializer::from_str(&output.stdout).into_iter::<Value>() {
            let value = value.map_err(|error| Failure::Unreadable {
                what: "mountctl --json events".into(),
                because: format!("{error}: {}", output.stdout),
            })?;
            let listed = value.as_array().or_else(|| value["events"].as_array()).cloned();
            found.extend(listed.unwrap_or_else(|| vec![value]));
        }
        found.retain(|event| event["kind"] == kind);
        Ok(found)
    }

    /// The pools of a host, as another sees them.
    ///
    /// # Errors
    /// As [`Cluster::json`].
    pub fn pools_of(&self, host: usize, seen_from: usize) -> Result<Vec<Value>> {
        let pools = self.json(seen_from, "pool ls")?;
        let mut pools = pools.as_array().cloned().unwrap_or_default();
        pools.retain(|pool| pool["node"] == format!("host{host}"));
        Ok(pools)
    }

    /// Waits until every replica of every volume is in sync, as `mountctl status` has it.
    ///
    /// # Errors
    /// [`Failure::Timeout`] with the last status.
    pub fn wait_until_healthy(&self, seen_from: usize) -> Result<()> {
        wait_until(SETTLE_LIMIT, "the cluster is healthy", || {
            let status = self.json(seen_from, "status")?;
            if status["health"] == "ok" {
                Ok(true)
            } else {
                Err(Failure::Wrong(status.to_string()))
            }
        })
    }
}

impl Index<usize> for Cluster<'_> {
    type Output = Host;

    fn index(&self, number: usize) -> &Host {
        &self.hosts[number]
    }
}

/// The number of the host that a node is named after: 2 of `"host2"`.
pub(super) fn host_number(node: &Value) -> Result<usize> {
    let number = node.as_str().and_then(|name| name.strip_prefix("host")?.parse().ok());
    number.ok_or_else(|| Failure::Wrong(format!("{node} is no host")))
}
