//! `mountctl token ...`

use mooring_api::{Client, CreateAccessToken};

use crate::cli::TokenCommand;
use crate::failure::Failure;
use crate::output::Output;
use crate::render;

/// Does one of the commands.
///
/// # Errors
/// [`Failure`]: why it wasn't done.
pub async fn run(client: &Client, output: &Output, command: TokenCommand) -> Result<(), Failure> {
    match command {
        TokenCommand::Create { name, rights, ttl, for_ever } => {
            let ttl = (!for_ever).then_some(ttl);
            let made = client.create_access_token(&CreateAccessToken { name, rights, ttl }).await?;
            output.answer(&made, |made, _| made.token.reveal().to_owned())?;
            let until = made.listed.expires_at.map_or_else(
                || "until it is ended".to_owned(),
                |expires| format!("until {expires}"),
            );
            let rights = render::word(&made.listed.rights);
            output.note(&format!(
                "{} may {rights} {until}; with this token in a file, and `mountctl cluster ca` in another:\n  \
                 mountctl --host HOST:PORT --token-file FILE --ca FILE status",
                made.listed.name
            ));
            Ok(())
        }
        TokenCommand::Ls => output
            .answer(&client.access_tokens().await?, |tokens, look| render::tokens(tokens, look)),
        TokenCommand::Rm { name } => {
            client.revoke_access_token(&name).await?;
            output.note(&format!("the token {name} is over"));
            Ok(())
        }
    }
}
