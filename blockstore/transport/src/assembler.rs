//! Puts frames together from bytes that arrive in pieces of any size. Pure: no socket, no clock.
//!
//! ```text
//!   head (12 bytes) ──▶ lengths (4 a frame) ──▶ body ──▶ frames, and head again
//!   one allocation for a body:  | slack | header frame | pad | 4 KiB-aligned payload | ...
//! ```
//!
//! Invariants:
//! - nothing is allocated before the length it is for was checked;
//! - at most one body is held, of at most [`proto::MAX_MESSAGE_BYTES`] plus padding;
//! - a frame of 4 KiB or more begins at an address that is a multiple of 4096, so that it can be
//!   written with direct I/O, and shares its allocation only with the frames of its own message.

use bytes::Bytes;

use crate::contract::Message;
use crate::proto::{self, FrameError, HEAD_BYTES, Head, Kind};

/// What large frames are aligned to: a block and a page.
const ALIGNMENT: usize = 4096;

/// Assembles frames of one expected kind at a time.
pub struct Assembler {
    expected: Kind,
    state: State,
}

enum State {
    /// Collecting the head: so many bytes are there.
    Head { bytes: [u8; HEAD_BYTES], have: usize },
    /// Collecting the lengths.
    Lengths { head: Head, bytes: Vec<u8> },
    /// Collecting the frames.
    Body(Body),
}

/// One allocation, filled frame by frame.
struct Body {
    buffer: Vec<u8>,
    /// Where each frame lies in `buffer`; ascending.
    frames: Vec<std::ops::Range<usize>>,
    /// The frame being filled.
    current: usize,
}

impl Assembler {
    /// An assembler that waits for a frame of kind `expected`.
    #[must_use]
    pub fn new(expected: Kind) -> Self {
        Self { expected, state: State::start() }
    }

    /// What comes after the frame that was just completed.
    pub fn expect(&mut self, kind: Kind) {
        self.expected = kind;
    }

    /// Takes bytes from the front of `input` up to the end of a frame, and gives that frame's parts,
    /// or `None` when the input is used up before.
    ///
    /// # Errors
    /// [`FrameError`]; the stream is then useless.
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<Option<Vec<Bytes>>, FrameError> {
        loop {
            match &mut self.state {
                State::Head { bytes, have } => {
                    let part = take(input, HEAD_BYTES - *have);
                    bytes[*have..*have + part.len()].copy_from_slice(part);
                    *have += part.len();
                    if *have < HEAD_BYTES {
                        return Ok(None);
                    }
                    let head = Head::decode(bytes, self.expected)?;
                    self.state =
                        State::Lengths { head, bytes: Vec::with_capacity(4 * head.frames) };
                }
                State::Lengths { head, bytes } => {
                    bytes.extend_from_slice(take(input, 4 * head.frames - bytes.len()));
                    if bytes.len() < 4 * head.frames {
                        return Ok(None);
                    }
                    self.state = State::Body(Body::new(&head.lengths(bytes)?));
                }
                State::Body(body) => {
                    if !body.fill(input) {
                        return Ok(None);
                    }
                    let State::Body(body) = std::mem::replace(&mut self.state, State::start())
                    else {
                        unreachable!("the state was just matched");
                    };
                    return Ok(Some(body.finish()));
                }
            }
        }
    }

    /// As [`Self::feed`], for messages.
    ///
    /// # Errors
    /// As [`Self::feed`].
    pub fn feed_message(&mut self, input: &mut &[u8]) -> Result<Option<Message>, FrameError> {
        debug_assert_eq!(self.expected, Kind::Message);
        let Some(parts) = self.feed(input)? else { return Ok(None) };
        let mut parts = parts.into_iter();
        let header = parts.next().unwrap_or_default();
        Ok(Some(Message { header, payload: parts.collect() }))
    }
}

impl State {
    fn start() -> Self {
        Self::Head { bytes: [0; HEAD_BYTES], have: 0 }
    }
}

impl Body {
    /// Lays out frames of the given lengths, whose sum was checked.
    fn new(lengths: &[usize]) -> Self {
        let large = |length: usize| length >= ALIGNMENT;
        let any_large = lengths.iter().any(|&length| large(length));
        let mut end = 0_usize;
        let mut frames = Vec::with_capacity(lengths.len());
        for &length in lengths {
            let alignment = if large(length) { ALIGNMENT } else { 8 };
            let start = end.next_multiple_of(alignment);
            end = start + length;
            frames.push(start..end);
        }
        let slack = if any_large { ALIGNMENT - 1 } else { 0 };
        let mut buffer = Vec::<u8>::with_capacity(end + slack);
        if any_large {
            // `usize::MAX` (never for bytes) would only cost the alignment.
            let shift = buffer.as_ptr().align_offset(ALIGNMENT).min(slack);
            buffer.resize(shift, 0);
            for frame in &mut frames {
                *frame = frame.start + shift..frame.end + shift;
            }
        }
        Self { buffer, frames, current: 0 }
    }

