//! What each command does.
//!
//! One file a subject; here is the one `match` that leads to them. Every function checks first and
//! changes after, so that a refusal leaves the state as it was.

mod attachments;
mod credentials;
mod nodes;
mod pools;
mod replicas;
mod volumes;

use std::sync::Arc;

use crate::{
    Actor, ChangeReason, ClusterState, Command, Done, Event, Refused, Response, UnixMillis, What,
};

/// The most changes of slices in one command: more come in several commands.
pub const MAX_BATCH: usize = 16_384;
/// How many events are kept.
pub const MAX_EVENTS: usize = 1_024;
/// How many names a refusal lists.
const NAMES_LISTED: usize = 5;
/// The full check of all invariants is run after each command of a debug build only while it is
/// cheap; the simulator and the tests of large states call it themselves.
const CHECKED_VOLUMES: usize = 64;

impl ClusterState {
    /// Applies one command on behalf of `by`. The date moves forward to `at`, never back.
    ///
    /// # Errors
    /// [`Refused`]; the state is then as it was, but for its date.
    pub fn apply(&mut self, at: UnixMillis, by: &Actor, command: &Command) -> Response {
        self.now = self.now.max(at);
        if self.identity.is_none() && !matches!(command, Command::Create(_)) {
            return Err(Refused::NotCreated);
        }
        let answer = self.dispatch(by, command);
        if cfg!(debug_assertions) && self.volumes.len() <= CHECKED_VOLUMES {
            self.check_invariants();
        }
        answer
    }

    fn dispatch(&mut self, by: &Actor, command: &Command) -> Response {
        match command {
            Command::Create(genesis) => self.create(by, genesis),
            Command::AdmitNode(admission) => self.admit_node(by, admission),
            Command::NodeStarted { node, boot, addresses, version, still_held } => {
                self.node_started(by, *node, *boot, addresses, *version, still_held)
            }
            Command::LabelNode { node, labels } => self.label_node(by, *node, labels),
            Command::SetRole { node, role } => self.set_role(*node, *role),
            Command::DrainNode { node, drain } => self.drain_node(by, *node, *drain),
            Command::RemoveNode { node, gone, force, gossip_key } => {
                self.remove_node(by, *node, *gone, *force, *gossip_key)
            }
            Command::SetVoters(count) => {
                self.voters = *count;
                Ok(Done::Ok)
            }
            Command::RaiseVersion(version) => self.raise_version(by, *version),
            Command::CreateJoinToken { hash, expires, uses } => {
                self.create_join_token(by, *hash, *expires, *uses)
            }
            Command::RevokeJoinToken { hash } => self.revoke_join_token(by, *hash),
            Command::CreateApiToken { hash, name, rights, expires } => {
                self.create_api_token(by, *hash, name, *rights, *expires)
            }
            Command::RevokeApiToken { name } => self.revoke_api_token(by, name),
            Command::SetCaKey(key) => self.set_ca_key(by, key),
            Command::RotateGossipKey(bytes) => self.rotate_gossip_key(by, *bytes),
            Command::AddPool { node, path, size, class, measured, incarnation } => {
                self.add_pool(by, *node, path, *size, (*class, *measured), *incarnation)
            }
            Command::PoolOpened { pool, incarnation, size } => {
                self.pool_opened(by, *pool, *incarnation, *size)
            }
            Command::SetPoolClass { pool, class, measured } => {
                self.set_pool_class(*pool, *class, *measured)
            }
            Command::PoolFailed { pool, incarnation, reason } => {
                self.pool_failed(by, *pool, *incarnation, reason)
            }
            Command::DrainPool { pool, drain } => self.drain_pool(by, *pool, *drain),
            Command::RemovePool { pool, force } => self.remove_pool(by, *pool, *force),
            Command::CreateVolume { name, request, spec, placement } => {
                self.create_volume(by, name, request, spec, placement)
            }
            Command::RemoveVolume { volume, force } => self.remove_volume(by, *volume, *force),
            Command::ResizeVolume { volume, size, placement } => {
                self.resize_volume(by, *volume, *size, placement)
            }
            Command::SetVolume { volume, settings } => self.set_volume(by, *volume, settings),
            Command::VolumeFormatted { volume, epoch } => self.volume_formatted(*volume, *epoch),
            Command::ChangeSlices { changes, gone } => self.change_slices(by, changes, gone),
            Command::AssignReplicas(assignments) => self.assign_replicas(by, assignments),
            Command::RemoveReplicas(removals) => self.remove_replicas(by, removals),
            Command::AcceptLoss { volume, from, gone, force } => {
                self.accept_loss(by, *volume, *from, gone, *force)
            }
            Command::Attach { volume, node, boot, mode, holder_gone, force } => {
                self.attach(by, *volume, (*node, *boot), *mode, *holder_gone, *force)
            }
            Command::Detach { volume, epoch, node, force } => {
                self.detach(by, *volume, *epoch, *node, *force)
            }
        }
    }

    /// Adds an event to the ring.
    fn record(&mut self, by: &Actor, what: What) {
        let event = Event { number: self.next_event, at: self.now, by: by.clone(), what };
        self.next_event += 1;
        self.events.push_back(Arc::new(event));
        if self.events.len() > MAX_EVENTS {
            self.events.pop_front();
        }
    }
}

/// Checks a name: a DNS label.
///
/// # Errors
/// [`Refused::BadName`].
fn check_name(name: &str) -> Result<(), Refused> {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let good = (1..=63).contains(&name.len())
        && name.bytes().all(|byte| letter(byte) || byte == b'-')
        && name.bytes().next().is_some_and(letter)
        && name.bytes().last().is_some_and(letter);
    if good { Ok(()) } else { Err(Refused::BadName { name: name.to_owned() }) }
}

/// Checks a label's key and value.
///
/// # Errors
/// [`Refused::BadLabel`].
fn check_label(key: &str, value: Option<&str>) -> Result<(), Refused> {
    let good = (1..=63).contains(&key.len())
        && value.is_none_or(|value| value.len() <= 255)
        && !key.chars().any(|c| c.is_control() || c == '=');
    if good { Ok(()) } else { Err(Refused::BadLabel { key: key.to_owned() }) }
}

/// Adds `name` to a list of examples, unless it is full or has it.
fn list_name(names: &mut Vec<String>, name: &str) {
    if names.len() < NAMES_LISTED && names.last().is_none_or(|last| last != name) {
        names.push(name.to_owned());
    }
}

/// Counts slices by reason, and remembers the first of each.
type ByReason = std::collections::BTreeMap<ChangeReason, (u32, mooring_terms::SliceId)>;
