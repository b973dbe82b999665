//! The control plane of one node: propose, read, watch.
//!
//! ```text
//!   propose(command) ──> is this node the leader? ──yes──> its queue ──> Raft ──> Done or Refused
//!                                 └──no──> asks the leader, or whoever may know it; again and again
//!   watch() <── Published: the applied state on this node, maybe a little behind
//!   read_linearizable() ── asks the leader for the index that is current, waits until it is here
//! ```
//!
//! Invariants: a proposal keeps its number over all tries, so that it is applied at most once; when
//! `propose` answers, what it did is in this node's own state; an error other than
//! [`Error::Unknown`] and [`Error::Stopped`] means that nothing was done.
#![allow(clippy::disallowed_methods)] // A shell: it has deadlines and pauses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mooring_config::{
    Actor, Boot, ClusterState, Command, Done, Genesis, Proposal, ProposalId, Refused, UnixMillis,
};
use mooring_terms::NodeId;
use openraft::EmptyNode;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::contacts::Contacts;
use crate::error::Error;
use crate::proto::{Outcome, PING, PROPOSE, READ, ReadAnswer, decode, encode};
use crate::raft::batch::Batcher;
use crate::raft::network::Network;
use crate::raft::quorum::has_quorum;
use crate::raft::services::ReadIndex;
use crate::raft::{Raft, members, services};
use crate::rpc::Rpc;
use crate::store::{self, ENTRIES_KEPT, Published, SNAPSHOT_EVERY};
use crate::timing::Timings;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(40);
/// How long voters have to show that they are there, when an error is to name those that aren't.
const PING_LIMIT: Duration = Duration::from_millis(300);

/// How a node's control plane is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node.
    pub node: NodeId,
    /// Its start.
    pub boot: Boot,
    /// The store's file; made if it isn't there.
    pub store: PathBuf,
    /// How long everything takes.
    pub timings: Timings,
}

/// How Raft stands, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub node: NodeId,
    /// The leader, if one is known.
    pub leader: Option<NodeId>,
    /// Raft's term.
    pub term: u64,
    /// Who votes.
    pub voters: BTreeSet<NodeId>,
    /// The voters are being changed: until that is done, both the old and the new ones must agree.
    pub changing: bool,
    /// Who follows without a vote.
    pub learners: BTreeSet<NodeId>,
    /// The index of the last entry applied here.
    pub applied: u64,
    /// On the leader: for how long each other node has been silent.
    pub silence: BTreeMap<NodeId, Duration>,
    /// On the leader: whether a majority of the voters answers.
    pub has_quorum: Option<bool>,
    /// Raft's own trouble, if it has stopped.
    pub stopped: Option<String>,
    /// What the cluster can't do as it is, in words; empty if all is well.
    pub warnings: Vec<String>,
}

/// The control plane of one node.
pub struct Control {
    node: NodeId,
    boot: Boot,
    timings: Timings,
    rpc: Arc<Rpc>,
    raft: Raft,
    read_index: ReadIndex,
    batcher: Arc<Batcher>,
    contacts: Arc<Contacts>,
    published: watch::Receiver<Published>,
    next: AtomicU64,
    closed: watch::Receiver<()>,
}

