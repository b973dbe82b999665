//! What the seeds of a test run must have reached.

use crate::sim::CoverageKind as Kind;

/// By kind and name.
pub const REQUIRED: &[(Kind, &str)] = &[
    (Kind::Fault, "crash host"),
    (Kind::Fault, "cut host off"),
    (Kind::Fault, "break stream"),
    (Kind::Fault, "stop host"),
    (Kind::Fault, "fail over"),
    (Kind::Fault, "move slice"),
    (Kind::Fault, "slow slice"),
    (Kind::Fault, "late messages"),
    (Kind::Fault, "power cut"),
    (Kind::Situation, "a session is fenced"),
    (Kind::Situation, "a fenced write is refused"),
    (Kind::Situation, "a message over an older stream"),
    (Kind::Situation, "a mount learns that it is over"),
    (Kind::Situation, "a stream is given up"),
    (Kind::Situation, "a name from the kernel's cache"),
    (Kind::Situation, "attributes from the kernel's cache"),
    (Kind::Situation, "a page from the kernel's cache"),
    (Kind::Situation, "the kernel's caches are taken back"),
    (Kind::Situation, "an invalidation waits for a page"),
    (Kind::Situation, "a read held against an fsync"),
    (Kind::Situation, "a lock is given"),
    (Kind::Situation, "a caller has a signal"),
    (Kind::Situation, "a record in the log"),
    (Kind::Situation, "freed blocks are discarded"),
    (Kind::Situation, "no space"),
    (Kind::Situation, "new data is lost"),
    (Kind::Situation, "zeros behind an end are lost"),
    (Kind::Operation, "truncate"),
    (Kind::Operation, "fsync"),
    (Kind::Operation, "append"),
    (Kind::Operation, "unlink"),
];
