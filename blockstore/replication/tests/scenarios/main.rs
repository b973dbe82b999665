//! Scenarios of one slice on a small deterministic cluster: each reads as a sentence.

mod client;
mod cluster;
mod device;
mod failover;
mod joins;
mod rubbish;
mod sessions;
mod store;
mod storms;
mod writes;
