//! The daemon's configuration: one file, overridden by flags.
//!
//! Every field has a default; `deploy/mountd.toml` shows them all, and a test holds it against this
//! file. `validate` returns every fault at once, so that nobody mends a file one error at a time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mooring_device::nbd::NbdTls;
use mooring_transport::Unprotected;
use serde::{Deserialize, Serialize};

/// What `mountd run` goes by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The address other nodes reach this one at: one port, TCP and UDP.
    pub listen: SocketAddr,
    /// The node's name in the cluster; the host's name if empty.
    pub name: String,
    /// Where the node keeps its identity and the cluster's configuration.
    pub data: PathBuf,
    /// Where sockets, device files and private mounts live while the daemon runs.
    pub run: PathBuf,
    /// The socket of the HTTP API; `RUN/mountd.sock` if empty.
    pub socket: PathBuf,
    /// Whether the HTTP API answers over the network too: on the port of `listen`, over TLS, to whoever
    /// shows a token (`mountctl token create`) or the certificate of a node.
    pub api_tcp: bool,
    /// Storage that this node gives to the cluster. None makes it a client of the others.
    pub pools: Vec<PoolConfig>,
    /// Labels of this node: zone, rack, region and any of your own.
    pub labels: BTreeMap<String, String>,
    /// Timing of leases and elections.
    pub timing: Timing,
    /// Bounds on memory.
    pub memory: Memory,
    /// How data travels between nodes.
    pub transport: Transport,
    /// NBD over TCP.
    pub nbd: NbdConfig,
    /// How log lines look: `text` or `json`.
    pub log_format: LogFormat,
    /// What is logged, in the syntax of tracing's `EnvFilter`: `info`, `blockstore=debug,info`. Raft's
    /// library says a lot, and again and again while a node is away: it is left out by default.
    pub log: String,
}

/// One pool of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// A directory, or a whole block device.
    pub path: PathBuf,
    /// Its size in bytes; all that is free there if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// `high`, `medium` or `low`; measured when the pool is added if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
}

/// Timing of leases and elections, in milliseconds. The same on all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timing {
    /// Time between two beacons of a pair of nodes.
    pub beacon_ms: u64,
    /// A primary that has no answer for this long stops serving.
    pub lease_ms: u64,
    /// A secondary that has heard nothing for this long asks to be primary. Longer than the lease.
    pub grace_ms: u64,
    /// Time between two signs of life of the Raft leader.
    pub heartbeat_ms: u64,
    /// A follower asks for votes when it has heard nothing for `election_max_ms` plus a time between
    /// this and `election_max_ms`: with the defaults 0.8 to 1 s.
    pub election_min_ms: u64,
    /// See `election_min_ms`.
    pub election_max_ms: u64,
    /// After a power cut of all replicas: how long the first to return waits for the others.
    pub restart_wait_ms: u64,
}

/// Bounds on memory, in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Memory {
    /// Map leaves and overlays of one pool.
    pub pool_mib: u64,
    /// Unacknowledged writes of one slice.
    pub window_mib: u64,
}

/// How data travels between nodes. What decides (Raft, requests, beacons) always goes over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Transport {
    /// `tls`, or `zeromq`, which neither authenticates nor encrypts.
    pub kind: TransportKind,
    /// Whether data may come over ZeroMQ at all. True where the network itself is trusted and
    /// encrypted, and only there: whoever reaches the port can read and write every volume.
    pub unprotected: bool,
}

/// What data is sent over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    /// TLS, both sides authenticated.
    Tls,
    /// ZeroMQ, unprotected.
    Zeromq,
}

/// NBD over TCP, for the volumes of this node that are attached with the backend nbd; over their unix
/// sockets it needs no configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NbdConfig {
    /// `IP:PORT` to listen on; none if empty. 10809 is NBD's own port.
    pub listen: String,
    /// The server's certificate, a PEM file.
    pub certificate: PathBuf,
    /// Its key, a PEM file.
    pub key: PathBuf,
    /// The authorities whose certificates let a client in, a PEM file.
    pub authority: PathBuf,
    /// No TLS: whoever reaches the address reads and writes every volume that is served there.
    pub plain: bool,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What reading it said.
        source: std::io::Error,
    },
    /// The file is no configuration.
    #[error("{} is no configuration of mountd: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// The values don't fit each other.
    #[error("the configuration has {} fault(s):\n  - {}", .0.len(), .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  - "))]
    Faults(Vec<Fault>),
}

