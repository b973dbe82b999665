//! What the slices of this node want of the configuration: many changes in one Raft entry.

use std::sync::Arc;
use std::time::Duration;

use mooring_config::{Actor, ChangeRefused, Command, Done, MAX_BATCH, SliceChange, SliceConfig};
use mooring_replication::{Event, ProposalId, ProposalOutcome};
use mooring_terms::{Epoch, NodeId, SliceId};
use mooring_transport::Message;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Node;
use crate::data_plane::ConfigPort;

/// How long an accepted change may take to be applied here too.
const APPLY_WAIT: Duration = Duration::from_secs(5);

/// Changes and questions that wait for the next entry.
#[derive(Default)]
pub struct Proposals {
    changes: Mutex<Vec<(SliceId, ProposalId, SliceChange)>>,
    questions: Mutex<Vec<SliceId>>,
    more: Notify,
}

impl ConfigPort for Node {
    fn propose(&self, slice: SliceId, id: ProposalId, change: SliceChange) {
        self.proposals.changes.lock().push((slice, id, change));
        self.proposals.more.notify_one();
    }

    fn query(&self, slice: SliceId) {
        let mut questions = self.proposals.questions.lock();
        if !questions.contains(&slice) {
            questions.push(slice);
            drop(questions);
            self.proposals.more.notify_one();
        }
    }

    fn node_name(&self, node: NodeId) -> String {
        self.state().node_name(node)
    }

    fn control(&self, from: NodeId, message: Message) {
        self.rpc.incoming(from, message.header);
    }

    fn control_broken(&self, peer: NodeId) {
        self.rpc.disconnected(peer);
    }
}

impl Node {
    /// Sends what gathers, until the node stops.
    pub(super) async fn send_proposals(self: Arc<Self>) {
        loop {
            self.proposals.more.notified().await;
            let questions = std::mem::take(&mut *self.proposals.questions.lock());
            if !questions.is_empty() {
                tokio::spawn(Arc::clone(&self).answer_questions(questions));
            }
            let changes = std::mem::take(&mut *self.proposals.changes.lock());
            for batch in changes.chunks(MAX_BATCH) {
                // The next entry doesn't wait for the outcome of this one.
                tokio::spawn(Arc::clone(&self).send_batch(batch.to_vec()));
            }
        }
    }

    async fn send_batch(self: Arc<Self>, batch: Vec<(SliceId, ProposalId, SliceChange)>) {
        let changes = batch.iter().map(|(_, _, change)| change.clone()).collect();
        let answer =
            self.control.propose(Actor::system(self.id), Command::ChangeSlices(changes)).await;
        let results = match answer {
            Ok(Done::Slices(results)) if results.len() == batch.len() => results,
            Ok(other) => {
                tracing::error!(?other, "an answer that doesn't fit the changes proposed");
                return self.outcome_unknown(&batch);
            }
            Err(error) => {
                tracing::warn!(%error, "changes of slices could not be proposed");
                return self.outcome_unknown(&batch);
            }
        };
        for ((slice, id, _), result) in batch.into_iter().zip(results) {
            let (known_from, refused) = match result {
                Ok(epoch) => (epoch, None),
                Err(refused @ ChangeRefused::EpochChanged { current, .. }) => {
                    (current, Some(refused))
                }
                Err(refused) => (Epoch(0), Some(refused)),
            };
            let outcome = match (self.config_from(slice, known_from).await, refused) {
                (Some(config), None) => ProposalOutcome::Accepted(config),
                (Some(config), Some(refused)) => ProposalOutcome::Refused(refused, config),
                (None, _) => ProposalOutcome::Unknown,
            };
            self.tell(slice, Event::Proposed { id, outcome });
        }
    }

    fn outcome_unknown(&self, batch: &[(SliceId, ProposalId, SliceChange)]) {
        for (slice, id, _) in batch {
            self.tell(*slice, Event::Proposed { id: *id, outcome: ProposalOutcome::Unknown });
        }
    }

    /// The slice's configuration as applied here, once it has reached `epoch`.
    async fn config_from(&self, slice: SliceId, epoch: Epoch) -> Option<SliceConfig> {
        let mut states = self.control.watch();
        let reached = states
            .wait_for(|state| state.state.slice(slice).is_none_or(|config| config.epoch >= epoch));
        let state = tokio::time::timeout(APPLY_WAIT, reached).await.ok()?.ok()?;
        state.state.slice(slice).map(|config| SliceConfig::clone(config))
    }

    async fn answer_questions(self: Arc<Self>, questions: Vec<SliceId>) {
        let state = match self.control.read_linearizable().await {
            Ok(state) => state,
            Err(error) => {
                tracing::debug!(%error, "the configuration can't be read now");
                return;
            }
        };
        let node = Arc::clone(&self);
        let told = tokio::task::spawn_blocking(move || {
            for slice in questions {
                if let Some(config) = state.slice(slice) {
                    node.plane.configured(slice, config);
                }
            }
        });
        drop(told.await);
    }

    /// Delivers an event to a slice, on a thread that may wait for its pool.
    fn tell(&self, slice: SliceId, event: Event) {
        if let Some(slice) = self.plane.slice(slice) {
            tokio::task::spawn_blocking(move || slice.deliver(event));
        }
    }
}
