//! Spans of time as people type them: `90s`, `10m`, `500ms`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The units with their length in milliseconds, largest first.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A span of time in whole milliseconds.
///
/// Text, and JSON alike: whole numbers with units `d`, `h`, `m`, `s`, `ms`, such as `90s` or
/// `1h30m`. A bare number is refused: it could mean anything. Shown in the same form.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "10m")]
pub struct Span(u64);

/// Why a text is no span of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// Nothing was given.
    #[error("the duration is empty: give one such as 90s or 10m")]
    Empty,
    /// A number has no unit behind it.
    #[error("{text:?} lacks a unit: write 90s, 10m, 2h, 1d or 500ms")]
    NoUnit {
        /// What was given.
        text: String,
    },
    /// It is not numbers and units in turn.
    #[error("{text:?} is no duration: write numbers with units, such as 90s, 10m or 1h30m")]
    Malformed {
        /// What was given.
        text: String,
    },
    /// It is longer than 2^64 ms.
    #[error("{text:?} is too long")]
    TooLong {
        /// What was given.
        text: String,
    },
}

impl Span {
    /// `count` milliseconds.
    #[must_use]
    pub const fn from_ms(count: u64) -> Self {
        Self(count)
    }

    /// `count` seconds.
    #[must_use]
    pub const fn from_seconds(count: u64) -> Self {
        Self(count * 1_000)
    }

    /// The length in milliseconds.
    #[must_use]
    pub const fn ms(self) -> u64 {
        self.0
    }

    /// The same as the standard library has it.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl From<Duration> for Span {
    /// Cuts off what is below a millisecond.
    fn from(duration: Duration) -> Self {
        Self::from_ms(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let malformed = || SpanError::Malformed { text: text.to_owned() };
        let too_long = || SpanError::TooLong { text: text.to_owned() };
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(SpanError::Empty);
        }
        let mut total = 0_u64;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (number, behind) = rest.split_at(digits);
            if number.is_empty() {
                return Err(malformed());
            }
            let behind = behind.trim_start();
            let letters = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
            let (unit, behind) = behind.split_at(letters);
            if unit.is_empty() {
                let bare = behind.is_empty() || behind.starts_with(|c: char| c.is_ascii_digit());
                return Err(match bare {
                    true => SpanError::NoUnit { text: text.to_owned() },
                    false => malformed(),
                });
            }
            let (_, length) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(malformed)?;
            let number: u64 = number.parse().map_err(|_| too_long())?;
            total = number
                .checked_mul(*length)
                .and_then(|part| total.checked_add(part))
                .ok_or_else(too_long)?;
            rest = behind.trim_start();
        }
        Ok(Self::from_ms(total))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        let mut rest = self.0;
        for (name, length) in UNITS {
            if rest >= length {
                text.push_str(&format!("{}{name}", rest / length));
                rest %= length;
            }
        }
        f.pad(if text.is_empty() { "0s" } else { &text })
    }
}

impl TryFrom<String> for Span {
    type Error = SpanError;

    fn try_from(text: String) -> Result<Self, SpanError> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_is_understood_and_shown_again() {
        for (text, ms, shown) in [
            ("90s", 90_000, "1m30s"),
            ("10m", 600_000, "10m"),
            ("1h30m", 5_400_000, "1h30m"),
            (" 2 d ", 172_800_000, "2d"),
            ("500ms", 500, "500ms"),
            ("1s 5ms", 1_005, "1s5ms"),
            ("0s", 0, "0s"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span, Span::from_ms(ms), "{text}");
            assert_eq!(span.to_string(), shown);
            assert_eq!(shown.parse(), Ok(span));
        }
    }

    #[test]
    fn nonsense_is_refused_with_what_to_type() {
        for text in ["", "10", "m", "ten", "-1s", "1.5h", "10 minutes", "10M", "1h30"] {
            let error = text.parse::<Span>().unwrap_err().to_string();
            assert!(error.contains("90s"), "{text:?}: {error}");
        }
        assert!(matches!("10".parse::<Span>(), Err(SpanError::NoUnit { .. })));
        assert!(matches!("99999999999999999999s".parse::<Span>(), Err(SpanError::TooLong { .. })));
        assert!(matches!("400000000000000d".parse::<Span>(), Err(SpanError::TooLong { .. })));
    }

    #[test]
    fn json_is_text() {
        let span: Span = serde_json::from_str(r#""10m""#).unwrap();
        assert_eq!(serde_json::to_string(&span).unwrap(), r#""10m""#);
        assert!(serde_json::from_str::<Span>("600").is_err());
    }
}
