//! Streams over ZeroMQ, for networks that are trusted and encrypted by other means.
//!
//! ```text
//!   dialler                                          acceptor
//!   Queue ─▶ DEALER ─▶ carry ═══ TCP, ZMTP 3.0 ═══▶ carry ─▶ ROUTER ─▶ Handler::message
//!              ▲          │ guard              guard │          │
//!              └─ credit ─┘◀═══════════════════════ └◀─ credit ─┘
//! ```
//! The sockets are those of the crate `zeromq`: one DEALER for each outgoing stream, one ROUTER for
//! each incoming one, each on its stream's own thread and runtime. What that crate leaves open is
//! closed around it:
//! - it dies of one frame header that announces too much: neither socket touches the network. Bytes
//!   go through [`guard::Guard`], which checks every header before the crate sees it;
//! - it queues 100,000 messages whatever their size: bytes count in our window until the other side's
//!   handler has returned and said so (`credit.rs`), and only a part of the window is in the crate;
//! - its DEALER does not connect again: a stream that breaks is dialled anew, as over TLS;
//! - it serves all peers of a ROUTER with one loop: a ROUTER here has one peer.
//!
//! What can't be closed: **there is no authentication and no encryption.** A hello is believed if it
//! names a listed node and that node's fingerprint, which anybody knows who has seen one hello.
//! Whoever reaches the port can read and write blocks. So the channels that decide something (control,
//! beacons) stay on TLS, and nothing here is accepted unless the configuration says so.

pub(crate) mod carry;
mod credit;
mod greeting;
pub mod guard;
pub(crate) mod incoming;
pub(crate) mod outgoing;
