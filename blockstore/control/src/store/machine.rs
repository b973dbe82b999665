//! Raft's state machine: the configuration, in memory, with snapshots on disk.

use std::io::Cursor;
use std::sync::Arc;

use mooring_config::{ClusterState, Machine};
use openraft::storage::RaftStateMachine;
use openraft::{
    EntryPayload, ErrorSubject, ErrorVerb, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot,
    StorageError, StoredMembership,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::writer::{Write, Writer};
use super::{Meta, StorePath, format, io, storage_error, unseal};
use crate::error::StoreError;
use crate::raft::{Answers, Entry, TypeConfig};

type Membership = StoredMembership<u64, openraft::EmptyNode>;

/// The applied state, and how far it goes.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// The index of the last log entry in it.
    pub index: u64,
    /// The state. Keep it as long as you like; it shares what has not changed.
    pub state: Arc<ClusterState>,
}

#[derive(Default)]
struct Applied {
    machine: Machine,
    last: Option<LogId<u64>>,
    membership: Membership,
    /// Snapshots made by this process, so that no two have one name.
    snapshots: u64,
}

/// Raft's view of the state machine.
#[derive(Clone)]
pub(crate) struct MachineStore {
    applied: Arc<Mutex<Applied>>,
    publish: Arc<watch::Sender<Published>>,
    writer: Writer,
    closed: watch::Receiver<()>,
    path: StorePath,
}

impl MachineStore {
    pub(super) fn new(
        writer: Writer,
        closed: watch::Receiver<()>,
        path: StorePath,
        snapshot: Option<(Meta, Vec<u8>, Machine)>,
    ) -> Self {
        let mut applied = Applied::default();
        if let Some((meta, _, machine)) = snapshot {
            applied.machine = machine;
            applied.last = meta.last_log_id;
            applied.membership = meta.last_membership;
        }
        let publish = Arc::new(watch::Sender::new(published(&applied)));
        Self { applied: Arc::new(Mutex::new(applied)), publish, writer, closed, path }
    }

    /// The applied state, now and whenever it changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Published> {
        self.publish.subscribe()
    }

    /// Its sender goes when the file is closed.
    pub(crate) fn closed(&self) -> watch::Receiver<()> {
        self.closed.clone()
    }

    async fn save(&self, meta: &Meta, data: &Arc<Vec<u8>>) -> Result<(), StorageError<u64>> {
        let (sealed, data) = (format::seal(meta), Arc::clone(data));
        self.writer
            .done(|done| Write::Snapshot { meta: sealed, data, done })
            .await
            .map_err(|error| failed(&error, ErrorVerb::Write))
    }

    async fn stored_snapshot(&self) -> Result<Option<(Meta, Vec<u8>)>, StoreError> {
        let Some((meta, data)) = self.writer.snapshot().await? else { return Ok(None) };
        Ok(Some((unseal(&self.path, "the snapshot's description", &meta)?, data)))
    }
}

impl RaftStateMachine<TypeConfig> for MachineStore {
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<u64>>, Membership), StorageError<u64>> {
        let applied = self.applied.lock();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Answers>, StorageError<u64>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut applied = self.applied.lock();
        let mut answers = Vec::new();
        for entry in entries {
            applied.last = Some(entry.log_id);
            answers.push(match entry.payload {
                EntryPayload::Blank => Answers::default(),
                EntryPayload::Membership(membership) => {
                    applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Answers::default()
                }
                EntryPayload::Normal(batch) => {
                    Answers(batch.0.iter().map(|one| applied.machine.apply(one)).collect())
                }
            });
        }
        // Published under the lock, so that states are published in their order.
        self.publish.send_replace(published(&applied));
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(
        &mut self,
    ) -> Result<Box<Cursor<Vec<u8>>>, StorageError<u64>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &Meta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError<u64>> {
        let data = Arc::new(snapshot.into_inner());
        let machine: Machine = unseal(&self.path, "the snapshot received", &data)
            .map_err(|error| failed(&error, ErrorVerb::Read))?;
        self.save(meta, &data).await?;
        let mut applied = self.applied.lock();
        applied.machine = machine;
        applied.last = meta.last_log_id;
        applied.membership = meta.last_membership.clone();
        self.publish.send_replace(published(&applied));
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<Snapshot<TypeConfig>>, StorageError<u64>> {
        let stored =
            self.stored_snapshot().await.map_err(|error| failed(&error, ErrorVerb::Read))?;
        Ok(stored.map(|(meta, data)| Snapshot { meta, snapshot: Box::new(Cursor::new(data)) }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for MachineStore {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError<u64>> {
        let (meta, machine) = {
            let mut applied = self.applied.lock();
            applied.snapshots += 1;
            let snapshot_id = match applied.last {
                Some(last) => format!("{last}-{}", applied.snapshots),
                None => format!("-{}", applied.snapshots),
            };
            let meta = Meta {
                last_log_id: applied.last,
                last_membership: applied.membership.clone(),
                snapshot_id,
            };
            (meta, applied.machine.clone())
        };
        // Encoding takes milliseconds to a second: not on a thread that others need.
        let data = tokio::task::spawn_blocking(move || Arc::new(format::seal(&machine)))
            .await
            .map_err(|error| failed(&io(&self.path, &error), ErrorVerb::Write))?;
        self.save(&meta, &data).await?;
        let data = Arc::unwrap_or_clone(data);
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(data)) })
    }
}

fn published(applied: &Applied) -> Published {
    Published {
        index: applied.last.map_or(0, |last| last.index),
        state: Arc::new(applied.machine.state().clone()),
    }
}

fn failed(error: &StoreError, verb: ErrorVerb) -> StorageError<u64> {
    storage_error(error, ErrorSubject::StateMachine, verb)
}
