//! Property: **nothing fsynced is lost.** A write that had returned before an fsync of its file began on
//! the same host, and which that fsync answered with success, is seen by every read from then on, or
//! something is that was written later: whatever crashes, and after the power of all was cut.

use std::collections::BTreeMap;

use mooring_terms::Time;

use super::{Register, Violation};

/// The checker's name.
pub const PROPERTY: &str = "nothing fsynced is lost";

#[derive(Clone, Copy, Debug)]
struct Write {
    value: u64,
    mount: u64,
    invoked: Time,
    /// `None`: nobody knows; it may come at any time.
    returned: Option<Time>,
}

/// What was written, and what of it is to stay.
#[derive(Debug, Default)]
pub struct Fsynced {
    writes: BTreeMap<Register, Vec<Write>>,
    /// And since when.
    secured: BTreeMap<Register, Vec<(Write, Time)>>,
    /// How many reads were held against something that is to stay.
    pub held: u64,
}

impl Fsynced {
    /// A write of `value` (0 for a truncate) began.
    pub fn began(&mut self, register: Register, value: u64, mount: u64, at: Time) {
        let write = Write { value, mount, invoked: at, returned: None };
        self.writes.entry(register).or_default().push(write);
    }

    /// It returned.
    pub fn returned(&mut self, register: Register, value: u64, mount: u64, at: Time) {
        let writes = self.writes.entry(register).or_default();
        let of = writes
            .iter_mut()
            .rev()
            .find(|write| write.value == value && write.mount == mount && write.returned.is_none());
        if let Some(write) = of {
            write.returned = Some(at);
        }
    }

    /// An fsync of a file, asked for at `began`, has succeeded.
    pub fn synced(&mut self, file: usize, mount: u64, began: Time, at: Time) {
        for (register, writes) in &self.writes {
            let of_file = match register {
                Register::Cell(of, _) | Register::Mode(of) => *of == file,
                Register::Names => false,
            };
            if !of_file {
                continue;
            }
            let kept = writes.iter().filter(|write| {
                write.mount == mount && write.returned.is_some_and(|at| at < began)
            });
            if let Some(last) = kept.max_by_key(|write| write.invoked) {
                self.secured.entry(*register).or_default().push((*last, at));
            }
        }
    }

    /// A read that began at `began` has given `value`.
    ///
    /// # Errors
    /// That is older than what was fsynced.
    pub fn read(&mut self, register: Register, value: u64, began: Time) -> Result<(), Violation> {
        let secured = self.secured.get(&register).into_iter().flatten();
        let before = secured.filter(|(_, since)| *since < began).map(|(write, _)| write);
        let Some(secured) = before.max_by_key(|write| write.invoked) else { return Ok(()) };
        self.held += 1;
        let later = |write: &Write| {
            write.value == value && write.returned.is_none_or(|at| at >= secured.invoked)
        };
        if self.writes.get(&register).is_some_and(|writes| writes.iter().any(later)) {
            return Ok(());
        }
        let text = format!("{register:?} shows {value:x}, but {secured:x?} was fsynced");
        Err(Violation { property: PROPERTY, text })
    }
}
