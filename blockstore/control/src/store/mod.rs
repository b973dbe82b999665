//! Raft's log, vote and snapshot on disk, and its state machine in memory.
//!
//! ```text
//!   Raft core ──append, vote──> LogStore ──┐
//!                                  │       ├──> Writer (a thread): one commit for all that waits
//!   Raft core ──apply──> MachineStore ─────┘         │
//!                           │                        └──> raft.redb
//!                           └──> Published (state and index), for everyone
//! ```
//!
//! The log since the last purge is also kept in memory: it is short, since every [`SNAPSHOT_EVERY`]
//! entries a snapshot is made. The state machine is memory only: it is the last snapshot plus the
//! log.
//!
//! Invariants:
//! - entries are readable when `append` returns, and durable when its callback is called;
//! - a vote is durable before it is answered;
//! - the file's log is dense: from the entry after `purged` to the last;
//! - the order of writes is the order in which they were asked for; the first failed commit ends
//!   them all.

mod format;
mod log;
mod machine;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mooring_config::Machine;
use mooring_terms::NodeId;
use openraft::{LogId, SnapshotMeta, Vote};
use parking_lot::RwLock;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::error::StoreError;
use crate::raft::{Entry, TypeConfig};
use format::Unsealable;
pub(crate) use log::LogStore;
pub(crate) use machine::MachineStore;
pub use machine::Published;
use writer::Writer;

/// A snapshot is made after so many entries.
pub(crate) const SNAPSHOT_EVERY: u64 = 2_000;
/// So many entries before a snapshot are kept, for followers that are a little behind.
pub(crate) const ENTRIES_KEPT: u64 = 500;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const SNAPSHOT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshot");

type Meta = SnapshotMeta<u64, openraft::EmptyNode>;

/// What was found in the file.
#[derive(Default)]
struct Found {
    vote: Option<Vote<u64>>,
    committed: Option<LogId<u64>>,
    purged: Option<LogId<u64>>,
    log: BTreeMap<u64, Entry>,
    snapshot: Option<(Meta, Vec<u8>, Machine)>,
}

/// Opens the store in the file at `path`, which is made if it isn't there, for `node`.
///
/// # Errors
/// [`StoreError`]; a file that is damaged, someone else's or newer than this software is left as it
/// is.
pub(crate) fn open(path: &Path, node: NodeId) -> Result<(LogStore, MachineStore), StoreError> {
    // redb panics over some damage in debug builds; either way the file can't be used.
    let opened = catch_unwind(AssertUnwindSafe(|| open_checked(path, node)));
    let (database, found) = opened.unwrap_or_else(|_| Err(damaged(path, "it can't be opened")))?;
    let (writer, closed) = Writer::spawn(database, path.to_owned())?;
    let log = Arc::new(RwLock::new(log::Log {
        entries: found.log,
        purged: found.purged,
        vote: found.vote,
        committed: found.committed,
    }));
    let machine = MachineStore::new(writer.clone(), closed, path.to_owned(), found.snapshot);
    Ok((LogStore::new(log, writer), machine))
}

fn open_checked(path: &Path, node: NodeId) -> Result<(Database, Found), StoreError> {
    let database = Database::builder()
        .set_cache_size(8 << 20)
        .set_check_integrity_on_open(true)
        .create(path)
        .map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: path.to_owned() },
            redb::DatabaseError::Storage(redb::StorageError::Io(error))
                if error.kind() != std::io::ErrorKind::InvalidData =>
            {
                StoreError::Io { path: path.to_owned(), what: error.to_string() }
            }
            error => damaged(path, &error.to_string()),
        })?;
    prepare(&database, path, node)?;
    let found = read_all(&database, path)?;
    Ok((database, found))
}

