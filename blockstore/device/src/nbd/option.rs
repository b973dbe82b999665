//! What options carry, decoded with every length checked. Pure.

use super::proto::STRING_MAX;

/// Why an option's data can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// Inner lengths that don't add up to the outer one.
    #[error("the lengths in the option don't fit together")]
    Lengths,
    /// A name or query above 4096 bytes.
    #[error("a string in the option is longer than 4096 bytes")]
    TooLong,
    /// A name or query that is no UTF-8.
    #[error("a string in the option is not UTF-8")]
    Text,
}

/// The data of INFO and GO: `u32 length, name, u16 count, u16 info...`
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wish<'a> {
    pub(super) name: &'a str,
    infos: Vec<u16>,
}

impl<'a> Wish<'a> {
    pub(super) fn decode(data: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(data);
        let name = reader.string()?;
        let count = reader.u16()?;
        let infos = (0..count).map(|_| reader.u16()).collect::<Result<_, _>>()?;
        reader.end()?;
        Ok(Self { name, infos })
    }

    pub(super) fn wants(&self, info: u16) -> bool {
        self.infos.contains(&info)
    }
}

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT: `u32 length, name, u32 count, (u32 length,
/// query)...`
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MetaQuery<'a> {
    pub(super) name: &'a str,
    queries: Vec<&'a str>,
}

impl<'a> MetaQuery<'a> {
    pub(super) fn decode(data: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(data);
        let name = reader.string()?;
        let count = reader.u32()?;
        let mut queries = Vec::new();
        for _ in 0..count {
            queries.push(reader.string()?);
        }
        reader.end()?;
        Ok(Self { name, queries })
    }

    pub(super) fn asks_nothing(&self) -> bool {
        self.queries.is_empty()
    }

    pub(super) fn asks_for(&self, context: &str) -> bool {
        self.queries.contains(&context)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed::Lengths)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn string(&mut self) -> Result<&'a str, Malformed> {
        let length = self.u32()?;
        // What can't be there at all is a wrong length; what is there and too long is told so.
        let bytes = self.take(length as usize)?;
        if length > STRING_MAX {
            return Err(Malformed::TooLong);
        }
        std::str::from_utf8(bytes).map_err(|_| Malformed::Text)
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::Lengths) }
    }
}
