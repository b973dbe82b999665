//! Replication of one slice: PacificA, with Raft as the configuration manager, as a pure core.
//!
//! (Lin et al., "PacificA: Replication in Log-Based Distributed Storage Systems", 2008; the reboot
//! and join rules are those that Kafka learned in KIP-101, KIP-903 and KIP-966.)

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
    ClientCommand, ClientEvent, ClientOptions, Io, IoError, IoId, ReadPart, VolumeBlock,
    VolumeClient, VolumeRange,
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
    ClientId, Credential, Operation, Outcome, Refusal, Reply, ReplyMessage, Request, RequestId,
    RequestMessage, StreamId,
};
pub use state::State;
pub use status::{JoinProgress, ReplicaStatus, Role, Status};
pub use wire::WireError;
