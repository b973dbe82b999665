//! `mountctl cluster ...`

use mooring_api::{Client, CreateToken, JoinCluster, Membership, Secret, SetVoters};

use crate::cli::{ClusterCommand, TokenSource};
use crate::failure::Failure;
use crate::output::Output;
use crate::run::token_in;

/// Does one of the commands.
///
/// # Errors
/// [`Failure`]: why it wasn't done.
pub async fn run(client: &Client, output: &Output, command: ClusterCommand) -> Result<(), Failure> {
    match command {
        ClusterCommand::Create => {
            let membership = client.create_cluster().await?;
            output.answer(&membership, |membership, _| membership_text(membership, "created"))
        }
        ClusterCommand::Token { ttl, uses } => {
            let token = client.create_token(&CreateToken { ttl, uses }).await?;
            output.answer(&token, |token, _| token.token.reveal().to_owned())?;
            output.note(&format!(
                "for {} until {}; on a node that is to join, with this token in a file:\n  \
                 mountctl cluster join {} --token-file FILE",
                if uses == 1 { "one node".to_owned() } else { format!("{uses} nodes") },
                token.expires_at,
                token.address
            ));
            Ok(())
        }
        ClusterCommand::Voters { count } => {
            let membership = client.set_voters(SetVoters { voters: count }).await?;
            output.answer(&membership, |membership, _| voters_text(membership))
        }
        ClusterCommand::Ca => {
            let membership = client.cluster().await?;
            output.answer(&membership, |membership, _| {
                membership.ca_certificate.trim_end().to_owned()
            })
        }
        ClusterCommand::Join { address, source } => {
            let token = read_token(source)?;
            let membership = client.join_cluster(&JoinCluster { address, token }).await?;
            output.answer(&membership, |membership, _| membership_text(membership, "joined"))
        }
    }
}

fn membership_text(membership: &Membership, verb: &str) -> String {
    let Membership { cluster, node, changed, .. } = membership;
    match changed {
        true => format!("{verb} cluster {cluster}; this node is {node}"),
        false => format!("nothing to do: this node is {node} of cluster {cluster} already"),
    }
}

fn read_token(source: TokenSource) -> Result<Secret, Failure> {
    match source {
        TokenSource { token: Some(token), .. } => Ok(Secret::new(token.trim())),
        TokenSource { token_file, .. } => {
            token_in(token_file.expect("clap demands one of the two"))
        }
    }
}

fn voters_text(membership: &Membership) -> String {
    let voters: Vec<String> = membership.voters.iter().map(ToString::to_string).collect();
    match voters.len() {
        1 => format!("{} alone votes", voters[0]),
        count => format!("{count} nodes vote: {}", voters.join(", ")),
    }
}
