//! A task, on one line.

use mooring_api::{ByteSize, ProgressUnit, Span, Task, TaskKind};

use super::{Look, word};

/// What the task does, where it stands, and how far it has come.
pub fn task(task: &Task, _look: Look) -> String {
    let message = if task.message.is_empty() { "" } else { &format!(": {}", task.message) };
    let what = title(task);
    format!("task {}, {what}, {}, {}{message}", task.id, word(&task.state), amounts(task))
}

/// What a task does, and to what.
pub fn title(task: &Task) -> String {
    let verb = match task.kind {
        TaskKind::MeasurePool => "measure pool",
        TaskKind::DrainNode => "drain node",
        TaskKind::RemovePool => "empty pool",
        TaskKind::Resync => "resync volume",
    };
    format!("{verb} {}", task.subject)
}

/// How much of how much is done.
pub fn amounts(task: &Task) -> String {
    let amount = |count: u64| match task.unit {
        ProgressUnit::Bytes => ByteSize(count).to_string(),
        ProgressUnit::Replicas => format!("{count} replicas"),
        ProgressUnit::Milliseconds => Span::from_ms(count).to_string(),
    };
    match task.total {
        Some(total) => format!("{} of {}", amount(task.done), amount(total)),
        None => amount(task.done),
    }
}
