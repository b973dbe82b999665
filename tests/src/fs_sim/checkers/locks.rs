//! Property: **locks exclude.** While a mount whose session is served holds a lock for a program, nobody
//! else is given it.

use std::collections::BTreeMap;

use super::Violation;

/// The checker's name.
pub const PROPERTY: &str = "locks exclude";

/// Who holds the lock of each file: (mount, program).
#[derive(Debug, Default)]
pub struct Held {
    held: BTreeMap<(usize, bool), (u64, usize)>,
    /// How many were given.
    pub given: u64,
}

impl Held {
    /// A lock is given. `served` says whether a mount is there and within its lease.
    ///
    /// # Errors
    /// Somebody has it.
    pub fn given(
        &mut self,
        file: usize,
        flock: bool,
        who: (u64, usize),
        served: impl Fn(u64) -> bool,
    ) -> Result<(), Violation> {
        self.given += 1;
        let before = self.held.insert((file, flock), who);
        match before.filter(|before| *before != who && served(before.0)) {
            Some(before) => {
                let text = format!("the lock of file {file} is {before:?}'s, and given to {who:?}");
                Err(Violation { property: PROPERTY, text })
            }
            None => Ok(()),
        }
    }

    /// A lock is about to be freed.
    pub fn freed(&mut self, file: usize, flock: bool, who: (u64, usize)) {
        if self.held.get(&(file, flock)) == Some(&who) {
            self.held.remove(&(file, flock));
        }
    }
}
