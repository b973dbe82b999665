//! What can go wrong on the way of a test: every variant says where and carries what was printed.

use std::fmt;
use std::io;
use std::time::Duration;

/// A result of the hosts harness.
pub type Result<T> = std::result::Result<T, Failure>;

/// Why a step of a test on hosts did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// A command ended with another status than 0.
    Command {
        /// Where it ran: `host2`, or `machine`.
        place: String,
        /// The command as it was given.
        command: String,
        /// The exit code, or 128 and the signal's number.
        code: i32,
        /// What it printed on both outputs.
        printed: String,
    },
    /// Something took longer than it was given.
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        after: Duration,
        /// What the last look, or the command up to then, showed.
        last: String,
    },
    /// A host is off, and what was asked needs it on.
    Off {
        /// The host's number.
        host: usize,
    },
    /// Processes of a host could not be ended.
    Stuck {
        /// The host's number.
        host: usize,
        /// A line for each process: its id, state, name and where in the kernel it waits.
        processes: Vec<String>,
    },
    /// This machine can't run several hosts.
    Machine {
        /// All that is missing.
        missing: Vec<String>,
    },
    /// Output that should have had another form.
    Unreadable {
        /// What was read.
        what: String,
        /// What is wrong with it, or the thing itself.
        because: String,
    },
    /// The operating system refused.
    Io {
        /// What was tried.
        what: String,
        /// Its answer.
        source: io::Error,
    },
    /// What the test itself found to be wrong.
    Wrong(String),
}

impl Failure {
    /// For `map_err`: an operating system's answer to `what`.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command { place, command, code, printed } => {
                write!(f, "{place}: `{command}` ended with {code}:\n{}", printed.trim_end())
            }
            Self::Timeout { what, after, last } => {
                write!(f, "after {:.1} s still not: {what}", after.as_secs_f64())?;
                if last.is_empty() { Ok(()) } else { write!(f, "; last: {}", last.trim_end()) }
            }
            Self::Off { host } => write!(f, "host{host} is off"),
            Self::Stuck { host, processes } => {
                write!(f, "processes of host{host} don't end:\n{}", processes.join("\n"))
            }
            Self::Machine { missing } => {
                write!(f, "this machine can't run several hosts: {}", missing.join("; "))
            }
            Self::Unreadable { what, because } => write!(f, "can't read {what}: {because}"),
            Self::Io { what, source } => write!(f, "{what}: {source}"),
            Self::Wrong(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
