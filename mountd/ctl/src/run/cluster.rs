//! `mountctl cluster ...`

use std::io::Read;

use mooring_api::{Client, CreateToken, JoinCluster, Membership, Secret};

use crate::cli::{ClusterCommand, TokenSource};
use crate::failure::Failure;
use crate::output::Output;

/// The largest token file that is read: a token is far smaller, a wrong file may be endless.
const TOKEN_FILE_LIMIT: u64 = 64 << 10;

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
    let path = match source {
        TokenSource { token: Some(token), .. } => return Ok(Secret::new(token.trim())),
        TokenSource { token_file, .. } => token_file.expect("clap demands one of the two"),
    };
    let mut text = String::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().take(TOKEN_FILE_LIMIT).read_to_string(&mut text),
        false => std::fs::File::open(&path)
            .and_then(|file| file.take(TOKEN_FILE_LIMIT).read_to_string(&mut text)),
    };
    if let Err(source) = read {
        return Err(Failure::TokenFile { path, source });
    }
    match text.trim() {
        "" => Err(Failure::NoToken { path }),
        token => Ok(Secret::new(token)),
    }
}
