//! `mountctl token ...`

use clap::Subcommand;
use mooring_api::{Rights, Span, TokenName};

use super::{RIGHTS, word};

/// What to do with tokens of the API.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Print a token for the API over the network
    #[command(
        after_help = "Example:\n  mountctl token create ci --rights operate --ttl 30d >token\n\
        \n  mountctl cluster ca >ca.pem\n  \
        mountctl --host 10.0.0.1:7700 --token-file token --ca ca.pem status\n\n\
        Rights: read sees everything; operate changes what needs no force; force may do all that \n\
        root can on a node. A node answers over the network if its configuration says api_tcp = true.\n\
        The token is shown once: the cluster keeps only its hash."
    )]
    Create {
        /// The name under which its user appears in events
        name: TokenName,
        /// What it may do
        #[arg(long, default_value = "read", value_parser = word::<Rights>(RIGHTS))]
        rights: Rights,
        /// How long it can be used
        #[arg(long, value_name = "TIME", default_value = "90d")]
        ttl: Span,
        /// Let it be used until it is ended
        #[arg(long, conflicts_with = "ttl")]
        for_ever: bool,
    },
    /// List tokens, without their secrets
    Ls,
    /// End a token, at once and everywhere
    Rm {
        /// Which
        name: TokenName,
    },
}
