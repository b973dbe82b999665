//! The first message each way on a ZeroMQ stream: one frame.
//!
//! ```text
//!   0       4         5        30                    62                  94
//!   | magic | version | hello  | key of the dialler  | key of the other  |
//! ```
//! The dialler sends it; the acceptor sends it back when messages may come. The keys' fingerprints
//! are names and no proof: they keep two clusters apart that reach each other by mistake.
//!
//! # Versions
//! - 1: the first.

use crate::contract::Channel;
use crate::fingerprint::Fingerprint;
use crate::proto::{HELLO_BYTES, Hello};

const MAGIC: &[u8; 4] = b"MOOR";
const VERSION: u8 = 1;
const BYTES: usize = 5 + HELLO_BYTES + 32 + 32;

/// Who dials, for what, and whom it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) hello: Hello,
    pub(crate) from: Fingerprint,
    pub(crate) to: Fingerprint,
}

impl Greeting {
    pub(crate) fn channel(&self) -> Channel {
        self.hello.channel
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let (from, to) = (self.from.as_bytes(), self.to.as_bytes());
        [&MAGIC[..], &[VERSION], &self.hello.encode(), from, to].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
        let (head, rest) = bytes.split_at(5);
        let (hello, keys) = rest.split_at(HELLO_BYTES);
        if head != [&MAGIC[..], &[VERSION]].concat() {
            return None;
        }
        let key = |at: usize| {
            let mut key = [0; 32];
            key.copy_from_slice(&keys[at..at + 32]);
            Fingerprint::from_bytes(key)
        };
        Some(Self { hello: Hello::decode(hello).ok()?, from: key(0), to: key(32) })
    }
}

#[cfg(test)]
mod tests {
    use mooring_terms::NodeId;

    use super::*;
    use crate::contract::StreamId;

    #[test]
    fn a_greeting_comes_back_as_it_was_and_nothing_else_is_one() {
        let stream = StreamId { boot: 3, number: 9 };
        let hello = Hello { node: NodeId(4), channel: Channel::Data, stream };
        let key = |byte: u8| Fingerprint::from_bytes([byte; 32]);
        let greeting = Greeting { hello, from: key(1), to: key(2) };
        let bytes = greeting.encode();
        assert_eq!(Greeting::decode(&bytes), Some(greeting));
        assert_eq!(Greeting::decode(&bytes[..93]), None);
        for at in [0, 3, 4, 29] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x40;
            assert_eq!(Greeting::decode(&bytes), None, "at {at}");
        }
    }
}
