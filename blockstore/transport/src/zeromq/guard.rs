//! Looks at every ZMTP header before the crate `zeromq` does. Pure.
//!
//! ```text
//!   greeting (64 bytes) ─▶ READY (a command) ─▶ message ─▶ message ─▶ ...
//!   a frame:  | flags | length: 1 or 8 bytes | body |      flags: 1 more, 2 long, 4 command
//! ```
//! ZMTP 3.0, mechanism NULL (<https://rfc.zeromq.org/spec/23>). The crate allocates what a header
//! announces, and aborts the process if that can't be had; so a header is let through only with a
//! length that its place allows. What comes in is bounded before the peer is believed, too.
//!
//! Invariants: no byte of a refused header is passed on; frames of a message and their bytes stay
//! within [`Allowance`]; after READY there is no further command.

use thiserror::Error;

use crate::proto;

const GREETING_BYTES: usize = 64;
/// READY names the socket's type, and perhaps an identity of up to 255 bytes.
const MAX_COMMAND_BYTES: u64 = 512;

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// How large a message may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Frames of one message.
    pub frames: usize,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GuardError {
    /// It doesn't begin as a ZMTP connection does.
    #[error("not a ZMTP 3 greeting with the mechanism NULL")]
    Greeting,
    /// A frame that doesn't come now, or never.
    #[error("a frame with the flags {0:#04x} does not belong here")]
    Flags(u8),
    /// It announces too much.
    #[error("a command or message of {bytes} bytes where at most {limit} may come")]
    Length {
        /// Bytes announced.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// Too many frames.
    #[error("a message of more than {0} frames")]
    Frames(usize),
}

/// Follows one direction of one connection.
#[derive(Default)]
pub struct Guard {
    state: State,
    /// Whether READY has been seen.
    ready: bool,
    /// Of the message that is coming in.
    frames: usize,
    bytes: u64,
}

enum State {
    Greeting { have: usize },
    Flags,
    Length { flags: u8, value: u64, left: usize },
    Body { flags: u8, left: u64 },
}

impl Default for State {
    fn default() -> Self {
        Self::Greeting { have: 0 }
    }
}

impl Allowance {
    /// For greetings and credits: one small frame.
    pub const SMALL: Self = Self { frames: 1, bytes: 256 };
    /// For messages.
    pub const MESSAGE: Self =
        Self { frames: proto::MAX_FRAMES, bytes: proto::MAX_MESSAGE_BYTES as u64 };
}

impl Guard {
    /// For a connection on which nothing was said.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Follows the next bytes, in pieces of any size.
    ///
    /// # Errors
    /// [`GuardError`]; none of these bytes may be passed on then.
    pub fn inspect(&mut self, mut input: &[u8], allowed: Allowance) -> Result<(), GuardError> {
        while let Some((&byte, rest)) = input.split_first() {
            match &mut self.state {
                State::Greeting { have } => {
                    check_greeting(*have, byte)?;
                    *have += 1;
                    if *have == GREETING_BYTES {
                        self.state = State::Flags;
                    }
                    input = rest;
                }
                State::Flags => {
                    let flags = self.check_flags(byte)?;
                    let left = if flags & LONG == 0 { 1 } else { 8 };
                    self.state = State::Length { flags, value: 0, left };
                    input = rest;
                }
                State::Length { flags, value, left } => {
                    *value = *value << 8 | u64::from(byte);
                    *left -= 1;
                    if *left == 0 {
                        let (flags, length) = (*flags, *value);
                        self.check_length(flags, length, allowed)?;
                        self.state = State::Body { flags, left: length };
                        self.end_of_frame();
                    }
                    input = rest;
                }
                State::Body { left, .. } => {
                    let part = usize::try_from(*left).map_or(input.len(), |l| l.min(input.len()));
                    *left -= part as u64;
                    input = &input[part..];
                    self.end_of_frame();
                }
            }
        }
        Ok(())
    }

    fn check_flags(&self, flags: u8) -> Result<u8, GuardError> {
        let known = flags & !(MORE | LONG | COMMAND) == 0;
        let command = flags & COMMAND != 0;
        // A command has no second frame, comes first, and comes once.
        if !known || command == self.ready || (command && flags & MORE != 0) {
            return Err(GuardError::Flags(flags));
        }
        Ok(flags)
    }

    fn check_length(
        &mut self,
        flags: u8,
        length: u64,
        allowed: Allowance,
    ) -> Result<(), GuardError> {
        if flags & COMMAND != 0 {
            if length > MAX_COMMAND_BYTES {
                return Err(GuardError::Length { bytes: length, limit: MAX_COMMAND_BYTES });
            }
            return Ok(());
        }
        self.frames += 1;
        self.bytes = self.bytes.saturating_add(length);
        if self.frames > allowed.frames {
            return Err(GuardError::Frames(allowed.frames));
        }
        if self.bytes > allowed.bytes {
            return Err(GuardError::Length { bytes: self.bytes, limit: allowed.bytes });
        }
        Ok(())
    }

    /// Goes on to the next frame if this one is complete.
    fn end_of_frame(&mut self) {
        let State::Body { flags, left: 0 } = self.state else { return };
        self.state = State::Flags;
        self.ready = true;
        if flags & MORE == 0 {
            (self.frames, self.bytes) = (0, 0);
        }
    }
}

fn check_greeting(at: usize, byte: u8) -> Result<(), GuardError> {
    // Signature, version 3, NULL padded to 20 bytes. The rest says nothing that matters here.
    let right = match at {
        0 => byte == 0xff,
        9 => byte == 0x7f,
        10 => byte >= 3,
        12..16 => byte == b"NULL"[at - 12],
        16..32 => byte == 0,
        _ => true,
    };
    if right { Ok(()) } else { Err(GuardError::Greeting) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting() -> Vec<u8> {
        let mut bytes = vec![0; GREETING_BYTES];
        (bytes[0], bytes[9], bytes[10]) = (0xff, 0x7f, 3);
        bytes[12..16].copy_from_slice(b"NULL");
        bytes
    }

    fn ready() -> Vec<u8> {
        let mut bytes = greeting();
        let body = b"\x05READY\x0bSocket-Type\0\0\0\x06DEALER";
        bytes.extend([COMMAND, body.len() as u8]);
        bytes.extend(body);
        bytes
    }

    fn long(flags: u8, length: u64) -> Vec<u8> {
        [&[flags | LONG][..], &length.to_be_bytes()].concat()
    }

    fn inspect(bytes: &[u8], piece: usize, allowed: Allowance) -> Result<(), GuardError> {
        let mut guard = Guard::new();
        bytes.chunks(piece).try_for_each(|piece| guard.inspect(piece, allowed))
    }

    #[test]
    fn what_the_protocol_allows_passes_in_pieces_of_any_size() {
        let mut bytes = ready();
        for _ in 0..3 {
            bytes.extend([MORE, 0, MORE, 2, 7, 7]);
            bytes.extend(long(MORE, 70_000));
            bytes.extend(vec![1; 70_000]);
            bytes.extend(long(0, 3));
            bytes.extend([1, 2, 3]);
        }
        bytes.extend([0, 0]);
        for piece in [1, 3, 64, 65_536, bytes.len()] {
            assert_eq!(inspect(&bytes, piece, Allowance::MESSAGE), Ok(()), "in pieces of {piece}");
        }
    }

    #[test]
    fn a_header_that_announces_too_much_is_refused_before_its_body() {
        for length in [(16 << 20) + 1, 1 << 40, 1 << 62, u64::MAX] {
            let bytes = [ready(), long(0, length)].concat();
            let refused = inspect(&bytes, 5, Allowance::MESSAGE);
            assert!(matches!(refused, Err(GuardError::Length { .. })), "{length}: {refused:?}");
        }
        let sum = [ready(), long(MORE, 9 << 20), vec![0; 9 << 20], long(0, 8 << 20)].concat();
        assert!(matches!(inspect(&sum, 4096, Allowance::MESSAGE), Err(GuardError::Length { .. })));
        let command = [greeting(), long(COMMAND, 513)].concat();
        assert!(matches!(inspect(&command, 1, Allowance::SMALL), Err(GuardError::Length { .. })));
    }

    #[test]
    fn who_is_not_yet_believed_may_say_little() {
        let said = |length: u64| [ready(), long(0, length), vec![0; length as usize]].concat();
        assert_eq!(inspect(&said(256), 1000, Allowance::SMALL), Ok(()));
        assert!(inspect(&said(257), 1000, Allowance::SMALL).is_err());
        let two = [ready(), vec![MORE, 0, 0, 0]].concat();
        assert_eq!(inspect(&two, 1, Allowance::SMALL), Err(GuardError::Frames(1)));
    }

    #[test]
    fn frames_are_counted_over_a_message_and_not_beyond() {
        let message = |frames: usize| {
            let mut bytes = [MORE, 0].repeat(frames - 1);
            bytes.extend([0, 0]);
            bytes
        };
        let most = [ready(), message(256), message(256)].concat();
        assert_eq!(inspect(&most, 7, Allowance::MESSAGE), Ok(()));
        let more = [ready(), message(257)].concat();
        assert_eq!(inspect(&more, 7, Allowance::MESSAGE), Err(GuardError::Frames(256)));
    }

    #[test]
    fn what_is_no_greeting_and_commands_out_of_place_are_refused() {
        for (at, byte) in [(0, 0xfe), (9, 0), (10, 2), (12, b'P'), (20, b'X')] {
            let mut bytes = greeting();
            bytes[at] = byte;
            assert_eq!(inspect(&bytes, 1, Allowance::SMALL), Err(GuardError::Greeting), "{at}");
        }
        let after = |flags: u8, before: Vec<u8>| {
            inspect(&[before, vec![flags, 0]].concat(), 1, Allowance::MESSAGE)
        };
        assert_eq!(after(0, greeting()), Err(GuardError::Flags(0)));
        assert_eq!(after(COMMAND, ready()), Err(GuardError::Flags(COMMAND)));
        assert_eq!(after(COMMAND | MORE, greeting()), Err(GuardError::Flags(COMMAND | MORE)));
        assert_eq!(after(8, ready()), Err(GuardError::Flags(8)));
    }

    #[test]
    fn mutated_bytes_never_let_more_through_than_is_allowed() {
        let good = [ready(), vec![MORE, 3, 1, 2, 3], long(0, 300), vec![9; 300]].concat();
        let mut state = 7_u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize
        };
        let mut refused = 0;
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..1 + next() % 3 {
                let at = next() % (good.len() - 290);
                bytes[at] = next() as u8;
            }
            let mut guard = Guard::new();
            let passed = bytes
                .chunks(1 + next() % 50)
                .try_for_each(|piece| guard.inspect(piece, Allowance::MESSAGE));
            refused += usize::from(passed.is_err());
            assert!(guard.frames <= 257 && (passed.is_err() || guard.bytes <= 16 << 20));
        }
        assert!(refused > 5_000, "only {refused} were refused");
    }
}
