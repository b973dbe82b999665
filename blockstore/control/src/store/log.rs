//! Raft's log and vote.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::RangeBounds;
use std::sync::Arc;

use mooring_terms::NodeId;
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{
    ErrorSubject, ErrorVerb, LogId, LogState, OptionalSend, RaftLogReader, StorageError, Vote,
};
use parking_lot::RwLock;

use super::writer::{Write, Writer};
use super::{format, storage_error};
use crate::raft::{Entry, TypeConfig};

/// How many changes one message to a follower carries, roughly: an entry counts for the slices it
/// changes, so that messages stay within the transport's limit.
const WEIGHT_PER_MESSAGE: usize = 40_000;

/// The log in memory: what the file holds, and what is on its way there.
pub(super) struct Log {
    pub(super) entries: BTreeMap<u64, Entry>,
    pub(super) purged: Option<LogId<u64>>,
    pub(super) vote: Option<Vote<u64>>,
    pub(super) committed: Option<LogId<u64>>,
}

/// Raft's view of the log.
#[derive(Clone)]
pub(crate) struct LogStore {
    log: Arc<RwLock<Log>>,
    writer: Writer,
}

impl LogStore {
    pub(super) fn new(log: Arc<RwLock<Log>>, writer: Writer) -> Self {
        Self { log, writer }
    }

    /// The term in which `node` leads, if the file says that it does, and the index of the log's last
    /// entry.
    pub(crate) fn leadership(&self, node: NodeId) -> Option<(u64, u64)> {
        let log = self.log.read();
        let vote = log.vote.filter(|vote| vote.committed && vote.leader_id.node_id == node.0)?;
        let last = log.entries.last_key_value().map(|(index, _)| *index);
        let last = last.or(log.purged.map(|purged| purged.index)).unwrap_or(0);
        Some((vote.leader_id.term, last))
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError<u64>> {
        Ok(self.log.read().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError<u64>> {
        let log = self.log.read();
        let mut weight = 0;
        let mut entries = Vec::new();
        for (_, entry) in log.entries.range(start..end) {
            weight += crate::raft::weight(entry);
            if weight > WEIGHT_PER_MESSAGE && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError<u64>> {
        let log = self.log.read();
        let last = log.entries.last_key_value().map(|(_, entry)| entry.log_id).or(log.purged);
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), StorageError<u64>> {
        let value = format::seal(vote);
        self.writer
            .done(|done| Write::Vote { value, done })
            .await
            .map_err(|error| storage_error(&error, ErrorSubject::Vote, ErrorVerb::Write))?;
        self.log.write().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, StorageError<u64>> {
        Ok(self.log.read().vote)
    }

    async fn save_committed(
        &mut self,
        committed: Option<LogId<u64>>,
    ) -> Result<(), StorageError<u64>> {
        self.log.write().committed = committed;
        self.writer
            .send(Write::Committed { value: format::seal(&committed) })
            .map_err(|error| storage_error(&error, ErrorSubject::Store, ErrorVerb::Write))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<u64>>, StorageError<u64>> {
        Ok(self.log.read().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError<u64>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let sealed =
            entries.iter().map(|entry| (entry.log_id.index, format::seal(entry))).collect();
        {
            let mut log = self.log.write();
            for entry in entries {
                log.entries.insert(entry.log_id.index, entry);
            }
        }
        self.writer
            .send(Write::Append { entries: sealed, flushed: callback })
            .map_err(|error| storage_error(&error, ErrorSubject::Logs, ErrorVerb::Write))
    }

    async fn truncate(&mut self, log_id: LogId<u64>) -> Result<(), StorageError<u64>> {
        self.log.write().entries.split_off(&log_id.index);
        self.writer
            .done(|done| Write::Truncate { from: log_id.index, done })
            .await
            .map_err(|error| storage_error(&error, ErrorSubject::Logs, ErrorVerb::Delete))
    }

    async fn purge(&mut self, log_id: LogId<u64>) -> Result<(), StorageError<u64>> {
        {
            let mut log = self.log.write();
            log.entries = log.entries.split_off(&(log_id.index + 1));
            log.purged = Some(log_id);
        }
        let value = format::seal(&log_id);
        self.writer
            .done(|done| Write::Purge { upto: log_id.index, value, done })
            .await
            .map_err(|error| storage_error(&error, ErrorSubject::Logs, ErrorVerb::Delete))
    }
}
