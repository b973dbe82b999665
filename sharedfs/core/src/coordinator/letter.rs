//! Messages on their way: letters, each of which is one frame of a stream.
//!
//! ```text
//!   0  version u32    4  direction u8 (1 to the coordinator, 2 to a client)    5  messages, one after the other
//! ```
//! A letter comes from a process that is admitted, not from one that is right: every byte is checked, and
//! a letter that is wrong anywhere is wrong as a whole. Whoever gets one cuts the stream.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::message::{ToClient, ToCoordinator, VERSION};

/// No letter is longer, in bytes. The largest messages are a write (1 MiB and a little), a page of a directory
/// with attributes (1.5 MiB) and a commit of all that a client may have dirty.
pub const LETTER_MAX: usize = 8 << 20;

/// No letter has more messages.
pub const MESSAGES_MAX: usize = 4096;

/// From this size on, in bytes, what comes next goes into another letter.
const LETTER_FULL: usize = 1 << 20;

const HEADER: usize = 5;

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::ToCoordinator {}
    impl Sealed for super::ToClient {}
}

/// What letters are made of.
pub trait Message: Serialize + DeserializeOwned + sealed::Sealed {
    /// Tells letters of the two directions apart.
    const DIRECTION: u8;
}

impl Message for ToCoordinator {
    const DIRECTION: u8 = 1;
}

impl Message for ToClient {
    const DIRECTION: u8 = 2;
}

/// Why bytes are no letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LetterError {
    /// Longer than [`LETTER_MAX`], or more messages than [`MESSAGES_MAX`].
    #[error("a letter is too long")]
    TooLong,
    /// Written by a program that speaks otherwise.
    #[error("a letter in version {0}, which this program doesn't know")]
    Version(u32),
    /// No messages, or not those that were expected.
    #[error("a letter makes no sense")]
    Damaged,
}

/// Puts messages into letters, in order: one, unless it would be too long.
#[must_use]
pub fn write_letters<M: Message>(messages: &[M]) -> Vec<Vec<u8>> {
    let mut letters: Vec<Vec<u8>> = Vec::new();
    let mut count = 0;
    for message in messages {
        let bytes = postcard::to_stdvec(message).expect("a message is plain data");
        match letters.last_mut() {
            Some(letter) if letter.len() + bytes.len() <= LETTER_FULL && count < MESSAGES_MAX => {
                letter.extend_from_slice(&bytes);
                count += 1;
            }
            _ => {
                let mut letter = Vec::with_capacity(HEADER + bytes.len());
                letter.extend_from_slice(&VERSION.to_le_bytes());
                letter.push(M::DIRECTION);
                letter.extend_from_slice(&bytes);
                letters.push(letter);
                count = 1;
            }
        }
    }
    letters
}