impl Control {
    /// Opens the store and starts Raft. A node without members in its store waits: for
    /// [`Self::create`], or for the leader of the cluster it has joined.
    ///
    /// # Errors
    /// [`Error::Store`] and [`Error::Stopped`].
    pub async fn start(options: Options, rpc: Arc<Rpc>) -> Result<Arc<Self>, Error> {
        let Options { node, boot, store: path, timings } = options;
        let opened = tokio::task::spawn_blocking(move || store::open(&path, node)).await;
        let (log, machine) = opened.map_err(|error| stopped(&error))??;
        let led = log.leadership(node);
        let published = machine.watch();
        let closed = machine.closed();
        let config = openraft::Config {
            cluster_name: "mooring".to_owned(),
            heartbeat_interval: timings.heartbeat_ms,
            election_timeout_min: timings.election_min_ms,
            election_timeout_max: timings.election_max_ms,
            install_snapshot_timeout: 2_000,
            max_payload_entries: 256,
            replication_lag_threshold: 2 * SNAPSHOT_EVERY,
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
            snapshot_max_chunk_size: 1 << 20,
            max_in_snapshot_log_to_keep: ENTRIES_KEPT,
            purge_batch_size: 256,
            ..openraft::Config::default()
        };
        let config = Arc::new(config.validate().map_err(|error| stopped(&error))?);
        let contacts = Arc::new(Contacts::default());
        let heard = Arc::clone(&contacts);
        rpc.on_heard(move |from| heard.heard(from));
        let network = Network { rpc: Arc::clone(&rpc) };
        let raft =
            Raft::new(node.0, config, network, log, machine).await.map_err(|e| stopped(&e))?;
        let batcher =
            Batcher::start(raft.clone(), Arc::clone(&contacts), published.clone(), timings);
        let read_index = ReadIndex { raft: raft.clone(), timings, led };
        services::serve(&rpc, &raft, &batcher, &read_index);
        let control = Arc::new(Self {
            node,
            boot,
            timings,
            rpc,
            raft,
            read_index,
            batcher,
            contacts,
            published,
            next: AtomicU64::new(1),
            closed,
        });
        tokio::spawn(members::run(Arc::downgrade(&control)));
        Ok(control)
    }

    /// Begins a cluster with this node, which must be node 1.
    ///
    /// # Errors
    /// [`Error::AlreadyMember`], or as [`Self::propose`].
    pub async fn create(&self, by: Actor, genesis: Genesis) -> Result<NodeId, Error> {
        let initialized = self.raft.is_initialized().await.map_err(|error| stopped(&error))?;
        if !initialized {
            let only = BTreeMap::from([(self.node.0, EmptyNode {})]);
            self.raft.initialize(only).await.map_err(|error| stopped(&error))?;
        } else if self.state().identity().is_some() {
            return Err(Error::AlreadyMember);
        }
        match self.propose(by, Command::Create(Box::new(genesis))).await? {
            Done::Node(node) => Ok(node),
            _ => Ok(self.node),
        }
    }

    /// Has `command` applied, on behalf of `by`, from any node. The answer's effect is in
    /// [`Self::state`] when this returns.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::NoQuorum`], [`Error::NotMember`]: nothing was done.
    /// [`Error::Unknown`]: it may have been.
    pub async fn propose(&self, by: Actor, command: Command) -> Result<Done, Error> {
        self.propose_within(by, command, self.timings.propose()).await
    }