    /// Appends from `input`; whether all frames are complete.
    fn fill(&mut self, input: &mut &[u8]) -> bool {
        while let Some(frame) = self.frames.get(self.current) {
            if self.buffer.len() < frame.start {
                self.buffer.resize(frame.start, 0);
            }
            self.buffer.extend_from_slice(take(input, frame.end - self.buffer.len()));
            if self.buffer.len() < frame.end {
                return false;
            }
            self.current += 1;
        }
        true
    }

    fn finish(self) -> Vec<Bytes> {
        let bytes = Bytes::from(self.buffer);
        self.frames.into_iter().map(|frame| bytes.slice(frame)).collect()
    }
}

/// Cuts up to `count` bytes from the front of `input`.
fn take<'a>(input: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (front, rest) = input.split_at(count.min(input.len()));
    *input = rest;
    front
}

/// Frames that came in some other way, laid out as this file lays them out: copied, if any is large.
#[cfg(feature = "zeromq")]
pub(crate) fn aligned(frames: Vec<Bytes>) -> Vec<Bytes> {
    if frames.iter().all(|frame| frame.len() < ALIGNMENT) {
        return frames;
    }
    let lengths: Vec<usize> = frames.iter().map(Bytes::len).collect();
    let mut body = Body::new(&lengths);
    for frame in &frames {
        body.fill(&mut &frame[..]);
    }
    body.finish()
}

/// All bytes of a message as they go over the wire, joined: for tests, fuzzing and decoders.
#[must_use]
pub fn encode_joined(message: &Message) -> Vec<u8> {
    let mut bytes = proto::message_head(message).to_vec();
    bytes.extend_from_slice(&message.header);
    for frame in &message.payload {
        bytes.extend_from_slice(frame);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(lengths: &[usize]) -> Message {
        let frame = |length: usize, i: usize| Bytes::from(vec![i as u8 + 1; length]);
        Message {
            header: Bytes::from_static(b"head"),
            payload: lengths.iter().enumerate().map(|(i, &l)| frame(l, i)).collect(),
        }
    }

    fn assemble(bytes: &[u8], piece: usize) -> Result<Vec<Message>, FrameError> {
        let mut assembler = Assembler::new(Kind::Message);
        let mut out = Vec::new();
        for mut piece in bytes.chunks(piece) {
            while let Some(message) = assembler.feed_message(&mut piece)? {
                out.push(message);
            }
        }
        Ok(out)
    }

    #[test]
    fn messages_come_out_as_they_went_in_whatever_the_pieces() {
        let messages = [
            message(&[]),
            message(&[0, 1, 0]),
            message(&[4096]),
            message(&[4095, 4097, 3, 70_000]),
            message(&[1; proto::MAX_FRAMES - 1]),
        ];
        let bytes: Vec<u8> = messages.iter().flat_map(encode_joined).collect();
        for piece in [1, 7, 4096, 16_384, bytes.len()] {
            assert_eq!(assemble(&bytes, piece).unwrap(), messages, "in pieces of {piece}");
        }
    }

    #[test]
    fn large_frames_are_aligned() {
        let bytes = encode_joined(&message(&[5, 4096, 1, 12_288]));
        let message = assemble(&bytes, 1000).unwrap().remove(0);
        assert_eq!(message.payload[1].as_ptr() as usize % 4096, 0);
        assert_eq!(message.payload[3].as_ptr() as usize % 4096, 0);
    }

    #[test]
    fn every_limit_is_checked_before_the_body_is_waited_for() {
        let good = encode_joined(&message(&[10]));
        let with = |at: usize, bytes: &[u8]| {
            let mut frame = good.clone();
            frame[at..at + bytes.len()].copy_from_slice(bytes);
            assemble(&frame[..HEAD_BYTES + 8], 5).unwrap_err()
        };
        assert!(matches!(with(0, b"HTTP"), FrameError::Magic(_)));
        assert_eq!(with(4, &[9]), FrameError::Version(9));
        assert_eq!(with(5, &[1]), FrameError::Kind(1));
        assert_eq!(with(6, &[0, 0]), FrameError::Frames(0));
        assert_eq!(with(6, &257_u16.to_le_bytes()), FrameError::Frames(257));
        assert!(matches!(with(8, &u32::MAX.to_le_bytes()), FrameError::Length { .. }));
        assert!(matches!(with(12, &u32::MAX.to_le_bytes()), FrameError::Sum { .. }));
    }

    #[test]
    fn random_and_mutated_bytes_never_panic() {
        let good = encode_joined(&message(&[3, 4096, 17]));
        let mut state = 1_u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize
        };
        let mut refused = 0;
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..1 + next() % 3 {
                let at = next() % 40;
                bytes[at] = next() as u8;
            }
            refused += usize::from(assemble(&bytes, 1 + next() % 5000).is_err());
        }
        assert!(refused > 10_000, "only {refused} were refused");
    }
}
