//! The frames between nodes: all that crosses a connection once TLS is up.
//!
//! ```text
//!   0        4        5       6         8           12
//!   | magic  | version| kind  | frames  | body bytes | length x frames | frame | frame | ...
//!   | u32    | u8     | u8    | u16     | u32        | u32 each        |
//! ```
//! All numbers are little-endian; `body bytes` is the sum of the lengths. TLS vouches for
//! integrity, so there is no checksum here; blocks carry their own.
//!
//! | kind | what | from | frames | bytes |
//! |---|---|---|---|---|
//! | hello | the first frame of a node stream: who dials, for which channel | dialler | 1 | 64 |
//! | welcome | its answer: the stream is registered, messages may come | acceptor | 1 | 64 |
//! | message | header and payload | dialler | 1 to 256 | 16 MiB |
//! | join request | opaque | joiner | 1 | 64 KiB |
//! | join response | opaque | cluster | 1 | 1 MiB |
//!
//! Invariants: every length is checked against its limit before a byte is allocated for it; a frame
//! of a kind that the reader doesn't wait for is an error; decoding never panics.
//!
//! # Versions
//! - 1: the first.

use bytes::Bytes;
use mooring_terms::NodeId;
use thiserror::Error;

use crate::contract::{Channel, Message, SendError, StreamId};

/// The version of the frames that this build writes and reads.
pub const VERSION: u8 = 1;
/// The most bytes that the frames of one message have together.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// The most frames of one message, its header included.
pub const MAX_FRAMES: usize = 256;
/// The most bytes of a request to join.
pub const MAX_JOIN_REQUEST_BYTES: usize = 64 << 10;
/// The most bytes of the answer to a request to join.
pub const MAX_JOIN_RESPONSE_BYTES: usize = 1 << 20;

/// "MOOR", little-endian.
const MAGIC: u32 = u32::from_le_bytes(*b"MOOR");
/// Bytes before the lengths.
pub(crate) const HEAD_BYTES: usize = 12;
/// Node id, stream id, channel.
pub(crate) const HELLO_BYTES: usize = 8 + 16 + 1;
const MAX_GREETING_BYTES: usize = 64;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first frame of a node stream.
    Hello,
    /// The answer to a hello.
    Welcome,
    /// A message.
    Message,
    /// A request to join.
    JoinRequest,
    /// The answer to a request to join.
    JoinResponse,
}

/// Why received bytes are no frame that may come here. The stream is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The bytes don't begin as a frame does.
    #[error("not a frame: it begins with {0:#010x}")]
    Magic(u32),
    /// Written by a newer or foreign program.
    #[error("frame version {0} is unknown here")]
    Version(u8),
    /// A kind that is unknown, or not what comes now.
    #[error("a frame of kind {0} does not belong here")]
    Kind(u8),
    /// More frames than one message may have, or none.
    #[error("a message of {0} frames")]
    Frames(u16),
    /// More bytes than the kind may have.
    #[error("a frame of {bytes} bytes where at most {limit} may come")]
    Length {
        /// Bytes announced.
        bytes: u64,
        /// Bytes allowed.
        limit: usize,
    },
    /// The lengths don't add up to the announced body.
    #[error("the frames' lengths add up to {sum} bytes, not to {body}")]
    Sum {
        /// What the lengths add up to.
        sum: u64,
        /// What was announced.
        body: u32,
    },
    /// A hello that can't be read.
    #[error("malformed hello")]
    Hello,
}

/// The fixed part of a frame, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) frames: usize,
    pub(crate) body: u32,
}

/// The first frame of a node stream. Believed only as far as the certificate of the connection
/// names the same node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The node that dials.
    pub node: NodeId,
    /// What its stream is for.
    pub channel: Channel,
    /// The stream.
    pub stream: StreamId,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Hello => 1,
            Self::Welcome => 2,
            Self::Message => 3,
            Self::JoinRequest => 4,
            Self::JoinResponse => 5,
        }
    }

    fn max_bytes(self) -> usize {
        match self {
            Self::Hello | Self::Welcome => MAX_GREETING_BYTES,
            Self::Message => MAX_MESSAGE_BYTES,
            Self::JoinRequest => MAX_JOIN_REQUEST_BYTES,
            Self::JoinResponse => MAX_JOIN_RESPONSE_BYTES,
        }
    }

    fn max_frames(self) -> usize {
        match self {
            Self::Message => MAX_FRAMES,
            Self::Hello | Self::Welcome | Self::JoinRequest | Self::JoinResponse => 1,
        }
    }
}

