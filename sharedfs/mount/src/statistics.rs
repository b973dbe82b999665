//! What a mount has done since it began: counted without a lock, told to whoever asks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use mooring_sharedfs_client::{KernelOperation, KernelReply};

/// The kinds of requests, as people know them.
const KINDS: [&str; 24] = [
    "lookup", "getattr", "setattr", "access", "readlink", "make", "unlink", "rmdir", "rename",
    "link", "open", "create", "read", "write", "flush", "fsync", "release", "opendir", "readdir",
    "statfs", "xattr", "lock", "allocate", "seek",
];

/// What a mount has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Requests of the kernel, by kind: those that there were.
    pub operations: BTreeMap<&'static str, u64>,
    /// Of them, answered from what the mount had, without a word to anybody.
    pub at_once: u64,
    /// Bytes that programs have read.
    pub read_bytes: u64,
    /// Bytes that programs have written.
    pub written_bytes: u64,
    /// Leases that others wanted.
    pub recalls: u64,
    /// Writes of blocks that failed.
    pub write_back_errors: u64,
    /// Bytes that were written and are not part of their files yet.
    pub dirty_bytes: u64,
}

/// The counters behind it.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    operations: [AtomicU64; KINDS.len()],
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    pub(crate) recalls: AtomicU64,
    pub(crate) write_back_errors: AtomicU64,
}

impl Counters {
    /// Counts a request.
    pub(crate) fn asked(&self, operation: &KernelOperation) {
        if let Some(kind) = kind(operation) {
            self.operations[kind].fetch_add(1, Ordering::Relaxed);
        }
        if let KernelOperation::Write { bytes, .. } = operation {
            self.written_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, reply: &KernelReply) {
        if let KernelReply::Bytes(pieces) = reply {
            let bytes: usize = pieces.iter().map(bytes::Bytes::len).sum();
            self.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// All of it, with what is counted elsewhere.
    pub(crate) fn read(&self, dirty_bytes: u64, at_once: u64) -> Statistics {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let operations = KINDS.iter().zip(&self.operations).map(|(kind, count)| (*kind, of(count)));
        Statistics {
            operations: operations.filter(|(_, count)| *count > 0).collect(),
            at_once,
            read_bytes: of(&self.read_bytes),
            written_bytes: of(&self.written_bytes),
            recalls: of(&self.recalls),
            write_back_errors: of(&self.write_back_errors),
            dirty_bytes,
        }
    }
}

/// Where a request is counted. Not at all: the kernel's word that it has forgotten something.
fn kind(operation: &KernelOperation) -> Option<usize> {
    use KernelOperation as K;
    Some(match operation {
        K::Lookup { .. } => 0,
        K::Getattr { .. } => 1,
        K::Setattr { .. } => 2,
        K::Access { .. } => 3,
        K::Readlink { .. } => 4,
        K::Make { .. } => 5,
        K::Unlink { .. } => 6,
        K::Rmdir { .. } => 7,
        K::Rename { .. } => 8,
        K::Link { .. } => 9,
        K::Open { .. } => 10,
        K::Create { .. } | K::Tmpfile { .. } => 11,
        K::Read { .. } => 12,
        K::Write { .. } => 13,
        K::Flush { .. } => 14,
        K::Fsync { .. } => 15,
        K::Release { .. } => 16,
        K::Opendir { .. } => 17,
        K::Readdir { .. } => 18,
        K::Statfs => 19,
        K::Getxattr { .. } | K::Listxattr { .. } | K::Setxattr { .. } | K::Removexattr { .. } => 20,
        K::Lock { .. } | K::Getlock { .. } => 21,
        K::Allocate { .. } => 22,
        K::Seek { .. } => 23,
        K::Forget { .. } => return None,
    })
}

#[cfg(test)]
mod tests {
    use mooring_sharedfs_client::HandleId;
    use mooring_sharedfs_core::Ino;

    use super::*;

    #[test]
    fn requests_are_counted_by_kind_and_bytes_both_ways() {
        let counters = Counters::default();
        let write = KernelOperation::Write {
            handle: HandleId(1),
            offset: 0,
            bytes: vec![0; 700].into(),
            append: false,
            cached: false,
            kill_privileges: false,
            sync: false,
        };
        counters.asked(&write);
        counters.asked(&write);
        counters.asked(&KernelOperation::Seek {
            handle: HandleId(1),
            offset: 0,
            seek: mooring_sharedfs_core::file::Seek::Data,
        });
        counters.asked(&KernelOperation::Forget { ino: Ino(3), count: 1 });
        counters.answered(&KernelReply::Bytes(vec![vec![0; 20].into(), vec![0; 30].into()]));
        counters.answered(&KernelReply::Done);
        let seen = counters.read(4096, 1);
        assert_eq!(seen.operations, BTreeMap::from([("write", 2), ("seek", 1)]));
        assert_eq!((seen.written_bytes, seen.read_bytes), (1400, 50));
        assert_eq!((seen.dirty_bytes, seen.at_once), (4096, 1));
    }
}
