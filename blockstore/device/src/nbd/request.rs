//! Requests: decoded from bytes, then checked against the export. Pure.
//!
//! ```text
//!   bytes ─> Decoder ─> Request (what was said) ─> check ─> Work (what is to be done) or an Errno
//! ```
//! Only a wrong magic ends the connection: nobody could tell where the next request begins. All else
//! is answered with an error, and the connection goes on.

use bytes::{Buf, Bytes, BytesMut};

use super::handshake::Agreed;
use super::proto::{Errno, REQUEST_BYTES, REQUEST_MAGIC, REQUEST_MAX, command, flag};

/// Payloads shorter than this are copied out of the receive buffer, which they would keep alive.
const COPIED_BELOW: usize = 64 << 10;

/// A request as the client sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The client's name for it, given back with the answer.
    pub cookie: u64,
    flags: u16,
    command: u16,
    offset: u64,
    length: u32,
    /// A write's bytes; none if they were too many to be taken.
    payload: Option<Bytes>,
}

/// What a valid request asks for. Ranges lie inside the export, and are not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Read bytes.
    Read {
        /// Where.
        offset: u64,
        /// How many.
        length: u32,
    },
    /// Write bytes.
    Write {
        /// Where.
        offset: u64,
        /// What.
        data: Bytes,
        /// Durable before it is answered.
        fua: bool,
    },
    /// Make durable what was answered.
    Flush,
    /// Free what can be freed of a range; what it reads as afterwards is not said.
    Trim {
        /// Where.
        offset: u64,
        /// How many bytes.
        length: u32,
        /// Durable before it is answered.
        fua: bool,
    },
    /// Make a range read as zeros.
    WriteZeroes {
        /// Where.
        offset: u64,
        /// How many bytes.
        length: u32,
        /// Durable before it is answered.
        fua: bool,
    },
    /// Say what holds data and what are holes.
    BlockStatus {
        /// Where.
        offset: u64,
        /// How many bytes at most.
        length: u32,
        /// One run only.
        one: bool,
    },
    /// Nothing, successfully: the range is empty.
    Nothing,
    /// The client goes.
    Disconnect,
}

/// What came is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what came is no NBD request")]
pub struct NoRequest;

/// Takes requests off a stream of bytes.
#[derive(Debug, Default)]
pub struct Decoder {
    header: Option<Request>,
    /// Payload bytes of a refused write that are still to come.
    skipping: u32,
}

impl Decoder {
    /// The next request, or `None` while it isn't whole.
    ///
    /// # Errors
    /// [`NoRequest`]: the stream can't be read any further.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Request>, NoRequest> {
        let header = match self.header.take() {
            Some(header) => header,
            None => match decode(input)? {
                Some(header) => header,
                None => return Ok(None),
            },
        };
        if header.command != command::WRITE {
            return Ok(Some(header));
        }
        if header.length > REQUEST_MAX {
            return Ok(self.skip(header, input));
        }
        let length = header.length as usize;
        if input.len() < length {
            self.header = Some(header);
            return Ok(None);
        }
        let payload = if length < COPIED_BELOW {
            let copied = Bytes::copy_from_slice(&input[..length]);
            input.advance(length);
            copied
        } else {
            input.split_to(length).freeze()
        };
        Ok(Some(Request { payload: Some(payload), ..header }))
    }

    /// How many bytes the input must have before [`Decoder::next`] can say more.
    #[must_use]
    pub fn wants(&self) -> usize {
        match &self.header {
            Some(header) if header.length <= REQUEST_MAX => header.length as usize,
            _ => REQUEST_BYTES,
        }
    }

    fn skip(&mut self, header: Request, input: &mut BytesMut) -> Option<Request> {
        let left = if self.skipping > 0 { self.skipping } else { header.length };
        let skipped = input.len().min(left as usize);
        input.advance(skipped);
        self.skipping = left - skipped as u32;
        if self.skipping > 0 {
            self.header = Some(header);
            return None;
        }
        Some(header)
    }
}

