//! The control plane of the nodes: proposals to Raft and their outcomes, configuration that is
//! applied early or late, and the opening of pools, made known.

use std::collections::BTreeMap;
use std::time::Duration;

use mooring_config::{
    Command as ConfigCommand, Done, Member, NEWEST_VERSION, ProposalId as ConfigProposal, Response,
    SliceConfig,
};
use mooring_replication::{ClientEvent, ClientId, Event, Replica, StreamId};
use mooring_terms::{NodeId, SliceId, Time};

use super::checkers::cause::Openings;
use super::coverage::Kind;
use super::network::Network;
use super::node::{Node, Power, Slot};
use super::packet::Packet;
use super::plan::SLICE_BLOCKS;
use super::raft::{Fate, World};
use super::{Happening, Sim, Ticket};

/// How long a proposal looks for a leader before its outcome is called unknown.
const PROPOSAL_PATIENCE: Duration = Duration::from_secs(1);

/// The world as Raft sees it.
struct Seen<'a> {
    nodes: &'a BTreeMap<NodeId, Node>,
    network: &'a Network<Packet>,
}

impl World for Seen<'_> {
    fn runs(&self, node: NodeId) -> bool {
        self.nodes[&node].power == Power::Running && !self.nodes[&node].hung
    }

    fn hear_each_other(&self, a: NodeId, b: NodeId) -> bool {
        self.network.passes(a, b) && self.network.passes(b, a)
    }
}

impl Sim {
    /// Proposes a command on behalf of a node.
    pub(super) fn propose(&mut self, from: NodeId, ticket: Ticket, command: ConfigCommand) {
        let boot = self.nodes[&from].boot;
        let name = self.raft.name(from, boot);
        let until = self.queue.now() + PROPOSAL_PATIENCE;
        let boot = boot.0;
        let fate = self.raft.fate();
        let unknown_after = self.prng.millis(50, 1_000);
        let (delay, answered) = match fate {
            Fate::Answered(delay) => (delay, true),
            Fate::Late(delay) => (delay, false),
            Fate::Lost => {
                self.count(Kind::Fault, "proposal lost");
                self.queue.after(unknown_after, Happening::Answer(from, boot, ticket, None));
                return;
            }
        };
        if !answered {
            self.count(Kind::Fault, "answer of a proposal lost");
            let told = Happening::Answer(from, boot, ticket.clone(), None);
            self.queue.after(unknown_after, told);
        }
        let happening = Happening::Proposal { from, boot, name, ticket, command, until, answered };
        self.queue.after(delay, happening);
    }

    /// A proposal reaches the leader, or looks on for one.
    pub(super) fn proposal(&mut self, happening: Happening) {
        let Happening::Proposal { from, boot, name, ticket, command, until, answered } = happening
        else {
            return;
        };
        let now = self.queue.now();
        let seen = Seen { nodes: &self.nodes, network: &self.network };
        if !self.raft.reaches_leader(from, &seen) {
            if now < until {
                let again =
                    Happening::Proposal { from, boot, name, ticket, command, until, answered };
                self.queue.after(Duration::from_millis(40), again);
            } else if answered {
                self.count(Kind::Transition, "proposal without a leader");
                self.queue.after(Duration::ZERO, Happening::Answer(from, boot, ticket, None));
            }
            return;
        }
        let answer = self.commit(name, command);
        if answered {
            let delay = self.prng.micros(300, 4_000);
            let answer = Happening::Answer(from, boot, ticket, Some(answer));
            self.queue.after(delay, answer);
        }
    }

    /// Applies a command at the leader.
    pub(super) fn commit(&mut self, name: ConfigProposal, mut command: ConfigCommand) -> Response {
        let now = self.queue.now();
        self.add_what_the_leader_knows(&mut command);
        if self.trace.enabled() {
            self.trace.line(now, format_args!("raft <- {command:?}"));
        }
        let before = self.raft.state().clone();
        let (answer, later) = self.raft.apply(now, name, command.clone());
        if self.trace.enabled() {
            self.trace.line(now, format_args!("raft -> {answer:?}"));
        }
        let openings = self.openings(now);
        let states = (&before, self.raft.state());
        let seen = self.checkers.configured(&command, &answer, states, &self.faults, &openings);
        self.check(seen);
        self.check_listed(&command, &answer);
        self.count_change(&command, &answer);
        self.declare_losses(&answer);
        for (node, delay, index) in later {
            self.queue.after(delay, Happening::Applied(node, index));
        }
        answer
    }

    /// The openings of the pools; *well* are nodes that run, and to which nothing was done lately.
    fn openings(&self, now: Time) -> Openings {
        let well = |node: &&Node| {
            let runs = node.power == Power::Running && !node.hung && !node.failed;
            runs && !self.faults.excuses(node.id, now)
        };
        let opening = |node: &Node| (node.id, node.incarnation);
        let all = self.nodes.values().map(opening).collect();
        Openings { all, well: self.nodes.values().filter(well).map(opening).collect() }
    }

