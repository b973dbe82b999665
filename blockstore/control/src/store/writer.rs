//! The thread that writes: everything that waits goes into one commit.
//!
//! ```text
//!   append, vote, append, purge ──channel──> [one transaction] ──commit──> callbacks, in order
//! ```
//!
//! A commit costs about as much as a hundred writes in it, so nothing waits for a batch, and what
//! arrives during a commit goes into the next. `committed` alone is not worth a commit: it rides
//! along with the next one, or is written when nothing else came for a while.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use redb::{Database, ReadableDatabase};
use tokio::sync::{oneshot, watch};

use super::{Flushed, LOG, META, SNAPSHOT, io};
use crate::error::StoreError;

/// How long the committed position may wait for company.
const LAZY: Duration = Duration::from_millis(500);
/// How many operations go into one commit at most.
const MOST: usize = 1_024;

/// Whoever waits for a write.
pub(super) type Done = oneshot::Sender<Result<(), StoreError>>;

/// One thing to write; all values are sealed.
pub(super) enum Write {
    /// Entries, by index.
    Append { entries: Vec<(u64, Vec<u8>)>, flushed: Flushed },
    /// The vote.
    Vote { value: Vec<u8>, done: Done },
    /// The committed position.
    Committed { value: Vec<u8> },
    /// The entries from `from` on go away.
    Truncate { from: u64, done: Done },
    /// The entries up to `upto` go away.
    Purge { upto: u64, value: Vec<u8>, done: Done },
    /// A snapshot takes the place of the one before.
    Snapshot { meta: Vec<u8>, data: Arc<Vec<u8>>, done: Done },
    /// Nothing to write: the snapshot on disk is wanted, description and data.
    Read { found: oneshot::Sender<Result<Option<Stored>, StoreError>> },
}

/// A snapshot's description and data, both sealed.
pub(super) type Stored = (Vec<u8>, Vec<u8>);

/// The way to the thread, which ends when the last of these is dropped.
#[derive(Clone)]
pub(super) struct Writer {
    queue: Sender<Write>,
    path: PathBuf,
}

impl Writer {
    /// Starts the thread, which owns the database. The receiver's sender goes when the file is
    /// closed.
    pub(super) fn spawn(
        database: Database,
        path: PathBuf,
    ) -> Result<(Self, watch::Receiver<()>), StoreError> {
        let (queue, writes) = channel();
        let (open, closed) = watch::channel(());
        let thread_path = path.clone();
        thread::Builder::new()
            .name("raft-store".to_owned())
            .spawn(move || {
                run(&database, &thread_path, &writes);
                drop(database);
                drop(open);
            })
            .map_err(|error| io(&path, &error))?;
        Ok((Self { queue, path }, closed))
    }

    /// Hands over a write.
    pub(super) fn send(&self, write: Write) -> Result<(), StoreError> {
        self.queue.send(write).map_err(|_| self.stopped())
    }

    /// Hands over a write and waits until it is durable.
    pub(super) async fn done(&self, write: impl FnOnce(Done) -> Write) -> Result<(), StoreError> {
        let (sender, receiver) = oneshot::channel();
        self.send(write(sender))?;
        receiver.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// The snapshot on disk.
    pub(super) async fn snapshot(&self) -> Result<Option<Stored>, StoreError> {
        let (found, receiver) = oneshot::channel();
        self.send(Write::Read { found })?;
        receiver.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    fn stopped(&self) -> StoreError {
        StoreError::Io { path: self.path.clone(), what: "the store has stopped".to_owned() }
    }
}

/// Writes until nobody is left to ask, or a commit fails.
fn run(database: &Database, path: &std::path::Path, writes: &Receiver<Write>) {
    let mut batch: Vec<Write> = Vec::new();
    loop {
        let only_lazy = batch.iter().all(|write| matches!(write, Write::Committed { .. }));
        let next = if batch.is_empty() {
            writes.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else if only_lazy {
            writes.recv_timeout(LAZY)
        } else {
            writes.try_recv().map_err(|_| RecvTimeoutError::Timeout)
        };
        match next {
            Ok(Write::Read { found }) => {
                let _ = found.send(read(database).map_err(|error| io(path, &error)));
                continue;
            }
            Ok(write) => {
                batch.push(write);
                if batch.len() < MOST {
                    continue;
                }
            }
            Err(RecvTimeoutError::Disconnected) if batch.is_empty() => return,
            Err(_) => {}
        }
        let result = commit(database, path, &batch);
        let failed = result.is_err();
        for write in batch.drain(..) {
            answer(write, &result);
        }
        // After a failed sync nobody knows what is on the disk: no second try can be trusted.
        if failed {
            return;
        }
    }
}

fn commit(database: &Database, path: &std::path::Path, batch: &[Write]) -> Result<(), StoreError> {
    let failed = |error: &dyn std::fmt::Display| {
        let error = io(path, error);
        tracing::error!(%error, "the Raft store stops");
        error
    };
    let transaction = database.begin_write().map_err(|e| failed(&e))?;
    {
        let mut meta = transaction.open_table(META).map_err(|e| failed(&e))?;
        let mut log = transaction.open_table(LOG).map_err(|e| failed(&e))?;
        let mut snapshot = transaction.open_table(SNAPSHOT).map_err(|e| failed(&e))?;
        for write in batch {
            match write {
                Write::Append { entries, .. } => {
                    for (index, value) in entries {
                        log.insert(*index, value.as_slice()).map_err(|e| failed(&e))?;
                    }
                }
                Write::Vote { value, .. } => {
                    meta.insert("vote", value.as_slice()).map_err(|e| failed(&e))?;
                }
                Write::Committed { value } => {
                    meta.insert("committed", value.as_slice()).map_err(|e| failed(&e))?;
                }
                Write::Truncate { from, .. } => {
                    log.retain_in(*from.., |_, _| false).map_err(|e| failed(&e))?;
                }
                Write::Purge { upto, value, .. } => {
                    meta.insert("purged", value.as_slice()).map_err(|e| failed(&e))?;
                    log.retain_in(..=*upto, |_, _| false).map_err(|e| failed(&e))?;
                }
                Write::Snapshot { meta, data, .. } => {
                    snapshot.insert("meta", meta.as_slice()).map_err(|e| failed(&e))?;
                    snapshot.insert("data", data.as_slice()).map_err(|e| failed(&e))?;
                }
                Write::Read { .. } => {}
            }
        }
    }
    transaction.commit().map_err(|e| failed(&e))
}

fn answer(write: Write, result: &Result<(), StoreError>) {
    match write {
        Write::Append { flushed, .. } => {
            flushed.log_io_completed(result.clone().map_err(std::io::Error::other));
        }
        Write::Vote { done, .. }
        | Write::Truncate { done, .. }
        | Write::Purge { done, .. }
        | Write::Snapshot { done, .. } => {
            // Whoever waited may have gone: Raft is being shut down.
            let _ = done.send(result.clone());
        }
        Write::Committed { .. } | Write::Read { .. } => {}
    }
}

fn read(database: &Database) -> Result<Option<Stored>, redb::Error> {
    let table = database.begin_read()?.open_table(SNAPSHOT)?;
    let (meta, data) = (table.get("meta")?, table.get("data")?);
    Ok(meta.zip(data).map(|(meta, data)| (meta.value().to_vec(), data.value().to_vec())))
}
