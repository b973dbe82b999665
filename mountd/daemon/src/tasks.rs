//! Work that goes on after its request was answered: numbered, with progress, kept for a while.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use mooring_api::{ApiError, NodeName, ProgressUnit, Task, TaskId, TaskKind, TaskState, Timestamp};
use parking_lot::Mutex;

/// Ended tasks that are kept, newest first.
const KEPT: usize = 100;

/// The tasks of this daemon.
#[derive(Default)]
pub struct Tasks {
    next: AtomicU64,
    table: Mutex<BTreeMap<TaskId, Task>>,
}

impl Tasks {
    /// A task that is running from now on; one of the same kind and subject that runs already is
    /// answered instead, and `false`.
    pub fn begin(
        &self,
        kind: TaskKind,
        node: NodeName,
        subject: &str,
        unit: ProgressUnit,
    ) -> (Task, bool) {
        let mut table = self.table.lock();
        let same = |task: &&Task| {
            task.kind == kind && task.subject == subject && task.state == TaskState::Running
        };
        if let Some(task) = table.values().find(same) {
            return (task.clone(), false);
        }
        let task = Task {
            id: TaskId(self.next.fetch_add(1, Ordering::Relaxed) + 1),
            kind,
            node,
            subject: subject.to_owned(),
            state: TaskState::Running,
            done: 0,
            total: None,
            unit,
            message: String::new(),
            error: None,
            started_at: Timestamp(blockstore::unix_ms()),
            ended_at: None,
        };
        table.insert(task.id, task.clone());
        while table.values().filter(|task| task.ended_at.is_some()).count() > KEPT {
            let oldest = table.values().find(|task| task.ended_at.is_some()).map(|task| task.id);
            oldest.and_then(|id| table.remove(&id));
        }
        (task, true)
    }

    /// How far a task has come.
    pub fn progress(&self, id: TaskId, done: u64, total: Option<u64>, message: &str) {
        if let Some(task) = self.table.lock().get_mut(&id) {
            task.done = done;
            task.total = total;
            message.clone_into(&mut task.message);
        }
    }

    /// A task has ended.
    pub fn end(&self, id: TaskId, result: Result<(), ApiError>) {
        if let Some(task) = self.table.lock().get_mut(&id) {
            task.ended_at = Some(Timestamp(blockstore::unix_ms()));
            match result {
                Ok(()) => {
                    task.state = TaskState::Done;
                    task.done = task.total.unwrap_or(task.done);
                }
                Err(error) => {
                    task.state = TaskState::Failed;
                    task.error = Some(error);
                }
            }
        }
    }

    /// One task.
    #[must_use]
    pub fn get(&self, id: TaskId) -> Option<Task> {
        self.table.lock().get(&id).cloned()
    }

    /// The running task of a kind on a subject.
    #[must_use]
    pub fn running(&self, kind: TaskKind, subject: &str) -> Option<TaskId> {
        let table = self.table.lock();
        let same = |task: &&Task| {
            task.kind == kind && task.subject == subject && task.state == TaskState::Running
        };
        table.values().find(same).map(|task| task.id)
    }

    /// Every task, newest first.
    #[must_use]
    pub fn all(&self) -> Vec<Task> {
        self.table.lock().values().rev().cloned().collect()
    }
}
