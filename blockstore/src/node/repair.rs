//! The leader's work: replicas that are lost for too long, too few or on their way out are placed
//! elsewhere. What is to be done is decided by `mooring_config::placement`; this has it done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mooring_config::placement::{Hints, Repair, RepairLimits, repair};
use mooring_config::{Command, UnixMillis};
use mooring_terms::NodeId;

use super::Node;
use super::inquiry::HandOver;
use crate::clock;

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(2);
/// After a round that changed nothing in a configuration that hasn't changed since.
const IDLE_ROUND: Duration = Duration::from_secs(10);

impl Node {
    /// Repairs placement while this node leads, until it stops.
    pub(super) async fn repair(self: Arc<Self>) {
        let mut lost_since: BTreeMap<NodeId, UnixMillis> = BTreeMap::new();
        let mut pause = ROUND;
        let mut states = self.control.watch();
        loop {
            // However often the configuration changes, there is a pause; when it does, it is short.
            tokio::time::sleep(ROUND).await;
            if pause > ROUND {
                let _ = tokio::time::timeout(pause - ROUND, states.changed()).await;
            }
            states.mark_unchanged();
            pause = IDLE_ROUND;
            if !self.control.is_leader() {
                lost_since.clear();
                continue;
            }
            let now = clock::unix_ms();
            let gone = self.control.gone();
            lost_since.retain(|node, _| gone.contains_key(node));
            for (node, silence) in gone {
                let silence = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
                lost_since.entry(node).or_insert(UnixMillis(now.saturating_sub(silence)));
            }
            if self.repair_round(UnixMillis(now), &lost_since).await || !lost_since.is_empty() {
                pause = ROUND;
            }
        }
    }

    /// One round; says whether anything was found to do.
    async fn repair_round(
        self: &Arc<Self>,
        now: UnixMillis,
        lost_since: &BTreeMap<NodeId, UnixMillis>,
    ) -> bool {
        let state = self.state();
        if let Some(version) = state.version_to_raise()
            && let Err(error) = self.propose_as_system(Command::RaiseVersion(version)).await
        {
            tracing::warn!(%error, %version, "the cluster's version was not raised");
        }
        let needs_hints = state.slices().any(|(_, config)| !config.joining.is_empty())
            || state.pools().values().any(|pool| !pool.takes_replicas())
            || !lost_since.is_empty();
        let hints = if needs_hints { self.hints().await } else { Hints::default() };
        let repairs = repair(&state, &hints, now, lost_since, RepairLimits::default());
        for command in Repair::commands(&repairs) {
            if let Err(error) = self.propose_as_system(command).await {
                tracing::warn!(%error, "a repair of placement could not be proposed");
            }
        }
        for step in &repairs {
            match step {
                Repair::HandOver { slice, from, to } => {
                    let question = HandOver { slice: *slice, to: *to };
                    if let Err(error) = self.ask(*from, &question).await {
                        tracing::debug!(%slice, %from, %error, "a primary was not asked to hand over");
                    }
                }
                Repair::Stuck { slice, reason } => {
                    tracing::warn!(%slice, %reason, "there is no place for a replica");
                }
                Repair::Assign(_) | Repair::Remove(_) => {}
            }
        }
        !repairs.is_empty()
    }
}