/// One fault in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nobody could reach the node.
    #[error(
        "listen = \"{0}\" is no address that other nodes can reach: give this machine's own, such as 192.168.1.10:7700"
    )]
    ListenUnspecified(SocketAddr),
    /// A secondary could take over while the primary still serves.
    #[error("timing: grace_ms ({grace}) must be greater than lease_ms ({lease})")]
    GraceWithinLease {
        /// grace_ms
        grace: u64,
        /// lease_ms
        lease: u64,
    },
    /// A single lost beacon would end a lease.
    #[error("timing: lease_ms ({lease}) must be at least three beacons ({beacon} ms each)")]
    LeaseTooShort {
        /// lease_ms
        lease: u64,
        /// beacon_ms
        beacon: u64,
    },
    /// The range is empty.
    #[error("timing: election_max_ms ({max}) must be greater than election_min_ms ({min})")]
    ElectionRange {
        /// election_min_ms
        min: u64,
        /// election_max_ms
        max: u64,
    },
    /// Nothing goes unprotected by accident.
    #[error(
        "transport: kind = \"zeromq\" neither authenticates nor encrypts: whoever reaches the port can read and write every volume. Where the network is trusted and encrypted, say so with unprotected = true"
    )]
    Unprotected,
    /// Not in this build.
    #[error("transport: this mountd was built without the feature \"zeromq\"")]
    NoZeromq,
    /// A zero where something is needed.
    #[error("{0} must not be 0")]
    Zero(&'static str),
    /// A pool too small to hold anything.
    #[error("pool {}: a size of {size} bytes is too small, a pool needs at least 1 GiB", path.display())]
    PoolTooSmall {
        /// The pool.
        path: PathBuf,
        /// The size given.
        size: u64,
    },
    /// NBD has no such address.
    #[error("nbd: listen = \"{0}\" is no IP:PORT")]
    NbdListen(String),
    /// NBD over TCP without any protection, that nobody asked for.
    #[error(
        "nbd: over TCP anybody could read and write the volumes: give certificate, key and authority; or plain = true, on a network where that is wanted"
    )]
    NbdUnprotected,
    /// NBD with and without TLS.
    #[error("nbd: plain = true and a certificate, key or authority: one of them is meant")]
    NbdPlainAndTls,
    /// The same path twice.
    #[error("pool {} is named twice", .0.display())]
    PoolTwice(PathBuf),
    /// No such class.
    #[error("pool {}: class \"{class}\" is none of high, medium, low", path.display())]
    PoolClass {
        /// The pool.
        path: PathBuf,
        /// The class given.
        class: String,
    },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7700)),
            name: String::new(),
            data: PathBuf::from("/var/lib/mooring"),
            run: PathBuf::from("/run/mooring"),
            socket: PathBuf::new(),
            api_tcp: false,
            pools: Vec::new(),
            labels: BTreeMap::new(),
            timing: Timing::default(),
            memory: Memory::default(),
            transport: Transport::default(),
            nbd: NbdConfig::default(),
            log_format: LogFormat::Text,
            log: "info,openraft=off".to_owned(),
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            beacon_ms: 200,
            lease_ms: 1200,
            grace_ms: 1800,
            heartbeat_ms: 130,
            election_min_ms: 300,
            election_max_ms: 500,
            restart_wait_ms: 30_000,
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self { pool_mib: 64, window_mib: 16 }
    }
}

impl Default for Transport {
    fn default() -> Self {
        Self { kind: TransportKind::Tls, unprotected: false }
    }
}

/// The smallest pool: a few segments, so that reclaim always has room to work in.
const POOL_MIN_BYTES: u64 = 1 << 30;

impl Config {
    /// Reads a configuration file; absent fields have their defaults.
    ///
    /// # Errors
    /// [`ConfigError::Read`] or [`ConfigError::Parse`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }

    /// The socket of the API.
    #[must_use]
    pub fn api_socket(&self) -> PathBuf {
        if self.socket.as_os_str().is_empty() {
            self.run.join("mountd.sock")
        } else {
            self.socket.clone()
        }
    }