impl Head {
    /// Checks the first [`HEAD_BYTES`] of a frame, of which only `expected` may come now.
    pub(crate) fn decode(bytes: &[u8; HEAD_BYTES], expected: Kind) -> Result<Self, FrameError> {
        let [m0, m1, m2, m3, version, kind, f0, f1, b0, b1, b2, b3] = *bytes;
        let magic = u32::from_le_bytes([m0, m1, m2, m3]);
        if magic != MAGIC {
            return Err(FrameError::Magic(magic));
        }
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if kind != expected.code() {
            return Err(FrameError::Kind(kind));
        }
        let frames = u16::from_le_bytes([f0, f1]);
        if frames == 0 || usize::from(frames) > expected.max_frames() {
            return Err(FrameError::Frames(frames));
        }
        let body = u32::from_le_bytes([b0, b1, b2, b3]);
        if body as usize > expected.max_bytes() {
            return Err(FrameError::Length { bytes: body.into(), limit: expected.max_bytes() });
        }
        Ok(Self { kind: expected, frames: frames.into(), body })
    }

    /// Checks the lengths that follow the head: `bytes` holds four for each frame.
    pub(crate) fn lengths(&self, bytes: &[u8]) -> Result<Vec<usize>, FrameError> {
        let (words, _) = bytes.as_chunks::<4>();
        let sum = words.iter().map(|&word| u64::from(u32::from_le_bytes(word))).sum::<u64>();
        if sum != u64::from(self.body) {
            return Err(FrameError::Sum { sum, body: self.body });
        }
        Ok(words.iter().map(|&word| u32::from_le_bytes(word) as usize).collect())
    }
}

/// The head and lengths that go before `frames`.
fn encode_head<'a>(kind: Kind, frames: impl Iterator<Item = &'a Bytes> + Clone) -> Bytes {
    let count = frames.clone().count();
    let body: usize = frames.clone().map(Bytes::len).sum();
    debug_assert!(count <= kind.max_frames() && body <= kind.max_bytes());
    let mut head = Vec::with_capacity(HEAD_BYTES + 4 * count);
    head.extend_from_slice(&MAGIC.to_le_bytes());
    head.push(VERSION);
    head.push(kind.code());
    head.extend_from_slice(&(count as u16).to_le_bytes());
    head.extend_from_slice(&(body as u32).to_le_bytes());
    for frame in frames {
        head.extend_from_slice(&(frame.len() as u32).to_le_bytes());
    }
    Bytes::from(head)
}

/// Whether a message keeps to the limits.
///
/// # Errors
/// [`SendError::TooLarge`].
pub fn check_size(message: &Message) -> Result<(), SendError> {
    if message.payload.len() >= MAX_FRAMES || message.len() > MAX_MESSAGE_BYTES {
        return Err(SendError::TooLarge);
    }
    Ok(())
}

/// What goes before the frames of a message that passed [`check_size`].
#[must_use]
pub fn message_head(message: &Message) -> Bytes {
    encode_head(Kind::Message, std::iter::once(&message.header).chain(&message.payload))
}

/// A frame of one part.
///
/// # Errors
/// [`FrameError::Length`] if `body` is longer than the kind allows.
pub fn encode_single(kind: Kind, body: &[u8]) -> Result<Vec<u8>, FrameError> {
    if body.len() > kind.max_bytes() {
        return Err(FrameError::Length { bytes: body.len() as u64, limit: kind.max_bytes() });
    }
    let body = Bytes::copy_from_slice(body);
    let mut frame = encode_head(kind, std::iter::once(&body)).to_vec();
    frame.extend_from_slice(&body);
    Ok(frame)
}

impl Hello {
    /// The body of the hello frame; the welcome repeats it.
    #[must_use]
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[..8].copy_from_slice(&self.node.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.stream.boot.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.stream.number.to_le_bytes());
        bytes[24] = match self.channel {
            Channel::Data => 0,
            Channel::Control => 1,
            Channel::Beacon => 2,
        };
        bytes
    }

    /// Reads the body of a hello.
    ///
    /// # Errors
    /// [`FrameError::Hello`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let bytes: &[u8; HELLO_BYTES] = bytes.try_into().map_err(|_| FrameError::Hello)?;
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let channel = match bytes[24] {
            0 => Channel::Data,
            1 => Channel::Control,
            2 => Channel::Beacon,
            _ => return Err(FrameError::Hello),
        };
        let stream = StreamId { boot: word(8), number: word(16) };
        Ok(Self { node: NodeId(word(0)), channel, stream })
    }
}
