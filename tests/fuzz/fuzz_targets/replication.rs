//! All that replicas and volumes say to each other, and what replicas keep in the log.
//!
//! Input: kind, length of the header (u16, little-endian), header, then frames: length (u32) and bytes.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mooring_replication::{BeaconMessage, Control, Message, ReplyMessage, RequestMessage, State};

fn parts(input: &[u8]) -> Option<(u8, &[u8], Vec<Bytes>)> {
    let (&kind, rest) = input.split_first()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (header, mut rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
    let mut frames = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = (u32::from_le_bytes(*length) as usize).min(tail.len());
        let (frame, tail) = tail.split_at(length);
        frames.push(Bytes::copy_from_slice(frame));
        rest = tail;
    }
    Some((kind, header, frames))
}

fuzz_target!(|input: &[u8]| {
    let Some((kind, header, frames)) = parts(input) else { return };
    match kind {
        0 => {
            if let Ok(message) = Message::decode(header, frames) {
                let (header, frames) = message.clone().encode();
                assert_eq!(Message::decode(&header, frames), Ok(message));
            }
        }
        1 => {
            if let Ok(message) = RequestMessage::decode(header, frames) {
                let (header, frames) = message.clone().encode();
                assert_eq!(RequestMessage::decode(&header, frames), Ok(message));
            }
        }
        2 => {
            if let Ok(message) = ReplyMessage::decode(header, frames) {
                let (header, frames) = message.clone().encode();
                assert_eq!(ReplyMessage::decode(&header, frames), Ok(message));
            }
        }
        3 => drop(BeaconMessage::decode(header)),
        4 => drop(Control::decode(header)),
        _ => drop(State::decode(header)),
    }
});
