//! What the slices of this node want of the configuration: many changes in one Raft entry.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mooring_config::{Actor, ChangeRefused, Command, Done, MAX_BATCH, SliceChange, SliceConfig};
use mooring_replication::{Event, ProposalId, ProposalOutcome};
use mooring_terms::{AttachmentEpoch, Epoch, NodeId, SliceId, SliceIndex, VolumeId};
use mooring_transport::Message;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Node;
use crate::admission::Peer;
use crate::data_plane::ConfigPort;
use crate::remote::proto::{Told, VolumeTold};

/// How long an accepted change may take to be applied here too.
const APPLY_WAIT: Duration = Duration::from_secs(5);

/// Changes and questions that wait for the next entry.
#[derive(Default)]
pub struct Proposals {
    changes: Mutex<Vec<(SliceId, ProposalId, SliceChange)>>,
    questions: Mutex<BTreeSet<SliceId>>,
    more: Notify,
}

/// What became of one change.
struct Answer {
    slice: SliceId,
    id: ProposalId,
    /// The epoch that the configuration here must have reached before the slice is told.
    known_from: Epoch,
    refused: Option<ChangeRefused>,
}

impl ConfigPort for Node {
    fn propose(&self, slice: SliceId, id: ProposalId, change: SliceChange) {
        self.proposals.changes.lock().push((slice, id, change));
        self.proposals.more.notify_one();
    }

    fn query(&self, slice: SliceId) {
        if self.proposals.questions.lock().insert(slice) {
            self.proposals.more.notify_one();
        }
    }

    fn holder(&self, volume: VolumeId) -> Option<(NodeId, AttachmentEpoch)> {
        let state = self.state();
        let held = state.volume(volume)?.attachment?;
        Some((held.node, held.epoch))
    }

    fn node_name(&self, node: NodeId) -> String {
        self.state().node_name(node)
    }

    fn slice_name(&self, slice: SliceId) -> String {
        let state = self.state();
        let Some(row) = state.volume(slice.volume) else { return slice.to_string() };
        match row.slices.len() {
            1 => row.name.clone(),
            _ => format!("{} slice {}", row.name, slice.index),
        }
    }

    fn tell(&self, volume: VolumeId, slices: &[SliceIndex]) -> Told {
        let state = self.state();
        let peer = |node: &mooring_config::Node| {
            let address = *node.addresses.first()?;
            Some(Peer { node: node.id, fingerprint: node.fingerprint.0, address })
        };
        let row = state.volume(volume);
        let config = |&index: &SliceIndex| {
            let config = state.slice(SliceId { volume, index })?;
            Some((index, SliceConfig::clone(config)))
        };
        Told {
            node: self.id,
            nodes: state.nodes().values().filter_map(|node| peer(node)).collect(),
            volume: row.map(|row| VolumeTold {
                id: volume,
                size: row.spec.size,
                slice_blocks: row.spec.slice_blocks,
                coordinator: row.attachment.map(|held| (held.node, held.epoch)),
            }),
            slices: slices.iter().filter_map(config).collect(),
            identity: None,
        }
    }

    fn identity(&self) -> Option<Vec<u8>> {
        let identity = self.store.identity().ok().flatten()?;
        Some(identity.to_bytes().to_vec())
    }

    fn heard(&self, from: NodeId) {
        self.control.heard(from);
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
        let command = Command::change_slices(changes);
        let answer = self.control.propose(Actor::system(self.id), command).await;
        let results = match answer {
            Ok(Done::Slices(results)) if results.len() == batch.len() => results,
            Ok(other) => {
                tracing::error!(?other, "an answer that doesn't fit the changes proposed");
                return self.outcome_unknown(batch);
            }
            Err(error) => {
                tracing::warn!(%error, "changes of slices could not be proposed");
                return self.outcome_unknown(batch);
            }
        };
        let answers: Vec<Answer> = batch
            .into_iter()
            .zip(results)
            .map(|((slice, id, _), result)| match result {
                Ok(epoch) => Answer { slice, id, known_from: epoch, refused: None },
                Err(refused @ ChangeRefused::EpochChanged { current, .. }) => {
                    Answer { slice, id, known_from: current, refused: Some(refused) }
                }
                Err(refused) => Answer { slice, id, known_from: Epoch(0), refused: Some(refused) },
            })
            .collect();
        self.wait_applied(&answers).await;
        let node = Arc::clone(&self);
        self.tell(move || {
            for Answer { slice, id, known_from, refused } in answers {
                // As it is now: a newer placement of the same epoch may have been told already.
                let state = node.state();
                let config = state.slice(slice).filter(|config| config.epoch >= known_from);
                let config = config.map(|config| SliceConfig::clone(config));
                let outcome = match (config, refused) {
                    (Some(config), None) => ProposalOutcome::Accepted(config),
                    (Some(config), Some(refused)) => ProposalOutcome::Refused(refused, config),
                    (None, _) => ProposalOutcome::Unknown,
                };
                node.deliver(slice, Event::Proposed { id, outcome });
            }
        });
    }

    fn outcome_unknown(self: &Arc<Self>, batch: Vec<(SliceId, ProposalId, SliceChange)>) {
        let node = Arc::clone(self);
        self.tell(move || {
            for (slice, id, _) in batch {
                node.deliver(slice, Event::Proposed { id, outcome: ProposalOutcome::Unknown });
            }
        });
    }

    /// Waits until the configuration here has reached what the answers tell of.
    async fn wait_applied(&self, answers: &[Answer]) {
        let mut states = self.control.watch();
        let mut left = answers;
        let reached = states.wait_for(|published| {
            let has = |answer: &&Answer| {
                let config = published.state.slice(answer.slice);
                config.is_none_or(|config| config.epoch >= answer.known_from)
            };
            left = &left[left.iter().take_while(has).count()..];
            left.is_empty()
        });
        // Whatever is not there by then is answered as unknown, and asked about.
        let _ = tokio::time::timeout(APPLY_WAIT, reached).await;
    }

    async fn answer_questions(self: Arc<Self>, questions: BTreeSet<SliceId>) {
        let state = match self.control.read_linearizable().await {
            Ok(state) => state,
            Err(error) => {
                tracing::debug!(%error, "the configuration can't be read now");
                return;
            }
        };
        let node = Arc::clone(&self);
        self.tell(move || {
            for slice in questions {
                if let Some(config) = state.slice(slice) {
                    node.plane.configured(slice, config);
                }
            }
        });
    }

    fn deliver(&self, slice: SliceId, event: Event) {
        if let Some(slice) = self.plane.slice(slice) {
            slice.deliver(event);
        }
    }

    /// Tells slices: one job for all of them, not on a thread of the runtime.
    fn tell(&self, job: impl FnOnce() + Send + 'static) {
        drop(self.runtime.spawn_blocking(job));
    }
}
