//! Property: **no bytes of others.** What a file shows was written to that very place of it, whole, or
//! is zeros: never what another file had there, never a part.

use std::collections::BTreeMap;

use super::{Register, Violation};

/// The checker's name.
pub const PROPERTY: &str = "no bytes of others";

/// The value that a cell's bytes stand for.
///
/// # Errors
/// They are not one value, or one that was never written to that cell.
pub fn value_of(
    bytes: &[u8],
    register: Register,
    written: &BTreeMap<u64, Register>,
) -> Result<u64, Violation> {
    let words: Vec<u64> = bytes
        .chunks(8)
        .map(|word| {
            let mut whole = [0; 8];
            whole[..word.len()].copy_from_slice(word);
            u64::from_le_bytes(whole)
        })
        .collect();
    let value = words.first().copied().unwrap_or(0);
    let torn = words.iter().any(|&word| word != value);
    let foreign = value != 0 && written.get(&value) != Some(&register);
    if torn || foreign {
        let text = format!("{register:?} shows {words:x?}, of {:?}", written.get(&value));
        return Err(Violation { property: PROPERTY, text });
    }
    Ok(value)
}
