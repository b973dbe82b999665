//! Messages of generic netlink: written, and read. Pure.
//!
//! ```text
//!   message    u32 length, u16 type, u16 flags, u32 sequence, u32 port | body      all in native order
//!   body       u8 command, u8 version, u16 0 | attributes              (of generic netlink)
//!              i32 negative errno, the message it answers               (of an answer ERROR)
//!   attribute  u16 length with this head, u16 type | value | zeros up to a multiple of 4
//! ```
//! Numbers are those of linux/netlink.h, linux/genetlink.h.

/// Of a message's head.
pub(super) const HEAD: usize = 16;

/// Of generic netlink's head.
const GENERIC_HEAD: usize = 4;

/// Of an attribute's head.
const ATTRIBUTE_HEAD: usize = 4;

/// The message is a question; it is answered with an ERROR in any case, which says 0 for success.
const REQUEST_AND_ACK: u16 = 1 | 4;

/// The type of an answer that ends a question.
const ERROR: u16 = 2;

/// The value is made of attributes.
const NESTED: u16 = 1 << 15;

/// A question in the making.
#[derive(Debug)]
pub(super) struct Question {
    bytes: Vec<u8>,
}

/// What the kernel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The question's end: `Ok`, or the errno.
    End(Result<(), i32>),
    /// Attributes, by type.
    Attributes(Vec<(u16, Vec<u8>)>),
}

impl Question {
    /// `command` of the family `family`.
    pub(super) fn new(family: u16, command: u8, sequence: u32) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(family.to_ne_bytes());
        bytes.extend(REQUEST_AND_ACK.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        // All families that are asked here have the version 1.
        bytes.extend([command, 1, 0, 0]);
        Self { bytes }
    }

    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.value(kind, &value.to_ne_bytes())
    }

    pub(super) fn long(self, kind: u16, value: u64) -> Self {
        self.value(kind, &value.to_ne_bytes())
    }

    /// A string, which ends with a zero byte on the wire.
    pub(super) fn string(self, kind: u16, value: &str) -> Self {
        self.value(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// An attribute of attributes.
    pub(super) fn nested(mut self, kind: u16, inner: impl FnOnce(Self) -> Self) -> Self {
        let at = self.bytes.len();
        self.bytes.extend([0; ATTRIBUTE_HEAD]);
        let mut this = inner(self);
        let length = (this.bytes.len() - at) as u16;
        this.bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
        this.bytes[at + 2..at + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        this
    }

    fn value(mut self, kind: u16, value: &[u8]) -> Self {
        let length = (ATTRIBUTE_HEAD + value.len()) as u16;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// The message.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}

/// Reads what one datagram of the kernel holds for the question `sequence`; whatever else there is, and
/// what is cut short, is left out.
pub(super) fn answers(mut datagram: &[u8], sequence: u32) -> Vec<Answer> {
    let mut found = Vec::new();
    while let Some(length) = u32_at(datagram, 0).map(|length| length as usize)
        && (HEAD..=datagram.len()).contains(&length)
    {
        let (message, rest) = datagram.split_at(length);
        if u32_at(message, 8) == Some(sequence) {
            found.extend(answer(message));
        }
        let padding = length.next_multiple_of(4) - length;
        datagram = rest.get(padding..).unwrap_or_default();
    }
    found
}

fn answer(message: &[u8]) -> Option<Answer> {
    if u16_at(message, 4)? == ERROR {
        let errno = i32::from_ne_bytes(message.get(HEAD..HEAD + 4)?.try_into().ok()?);
        let ended = if errno == 0 { Ok(()) } else { Err(errno.saturating_neg()) };
        return Some(Answer::End(ended));
    }
    let mut attributes = message.get(HEAD + GENERIC_HEAD..)?;
    let mut all = Vec::new();
    while let Some(length) = u16_at(attributes, 0).map(usize::from)
        && (ATTRIBUTE_HEAD..=attributes.len()).contains(&length)
    {
        let kind = u16_at(attributes, 2)? & !NESTED;
        all.push((kind, attributes[ATTRIBUTE_HEAD..length].to_vec()));
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(Answer::Attributes(all))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_question_is_laid_out_as_the_kernel_reads_it() {
        let question = Question::new(0x1c, 3, 7)
            .string(2, "nb")
            .nested(7, |sockets| sockets.nested(1, |item| item.number(1, 5)))
            .finish();
        let expected: Vec<u8> = [
            &44_u32.to_ne_bytes()[..],
            &0x1c_u16.to_ne_bytes(),
            &5_u16.to_ne_bytes(),
            &7_u32.to_ne_bytes(),
            &0_u32.to_ne_bytes(),
            &[3, 1, 0, 0],
            &7_u16.to_ne_bytes(),
            &2_u16.to_ne_bytes(),
            b"nb\0\0",
            &16_u16.to_ne_bytes(),
            &(7_u16 | NESTED).to_ne_bytes(),
            &12_u16.to_ne_bytes(),
            &(1_u16 | NESTED).to_ne_bytes(),
            &8_u16.to_ne_bytes(),
            &1_u16.to_ne_bytes(),
            &5_u32.to_ne_bytes(),
        ]
        .concat();
        assert_eq!(question, expected);
    }

    fn ended(sequence: u32, errno: i32) -> Vec<u8> {
        let mut message = Question::new(ERROR, 0, sequence).finish();
        message.truncate(HEAD);
        message.extend(errno.to_ne_bytes());
        message.extend([0; HEAD]);
        let length = message.len() as u32;
        message[..4].copy_from_slice(&length.to_ne_bytes());
        message
    }

    #[test]
    fn answers_are_told_from_those_to_other_questions() {
        let told = Question::new(0x1c, 1, 3).number(1, 9).string(4, "x").finish();
        let datagram = [told, ended(2, -16), ended(3, 0), ended(3, -28)].concat();
        let expected = vec![
            Answer::Attributes(vec![(1, 9_u32.to_ne_bytes().to_vec()), (4, b"x\0".to_vec())]),
            Answer::End(Ok(())),
            Answer::End(Err(28)),
        ];
        assert_eq!(answers(&datagram, 3), expected);
    }

    proptest! {
        #[test]
        fn no_bytes_are_read_that_are_not_there(
            mut datagram in prop::collection::vec(any::<u8>(), 0..80),
            length in 0_u8..80,
        ) {
            answers(&datagram, 3);
            // One that looks like an answer at first.
            let head = Question::new(0x1c, 1, 3).finish();
            datagram.splice(0..0, head);
            datagram[0] = length;
            answers(&datagram, 3);
        }
    }
}