    /// An operator has accepted that an older history goes on: from now on, until it is known
    /// which, a block may hold whatever it held before.
    fn declare_losses(&mut self, answer: &Response) {
        let Ok(Done::LossAccepted(losses)) = answer else { return };
        for loss in losses {
            let config = self.raft.state().slice(loss.slice).cloned();
            if config.is_some_and(|config| config.tail_lost == loss.epoch) {
                let first = u64::from(loss.slice.index.0) * SLICE_BLOCKS;
                self.history.lost(loss.slice.volume, first..first + SLICE_BLOCKS, true);
                self.checkers.loss_accepted(loss.slice);
                self.count(Kind::Situation, "loss accepted");
            }
        }
    }

    fn count_change(&mut self, command: &ConfigCommand, answer: &Response) {
        use mooring_config::ChangeReason;
        if let (ConfigCommand::ChangeSlices { changes, .. }, Ok(Done::Slices(results))) =
            (command, answer)
            && let (Some(change), Some(result)) = (changes.first(), results.first())
        {
            let name = match (result.is_ok(), change.reason) {
                (false, _) => "change refused",
                (true, ChangeReason::SecondaryLost) => "changed: secondary lost",
                (true, ChangeReason::PrimaryLost) => "changed: primary lost",
                (true, ChangeReason::PrimaryResigned) => "changed: primary resigned",
                (true, ChangeReason::Joined) => "changed: joined",
                (true, ChangeReason::HandOver) => "changed: hand-over",
                (true, ChangeReason::PrimaryRestarted) => "changed: primary restarted",
                (true, ChangeReason::AllRestarted) => "changed: all restarted",
                #[allow(unreachable_patterns, reason = "the configuration may learn more")]
                (true, _) => "changed: another reason",
            };
            self.count(Kind::Transition, name);
        }
    }

    /// The outcome of a proposal is there for whoever asked.
    pub(super) fn answer(&mut self, node: NodeId, ticket: Ticket, answer: Option<Response>) {
        match ticket {
            Ticket::Slice(slice, id) => {
                if let Some(outcome) = self.outcome(slice, answer.as_ref()) {
                    self.deliver(node, slice, Event::Proposed { id, outcome });
                }
            }
            Ticket::Started | Ticket::Opened => {
                let started = matches!(ticket, Ticket::Started);
                if answer.is_some_and(|answer| answer.is_ok())
                    && let Some(node) = self.nodes.get_mut(&node)
                {
                    let told = if started { &mut node.told.0 } else { &mut node.told.1 };
                    *told = true;
                }
            }
            Ticket::PoolFailed if answer.is_none() => {
                let owner = &self.nodes[&node];
                let (pool, incarnation) = (owner.pool_id, owner.incarnation);
                let reason = "simulated".to_owned();
                let command = ConfigCommand::PoolFailed { pool, incarnation, reason };
                self.propose(node, Ticket::PoolFailed, command);
            }
            Ticket::Attach(client) => self.attached(client, answer),
            Ticket::PoolFailed | Ticket::Operator => {}
        }
    }

    /// Makes the opening of a node's pool known until it is.
    pub(super) fn register(&mut self, id: NodeId) {
        let node = &self.nodes[&id];
        if node.registered() || node.failed {
            return;
        }
        let (pool, incarnation, boot) = (node.pool_id, node.incarnation, node.boot);
        let started = ConfigCommand::NodeStarted {
            node: id,
            boot,
            addresses: Vec::new(),
            version: NEWEST_VERSION,
            still_held: Vec::new(),
        };
        self.propose(id, Ticket::Started, started);
        let opened = ConfigCommand::PoolOpened { pool, incarnation, size: super::plan::POOL_BYTES };
        self.propose(id, Ticket::Opened, opened);
    }

    pub(super) fn raft_watch(&mut self) {
        let now = self.queue.now();
        let seen = Seen { nodes: &self.nodes, network: &self.network };
        let before = self.raft.leader();
        if self.raft.watch(now, &seen) && before.is_none() {
            self.count(Kind::Transition, "raft: leader elected");
        }
        self.watch_links();
        self.watch_doomed();
        self.queue.after(super::transport::LINK_WATCH, Happening::RaftWatch);
    }