    /// Checks everything, and names every fault.
    ///
    /// # Errors
    /// [`ConfigError::Faults`] with all of them.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut faults = Vec::new();
        if self.listen.ip().is_unspecified() {
            faults.push(Fault::ListenUnspecified(self.listen));
        }
        self.timing.validate(&mut faults);
        self.transport.validate(&mut faults);
        self.nbd.validate(&mut faults);
        for (name, value) in [
            ("memory.pool_mib", self.memory.pool_mib),
            ("memory.window_mib", self.memory.window_mib),
        ] {
            if value == 0 {
                faults.push(Fault::Zero(name));
            }
        }
        for (i, pool) in self.pools.iter().enumerate() {
            pool.validate(&mut faults);
            if self.pools[..i].iter().any(|other| other.path == pool.path) {
                faults.push(Fault::PoolTwice(pool.path.clone()));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(ConfigError::Faults(faults)) }
    }
}

impl Timing {
    fn validate(&self, faults: &mut Vec<Fault>) {
        for (name, value) in [
            ("timing.beacon_ms", self.beacon_ms),
            ("timing.heartbeat_ms", self.heartbeat_ms),
            ("timing.election_min_ms", self.election_min_ms),
            ("timing.restart_wait_ms", self.restart_wait_ms),
        ] {
            if value == 0 {
                faults.push(Fault::Zero(name));
            }
        }
        if self.grace_ms <= self.lease_ms {
            faults.push(Fault::GraceWithinLease { grace: self.grace_ms, lease: self.lease_ms });
        }
        if self.lease_ms < 3 * self.beacon_ms {
            faults.push(Fault::LeaseTooShort { lease: self.lease_ms, beacon: self.beacon_ms });
        }
        if self.election_max_ms <= self.election_min_ms {
            faults.push(Fault::ElectionRange {
                min: self.election_min_ms,
                max: self.election_max_ms,
            });
        }
    }

    /// `lease_ms` as a duration.
    #[must_use]
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// `grace_ms` as a duration.
    #[must_use]
    pub fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }

    /// `beacon_ms` as a duration.
    #[must_use]
    pub fn beacon(&self) -> Duration {
        Duration::from_millis(self.beacon_ms)
    }

    /// `restart_wait_ms` as a duration.
    #[must_use]
    pub fn restart_wait(&self) -> Duration {
        Duration::from_millis(self.restart_wait_ms)
    }
}

impl Transport {
    fn validate(self, faults: &mut Vec<Fault>) {
        if self.kind == TransportKind::Zeromq && !self.unprotected {
            faults.push(Fault::Unprotected);
        }
        if self.unprotected && !cfg!(feature = "zeromq") {
            faults.push(Fault::NoZeromq);
        }
    }

    /// The same in the transport's terms.
    #[must_use]
    pub fn unprotected(self) -> Unprotected {
        #[cfg(feature = "zeromq")]
        match self {
            Self { unprotected: false, .. } => {}
            Self { kind: TransportKind::Tls, .. } => return Unprotected::Accepted,
            Self { kind: TransportKind::Zeromq, .. } => return Unprotected::Data,
        }
        Unprotected::Refused
    }
}

impl NbdConfig {
    fn validate(&self, faults: &mut Vec<Fault>) {
        if self.listen.is_empty() {
            return;
        }
        if self.address().is_none() {
            faults.push(Fault::NbdListen(self.listen.clone()));
        }
        let files = [&self.certificate, &self.key, &self.authority];
        let given = files.iter().filter(|file| !file.as_os_str().is_empty()).count();
        if self.plain && given > 0 {
            faults.push(Fault::NbdPlainAndTls);
        } else if !self.plain && given < files.len() {
            faults.push(Fault::NbdUnprotected);
        }
    }

    /// Where to listen.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.listen.parse().ok()
    }

    /// The files that TLS takes.
    #[must_use]
    pub fn tls(&self) -> NbdTls {
        NbdTls {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            authority: self.authority.clone(),
        }
    }
}

impl PoolConfig {
    fn validate(&self, faults: &mut Vec<Fault>) {
        if let Some(size) = self.size
            && size < POOL_MIN_BYTES
        {
            faults.push(Fault::PoolTooSmall { path: self.path.clone(), size });
        }
        if let Some(class) = &self.class
            && !["high", "medium", "low"].contains(&class.as_str())
        {
            faults.push(Fault::PoolClass { path: self.path.clone(), class: class.clone() });
        }
    }
}

#[cfg(test)]
mod tests;
