//! Names of volumes, nodes and labels: checked once, where they come in.
//!
//! Invariant: a name needs no escaping, in a URL path, a shell or a file name. So the types below
//! can only be made from text that follows their rule.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("the {what} is empty")]
    Empty {
        /// What it should name: "volume name", "label key"...
        what: &'static str,
    },
    /// It is longer than allowed.
    #[error("the {what} {text:?} has {length} characters; at most {limit} are allowed")]
    TooLong {
        /// What it should name.
        what: &'static str,
        /// Its first characters.
        text: String,
        /// How long it is, in characters.
        length: usize,
        /// How long it may be.
        limit: usize,
    },
    /// It has a character that is not allowed.
    #[error("the {what} {text:?} can't be used: {rule}")]
    Character {
        /// What it should name.
        what: &'static str,
        /// What was given.
        text: String,
        /// What is allowed.
        rule: &'static str,
    },
    /// A label without `=`.
    #[error("{text:?} is no label: write key=value")]
    NoEquals {
        /// What was given.
        text: String,
    },
}

/// One kind of name: what it is called in messages, and its rule.
struct Rule {
    what: &'static str,
    limit: usize,
    also: &'static [char],
    explained: &'static str,
}

impl Rule {
    fn check(&self, text: &str) -> Result<(), NameError> {
        let what = self.what;
        if text.is_empty() {
            return Err(NameError::Empty { what });
        }
        let length = text.chars().count();
        if length > self.limit {
            let text = text.chars().take(32).collect();
            return Err(NameError::TooLong { what, text, length, limit: self.limit });
        }
        let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let allowed = |c: char| c.is_ascii_alphanumeric() || self.also.contains(&c);
        if !starts || !text.chars().all(allowed) {
            return Err(NameError::Character { what, text: text.to_owned(), rule: self.explained });
        }
        Ok(())
    }
}

/// Declares a newtype over text that follows a [`Rule`].
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $example:literal, $rule:expr) => {
        $(#[$doc])*
        #[derive(
            Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
        )]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String, example = $example)]
        pub struct $name(String);

        impl $name {
            const RULE: Rule = $rule;

            /// Checks `text` and takes it.
            ///
            /// # Errors
            /// [`NameError`] if it doesn't follow the rule.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                Self::RULE.check(&text)?;
                Ok(Self(text))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// The name of a volume: 1 to 128 of `A-Z a-z 0-9 . _ -`, the first a letter or digit. What
    /// Docker and Kubernetes call volumes fits.
    VolumeName, "db", Rule {
        what: "volume name",
        limit: 128,
        also: &['.', '_', '-'],
        explained: "use letters, digits, '.', '_' and '-', and begin with a letter or digit",
    }
}
name! {
    /// The name of a node, by default its host name: 1 to 128 of `A-Z a-z 0-9 . _ -`, the first a
    /// letter or digit.
    NodeName, "alpha", Rule {
        what: "node name",
        limit: 128,
        also: &['.', '_', '-'],
        explained: "use letters, digits, '.', '_' and '-', and begin with a letter or digit",
    }
}
name! {
    /// The name of a token of the API: as a node's.
    TokenName, "ci", Rule {
        what: "token name",
        limit: 128,
        also: &['.', '_', '-'],
        explained: "use letters, digits, '.', '_' and '-', and begin with a letter or digit",
    }
}
name! {
    /// The key of a label: 1 to 128 of `A-Z a-z 0-9 . _ - /`, the first a letter or digit. `zone`,
    /// `rack` and `region` of a node mean something to placement.
    LabelKey, "zone", Rule {
        what: "label key",
        limit: 128,
        also: &['.', '_', '-', '/'],
        explained: "use letters, digits, '.', '_', '-' and '/', and begin with a letter or digit",
    }
}

/// How long a label's value may be, in characters.
const LABEL_VALUE_LIMIT: usize = 255;

/// The value of a label: up to 255 characters, none of them a control character; may be empty.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, ToSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "east")]
pub struct LabelValue(String);

impl LabelValue {
    /// Checks `text` and takes it.
    ///
    /// # Errors
    /// [`NameError`] if it is too long or has control characters.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let (text, what) = (text.into(), "label value");
        let length = text.chars().count();
        if length > LABEL_VALUE_LIMIT {
            let text = text.chars().take(32).collect();
            return Err(NameError::TooLong { what, text, length, limit: LABEL_VALUE_LIMIT });
        }
        if text.chars().any(char::is_control) {
            let rule = "it has control characters";
            return Err(NameError::Character { what, text, rule });
        }
        Ok(Self(text))
    }

    /// The value as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for LabelValue {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl From<LabelValue> for String {
    fn from(value: LabelValue) -> Self {
        value.0
    }
}

impl fmt::Display for LabelValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Labels of a node or volume, ordered by key.
pub type Labels = BTreeMap<LabelKey, LabelValue>;

/// One label as typed: `key=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Left of the first `=`.
    pub key: LabelKey,
    /// Right of it.
    pub value: LabelValue,
}

impl FromStr for Label {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (key, value) =
            text.split_once('=').ok_or_else(|| NameError::NoEquals { text: text.to_owned() })?;
        Ok(Self { key: LabelKey::new(key)?, value: LabelValue::new(value)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_docker_and_kubernetes_fit() {
        for name in ["db", "a", "7", "My_Volume-1.2", "pvc-0c6f3a1e-6f3c-4a2f-8b52-6a3f2d7b9d11"] {
            assert_eq!(VolumeName::new(name).unwrap().as_str(), name);
        }
        assert!(LabelKey::new("topology.kubernetes.io/zone").is_ok());
        assert!(VolumeName::new("a".repeat(128)).is_ok());
    }

    #[test]
    fn what_could_leave_its_path_is_refused() {
        for name in ["", ".", "..", "-x", "_x", "a/b", "a b", "a\0", "a%2f", "é", "a\n", "../x"] {
            assert!(VolumeName::new(name).is_err(), "{name:?}");
            assert!(NodeName::new(name).is_err(), "{name:?}");
            let json = serde_json::to_string(name).unwrap();
            assert!(serde_json::from_str::<VolumeName>(&json).is_err(), "{name:?}");
        }
        let error = VolumeName::new("a".repeat(1_000)).unwrap_err().to_string();
        assert!(error.contains("1000 characters") && error.len() < 200, "{error}");
    }

    #[test]
    fn labels_are_key_and_value() {
        let label: Label = "zone=a=b".parse().unwrap();
        assert_eq!((label.key.as_str(), label.value.as_str()), ("zone", "a=b"));
        assert_eq!("zone=".parse::<Label>().unwrap().value.as_str(), "");
        assert_eq!(
            "zone".parse::<Label>().unwrap_err().to_string(),
            r#""zone" is no label: write key=value"#
        );
        assert!("=a".parse::<Label>().is_err());
        assert!("a=b\nc".parse::<Label>().is_err());
    }
}
