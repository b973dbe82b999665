//! Raft as a model: one linearizable configuration, with the real state machine inside.
//!
//! ```text
//!   node ── proposal ──> leader ── Machine::apply ──> states[0], states[1], states[2], ...
//!        <── answer ────                               each node sees a prefix, some later than others
//! ```
//! What Raft may do to its users, this does: no leader for a while, no majority, answers that are
//! lost (applied or not, nobody knows), proposals that arrive seconds later, followers that lag.
//!
//! Invariant: there is one order of states; what a node sees never goes back, not even when the
//! node restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mooring_config::{
    Actor, Boot, ClusterState, Command, Machine, Proposal, ProposalId, Response, UnixMillis,
};
use mooring_terms::{NodeId, Time};

use super::prng::Prng;

/// The date of the beginning of every run, in milliseconds: any will do.
const EPOCH_MILLIS: u64 = 1_800_000_000_000;

/// A node that the leader has not heard from for so long is gone, as in `mooring_control`.
const GONE_AFTER: Duration = Duration::from_millis(1_800);

/// The configuration, and what each node knows of it.
#[derive(Debug)]
pub struct Raft {
    machine: Machine,
    states: Vec<ClusterState>,
    /// The newest state that each node has applied.
    seen: BTreeMap<NodeId, usize>,
    voters: Vec<NodeId>,
    leader: Option<NodeId>,
    /// No election succeeds before.
    elect_at: Time,
    /// Since when it has led, and when it last heard from each node.
    leading_since: Time,
    heard: BTreeMap<NodeId, Time>,
    /// Nodes that apply late, and by how much.
    lag: BTreeMap<NodeId, Duration>,
    /// Percent of proposals whose outcome stays unknown to the proposer.
    unknown_percent: u64,
    numbers: BTreeMap<NodeId, u64>,
    prng: Prng,
}

/// What becomes of a proposal that is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives after this time, and its answer comes back.
    Answered(Duration),
    /// Its answer is lost; it arrives nonetheless, after this time.
    Late(Duration),
    /// It is lost.
    Lost,
}

/// Who runs and who hears whom: what Raft needs to know of the world.
pub trait World {
    /// Whether the node's daemon runs (not stopped, not hung).
    fn runs(&self, node: NodeId) -> bool;
    /// Whether the two hear each other.
    fn hear_each_other(&self, a: NodeId, b: NodeId) -> bool;
}

impl Raft {
    /// A cluster's Raft group: `voters` vote, all of `nodes` follow.
    #[must_use]
    pub fn new(nodes: &[NodeId], voters: &[NodeId], prng: Prng) -> Self {
        let machine = Machine::default();
        let states = vec![machine.state().clone()];
        Self {
            machine,
            states,
            seen: nodes.iter().map(|&node| (node, 0)).collect(),
            voters: voters.to_vec(),
            leader: voters.first().copied(),
            elect_at: Time::ZERO,
            leading_since: Time::ZERO,
            heard: BTreeMap::new(),
            lag: BTreeMap::new(),
            unknown_percent: 0,
            numbers: BTreeMap::new(),
            prng,
        }
    }

    /// The truth.
    #[must_use]
    pub fn state(&self) -> &ClusterState {
        self.machine.state()
    }

    /// What `node` has applied.
    #[must_use]
    pub fn seen_by(&self, node: NodeId) -> &ClusterState {
        &self.states[self.seen.get(&node).copied().unwrap_or(0)]
    }

