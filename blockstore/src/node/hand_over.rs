//! Going away as planned: primaries move to replicas that stay, so that nobody waits for a lease to end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mooring_replication::{Event, Role};
use mooring_terms::NodeId;

use super::{HAND_OVER_LIMIT, Node};
use crate::clock;
use crate::slice::Slice;

/// Between two looks whether the primaries have moved.
const LOOK: Duration = Duration::from_millis(5);

impl Node {
    /// Hands every primary over that another replica can take; returns when all have moved, or when
    /// the time is over.
    pub(super) async fn hand_primaries_over(&self) {
        let begun = clock::now();
        let mut leaving = Vec::new();
        for slice in self.plane.slices() {
            let status = slice.status();
            let able = status.in_sync.iter().filter(|node| **node != self.id);
            let able = able.copied().find(|node| self.plane.is_connected(*node));
            if let (Role::Primary, Some(to)) = (status.role, able) {
                leaving.push((slice, to));
            }
        }
        if leaving.is_empty() {
            return;
        }
        let slices: Vec<Arc<Slice>> = leaving.iter().map(|(slice, _)| Arc::clone(slice)).collect();
        let to: BTreeSet<NodeId> = leaving.iter().map(|(_, to)| *to).collect();
        let told = self.runtime.spawn_blocking(move || {
            for (slice, to) in leaving {
                slice.deliver(Event::HandOver { to });
            }
        });
        drop(told.await);
        let left =
            |slice: &&Arc<Slice>| matches!(slice.status().role, Role::Primary | Role::Leaving);
        while slices.iter().any(|slice| left(&slice)) && clock::now() < begun + HAND_OVER_LIMIT {
            tokio::time::sleep(LOOK).await;
        }
        let stay = slices.iter().filter(left).count();
        let took = clock::now().since(begun);
        tracing::info!(primaries = slices.len(), stay, ?to, ?took, "primaries were handed over");
    }
}
