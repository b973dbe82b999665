//! TLS between nodes: who is believed, and how a connection says what it is for.
//!
//! ```text
//!   ALPN              client certificate        server is believed if          what follows
//!   mooring/1         required, admitted        it is the node that was meant  hello, messages
//!   mooring-join/1    none                      the token names its authority  one request, one answer
//!   http/1.1 or none  optional, of the cluster  the client's business          the API's connection
//! ```
//! TLS 1.3 only; no session resumption, so that every connection is checked anew.
//!
//! Invariants:
//! - a peer is believed if the cluster's authority signed its certificate *and* its key is in the
//!   table of nodes; dates are never looked at, so that a cluster that was off for a year starts;
//! - a dialled peer must be the node that was meant.

pub(crate) mod config;
pub(crate) mod receive;
pub(crate) mod timed;
pub(crate) mod verify;