    /// Whether `node` has a vote.
    #[must_use]
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.contains(&node)
    }

    /// The leader, if there is one.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// Drops a leader that has lost its majority; elects one where it can be done. True when the
    /// leader changed.
    pub fn watch(&mut self, now: Time, world: &dyn World) -> bool {
        let able = |candidate: NodeId| {
            let hear =
                |voter: &&NodeId| world.hear_each_other(candidate, **voter) && world.runs(**voter);
            world.runs(candidate) && self.voters.iter().filter(hear).count() * 2 > self.voters.len()
        };
        match self.leader {
            Some(leader) if able(leader) => {
                let near =
                    |node: &NodeId| world.runs(*node) && world.hear_each_other(leader, *node);
                let heard: Vec<NodeId> = self.seen.keys().copied().filter(near).collect();
                self.heard.extend(heard.into_iter().map(|node| (node, now)));
                false
            }
            Some(_) => {
                self.leader = None;
                self.elect_at = now + self.prng.millis(600, 1200);
                true
            }
            None if now < self.elect_at => false,
            None => {
                let able: Vec<NodeId> = self.voters.iter().copied().filter(|&v| able(v)).collect();
                self.leader = self.prng.pick(&able);
                self.leading_since = now;
                self.leader.is_some()
            }
        }
    }

    /// Whether the leader has not heard from `node` for long enough to call it gone.
    #[must_use]
    pub fn finds_gone(&self, now: Time, node: NodeId) -> bool {
        let heard = self.heard.get(&node).copied().unwrap_or_default().max(self.leading_since);
        self.leader.is_some_and(|leader| leader != node) && now.since(heard) >= GONE_AFTER
    }

    /// The leader is gone until `until` at the earliest.
    pub fn depose(&mut self, until: Time) {
        self.leader = None;
        self.elect_at = until;
    }

    /// `node` applies everything this much later; zero ends it.
    pub fn set_lag(&mut self, node: NodeId, lag: Duration) {
        self.lag.insert(node, lag);
    }

    /// From now on so many percent of answers are lost.
    pub fn set_unknown(&mut self, percent: u64) {
        self.unknown_percent = percent;
    }

    /// Draws what becomes of a proposal.
    pub fn fate(&mut self) -> Fate {
        let usual = self.prng.micros(500, 8_000);
        if !self.prng.percent(self.unknown_percent) {
            return Fate::Answered(usual);
        }
        match self.prng.within(0..3) {
            0 => Fate::Lost,
            1 => Fate::Late(usual),
            _ => Fate::Late(self.prng.millis(100, 4_000)),
        }
    }

    /// Whether `node` gets through to a leader now.
    #[must_use]
    pub fn reaches_leader(&self, node: NodeId, world: &dyn World) -> bool {
        self.leader.is_some_and(|leader| world.hear_each_other(node, leader))
    }

    /// Names a proposal of `node`.
    pub fn name(&mut self, node: NodeId, boot: Boot) -> ProposalId {
        let number = self.numbers.entry(node).or_default();
        *number += 1;
        ProposalId { node, boot, number: *number }
    }

    /// Applies a command. Gives the answer, and after what delay each node applies it too.
    pub fn apply(
        &mut self,
        now: Time,
        id: ProposalId,
        command: Command,
    ) -> (Response, Vec<(NodeId, Duration, usize)>) {
        let at = UnixMillis(EPOCH_MILLIS + u64::try_from(now.0.as_millis()).expect("a short run"));
        let proposal = Proposal { id, at, by: Actor::system(id.node), command };
        let answer = self.machine.apply(&proposal);
        if answer.is_err() {
            return (answer, Vec::new());
        }
        self.machine.state().check_invariants();
        self.states.push(self.machine.state().clone());
        let index = self.states.len() - 1;
        let nodes: BTreeSet<NodeId> = self.seen.keys().copied().collect();
        let mut later = Vec::new();
        for node in nodes {
            let lag = self.lag.get(&node).copied().unwrap_or_default();
            let delay = self.prng.micros(300, 5_000) + lag;
            later.push((node, delay, index));
        }
        (answer, later)
    }

    /// `node` has applied everything up to state `index`. Gives what it knew before, if it knows
    /// more now.
    pub fn learn(&mut self, node: NodeId, index: usize) -> Option<ClusterState> {
        let seen = self.seen.get_mut(&node)?;
        if index <= *seen {
            return None;
        }
        let before = self.states[*seen].clone();
        *seen = index;
        Some(before)
    }

    /// The newest state's number.
    #[must_use]
    pub fn newest(&self) -> usize {
        self.states.len() - 1
    }
}
