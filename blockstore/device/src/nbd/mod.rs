//! A volume for programs that speak NBD: qemu, nbdcopy, fio.
//!
//! ```text
//!   client ── unix socket of the volume, or TCP + TLS of the node
//!     │          listener   one thread takes clients, each gets a thread
//!     ├─ Handshake (pure)   options in, answers out: which export, which dialect
//!     └─ Connection         requests in, answers out, many at a time and in any order
//!           Decoder, check, Frame (pure)
//!           Export          bytes become blocks; overlapping changes take turns
//!             └ BlockIo     the volume
//! ```
//! Invariants:
//! - what a client sends is bounded before it is kept: options at 64 KiB, requests at 32 MiB, each
//!   connection at 128 requests and 32 MiB, each listener at 64 connections, a handshake at 20 s;
//! - no thread but a client's own waits for that client; no answer of the volume waits for a socket;
//! - changes of overlapping blocks go one after the other, those of a lost connection first;
//! - a flush covers every answer given before it on any connection, so that clients may use several;
//! - nothing is answered as done that the volume has not answered as done.
//!
//! It must not: know volumes (it serves a `BlockIo`), cache anything, or end a connection for a
//! request that can be refused.

mod connection;
mod device;
mod export;
mod gather;
pub mod handshake;
mod host;
pub mod kernel;
mod link;
mod listener;
mod option;
pub mod proto;
mod range_queue;
mod reception;
mod reply;
pub mod request;
mod tls;

pub use device::NbdDevice;
pub use host::{NbdHost, NbdTcp};
pub use tls::{NbdTls, TlsError};
