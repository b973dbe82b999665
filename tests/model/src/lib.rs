//! A file system that is mounted on several hosts, compared with one in memory, call by call.
//!
//! ```text
//!   Chooser ──Action (host, system call)──┬──> Reference: maps and vectors ──> what is expected
//!    (one seed)                           └──> Hosts: real calls below roots ──> what came
//!                                                    both are compared after each: `Run`
//! ```
//! One call is made at a time, on one host or another, so there is one right answer to each: contents,
//! errors, sizes, link counts and locks exactly; a time lies within the call that set it, and is the same
//! on all hosts from then on. Between the changes any host looks at what was just changed, through names,
//! open files and mappings. One seed gives one sequence of calls; if one comes out wrong, `Run` says which
//! and what led to it.
//!
//! It knows nothing of shared volumes: any directories that are the same on all hosts will do.

mod action;
mod choose;
mod compare;
mod hosts;
mod paths;
mod reference;
mod run;

pub use action::{Action, Call, How, Moves, Space};
pub use run::{Failure, Options, Report, Run, Times, shortened};