/// Makes the tables, and checks or notes whose file it is.
fn prepare(database: &Database, path: &Path, node: NodeId) -> Result<(), StoreError> {
    let failed = |error: &dyn std::fmt::Display| io(path, error);
    let transaction = database.begin_write().map_err(|e| failed(&e))?;
    {
        let mut meta = transaction.open_table(META).map_err(|e| failed(&e))?;
        transaction.open_table(LOG).map_err(|e| failed(&e))?;
        transaction.open_table(SNAPSHOT).map_err(|e| failed(&e))?;
        let found = meta.get("node").map_err(|e| failed(&e))?.map(|value| value.value().to_vec());
        match found {
            None => {
                let bytes = node.0.to_le_bytes();
                meta.insert("node", bytes.as_slice()).map_err(|e| failed(&e))?;
            }
            Some(bytes) => {
                let bytes: [u8; 8] =
                    bytes.try_into().map_err(|_| damaged(path, "the node's number"))?;
                let found = NodeId(u64::from_le_bytes(bytes));
                if found != node {
                    return Err(StoreError::OtherNode {
                        path: path.to_owned(),
                        found,
                        expected: node,
                    });
                }
            }
        }
    }
    transaction.commit().map_err(|e| failed(&e))
}

fn read_all(database: &Database, path: &Path) -> Result<Found, StoreError> {
    let failed = |error: &dyn std::fmt::Display| io(path, error);
    let transaction = database.begin_read().map_err(|e| failed(&e))?;
    let mut found = Found::default();

    let meta = transaction.open_table(META).map_err(|e| failed(&e))?;
    if let Some(value) = meta.get("vote").map_err(|e| failed(&e))? {
        found.vote = Some(unseal(path, "the vote", value.value())?);
    }
    if let Some(value) = meta.get("committed").map_err(|e| failed(&e))? {
        found.committed = unseal(path, "the committed position", value.value())?;
    }
    if let Some(value) = meta.get("purged").map_err(|e| failed(&e))? {
        found.purged = Some(unseal(path, "the purged position", value.value())?);
    }

    let mut next = found.purged.map(|id| id.index + 1);
    let log = transaction.open_table(LOG).map_err(|e| failed(&e))?;
    for row in log.iter().map_err(|e| failed(&e))? {
        let (index, value) = row.map_err(|e| failed(&e))?;
        let entry: Entry = unseal(path, "a log entry", value.value())?;
        let dense = next.is_none_or(|next| next == index.value());
        if entry.log_id.index != index.value() || !dense {
            return Err(damaged(path, "the log has a hole"));
        }
        next = Some(index.value() + 1);
        found.log.insert(index.value(), entry);
    }

    let snapshot = transaction.open_table(SNAPSHOT).map_err(|e| failed(&e))?;
    let meta = snapshot.get("meta").map_err(|e| failed(&e))?;
    let data = snapshot.get("data").map_err(|e| failed(&e))?;
    if let (Some(meta), Some(data)) = (&meta, &data) {
        let meta: Meta = unseal(path, "the snapshot's description", meta.value())?;
        let machine: Machine = unseal(path, "the snapshot", data.value())?;
        found.snapshot = Some((meta, data.value().to_vec(), machine));
    }
    let covered = found.snapshot.as_ref().and_then(|(meta, ..)| meta.last_log_id);
    if found.purged > covered {
        return Err(damaged(path, "the log begins after the snapshot's end"));
    }
    Ok(found)
}

fn unseal<T: serde::de::DeserializeOwned>(
    path: &Path,
    what: &str,
    sealed: &[u8],
) -> Result<T, StoreError> {
    format::open(sealed).map_err(|fault| match fault {
        Unsealable::Damaged => damaged(path, what),
        Unsealable::Newer(found) => {
            StoreError::NewerFormat { path: path.to_owned(), found, known: format::FORMAT }
        }
    })
}

fn damaged(path: &Path, what: &str) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), what: what.to_owned() }
}

fn io(path: &Path, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Io { path: path.to_owned(), what: error.to_string() }
}

/// For Raft, which keeps the error and stops.
fn storage_error(
    error: &StoreError,
    subject: openraft::ErrorSubject<u64>,
    verb: openraft::ErrorVerb,
) -> openraft::StorageError<u64> {
    openraft::StorageIOError::new(subject, verb, openraft::AnyError::new(error)).into()
}

/// The path, for messages.
type StorePath = PathBuf;
/// The type of Raft's callback.
type Flushed = openraft::storage::LogFlushed<TypeConfig>;
