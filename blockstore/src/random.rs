//! Random numbers, for ids that must not repeat. The one place of this crate that draws them.

/// 64 random bits.
#[must_use]
pub fn u64() -> u64 {
    rand::random()
}
