//! The command line of `mountd`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use mooring_api::ByteSize;
use mooring_terms::VolumeId;

use crate::config::{Config, ConfigError, PoolConfig};

/// The daemon of a Mooring node: replicated volumes for containers.
#[derive(Debug, Parser)]
#[command(name = "mountd", version, max_term_width = 100)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What `mountd` can do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Run the daemon in the foreground.
    ///
    /// A node that belongs to a cluster needs no flags but those that differ from the
    /// configuration; --create and --join do nothing there.
    #[command(after_help = "\
Examples:
  mountd run --create --listen 10.0.0.1:7700 --pool /srv/mooring
  mountd run --join 10.0.0.1:7700 --token-file /root/token --listen 10.0.0.2:7700 --pool /dev/sdb
  mountd run --listen 10.0.0.2:7700 --pool /srv/a,size=100G,class=high --label zone=east")]
    Run(Box<RunArguments>),
    /// Keep the devices of a daemon that was stopped or killed (started by the daemon itself).
    #[command(hide = true)]
    Holder {
        /// Where to listen.
        socket: PathBuf,
    },
    /// Serve one mount of a shared volume (started by the daemon itself).
    #[command(hide = true)]
    Mount(MountArguments),
}

/// Flags of `mountd mount`.
#[derive(Debug, Args)]
pub struct MountArguments {
    /// The daemon's socket for links.
    #[arg(long)]
    pub door: PathBuf,
    /// The volume's number.
    #[arg(long)]
    pub volume: u64,
    /// And name.
    #[arg(long)]
    pub name: String,
    /// Where to mount it: an existing directory.
    #[arg(long)]
    pub dir: PathBuf,
    /// How: ro, soft, soft=TIME, squash, nosuid, nodev, noexec, noatime.
    #[arg(long, value_delimiter = ',')]
    pub options: Vec<String>,
    /// How long the volume's I/O waits, in milliseconds, if not for ever.
    #[arg(long)]
    pub io_timeout_ms: Option<u64>,
    /// A descriptor that gets one line: `ok`, or `error: ` and why.
    #[arg(long)]
    pub ready_fd: i32,
    /// The file in which it says who it is.
    #[arg(long)]
    pub status: PathBuf,
}

impl MountArguments {
    /// The volume's number.
    #[must_use]
    pub fn volume(&self) -> VolumeId {
        VolumeId(self.volume)
    }
}

/// Flags of `mountd run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// The configuration file; what it doesn't say has its default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the node keeps its identity and the cluster's configuration.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where sockets, device files and private mounts live.
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// The address other nodes reach this one at; one port, TCP and UDP.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// Answer the HTTP API over the network too, to whoever shows a token.
    #[arg(long)]
    api_tcp: bool,
    /// The node's name in the cluster; the host's name by default.
    #[arg(long)]
    name: Option<String>,
    /// Storage to give to the cluster: a directory or a whole block device.
    #[arg(long = "pool", value_name = "PATH[,size=S][,class=C]", value_parser = parse_pool)]
    pools: Vec<PoolConfig>,
    /// Labels of the node: zone, rack, region or any of your own.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Create a cluster of this node alone, if it belongs to none.
    #[arg(long, conflicts_with = "join")]
    create: bool,
    /// Join the cluster of the node at this address, if this one belongs to none.
    #[arg(long, value_name = "ADDR", requires = "token_file")]
    join: Option<String>,
    /// A file that holds the token to join with.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// What the daemon does at its start beside going on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The node's name, if it has none yet.
    pub name: String,
    /// How to get into a cluster, if it belongs to none.
    pub entry: Entry,
}

/// How to get into a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Wait for `mountctl cluster create` or `join`.
    Wait,
    /// Create one.
    Create,
    /// Join one.
    Join {
        /// A node that belongs to it.
        address: String,
        /// A file with the token.
        token_file: PathBuf,
    },
}

impl RunArguments {
    /// The configuration with the flags applied, validated.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn resolve(self) -> Result<(Config, Start), ConfigError> {
        let mut config = match &self.config {
            Some(path) => Config::load(path)?,
            None => Config::default(),
        };
        if let Some(data) = self.data {
            config.data = data;
        }
        if let Some(run) = self.run {
            config.run = run;
        }
        if let Some(listen) = self.listen {
            config.listen = listen;
        }
        config.api_tcp |= self.api_tcp;
        for pool in self.pools {
            config.pools.retain(|other| other.path != pool.path);
            config.pools.push(pool);
        }
        config.labels.extend(self.labels);
        if let Some(name) = self.name {
            config.name = name;
        }
        config.validate()?;
        let name = if config.name.is_empty() { host_name() } else { config.name.clone() };
        let entry = match (self.create, self.join, self.token_file) {
            (true, _, _) => Entry::Create,
            (_, Some(address), Some(token_file)) => Entry::Join { address, token_file },
            _ => Entry::Wait,
        };
        Ok((config, Start { name, entry }))
    }
}

/// The host's name, as far as a node's name may look like it.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim().to_lowercase();
    let first = name.split('.').next().unwrap_or_default();
    let name: String =
        first.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "node".to_owned() } else { name.to_owned() }
}

fn parse_pool(text: &str) -> Result<PoolConfig, String> {
    let mut parts = text.split(',');
    let path = parts.next().unwrap_or_default();
    if !path.starts_with('/') {
        return Err(format!("{path:?} is not an absolute path"));
    }
    let mut pool = PoolConfig { path: path.into(), size: None, class: None };
    for part in parts {
        match part.split_once('=') {
            Some(("size", size)) => {
                let size: ByteSize = size.parse().map_err(|error| format!("size: {error}"))?;
                pool.size = Some(size.bytes());
            }
            Some(("class", class)) => pool.class = Some(class.to_owned()),
            _ => return Err(format!("{part:?} is neither size=S nor class=C")),
        }
    }
    Ok(pool)
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(flags: &[&str]) -> Result<(Config, Start), ConfigError> {
        let all = ["mountd", "run"].iter().chain(flags).copied();
        match Arguments::try_parse_from(all).expect("the flags are known").action {
            Action::Run(arguments) => arguments.resolve(),
            Action::Holder { .. } | Action::Mount(_) => unreachable!("it was told to run"),
        }
    }

    #[test]
    fn flags_override_the_configuration() {
        let (config, start) = run(&[
            "--listen",
            "10.0.0.1:7700",
            "--pool",
            "/srv/a,size=2G,class=high",
            "--pool",
            "/dev/sdb",
            "--label",
            "zone=east",
            "--name",
            "alpha",
            "--create",
        ])
        .expect("it is valid");
        assert_eq!(config.listen.to_string(), "10.0.0.1:7700");
        assert_eq!(config.pools[0].size, Some(2 << 30));
        assert_eq!(config.pools[0].class.as_deref(), Some("high"));
        assert_eq!(config.pools[1].path, PathBuf::from("/dev/sdb"));
        assert_eq!(config.labels["zone"], "east");
        assert_eq!(start, Start { name: "alpha".into(), entry: Entry::Create });
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for flags in [
            ["--pool", "relative/path"],
            ["--pool", "/srv/a,colour=red"],
            ["--label", "zone"],
            ["--join", "10.0.0.1:7700"],
        ] {
            let all = ["mountd", "run"].iter().chain(&flags);
            assert!(Arguments::try_parse_from(all).is_err(), "{flags:?}");
        }
    }

    #[test]
    fn the_host_gives_a_name_that_a_node_may_have() {
        let name = host_name();
        assert!(!name.is_empty() && name.len() <= 63 && !name.starts_with('-'), "{name}");
    }
}
