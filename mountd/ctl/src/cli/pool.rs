//! `mountctl pool ...`

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Subcommand;
use mooring_api::{ByteSize, Class, PoolId};

use super::{CLASSES, word};

/// A pool as people name it: by number, or by its path on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolRef {
    /// Its number.
    Id(PoolId),
    /// Its directory or device on this node.
    Path(PathBuf),
}

impl FromStr for PoolRef {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.parse().map_or_else(|_| Self::Path(text.into()), Self::Id))
    }
}

/// What to do with pools.
#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// Add a directory or block device of this node; its speed is measured unless a class is given
    #[command(after_help = "Examples:\n  mountctl pool add /var/lib/pool --size 100G\n  \
        mountctl pool add /dev/nvme1n1 --class high")]
    Add {
        /// A directory (made if missing) or a block device
        path: PathBuf,
        /// How much it may hold [default: all there is]
        #[arg(long)]
        size: Option<ByteSize>,
        /// How fast it is [default: measured, in about 2 s]
        #[arg(long, value_parser = word::<Class>(CLASSES))]
        class: Option<Class>,
        /// Even if the device holds a file system or partitions, which are lost
        #[arg(long)]
        force: bool,
    },
    /// List the pools of all nodes
    Ls,
    /// Show one pool
    Inspect {
        /// Its number (see: pool ls), or its path on this node
        pool: PoolRef,
    },
    /// Move a pool's replicas elsewhere, then remove it
    Rm {
        /// Its number (see: pool ls), or its path on this node
        pool: PoolRef,
        /// At once; its replicas are lost, and made anew elsewhere
        #[arg(long)]
        force: bool,
        /// Don't wait until it is empty
        #[arg(long)]
        no_wait: bool,
    },
}