fn decode(input: &mut BytesMut) -> Result<Option<Request>, NoRequest> {
    // Garbage is told by its first word: nobody waits for the rest of it.
    if input.len() >= 4 && input[..4] != REQUEST_MAGIC.to_be_bytes() {
        return Err(NoRequest);
    }
    if input.len() < REQUEST_BYTES {
        return Ok(None);
    }
    input.advance(4);
    Ok(Some(Request {
        flags: input.get_u16(),
        command: input.get_u16(),
        cookie: input.get_u64(),
        offset: input.get_u64(),
        length: input.get_u32(),
        payload: None,
    }))
}

impl Request {
    /// What it asks for, on an export of `size` bytes.
    ///
    /// # Errors
    /// The error that the client is told.
    pub fn check(self, agreed: &Agreed, size: u64, read_only: bool) -> Result<Work, Errno> {
        self.check_flags(agreed)?;
        let (offset, length) = (self.offset, self.length);
        let fua = self.flags & flag::FUA != 0;
        let modifies =
            matches!(self.command, command::WRITE | command::TRIM | command::WRITE_ZEROES);
        if modifies && read_only {
            return Err(Errno::Permission);
        }
        match self.command {
            command::DISC => return Ok(Work::Disconnect),
            command::FLUSH => return Ok(Work::Flush),
            _ => {}
        }
        if offset.checked_add(length.into()).is_none_or(|end| end > size) {
            let grows = matches!(self.command, command::WRITE | command::WRITE_ZEROES);
            return Err(if grows { Errno::NoSpace } else { Errno::Invalid });
        }
        match self.command {
            command::BLOCK_STATUS if length == 0 => Err(Errno::Invalid),
            command::READ | command::WRITE if length > REQUEST_MAX => Err(Errno::Invalid),
            _ if length == 0 => Ok(Work::Nothing),
            command::READ => Ok(Work::Read { offset, length }),
            command::WRITE => match self.payload {
                Some(data) => Ok(Work::Write { offset, data, fua }),
                None => Err(Errno::Invalid),
            },
            command::TRIM => Ok(Work::Trim { offset, length, fua }),
            command::WRITE_ZEROES => Ok(Work::WriteZeroes { offset, length, fua }),
            command::BLOCK_STATUS => {
                Ok(Work::BlockStatus { offset, length, one: self.flags & flag::REQ_ONE != 0 })
            }
            _ => Err(Errno::Invalid),
        }
    }

    /// Where its range begins.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether it reads.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.command == command::READ
    }

    /// Whether it asks for the status of blocks, whose answer is always structured.
    #[must_use]
    pub fn is_block_status(&self) -> bool {
        self.command == command::BLOCK_STATUS
    }

    /// Bytes that it keeps in memory until it is answered.
    #[must_use]
    pub fn holds(&self) -> usize {
        match self.command {
            command::READ if self.length <= REQUEST_MAX => self.length as usize,
            _ => self.payload.as_ref().map_or(0, Bytes::len),
        }
    }

    fn check_flags(&self, agreed: &Agreed) -> Result<(), Errno> {
        // FUA may come with anything, and means nothing where nothing is written.
        let allowed = flag::FUA
            | match self.command {
                command::READ if agreed.structured => flag::DF,
                command::READ | command::WRITE | command::TRIM => 0,
                command::FLUSH | command::DISC => 0,
                // Zeros cost no more than a hole here, and are one: both flags are met by doing it.
                command::WRITE_ZEROES => flag::NO_HOLE | flag::FAST_ZERO,
                command::BLOCK_STATUS if agreed.allocation => flag::REQ_ONE,
                _ => return Err(Errno::Invalid),
            };
        if self.flags & !allowed == 0 { Ok(()) } else { Err(Errno::Invalid) }
    }
}

#[cfg(test)]
mod tests;
