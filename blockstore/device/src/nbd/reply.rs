//! Replies, encoded. Pure.
//!
//! ```text
//!   simple       magic 4 | error 4 | cookie 8 | data of a READ
//!   structured   magic 4 | flags 2 | kind 2 | cookie 8 | length 4 | payload
//! ```
//! Where structured replies were agreed on, those to READ and BLOCK_STATUS are structured, in one
//! chunk; all others stay simple, which the protocol allows and which is shorter.

use bytes::{BufMut, Bytes, BytesMut};

use super::proto::{
    ALLOCATION_ID, Errno, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk, state,
};
use crate::io::{Extent, IoError};

/// How a request's reply is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The request's.
    pub cookie: u64,
    /// Whether it is a chunk.
    pub structured: bool,
}

/// The NBD error of a volume's, exhaustively.
#[must_use]
pub fn errno_of(error: IoError) -> Errno {
    match error {
        IoError::NoSpace => Errno::NoSpace,
        IoError::Invalid => Errno::Invalid,
        IoError::ReadOnly => Errno::Permission,
        // For good, some of them, but never the server's end (ESHUTDOWN): a client must not try
        // another connection.
        IoError::Fenced | IoError::Stopped | IoError::Corrupt | IoError::TimedOut => Errno::Io,
    }
}

impl Frame {
    /// Success, with nothing more to say.
    #[must_use]
    pub fn done(self) -> Bytes {
        if self.structured {
            return self.chunk(chunk::NONE, 0, BytesMut::new()).freeze();
        }
        self.simple(0)
    }

    /// The data read at `offset`, appended to `out` piece by piece.
    pub fn data(self, offset: u64, pieces: Vec<Bytes>, out: &mut impl Extend<Bytes>) {
        let length: usize = pieces.iter().map(Bytes::len).sum();
        let header = if self.structured {
            let mut place = BytesMut::with_capacity(8);
            place.put_u64(offset);
            self.chunk(chunk::OFFSET_DATA, length, place).freeze()
        } else {
            self.simple(0)
        };
        out.extend(std::iter::once(header).chain(pieces));
    }

    /// What the blocks from the request's offset on hold.
    #[must_use]
    pub fn status(self, extents: &[Extent]) -> Bytes {
        let mut payload = BytesMut::with_capacity(4 + 8 * extents.len());
        payload.put_u32(ALLOCATION_ID);
        for extent in extents {
            payload.put_u32(u32::try_from(extent.length).unwrap_or(u32::MAX));
            payload.put_u32(if extent.hole { state::HOLE | state::ZERO } else { 0 });
        }
        self.chunk(chunk::BLOCK_STATUS, 0, payload).freeze()
    }

    /// An error, in words where the frame has room for them.
    #[must_use]
    pub fn error(self, errno: Errno, words: &str) -> Bytes {
        if !self.structured {
            return self.simple(errno as u32);
        }
        let words = &words.as_bytes()[..words.len().min(4096)];
        let mut payload = BytesMut::with_capacity(6 + words.len());
        payload.put_u32(errno as u32);
        payload.put_u16(words.len() as u16);
        payload.put_slice(words);
        self.chunk(chunk::ERROR, 0, payload).freeze()
    }

    fn simple(self, error: u32) -> Bytes {
        let mut reply = BytesMut::with_capacity(16);
        reply.put_u32(SIMPLE_REPLY_MAGIC);
        reply.put_u32(error);
        reply.put_u64(self.cookie);
        reply.freeze()
    }

    /// The only and last chunk: `payload`, and `more` bytes that follow it.
    fn chunk(self, kind: u16, more: usize, payload: BytesMut) -> BytesMut {
        let mut frame = BytesMut::with_capacity(20 + payload.len());
        frame.put_u32(STRUCTURED_REPLY_MAGIC);
        frame.put_u16(chunk::DONE);
        frame.put_u16(kind);
        frame.put_u64(self.cookie);
        frame.put_u32((payload.len() + more) as u32);
        frame.put_slice(&payload);
        frame
    }
}
