//! The leader's queue: proposals that arrive while an entry is under way go into the next one.
//!
//! ```text
//!   submit ──queue──> [ as many as there are ] ──one entry──> Raft ──> answers
//! ```
//!
//! Here the leader adds what only it can know: the date, and who is gone. Here it also checks that
//! nodes propose only what is theirs to propose.
#![allow(clippy::disallowed_methods)] // A shell: it dates proposals.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mooring_config::{ChangeReason, Command, Proposal, Refused, UnixMillis, desired_voters};
use mooring_terms::NodeId;
use openraft::error::{ClientWriteError, RaftError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::quorum::has_quorum;
use super::{Batch, Raft, members, proposal_weight};
use crate::contacts::Contacts;
use crate::error::Error;
use crate::proto::Outcome;
use crate::store::Published;
use crate::timing::Timings;

/// How many proposals may wait.
const QUEUE: usize = 1_024;
/// How much one entry may carry.
const MOST: usize = mooring_config::MAX_BATCH;

struct Queued {
    proposal: Proposal,
    deadline: Instant,
    answer: oneshot::Sender<Outcome>,
}

/// The way into the queue.
pub(crate) struct Batcher {
    queue: mpsc::Sender<Queued>,
    published: watch::Receiver<Published>,
    raft: Raft,
    contacts: Arc<Contacts>,
    timings: Timings,
}

impl Batcher {
    /// Starts the queue.
    pub(crate) fn start(
        raft: Raft,
        contacts: Arc<Contacts>,
        published: watch::Receiver<Published>,
        timings: Timings,
    ) -> Arc<Self> {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(run(raft.clone(), waiting, timings));
        Arc::new(Self { queue, published, raft, contacts, timings })
    }

    /// Proposes for `from`, and waits for the outcome, up to `limit`.
    pub(crate) async fn submit(
        &self,
        from: NodeId,
        mut proposal: Proposal,
        limit: Duration,
    ) -> Outcome {
        if let Some(outcome) = self.not_leading() {
            return outcome;
        }
        if !self.may_propose(from, &proposal) {
            return Outcome::Applied { index: 0, response: Err(Refused::NotForItself(from)) };
        }
        self.add_what_the_leader_knows(&mut proposal.command);
        if let Err(error) = self.release_vote(&proposal).await {
            tracing::info!(%error, "the node to be removed still votes");
            return Outcome::Busy;
        }
        if let Some(outcome) = self.not_leading() {
            return outcome;
        }
        let (sender, receiver) = oneshot::channel();
        let deadline = Instant::now() + limit;
        let queued = Queued { proposal, deadline, answer: sender };
        if self.queue.try_send(queued).is_err() {
            return Outcome::Busy;
        }
        match tokio::time::timeout_at(deadline, receiver).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Outcome::Uncertain,
        }
    }

    /// Why nothing can be proposed here, if so.
    fn not_leading(&self) -> Option<Outcome> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        if metrics.current_leader != Some(metrics.id) {
            return Some(Outcome::NotLeader { leader: metrics.current_leader.map(NodeId) });
        }
        let lost = !has_quorum(&metrics, &self.contacts, &self.timings);
        lost.then_some(Outcome::NoQuorum)
    }

    fn may_propose(&self, from: NodeId, proposal: &Proposal) -> bool {
        let state = Arc::clone(&self.published.borrow().state);
        let owner = |pool| state.pool(pool).map(|pool| pool.node);
        proposal.id.node == from && proposal.command.may_be_proposed_by(from, owner)
    }

    /// Takes the vote of a node that is about to be removed: once its row is gone nobody talks to
    /// it, and a group that still counts on it might be left without a majority.
    async fn release_vote(&self, proposal: &Proposal) -> Result<(), Error> {
        let Command::RemoveNode { node, .. } = proposal.command else { return Ok(()) };
        let mut after = (*self.published.borrow().state).clone();
        if after.apply(after.now(), &proposal.by, &proposal.command).is_err() {
            // It will be refused, and nothing is to change.
            return Ok(());
        }
        let metrics = self.raft.metrics().borrow().clone();
        let membership = metrics.membership_config.membership().clone();
        let voters: BTreeSet<NodeId> = membership.voter_ids().map(NodeId).collect();
        if !voters.contains(&node) {
            return Ok(());
        }
        let me = NodeId(metrics.id);
        let rows = after.nodes().keys().copied();
        let gone = self.contacts.silent_for(self.timings.gone_after(), me, rows);
        members::set_voters(&self.raft, &desired_voters(&after, &voters, &gone)).await
    }

    fn add_what_the_leader_knows(&self, command: &mut Command) {
        let limit = self.timings.gone_after();
        let me = NodeId(self.raft.metrics().borrow().id);
        let state = Arc::clone(&self.published.borrow().state);
        let rows = state.nodes().keys().copied();
        let silent_nodes = self.contacts.silent_for(limit, me, rows);
        let silent = |node: NodeId| silent_nodes.contains(&node);
        match command {
            Command::Attach { volume, holder_gone, .. } => {
                let holder = state.volume(*volume).and_then(|volume| volume.attachment);
                *holder_gone = holder.is_some_and(|held| silent(held.node));
            }
            Command::RemoveNode { node, gone, .. } => *gone = silent(*node),
            Command::AcceptLoss { gone, .. } => *gone = silent_nodes,
            Command::ChangeSlices { changes, gone }
                if changes.iter().any(|change| change.reason == ChangeReason::AllRestarted) =>
            {
                *gone = silent_nodes;
            }
            _ => {}
        }
    }
}

/// Makes entries of what waits, one at a time.
async fn run(raft: Raft, mut waiting: mpsc::Receiver<Queued>, timings: Timings) {
    let mut held_back = None;
    loop {
        let first = match held_back.take() {
            Some(first) => first,
            None => match waiting.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        let mut weight = proposal_weight(&first.proposal);
        let mut batch = vec![first];
        while let Ok(next) = waiting.try_recv() {
            weight += proposal_weight(&next.proposal);
            if weight > MOST {
                held_back = Some(next);
                break;
            }
            batch.push(next);
        }
        // Nobody waits for these any more, and they have not been proposed: so they never are.
        let now = Instant::now();
        batch.retain(|queued| queued.deadline > now && !queued.answer.is_closed());
        if !batch.is_empty() {
            write(&raft, batch, timings).await;
        }
    }
}

async fn write(raft: &Raft, batch: Vec<Queued>, timings: Timings) {
    let at = now();
    let mut proposals = Vec::with_capacity(batch.len());
    let mut answers = Vec::with_capacity(batch.len());
    for mut queued in batch {
        queued.proposal.at = at;
        proposals.push(queued.proposal);
        answers.push(queued.answer);
    }
    let entry = raft.client_write(Batch(Arc::new(proposals)));
    let outcome = match tokio::time::timeout(timings.propose(), entry).await {
        Ok(Ok(written)) => {
            let index = written.log_id.index;
            for (answer, response) in answers.into_iter().zip(written.data.0) {
                let _ = answer.send(Outcome::Applied { index, response });
            }
            return;
        }
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
            // openraft says so both of what it never took and of what it had taken when it lost
            // its leadership; the proposal's number makes trying again harmless.
            tracing::debug!(leader = ?forward.leader_id, "not leading any more");
            Outcome::Uncertain
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "a batch of proposals failed");
            Outcome::Uncertain
        }
        Err(_) => Outcome::Uncertain,
    };
    for answer in answers {
        let _ = answer.send(outcome.clone());
    }
}

/// The date, for the state machine.
fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
