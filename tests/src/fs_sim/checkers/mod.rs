//! The properties, one a file, over the history of system calls.

pub mod appends;
pub mod coherence;
pub mod foreign;
pub mod fsynced;
pub mod locks;
pub mod names;

use mooring_terms::Time;

/// A file's place for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Register {
    /// A cell of a file.
    Cell(usize, u64),
    /// The shared directory: all its names are one register, since a rename changes two at once.
    Names,
    /// A file's mode.
    Mode(usize),
}

/// What a system call does with a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Puts a value.
    Write(u64),
    /// Reads; its value comes with the return.
    Read,
    /// Looks a name up; its inode comes with the return, or 0.
    Lookup(u8),
    /// Makes a name that must not be there.
    Create(u8),
    /// Removes a name that must be there.
    Unlink(u8),
    /// Moves the first name, which must be there, to the second; or exchanges two that are there.
    Rename(u8, u8, bool),
    /// Gives this inode, which must have a name still, a name that must not be there.
    Link(u64, u8),
}

/// What a system call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Result {
    /// It is done; with the value that it read or made.
    Done(u64),
    /// A name was there, or was not, as it must not be.
    Refused,
}

/// One thing that happened, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A call of a mount began.
    Invoked { call: u64, mount: u64, register: Register, act: Act, at: Time },
    /// It returned.
    Returned { call: u64, result: Result, at: Time },
    /// It failed without saying whether it was done, at this moment or earlier or later.
    Unknown { call: u64 },
    /// It certainly did nothing.
    Never { call: u64 },
    /// A mount can't write any more; what it had buffered is gone.
    Fenced { mount: u64 },
    /// The power of everything was cut.
    PowerCut,
}

/// A broken property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The name of its checker.
    pub property: &'static str,
    /// What was seen.
    pub text: String,
}
