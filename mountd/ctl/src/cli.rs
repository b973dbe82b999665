//! The commands, as clap understands them. What each does is in [`crate::run`].

mod cluster;
mod device;
mod node;
mod pool;
mod token;
mod volume;

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};
use clap_complete::Shell;
use mooring_api::{Span, VolumeName};
use serde::de::DeserializeOwned;

pub use cluster::ClusterCommand;
pub use device::{AttachArgs, DetachArgs, EventsArgs, MountArgs, UmountArgs};
pub use node::NodeCommand;
pub use pool::{PoolCommand, PoolRef};
pub use token::TokenCommand;
pub use volume::{CreateArgs, Setting, VolumeCommand};

const AFTER_HELP: &str = "\
Examples:
  mountctl cluster create                  the first node
  mountctl cluster token                   there: a token for the next one
  mountctl cluster join 10.0.0.1:7700 --token-file T    on each other node
  mountctl pool add /var/lib/pool --size 100G
  mountctl volume create db --size 10G --replicas 3
  mountctl mount db /srv/db
  mountctl status                          what is wrong, why, and what to do
  mountctl --host 10.0.0.1:7700 --token-file T --ca ca.pem volume ls    from anywhere

Environment:
  MOORING_SOCKET      the daemon's socket; https://HOST:PORT as --host does; or tcp://HOST:PORT
                      (a tunnel to the socket on this machine)
  MOORING_TOKEN       the token that is sent there, or
  MOORING_TOKEN_FILE  a file with it
  MOORING_CA          a file with the certificate of the cluster's authority
  NO_COLOR            no colour at a terminal either

In fstab:   db  /srv/db  mooring  _netdev  0 0

Exit codes:
  0  done                            5  unavailable: no daemon, no quorum, no answer
  1  failed                          6  no space
  2  wrong call or request           7  data corrupt, no good copy at hand
  3  not found                       8  not permitted
  4  refused: in use, exists, fenced";

/// Replicated volumes: clusters, pools, volumes, mounts.
#[derive(Debug, Parser)]
#[command(name = "mountctl", version, after_help = AFTER_HELP, max_term_width = 100)]
#[command(arg_required_else_help = true)]
pub struct Cli {
    /// The daemon's socket [default: /run/mooring/mountd.sock]
    #[arg(long, global = true, value_name = "PATH", help_heading = GLOBAL)]
    pub socket: Option<String>,

    /// Ask the node at this address over the network, in place of this machine's daemon
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "socket", help_heading = NETWORK)]
    pub host: Option<String>,

    /// A file with the token to show there (see: token create); - for stdin
    #[arg(long, value_name = "FILE", help_heading = NETWORK)]
    pub token_file: Option<PathBuf>,

    /// The certificate of that cluster's authority (see: cluster ca)
    #[arg(long, value_name = "FILE", help_heading = NETWORK)]
    pub ca: Option<PathBuf>,

    /// How long to wait for each answer, such as 5s [default: as the request needs]
    #[arg(long, global = true, value_name = "TIME", help_heading = GLOBAL)]
    pub timeout: Option<Span>,

    /// Print JSON, as the API gives it; errors too, on stderr
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const GLOBAL: &str = "Options of every command";
const NETWORK: &str = "Over the network (before the command)";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Health in one line, then why, then what to do
    ///
    /// Ends with 0 if the cluster is ok or degraded, with 5 if it is down.
    Status,
    /// Make a cluster, let nodes into it, join one
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Make, list and end tokens with which this API is used over the network
    #[command(subcommand)]
    Token(TokenCommand),
    /// List, inspect, label, drain and remove nodes
    #[command(subcommand)]
    Node(NodeCommand),
    /// Add, list, inspect and remove pools, in which replicas lie
    #[command(subcommand)]
    Pool(PoolCommand),
    /// Create, list, inspect, grow, change and remove volumes
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Make a volume a block device of this node; prints its path
    Attach(AttachArgs),
    /// End an attachment
    Detach(DetachArgs),
    /// Mount a volume on this node; formats it the first time
    Mount(MountArgs),
    /// Unmount a volume, a directory, or everything on this node
    Umount(UmountArgs),
    /// Who has a shared volume mounted, and what each holds: files, leases, locks
    Leases {
        /// Which volume
        volume: VolumeName,
        /// Also what each mount has done: requests by kind, bytes, recalls, errors
        #[arg(long)]
        statistics: bool,
    },
    /// End a client's mount of a shared volume: it gives errors from then on
    #[command(after_help = "Example:\n  mountctl leases home\n  mountctl evict home 7")]
    Evict {
        /// Which volume
        volume: VolumeName,
        /// Which client, as `leases` numbers them
        client: u64,
    },
    /// Check the structure of a shared volume, in use or not
    ///
    /// Ends with 0 if it is sound, with 7 if it is damaged.
    Fsck {
        /// Which volume
        volume: VolumeName,
    },
    /// What happened, as this node saw it
    Events(EventsArgs),
    /// Say what stands in a file of a pool: superblock, checkpoint or segment; needs no daemon
    #[command(after_help = "Example:\n  mountctl decode /var/lib/pool/segment.00000000")]
    Decode {
        /// A file of a pool, not in use or in use
        file: PathBuf,
    },
    /// Print the completion script of a shell
    #[command(after_help = "Examples:\n  \
        mountctl completion bash >/usr/share/bash-completion/completions/mountctl\n  \
        source <(mountctl completion zsh)")]
    Completion {
        /// Which shell.
        #[arg(value_parser = PossibleValuesParser::new(["bash", "zsh", "fish"])
            .map(|name| name.parse::<Shell>().expect("clap_complete has these shells")))]
        shell: Shell,
    },
}

/// Takes one of `words`, each the JSON word of a `T`.
fn word<T>(words: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: DeserializeOwned + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(words)
        .map(|word| serde_json::from_value(word.into()).expect("a test tries every word"))
}

/// The words of [`mooring_api::Class`].
const CLASSES: &[&str] = &["high", "medium", "low"];
/// The words of [`mooring_api::Rights`].
const RIGHTS: &[&str] = &["read", "operate", "force"];
/// The words of [`mooring_api::VoterTarget`].
const VOTERS: &[&str] = &["1", "3", "auto"];
/// The words of [`mooring_api::FileSystem`].
const FILE_SYSTEMS: &[&str] = &["ext4", "xfs", "raw"];
/// The words of [`mooring_api::Backend`].
const BACKENDS: &[&str] = &["ublk", "nbd", "loop", "nbd-socket"];

/// Where a joining node gets its token from.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct TokenSource {
    /// The token itself; others on this machine can see it while the command runs
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// A file with the token; - for stdin
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

#[cfg(test)]
mod tests;
