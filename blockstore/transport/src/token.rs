//! Join tokens: what a person carries from the cluster to a new node.
//!
//! ```text
//!   mooring-AZ3k...      base64url of  version (1) | secret (32) | authority's fingerprint (32) | check (4)
//! ```
//! The secret proves to the cluster that the node was asked for; the fingerprint proves to the node
//! that it talks to that cluster. The check finds typing errors before anything is sent.
//!
//! Invariants: the secret is wiped when dropped, compared in constant time, stored only as a hash,
//! and never shown by `Debug`.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::{constant_time, digest, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::fingerprint::Fingerprint;

const PREFIX: &str = "mooring-";
const VERSION: u8 = 1;
const SECRET_BYTES: usize = 32;
const CHECK_BYTES: usize = 4;
const TOKEN_BYTES: usize = 1 + SECRET_BYTES + 32 + CHECK_BYTES;

/// A join token: 256 random bits and the fingerprint of the cluster's authority.
#[derive(Clone)]
pub struct Token {
    secret: Zeroizing<[u8; SECRET_BYTES]>,
    authority: Fingerprint,
}

/// What the cluster stores of a token: SHA-256 of its secret. With 256 random bits, no salt or
/// slow hash adds anything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenHash([u8; 32]);

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Not even the beginning fits.
    #[error("a join token begins with `{PREFIX}`; get one with `mountctl cluster token`")]
    Prefix,
    /// A character that can't be in a token.
    #[error("the join token has a character that does not belong there")]
    Character,
    /// Cut off, or too much was copied.
    #[error("the join token is incomplete or too long: copy the whole line")]
    Length,
    /// Made by a newer version.
    #[error("the join token has version {0}, which this version does not know")]
    Version(u8),
    /// Characters were changed.
    #[error("the join token has a typing error")]
    Check,
    /// The secret that came with a request is not 32 bytes.
    #[error("a token's secret is 32 bytes")]
    Secret,
    /// The system has no randomness to give.
    #[error("no random numbers to make a token of")]
    Random,
}

impl Token {
    /// A new token for the cluster whose authority has this fingerprint.
    ///
    /// # Errors
    /// [`TokenError::Random`].
    pub fn generate(authority: Fingerprint) -> Result<Self, TokenError> {
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        rand::fill(secret.as_mut_slice()).map_err(|_| TokenError::Random)?;
        Ok(Self { secret, authority })
    }

    /// The line that people copy. Whoever has it can join.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(TOKEN_BYTES));
        bytes.push(VERSION);
        bytes.extend_from_slice(self.secret.as_slice());
        bytes.extend_from_slice(self.authority.as_bytes());
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes.as_slice())))
    }

    /// The secret alone: what a request to join carries.
    #[must_use]
    pub fn secret(&self) -> &[u8; SECRET_BYTES] {
        &self.secret
    }

    /// The fingerprint of the authority of the cluster to join.
    #[must_use]
    pub fn authority(&self) -> Fingerprint {
        self.authority
    }

    /// What the cluster stores.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(self.secret())
    }
}

impl TokenHash {
    fn of(secret: &[u8; SECRET_BYTES]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, secret).as_ref());
        Self(bytes)
    }

    /// The hash of a secret that came with a request to join.
    ///
    /// # Errors
    /// [`TokenError::Secret`].
    pub fn of_secret(secret: &[u8]) -> Result<Self, TokenError> {
        secret.try_into().map(Self::of).map_err(|_| TokenError::Secret)
    }

    /// The 32 bytes, for the table that holds them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether the two are the same, in constant time.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let allowed = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        if !body.bytes().all(allowed) {
            return Err(TokenError::Character);
        }
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError::Length)?);
        let bytes: &[u8; TOKEN_BYTES] =
            bytes.as_slice().try_into().map_err(|_| TokenError::Length)?;
        let (content, sum) = bytes.split_at(TOKEN_BYTES - CHECK_BYTES);
        if check(content) != sum {
            return Err(TokenError::Check);
        }
        if content[0] != VERSION {
            return Err(TokenError::Version(content[0]));
        }
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        secret.copy_from_slice(&content[1..1 + SECRET_BYTES]);
        let mut authority = [0; 32];
        authority.copy_from_slice(&content[1 + SECRET_BYTES..]);
        Ok(Self { secret, authority: Fingerprint::from_bytes(authority) })
    }
}

/// The first bytes of the content's SHA-256.
fn check(content: &[u8]) -> [u8; CHECK_BYTES] {
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&digest::digest(&digest::SHA256, content).as_ref()[..CHECK_BYTES]);
    check
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(of authority {:?})", self.authority)
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash({})", hex::encode(&self.0[..4]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token::generate(Fingerprint::from_bytes([9; 32])).unwrap()
    }

    #[test]
    fn a_token_survives_being_copied() {
        let token = token();
        let line = format!("  {}\n", *token.reveal());
        let again: Token = line.parse().unwrap();
        assert!(again.hash().matches(&token.hash()));
        assert_eq!(again.authority(), token.authority());
        assert!(TokenHash::of_secret(again.secret()).unwrap().matches(&token.hash()));
    }

    #[test]
    fn tokens_differ() {
        assert!(!token().hash().matches(&token().hash()));
    }

    #[test]
    fn what_is_wrong_with_a_text_is_said() {
        let text = token().reveal();
        let parse = |text: &str| text.parse::<Token>().unwrap_err();
        assert_eq!(parse("swmtkn-1"), TokenError::Prefix);
        assert_eq!(parse(""), TokenError::Prefix);
        assert_eq!(parse("mooring-"), TokenError::Length);
        assert_eq!(parse(&text[..text.len() - 1]), TokenError::Length);
        assert_eq!(parse(&text[..text.len() - 4]), TokenError::Length);
        assert_eq!(parse(&format!("{}AAAA", *text)), TokenError::Length);
        assert_eq!(parse("mooring-ab cd"), TokenError::Character);
        let wrong = if text.as_bytes()[30] == b'A' { "B" } else { "A" };
        assert_eq!(parse(&format!("{}{wrong}{}", &text[..30], &text[31..])), TokenError::Check);
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let token = token();
        let text = format!("{token:?}");
        let secret = hex::encode(token.secret());
        assert!(!text.contains(&secret[..8]) && !text.contains(&token.reveal()[..20]), "{text}");
    }
}
