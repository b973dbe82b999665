//! The control plane: configuration by Raft, hints by gossip, requests between nodes.
//!
//! ```text
//!   Control ── propose, read, watch ──> Raft (openraft, behind `raft`) ──> store (redb)
//!      └──── requests ── Rpc ── Wire ──> whatever carries messages (the transport; in-memory twin)
//!   Gossip ── hints, sealed ──> UDP                certificates: who is admitted, who is renewed
//! ```
//!
//! Raft holds what must be right (see [`mooring_config`]), gossip what may be stale. Neither ever
//! holds data, and replication needs neither to keep going. openraft, redb and chitchat are not seen
//! from outside this crate.

pub mod certificates;
mod contacts;
mod control;
mod error;
pub mod gossip;
mod proto;
mod raft;
pub mod rpc;
mod store;
mod timing;
pub mod untrusted;

pub use control::{Control, Options, Status};
pub use error::{Error, StoreError};
pub use store::Published;
pub use timing::Timings;
