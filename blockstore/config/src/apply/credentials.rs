//! Tokens and keys.

use super::{What, check_name};
use crate::{
    Actor, ApiToken, ClusterState, Done, GossipKey, JoinToken, Refused, Response, Rights,
    TokenHash, UnixMillis, WrappedKey,
};

impl ClusterState {
    pub(super) fn create_join_token(
        &mut self,
        by: &Actor,
        hash: TokenHash,
        expires: UnixMillis,
        uses: u32,
    ) -> Response {
        if uses == 0 || expires <= self.now {
            return Err(Refused::TokenUseless);
        }
        let now = self.now;
        self.join_tokens.retain(|_, token| token.expires > now);
        self.join_tokens.insert(hash, JoinToken { expires, uses_left: uses });
        self.record(by, What::Credential { which: format!("join token for {uses} nodes made") });
        Ok(Done::Ok)
    }

    pub(super) fn revoke_join_token(&mut self, by: &Actor, hash: TokenHash) -> Response {
        self.join_tokens.remove(&hash).ok_or(Refused::NoToken)?;
        self.record(by, What::Credential { which: "join token ended".to_owned() });
        Ok(Done::Ok)
    }

    pub(super) fn create_api_token(
        &mut self,
        by: &Actor,
        hash: TokenHash,
        name: &str,
        rights: Rights,
        expires: Option<UnixMillis>,
    ) -> Response {
        check_name(name)?;
        let token = ApiToken { name: name.to_owned(), rights, expires };
        if self.api_tokens.get(&hash) == Some(&token) {
            return Ok(Done::Ok);
        }
        if self.api_tokens.values().any(|token| token.name == name) {
            return Err(Refused::TokenNameTaken { name: name.to_owned() });
        }
        let now = self.now;
        self.api_tokens.retain(|_, token| token.expires.is_none_or(|expires| expires > now));
        self.api_tokens.insert(hash, token);
        self.record(by, What::Credential { which: format!("API token {name} made") });
        Ok(Done::Ok)
    }

    pub(super) fn revoke_api_token(&mut self, by: &Actor, name: &str) -> Response {
        let before = self.api_tokens.len();
        self.api_tokens.retain(|_, token| token.name != name);
        if self.api_tokens.len() == before {
            return Err(Refused::NoToken);
        }
        self.record(by, What::Credential { which: format!("API token {name} ended") });
        Ok(Done::Ok)
    }

    pub(super) fn set_ca_key(&mut self, by: &Actor, key: &WrappedKey) -> Response {
        self.ca_key = key.clone();
        self.record(by, What::Credential { which: "CA key wrapped anew".to_owned() });
        Ok(Done::Ok)
    }

    pub(super) fn rotate_gossip_key(&mut self, by: &Actor, bytes: [u8; 32]) -> Response {
        self.add_gossip_key(bytes);
        self.record(by, What::Credential { which: "gossip key rotated".to_owned() });
        Ok(Done::Ok)
    }

    /// Adds a gossip key; the one before stays in the ring for nodes that hear of this late.
    pub(super) fn add_gossip_key(&mut self, bytes: [u8; 32]) {
        let id = self.gossip_keys.last().map_or(1, |key| key.id + 1);
        self.gossip_keys.push(GossipKey { id, bytes });
        if self.gossip_keys.len() > 2 {
            self.gossip_keys.remove(0);
        }
    }
}
