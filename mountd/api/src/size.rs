//! Sizes in bytes: what people type (`10G`, `512MiB`) and what programs send (a number).

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// The units, smallest first. All are powers of 1024, with or without the `i`.
const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A number of bytes.
///
/// Text: a number, perhaps with a decimal fraction, and a unit: `B`, `K`, `KB`, `KiB`, and so on
/// up to `E`; upper or lower case, a space between allowed. Every unit is a power of 1024, as in
/// `dd` and `lvcreate`; what a fraction leaves below a byte is cut off. A bare number is bytes. JSON: the number of bytes; text is accepted too.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, ToSchema,
)]
#[serde(transparent)]
#[schema(value_type = u64, example = 10_737_418_240_u64)]
pub struct ByteSize(pub u64);

/// Why a text is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ByteSizeError {
    /// Nothing was given.
    #[error("the size is empty: give one such as 10G or 512MiB")]
    Empty,
    /// It doesn't start with a number.
    #[error("{text:?} is no size: it must be a number and a unit, such as 10G or 512MiB")]
    NoNumber {
        /// What was given.
        text: String,
    },
    /// What follows the number is no unit.
    #[error("{unit:?} is no unit of size: use one of B, K, M, G, T, P, E (powers of 1024)")]
    UnknownUnit {
        /// What was given for one.
        unit: String,
    },
    /// It has a part of a byte, or more than 18 digits behind the point.
    #[error("{text:?} is not a whole number of bytes")]
    NotWhole {
        /// What was given.
        text: String,
    },
    /// It is 16 EiB or more.
    #[error("{text:?} is too large: the limit is 16 EiB")]
    TooLarge {
        /// What was given.
        text: String,
    },
}

impl ByteSize {
    /// `count` times 1024 * 1024 bytes.
    #[must_use]
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// `count` times 1024 * 1024 * 1024 bytes.
    #[must_use]
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Err(ByteSizeError::Empty);
        }
        let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(end);
        let no_number = || ByteSizeError::NoNumber { text: text.to_owned() };
        let too_large = || ByteSizeError::TooLarge { text: text.to_owned() };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
            return Err(no_number());
        }
        let shift = unit_shift(unit.trim())?;
        let whole: u128 = whole.parse().map_err(|_| too_large())?;
        let not_whole = || ByteSizeError::NotWhole { text: text.to_owned() };
        // 10^18 times the largest unit, 2^60, still fits into 128 bits.
        let divisor = u32::try_from(fraction.len())
            .ok()
            .filter(|digits| *digits <= 18)
            .map(|digits| 10_u128.pow(digits))
            .ok_or_else(not_whole)?;
        let fraction: u128 = fraction.parse().map_err(|_| no_number())?;
        let unit = 1_u128 << shift;
        if shift == 0 && fraction != 0 {
            return Err(not_whole());
        }
        let bytes = whole.checked_mul(unit).ok_or_else(too_large)? + fraction * unit / divisor;
        u64::try_from(bytes).map(Self).map_err(|_| too_large())
    }
}

/// How many bits to the left a unit moves a number.
fn unit_shift(unit: &str) -> Result<u32, ByteSizeError> {
    let lower = unit.to_ascii_lowercase();
    let letter = match lower.as_str() {
        "" | "b" => return Ok(0),
        other => other.strip_suffix("ib").or_else(|| other.strip_suffix('b')).unwrap_or(other),
    };
    let power = match letter {
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        "e" => 6,
        _ => return Err(ByteSizeError::UnknownUnit { unit: unit.to_owned() }),
    };
    Ok(power * 10)
}

impl fmt::Display for ByteSize {
    /// The largest unit of which there is at least one, with one decimal where it isn't whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let power = if self.0 == 0 { 0 } else { self.0.ilog2() / 10 };
        let unit = 1_u128 << (power * 10);
        let tenths = (u128::from(self.0) * 10 + unit / 2) / unit;
        let name = UNITS[power as usize];
        let text = if tenths.is_multiple_of(10) {
            format!("{} {name}", tenths / 10)
        } else {
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        };
        f.pad(&text)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;

        impl Visitor<'_> for SizeVisitor {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, or text such as \"10G\"")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                u64::try_from(bytes)
                    .map(ByteSize)
                    .map_err(|_| E::custom("a size can't be negative"))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(SizeVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_is_understood() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("10G", 10 << 30),
            ("10 GiB", 10 << 30),
            ("10gb", 10 << 30),
            (" 512MiB ", 512 << 20),
            ("1.5T", 3 << 39),
            ("1k", 1024),
            ("7B", 7),
            ("0.5K", 512),
            ("15E", 15 << 60),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_what_to_type() {
        for text in
            ["", " ", "G", "ten", "-1G", "1..5G", ".5G", "1.G", "10X", "10GG", "1e3", "10 G B"]
        {
            let error = text.parse::<ByteSize>().unwrap_err().to_string();
            assert!(error.contains("10G") || error.contains("use one of"), "{text:?}: {error}");
        }
        assert!(matches!("1.5".parse::<ByteSize>(), Err(ByteSizeError::NotWhole { .. })));
        assert!(matches!("16E".parse::<ByteSize>(), Err(ByteSizeError::TooLarge { .. })));
        assert!(matches!(
            "99999999999999999999999999999999999999999".parse::<ByteSize>(),
            Err(ByteSizeError::TooLarge { .. })
        ));
        assert!(matches!(
            "340282366920938463463374607431768211455E".parse::<ByteSize>(),
            Err(ByteSizeError::TooLarge { .. })
        ));
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit_that_fits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (10 << 30, "10 GiB"),
            (3 << 29, "1.5 GiB"),
            ((10 << 30) + 1, "10 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }

    #[test]
    fn json_takes_numbers_and_text_and_gives_numbers() {
        let sizes: Vec<ByteSize> = serde_json::from_str(r#"[10, "10K"]"#).unwrap();
        assert_eq!(serde_json::to_string(&sizes).unwrap(), "[10,10240]");
        assert!(serde_json::from_str::<ByteSize>("-1").is_err());
        assert!(serde_json::from_str::<ByteSize>("1.5").is_err());
        assert!(serde_json::from_str::<ByteSize>(r#""ten""#).is_err());
    }
}
