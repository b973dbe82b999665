//! `mountctl token ls`

use mooring_api::AccessToken;

use super::{Look, finish, table, word};

/// Every token, a line each.
pub fn tokens(tokens: &[AccessToken], look: Look) -> String {
    let mut table = table(look, &["NAME", "RIGHTS", "UNTIL"]);
    for token in tokens {
        let until = match (token.expires_at, token.expired) {
            (None, _) => "it is ended".to_owned(),
            (Some(at), true) => format!("{at}: over"),
            (Some(at), false) => at.to_string(),
        };
        table.add_row(vec![token.name.to_string(), word(&token.rights), until]);
    }
    finish(table)
}
