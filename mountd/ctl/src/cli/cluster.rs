//! `mountctl cluster ...`

use clap::Subcommand;
use mooring_api::{Span, VoterTarget};

use super::{TokenSource, VOTERS, word};

/// What to do with the cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Make a cluster of this node alone; others join it
    Create,
    /// Print a token with which nodes can join
    #[command(after_help = "Example:\n  mountctl cluster token --ttl 10m >token\n\n\
        The token is shown once: the cluster keeps only its hash.")]
    Token {
        /// How long it can be used
        #[arg(long, value_name = "TIME", default_value = "1h")]
        ttl: Span,
        /// How many nodes can join with it
        #[arg(long, value_name = "N", default_value_t = 1)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,
    },
    /// Say how many nodes vote on the configuration, and wait until they do
    #[command(after_help = "Example:\n  mountctl cluster voters 3\n\n\
        With three, any one may be lost. With one, nothing can be changed and nothing fails over \n\
        when that one is lost. auto means three as soon as there are three nodes.")]
    Voters {
        /// How many
        #[arg(value_parser = word::<VoterTarget>(VOTERS))]
        count: VoterTarget,
    },
    /// Print the certificate of the cluster's authority: what --ca takes
    Ca,
    /// Make this node part of the cluster that the node at ADDR belongs to
    #[command(after_help = "Example:\n  mountctl cluster join 10.0.0.1:7700 --token-file token")]
    Join {
        /// A node of the cluster, IP:PORT or HOST:PORT
        #[arg(value_name = "ADDR")]
        address: String,
        /// Where the token is.
        #[command(flatten)]
        source: TokenSource,
    },
}
