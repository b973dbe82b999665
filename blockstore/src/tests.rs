//! Several nodes of the data plane in one process: real threads, streams and engines, disks in memory,
//! and a configuration that is only a table.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod credentials;
mod hang;
mod links;
mod many;
mod membership;
mod rig;
