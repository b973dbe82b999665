//! A set of hosts: all of a test's, made together and gone together.

use std::env;
use std::fs;
use std::ops::Index;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use tempfile::TempDir;

use super::failure::{Failure, Result};
use super::host::Host;
use super::network::Network;
use super::{loops, machine, sweep};

/// How much of each daemon's log a failed test shows.
const LINES_SHOWN: usize = 60;

/// Hosts on one switch, counted from 1. Dropping them ends everything that runs in them.
#[derive(Debug)]
pub struct Hosts {
    // Dropped in this order: hosts, then their switch, then their files.
    hosts: Vec<Host>,
    network: Arc<Network>,
    directory: TempDir,
}

/// Makes `count` hosts, gives them to `test`, and panics with its failure. While they still stand, the
/// ends of the daemons' logs are printed and all of the logs are kept.
///
/// # Panics
/// If `test` fails, or the hosts can't be made.
pub fn on_hosts(count: usize, test: impl FnOnce(&Hosts) -> Result<()>) {
    let hosts = Hosts::up(count).unwrap_or_else(|failure| panic!("{failure}"));
    if let Err(failure) = test(&hosts) {
        panic!("{failure}");
    }
}

impl Hosts {
    /// Makes `count` hosts and boots them; at most 99.
    ///
    /// # Errors
    /// [`Failure::Machine`] with all that this machine lacks, or what went wrong.
    pub fn up(count: usize) -> Result<Self> {
        assert!((1..=99).contains(&count), "1 to 99 hosts");
        let directory = tempfile::Builder::new()
            .prefix(sweep::HOSTS_PREFIX)
            .tempdir()
            .map_err(Failure::io("a directory for the hosts"))?;
        sweep::claim(directory.path())?;
        Self::boot_all(count, directory).map_err(|failure| match machine::missing() {
            missing if missing.is_empty() => failure,
            missing => Failure::Machine { missing },
        })
    }

    fn boot_all(count: usize, directory: TempDir) -> Result<Self> {
        let network = Arc::new(Network::start(directory.path())?);
        let mut all = Self { hosts: Vec::new(), network, directory };
        for number in 1..=count {
            let files = all.directory.path().join(number.to_string());
            all.hosts.push(Host::new(number, files, Arc::clone(&all.network))?);
            all[number].boot()?;
        }
        Ok(all)
    }

    /// All of them, the first one first.
    pub fn iter(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter()
    }

    /// How many there are, on or off.
    pub fn count(&self) -> usize {
        self.hosts.len()
    }

    /// The set's directory on the machine; `N/` in it is host N's.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Parts two hosts: nothing passes between them, either way; both still reach all others.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn partition(&self, one: usize, other: usize) -> Result<()> {
        let pair = (one.min(other), one.max(other));
        self.network.part(pair, &self.running(pair))
    }

    /// Joins two hosts that were parted.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn heal(&self, one: usize, other: usize) -> Result<()> {
        let pair = (one.min(other), one.max(other));
        self.network.heal(pair, &self.running(pair))
    }

    fn running(&self, (one, other): (usize, usize)) -> Vec<(usize, i32)> {
        let on = |host: usize| Some((host, self[host].init().ok()?));
        [one, other].into_iter().filter_map(on).collect()
    }

    /// Takes the power of all hosts, one right after the other.
    ///
    /// # Errors
    /// The first that [`Host::power_cut`] has; the others are cut all the same.
    pub fn power_cut_all(&self) -> Result<()> {
        let cuts: Vec<_> = thread::scope(|scope| {
            let cuts: Vec<_> =
                self.hosts.iter().map(|host| scope.spawn(|| host.power_cut())).collect();
            cuts.into_iter().map(|cut| cut.join()).collect()
        });
        cuts.into_iter().try_for_each(|cut| {
            cut.unwrap_or_else(|_| Err(Failure::Wrong("a power cut panicked".into())))
        })
    }

    /// Prints the end of each daemon's log, and keeps all of the logs where the path printed says.
    fn show_logs(&self) {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/host-logs");
        let test = thread::current().name().unwrap_or("test").replace("::", ".");
        for host in &self.hosts {
            let lines = host.last_lines(LINES_SHOWN);
            if lines.is_empty() {
                continue;
            }
            let name = format!("{test}.host{}.mountd.log", host.number());
            let copied = fs::create_dir_all(&kept)
                .and_then(|()| fs::copy(host.mountd_log(), kept.join(&name)));
            let path = kept.canonicalize().unwrap_or_else(|_| kept.clone()).join(name);
            eprintln!("\n---- host{}: the last lines of mountd's log", host.number());
            eprintln!("{lines}");
            match copied {
                Ok(_) => eprintln!("---- all of it: {}", path.display()),
                Err(error) => eprintln!("---- it could not be kept: {error}"),
            }
        }
    }
}

impl Index<usize> for Hosts {
    type Output = Host;

    /// Host `number`: 1 is the first.
    fn index(&self, number: usize) -> &Host {
        assert!(number >= 1, "hosts are counted from 1");
        &self.hosts[number - 1]
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let failed = thread::panicking();
        if failed {
            self.show_logs();
        }
        let mut left = Vec::new();
        if let Err(failure) = self.power_cut_all() {
            left.push(failure.to_string());
        }
        if let Err(failure) = loops::detach_in_directory(self.directory.path()) {
            left.push(failure.to_string());
        }
        if left.is_empty() {
            return;
        }
        // What can't be cleaned up is a failure of its own, but a second panic would hide the first.
        let left = left.join("\n");
        assert!(failed, "hosts left something behind: {left}");
        eprintln!("hosts left something behind: {left}");
    }
}

/// Where sets of hosts are made: `TMPDIR`, or /tmp.
pub(super) fn scratch() -> PathBuf {
    env::temp_dir()
}