/// Reads a letter: one message or more.
///
/// # Errors
/// [`LetterError`]: the stream that it came on can't be believed any more.
pub fn read_letter<M: Message>(letter: &[u8]) -> Result<Vec<M>, LetterError> {
    if letter.len() > LETTER_MAX {
        return Err(LetterError::TooLong);
    }
    let (version, rest) = letter.split_first_chunk::<4>().ok_or(LetterError::Damaged)?;
    let version = u32::from_le_bytes(*version);
    if version != VERSION {
        return Err(LetterError::Version(version));
    }
    let (&direction, mut rest) = rest.split_first().ok_or(LetterError::Damaged)?;
    if direction != M::DIRECTION || rest.is_empty() {
        return Err(LetterError::Damaged);
    }
    let mut messages = Vec::new();
    while !rest.is_empty() {
        if messages.len() == MESSAGES_MAX {
            return Err(LetterError::TooLong);
        }
        let (message, behind) =
            postcard::take_from_bytes(rest).map_err(|_| LetterError::Damaged)?;
        messages.push(message);
        rest = behind;
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::coordinator::{Operation, RenewNumber, Request, RequestId, WritePlace};
    use crate::format::SessionRow;
    use crate::sessions::EndReason;
    use crate::{Caller, Ino, Name, QuarantineNumber, RequestNumber, SessionId, SlotIndex};

    fn request(operation: Operation) -> ToCoordinator {
        let id = RequestId { session: SessionId(7), slot: SlotIndex(3), number: RequestNumber(9) };
        let wanted = vec![(Ino(4), crate::leases::LeaseLevel::Read)];
        ToCoordinator::Request(Request { id, caller: Caller::ROOT, operation, wanted })
    }

    fn some() -> Vec<ToCoordinator> {
        let name = Name::new(b"name").unwrap();
        vec![
            ToCoordinator::Hello(SessionId(7)),
            ToCoordinator::Begin(1, SessionRow { node: 1, mount: 2, slots: 64 }),
            request(Operation::Lookup { dir: Ino::ROOT, name }),
            request(Operation::Write {
                ino: Ino(5),
                place: WritePlace::At(12),
                bytes: vec![7; 5000],
                kill_privileges: true,
                launders: false,
            }),
            ToCoordinator::LayoutsReturned(SessionId(7), QuarantineNumber(2)),
        ]
    }

    #[test]
    fn messages_come_out_as_they_went_in() {
        let letters = write_letters(&some());
        assert_eq!(letters.len(), 1);
        assert_eq!(read_letter::<ToCoordinator>(&letters[0]), Ok(some()));
        let told = vec![ToClient::Renewed(RenewNumber(4)), ToClient::Ended(EndReason::Ended)];
        assert_eq!(read_letter::<ToClient>(&write_letters(&told)[0]), Ok(told));
        assert!(write_letters::<ToClient>(&[]).is_empty());
    }

    #[test]
    fn many_messages_go_in_several_letters_in_order() {
        let large = |n: u64| {
            request(Operation::Write {
                ino: Ino(n),
                place: WritePlace::End,
                bytes: vec![1; 700_000],
                kill_privileges: false,
                launders: false,
            })
        };
        let messages: Vec<ToCoordinator> = (0..5).map(large).collect();
        let letters = write_letters(&messages);
        assert_eq!(letters.len(), 5);
        let read: Vec<ToCoordinator> =
            letters.iter().flat_map(|l| read_letter::<ToCoordinator>(l).unwrap()).collect();
        assert_eq!(read, messages);
        let many = vec![ToClient::Reclaim; MESSAGES_MAX + 1];
        let letters = write_letters(&many);
        assert_eq!(letters.len(), 2);
        assert!(letters.iter().all(|letter| read_letter::<ToClient>(letter).is_ok()));
    }

    #[test]
    fn the_wrong_way_the_wrong_version_and_too_much_are_refused() {
        let letter = write_letters(&some()).remove(0);
        assert_eq!(read_letter::<ToClient>(&letter), Err(LetterError::Damaged));
        let mut newer = letter.clone();
        newer[0] += 1;
        assert_eq!(read_letter::<ToCoordinator>(&newer), Err(LetterError::Version(VERSION + 1)));
        assert_eq!(read_letter::<ToCoordinator>(&letter[..5]), Err(LetterError::Damaged));
        assert_eq!(read_letter::<ToCoordinator>(&[]), Err(LetterError::Damaged));
        let long = vec![0; LETTER_MAX + 1];
        assert_eq!(read_letter::<ToCoordinator>(&long), Err(LetterError::TooLong));
        let mut crowd = write_letters(&[ToClient::Reclaim]).remove(0);
        let message = crowd[HEADER..].to_vec();
        (0..MESSAGES_MAX).for_each(|_| crowd.extend_from_slice(&message));
        assert_eq!(read_letter::<ToClient>(&crowd), Err(LetterError::TooLong));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Whatever comes: messages or an error, and what is read can be written again.
        #[test]
        fn no_bytes_do_harm(
            at in any::<prop::sample::Index>(),
            to in any::<u8>(),
            cut in any::<prop::sample::Index>(),
            rubbish in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut letter = write_letters(&some()).remove(0);
            let place = at.index(letter.len());
            letter[place] = to;
            letter.truncate(cut.index(letter.len()).max(HEADER + 1));
            if let Ok(messages) = read_letter::<ToCoordinator>(&letter) {
                let again = write_letters(&messages).remove(0);
                prop_assert_eq!(read_letter::<ToCoordinator>(&again), Ok(messages));
            }
            let mut random = VERSION.to_le_bytes().to_vec();
            random.push(2);
            random.extend(rubbish);
            let _ = read_letter::<ToClient>(&random);
            random[4] = 1;
            let _ = read_letter::<ToCoordinator>(&random);
        }
    }
}