    /// A node applies the configuration as far as state `index`; one that is cut off does so when
    /// it hears from the leader again.
    pub(super) fn applied(&mut self, id: NodeId, index: usize) {
        let seen = Seen { nodes: &self.nodes, network: &self.network };
        if !self.raft.reaches_leader(id, &seen) {
            self.queue.after(Duration::from_millis(70), Happening::Applied(id, index));
            return;
        }
        let Some(before) = self.raft.learn(id, index) else { return };
        let after = self.raft.seen_by(id).clone();
        for (slice, config) in after.slices() {
            if before.slice(slice) != Some(config) {
                self.configure(id, slice, config);
            }
        }
        let gone: Vec<SliceId> =
            before.slices().map(|(slice, _)| slice).filter(|s| after.slice(*s).is_none()).collect();
        for slice in gone {
            self.drop_replica(id, slice);
        }
    }

    /// A node sees a slice's configuration: its replica is made, told or taken away.
    fn configure(&mut self, id: NodeId, slice: SliceId, config: &SliceConfig) {
        let node = &self.nodes[&id];
        let member = config.member(id).is_some_and(|member| member.pool == node.pool_id);
        match (member, node.slots.contains_key(&slice)) {
            (true, false) if !node.failed => self.make_replica(id, slice, Some(config)),
            (true, _) => self.deliver(id, slice, Event::Config(config.clone())),
            (false, true) => self.drop_replica(id, slice),
            (false, false) => {}
        }
        for client in self.clients_on(id, slice.volume) {
            let event = ClientEvent::Config { slice: slice.index, config: config.clone() };
            self.client_event(client, event);
        }
    }

    /// The replica of a slice on a node, from what its pool has of it.
    pub(super) fn make_replica(
        &mut self,
        id: NodeId,
        slice: SliceId,
        config: Option<&SliceConfig>,
    ) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if !node.pool.slices().contains(&slice) {
            node.pool.create(slice);
        }
        let me = Member { node: id, pool: node.pool_id, incarnation: node.incarnation };
        let mut opened = node.pool.recovered(slice);
        opened.kept.clone_from(&node.kept);
        self.checkers.opened(id, slice, opened.last, opened.damaged);
        let replica = Replica::new(slice, me, opened, config.cloned(), node.options.clone())
            .expect("the pool gives back the state that the core wrote");
        node.slots.insert(slice, Slot { replica, tick: None, state: "" });
        let version = self.raft.state().version();
        let peers: Vec<NodeId> = node.outgoing.keys().copied().collect();
        for peer in peers {
            self.deliver(id, slice, Event::Connected { peer });
        }
        self.deliver(id, slice, Event::Version(version));
        let streams: Vec<(ClientId, StreamId)> = self
            .client_streams
            .iter()
            .filter(|(_, on)| self.network.ends(**on).is_some_and(|ends| ends[1] == id))
            .map(|(stream, _)| *stream)
            .collect();
        for (client, stream) in streams {
            self.deliver(id, slice, Event::ClientStream { client, stream });
        }
        self.deliver(id, slice, Event::Tick);
    }

    /// The replica of a slice is no longer placed here.
    pub(super) fn drop_replica(&mut self, id: NodeId, slice: SliceId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.slots.remove(&slice).is_none() {
            return;
        }
        node.lane.retain(|(of, _)| *of != slice);
        node.unsynced.retain(|(of, _)| *of != slice);
        node.syncing.retain(|(of, _)| *of != slice);
        node.pool.remove(slice);
        self.count(Kind::Transition, "replica taken away");
        let event = mooring_replication::BeaconEvent::Vouch { slice, epoch: None, peers: vec![] };
        self.beacons(id, event);
        self.start_lane(id);
    }

    /// The answer of a linearizable read, or none while there is no leader in reach.
    pub(super) fn config_read(&mut self, id: NodeId, slice: SliceId, client: Option<u32>) {
        let seen = Seen { nodes: &self.nodes, network: &self.network };
        if !self.raft.reaches_leader(id, &seen) {
            return;
        }
        let Some(config) = self.raft.state().slice(slice).map(|config| (**config).clone()) else {
            return;
        };
        match client {
            None => self.deliver(id, slice, Event::Config(config)),
            Some(client) => {
                self.client_event(client, ClientEvent::Config { slice: slice.index, config });
            }
        }
    }

    /// What the leader alone knows goes into a command.
    fn add_what_the_leader_knows(&self, command: &mut ConfigCommand) {
        let now = self.queue.now();
        let is_gone = |node: NodeId| self.raft.finds_gone(now, node);
        let gone = || self.nodes.keys().copied().filter(|id| is_gone(*id)).collect();
        match command {
            ConfigCommand::ChangeSlices { gone: known, .. }
            | ConfigCommand::AcceptLoss { gone: known, .. } => *known = gone(),
            ConfigCommand::Attach { volume, holder_gone, .. } => {
                let held = self.raft.state().volume(*volume).and_then(|volume| volume.attachment);
                *holder_gone = held.is_some_and(|held| is_gone(held.node));
            }
            _ => {}
        }
    }

    /// Leader gone until `until`.
    pub(super) fn depose(&mut self, until: Time) {
        self.raft.depose(until);
    }
}