    /// As [`Self::propose`], trying for `limit`.
    ///
    /// # Errors
    /// As [`Self::propose`].
    pub async fn propose_within(
        &self,
        by: Actor,
        command: Command,
        limit: Duration,
    ) -> Result<Done, Error> {
        let started = Instant::now();
        let deadline = started + limit;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = ProposalId { node: self.node, boot: self.boot, number };
        let proposal = Proposal { id, at: UnixMillis(0), by, command };
        let body = encode(&proposal);
        let mut taken = false;
        let mut search = Search::default();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let attempt = left.min(self.timings.attempt());
            let target = search.next(self);
            let outcome = match target {
                None => None,
                Some(node) if node == self.node => {
                    Some(self.batcher.submit(node, proposal.clone(), left).await)
                }
                Some(node) => match self.rpc.call(node, PROPOSE, body.clone(), attempt).await {
                    Ok(answer) => decode(&answer).ok(),
                    Err(error) => {
                        taken |= error.may_have_been_handled();
                        None
                    }
                },
            };
            match outcome {
                Some(Outcome::Applied { index, response }) => {
                    return self.answer(index, response, deadline).await;
                }
                Some(Outcome::NotLeader { leader }) => search.hint(leader),
                Some(Outcome::Uncertain) => taken = true,
                Some(Outcome::NoQuorum | Outcome::Busy) | None => {}
            }
            if Instant::now() + PAUSE >= deadline {
                return Err(self.no_answer(taken, started.elapsed()).await);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn answer(
        &self,
        index: u64,
        response: Result<Done, Refused>,
        deadline: Instant,
    ) -> Result<Done, Error> {
        let mut published = self.published.clone();
        let here = published.wait_for(|published| published.index >= index);
        // If this node is behind for longer, the answer is still the answer.
        let _ = tokio::time::timeout_at(deadline, here).await;
        match response {
            Err(Refused::OutcomeForgotten) => Err(self.no_answer(true, Duration::ZERO).await),
            response => Ok(response?),
        }
    }

    /// The state as of now: everything that was answered anywhere before this call is in it.
    ///
    /// # Errors
    /// [`Error::NoQuorum`], [`Error::NotMember`].
    pub async fn read_linearizable(&self) -> Result<Arc<ClusterState>, Error> {
        let started = Instant::now();
        let deadline = started + self.timings.propose();
        let mut search = Search::default();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let attempt = left.min(self.timings.attempt());
            let answer = match search.next(self) {
                None => None,
                Some(node) if node == self.node => Some(self.read_index.ask().await),
                Some(node) => match self.rpc.call(node, READ, Bytes::new(), attempt).await {
                    Ok(answer) => decode(&answer).ok(),
                    Err(_) => None,
                },
            };
            match answer {
                Some(ReadAnswer::Index(index)) => {
                    let mut published = self.published.clone();
                    let here = published.wait_for(|published| published.index >= index);
                    if let Ok(Ok(published)) = tokio::time::timeout_at(deadline, here).await {
                        return Ok(Arc::clone(&published.state));
                    }
                }
                Some(ReadAnswer::NotLeader { leader }) => search.hint(leader),
                Some(ReadAnswer::NoQuorum) | None => {}
            }
            if Instant::now() + PAUSE >= deadline {
                return Err(self.no_answer(false, started.elapsed()).await);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The error that says who is missing.
    async fn no_answer(&self, taken: bool, waited: Duration) -> Error {
        if let Err(error) = &self.raft.metrics().borrow().running_state {
            return stopped(error);
        }
        let voters = self.voters();
        if voters.is_empty() {
            return Error::NotMember;
        }
        let mut pings = tokio::task::JoinSet::new();
        for voter in voters.iter().copied().filter(|voter| *voter != self.node) {
            let rpc = Arc::clone(&self.rpc);
            pings.spawn(async move {
                let answer = rpc.call(voter, PING, Bytes::new(), PING_LIMIT).await;
                answer.is_err().then_some(voter)
            });
        }
        let mut silent: Vec<NodeId> = pings.join_all().await.into_iter().flatten().collect();
        silent.sort_unstable();
        let state = self.state();
        let silent = silent.into_iter().map(|id| state.node_name(id)).collect();
        let voters = voters.len();
        if taken {
            Error::Unknown { voters, silent, waited }
        } else {
            Error::NoQuorum { voters, silent, waited }
        }
    }

    /// The applied state on this node: for an instant's look, from any thread.
    #[must_use]
    pub fn state(&self) -> Arc<ClusterState> {
        Arc::clone(&self.published.borrow().state)
    }

    /// The applied state on this node, now and whenever it changes. Compare two with
    /// [`mooring_config::changes::between`].
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Published> {
        self.published.clone()
    }

    /// The leader, as far as this node knows.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.raft.metrics().borrow().current_leader.map(NodeId)
    }

    /// Whether this node leads, as far as it knows. Only the leader repairs placement.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.leader() == Some(self.node)
    }

    /// On the leader: the nodes that it has not heard from for long enough to call them gone, and
    /// for how long; empty elsewhere.
    #[must_use]
    pub fn gone(&self) -> BTreeMap<NodeId, Duration> {
        let limit = self.timings.gone_after();
        let nodes = self.state();
        let nodes = nodes.nodes().keys().copied().filter(|node| *node != self.node);
        nodes
            .filter_map(|node| Some((node, self.contacts.silence(node)?)))
            .filter(|(_, silence)| *silence >= limit)
            .collect()
    }

    /// `node` was heard from, by other ways than requests: should this node come to lead, it knows.
    pub fn heard(&self, node: NodeId) {
        self.contacts.heard(node);
    }

    /// How Raft stands, as this node sees it.
    #[must_use]
    pub fn status(&self) -> Status {
        let metrics = self.raft.metrics().borrow().clone();
        let membership = metrics.membership_config.membership();
        let voters = self.voters();
        let learners = membership.learner_ids().map(NodeId).collect();
        let state = self.state();
        let leads = metrics.current_leader == Some(metrics.id);
        let has_quorum = leads.then(|| has_quorum(&metrics, &self.contacts, &self.timings));
        let others = state.nodes().keys().copied().filter(|node| *node != self.node);
        Status {
            node: self.node,
            leader: metrics.current_leader.map(NodeId),
            term: metrics.current_term,
            warnings: warnings(&state, &voters, has_quorum),
            voters,
            changing: membership.get_joint_config().len() > 1,
            learners,
            applied: self.published.borrow().index,
            silence: others.filter_map(|id| Some((id, self.contacts.silence(id)?))).collect(),
            has_quorum,
            stopped: metrics.running_state.err().map(|error| error.to_string()),
        }
    }

    /// Stops Raft and closes the store. Requests of others go unanswered from then on.
    ///
    /// # Errors
    /// [`Error::Stopped`] if Raft had died.
    pub async fn shutdown(&self) -> Result<(), Error> {
        let stopping = self.raft.shutdown().await.map_err(|error| stopped(&error));
        // The writer's thread closes the file a little after Raft has let go of it.
        let mut closed = self.closed.clone();
        let _ = tokio::time::timeout(Duration::from_secs(10), closed.changed()).await;
        stopping
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The requests between nodes that this runs on.
    #[must_use]
    pub fn rpc(&self) -> &Arc<Rpc> {
        &self.rpc
    }

    pub(crate) fn timings(&self) -> &Timings {
        &self.timings
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.raft
    }

    pub(crate) fn contacts(&self) -> &Contacts {
        &self.contacts
    }

    fn voters(&self) -> BTreeSet<NodeId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        metrics.membership_config.membership().voter_ids().map(NodeId).collect()
    }
}

/// Looks for the leader: first where it is said to be, then at each voter in turn.
#[derive(Default)]
struct Search {
    hinted: Option<NodeId>,
    tries: usize,
}

impl Search {
    fn hint(&mut self, leader: Option<NodeId>) {
        self.hinted = leader;
    }

    fn next(&mut self, control: &Control) -> Option<NodeId> {
        let try_number = self.tries;
        self.tries += 1;
        if let Some(hinted) = self.hinted.take() {
            return Some(hinted);
        }
        // Every other try goes elsewhere: what is known of the leader may be old.
        if try_number.is_multiple_of(2)
            && let Some(leader) = control.leader()
        {
            return Some(leader);
        }
        let voters: Vec<NodeId> = control.voters().into_iter().collect();
        voters.get((try_number / 2) % voters.len().max(1)).copied()
    }
}

/// What the cluster can't do as it is.
fn warnings(
    state: &ClusterState,
    voters: &BTreeSet<NodeId>,
    has_quorum: Option<bool>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if has_quorum == Some(false) {
        let text = "no majority of the voters answers: nothing can be changed, I/O goes on";
        warnings.push(text.to_owned());
    }
    let with_pools = state.nodes_with_pools();
    if with_pools >= 2 && voters.len() < 3 {
        let missing = 3_usize.saturating_sub(state.nodes().len());
        warnings.push(if missing > 0 {
            format!(
                "with {} nodes no other can take over when the voter is lost: add {missing} more \
                 (one without storage will do)",
                state.nodes().len()
            )
        } else {
            "fewer than 3 voters: failover of volumes needs the only voter".to_owned()
        });
    }
    warnings
}

fn stopped(error: &dyn std::fmt::Display) -> Error {
    Error::Stopped { reason: error.to_string() }
}
