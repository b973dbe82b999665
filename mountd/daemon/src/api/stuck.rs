//! Why replicas that are to be moved away stay where they are: for whoever waits for a drain.

use std::collections::BTreeMap;

use mooring_config::placement::{Repair, RepairLimits, repair};
use mooring_config::{SliceConfig, UnixMillis};

use crate::daemon::Running;

/// What a task says that has so many replicas left: why the first of them has no other place, if so.
/// `concerned` says which slices are waited for.
pub async fn progress(
    running: &Running,
    left: u64,
    concerned: impl Fn(&SliceConfig) -> bool,
) -> String {
    let replicas = if left == 1 { "1 replica" } else { &format!("{left} replicas") };
    if left == 0 {
        return "no replica left".to_owned();
    }
    let hints = running.node.hints().await;
    let state = running.node.state();
    let now = UnixMillis(blockstore::unix_ms());
    // What the leader does by itself, asked of the same function.
    let steps = repair(&state, &hints, now, &BTreeMap::new(), RepairLimits::default());
    let why = steps.iter().find_map(|step| match step {
        Repair::Stuck { slice, reason } if state.slice(*slice).is_some_and(|c| concerned(c)) => {
            let volume = state.volume(slice.volume).map(|row| row.name.clone());
            Some((volume.unwrap_or_else(|| slice.to_string()), reason.to_string()))
        }
        _ => None,
    });
    match why {
        Some((volume, why)) => format!("{replicas} left, and no other place for {volume}: {why}"),
        None => format!("{replicas} left"),
    }
}
