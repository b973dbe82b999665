//! Replication of one slice: PacificA, with Raft as the configuration manager, as a pure core.
//!
//! ```text
//!   device ──> VolumeClient ──request──> Replica (primary) ──Append──> Replica (secondary)
//!                           <──reply────     │       <──── Ack ─────      │
//!                                            │ commands                   │ commands
//!                                          engine                       engine
//!            Beacons <── who answered, who was heard: leases ──> Beacons of the other nodes
//! ```
//!
//! (Lin et al., "PacificA: Replication in Log-Based Distributed Storage Systems", 2008; the reboot
//! and join rules are those that Kafka learned in KIP-101, KIP-903 and KIP-966.)
//!
//! Three cores, each `handle(now, event, &mut Vec<command>)`, with no clock, no randomness, no I/O:
//! [`Replica`] (one a slice and node), [`Beacons`] (one a node) and [`VolumeClient`] (one an
//! attachment). Their shells deliver events and run commands in order.
//!
//! Invariants (see `ordering.rs` for the reasons):
//! - `stable <= committed <= received of every in-sync replica <= last of the primary`;
//! - an acknowledged write is on every in-sync replica, a flushed one on all their media;
//! - one epoch has one primary, one version has one write;
//! - a replica that was restarted counts for nothing until it is listed anew.
//!
//! It must not: know files, sockets or threads; believe a replica's opinion of itself where the
//! epoch tables can tell; answer anything whose outcome it doesn't know.

mod beacon;
mod client;
mod command;
mod control;
mod core;
mod event;
mod failed;
mod history;
mod joiner;
mod lease;
mod log;
mod message;
#[cfg(feature = "mutations")]
mod mutation;
mod note;
mod options;
mod ordering;
mod primary;
mod proposal;
mod replica;
mod request;
mod restart;
mod secondary;
mod space;
mod state;
mod status;
mod take;
mod wire;

pub use beacon::{BeaconCommand, BeaconEvent, BeaconMessage, Beacons};
pub use client::{
    ClientCommand, ClientEvent, ClientOptions, ClientRole, Io, IoError, IoId, IoPart, TREE_BLOCKS,
    TREE_FIRST, VolumeBlock, VolumeClient, VolumeRange,
};
pub use command::{Command, Query};
pub use control::Control;
pub use event::{Event, Found, Mark, ProposalId, ProposalOutcome, ReadFault, Token};
pub use lease::Leases;
pub use message::{
    Ack, Append, BlocksRead, Copied, CopyStep, EpochStart, Hello, JoinBegin, JoinDone, JoinFinish,
    JoinFrom, JoinId, JoinReady, Message, MessageBody, Missing, MissingWanted, Position, Promised,
    Pull, Pulled, Raise, ReadBlocks, Standing, Want,
};
#[cfg(feature = "mutations")]
pub use mutation::Mutation;
pub use note::{LossCause, Note};
pub use options::Options;
pub use replica::{Opened, Replica};
pub use request::{
    ClientId, Credential, Operation, Outcome, Refusal, Registration, Reply, ReplyMessage, Request,
    RequestId, RequestMessage, StreamId,
};
pub use state::State;
pub use status::{JoinProgress, ReplicaStatus, Role, Status};
pub use wire::WireError;
