//! The configuration of a cluster as a pure state machine: what Raft holds, and nothing else.
//!
//! ```text
//!   Proposal ──Raft──> Machine::apply ──> ClusterState ──> Response (Done or Refused)
//!                                             │
//!   placement (pure): state + hints ──> commands      changes: two states ──> what differs
//! ```
//!
//! It knows nodes, pools, volumes, attachments, and for every slice its epoch, primary and in-sync
//! set. It never holds data, health or load. Raft orders the commands; this crate says what each of
//! them does, the same on every node, with no clock, no randomness and no I/O.
//!
//! Invariants:
//! - a command that is refused changes nothing;
//! - a proposal is applied at most once, however often it is sent;
//! - what Raft holds depends on the commands alone: choices that later versions might make
//!   differently (placement) are made by the proposer and written into the command.

mod apply;
pub mod changes;
mod chunked;
mod cluster;
mod command;
mod coordinator;
mod credential;
mod event;
mod machine;
mod node;
pub mod placement;
mod pool;
mod refused;
mod replica;
mod request;
mod slice;
mod time;
mod volume;
mod voters;

pub use apply::{MAX_BATCH, MAX_EVENTS};
pub use chunked::{Changed, ChunkKey, Chunked};
pub use cluster::{ClusterState, ClusterVersion, Identity, NEWEST_VERSION};
pub use command::{
    Admission, Assignment, ClusterId, Command, Done, Genesis, Loss, NewNode, Proposal, ProposalId,
    Removal, Response, VoterCount,
};
pub use coordinator::CoordinatorDuty;
pub use credential::{ApiToken, Fingerprint, GossipKey, JoinToken, Rights, TokenHash, WrappedKey};
pub use event::{Actor, Event, What};
pub use machine::Machine;
pub use node::{Boot, Labels, Node, NodeState, Role};
pub use pool::{Class, NotAClass, Pool, PoolState};
pub use refused::{Fault, Refused};
pub use request::{Difference, Setting, VolumeRequest};
pub use slice::{ChangeReason, ChangeRefused, Member, SliceChange, SliceConfig};
pub use time::UnixMillis;
pub use volume::{
    AttachMode, Attachment, ClassWish, DEFAULT_REPLACE_AFTER_MS, Filesystem, MAX_REPLICAS,
    MAX_SLICES, MAX_VOLUME_BYTES, MIN_VOLUME_BYTES, NotAFilesystem, Volume, VolumeSpec,
    WHOLE_VOLUME_SLICE_BLOCKS,
};
pub use voters::desired_voters;
