//! Random numbers, for ids that must not repeat. The one place of this crate that draws them.
#![allow(clippy::disallowed_methods, reason = "the shell's source of randomness")]

/// 64 random bits.
#[must_use]
pub fn u64() -> u64 {
    rand::random()
}

/// 256 random bits.
#[must_use]
pub fn key() -> [u8; 32] {
    rand::random()
}

/// 128 random bits.
#[must_use]
pub fn id() -> [u8; 16] {
    rand::random()
}
