//! The deterministic simulator: a whole cluster in one thread, in virtual time, out of one seed.
//!
//! ```text
//!   seed ──> plan: nodes, slices, options, workload, faults
//!              │
//!              v
//!   queue of happenings ──> shell of a node ──> real cores: Replica, Beacons, VolumeClient
//!        ^                        │                         Machine (configuration)
//!        │                        v                         engine (or its model)
//!        └── network, disks, clocks, Raft: models that lose, delay, tear, hang, stop, forget
//!                                 │
//!                                 v
//!   checkers, one property a file; coverage; the trace that explains a failure
//! ```
//!
//! - The cores, the state machine and (for a share of the seeds) the engine are the real ones; all
//!   that is around them is a model that may be worse than the world, never better.
//! - Same seed, same run, on every machine: no clock, no thread, no hash order is looked at.
//! - First safety under faults, then everything is healed and liveness is asked for.
//!
//! `MOORING_SIM_SEED=n` runs one seed and prints its whole story.

mod checkers;
mod client;
mod control;
mod coverage;
mod directed;
mod faults;
mod history;
mod hunt;
mod lanes;
mod network;
mod node;
mod packet;
mod plan;
mod power;
pub(crate) mod prng;
mod probe;
mod raft;
mod regressions;
mod required;
mod runner;
mod scenario;
mod shell;
mod store;
pub(crate) mod time;
pub(crate) mod trace;
mod transport;
mod value;
mod workload;

use std::collections::BTreeMap;
use std::time::Duration;

use mooring_config::{Command as ConfigCommand, ProposalId as ConfigProposal, Response};
use mooring_replication::{ClientId, StreamId};
use mooring_terms::{BlockIndex, NodeId, SliceId, SliceIndex, Time};

use checkers::Checkers;
use client::Client;
use coverage::Kind;
use history::History;
use network::{Connection, Network, Plane, Way};
use node::Node;
use packet::Packet;
use prng::Prng;
use raft::Raft;
use time::Queue;
use trace::Trace;
use workload::Workload;

pub use coverage::{Coverage, Kind as CoverageKind};
pub use hunt::{Caught, Hunt};
pub use plan::{FaultKind, Plan, StoreKind};
pub use regressions::{OPEN, REGRESSIONS};
pub use required::{DESIGNED, REQUIRED};
pub use runner::{Failure, Outcome, coverage_of, hash_of, run_seed, run_seeds, soak_for};
pub use scenario::Scenario;

/// A broken property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which property: the name of its checker.
    pub property: &'static str,
    /// What was seen.
    pub text: String,
}

/// What a proposal to Raft was for: where its answer goes.
#[derive(Clone, Debug)]
enum Ticket {
    /// A replica's change of its slice.
    Slice(SliceId, mooring_replication::ProposalId),
    /// The node tells that it has started.
    Started,
    /// The node tells the opening of its pool.
    Opened,
    /// The node tells that its pool has failed.
    PoolFailed,
    /// A client asks for its attachment.
    Attach(u32),
    /// An operator, who looks for himself.
    Operator,
}

/// What happens next, to whom. `boot` drops what was meant for an earlier life of a node.
#[derive(Debug)]
enum Happening {
    /// A message may be due.
    Arrive(Connection, Way),
    /// A node looks after its streams and its pool.
    Watch(NodeId, u64),
    /// A node's attempt to connect to another is decided.
    Dialed(NodeId, u64, NodeId, Plane),
    /// A stream is broken, and this end of it learns so.
    Broken(NodeId, u64, NodeId, Connection),
    /// What is left of a stream, whose opener has given it up, is gone too.
    Closed(Connection),
    /// A replica's deadline has come.
    Tick(NodeId, u64, SliceId),
    /// The beacons' deadline has come.
    BeaconTick(NodeId, u64),
    /// Replicas are to look at their beacons.
    Wake(NodeId, u64, Vec<SliceId>),
    /// The first operation of a pool's lane is done.
    Io(NodeId, u64),
    /// The sync under way is done.
    Synced(NodeId, u64),
    /// A proposal is on its way to the leader.
    Proposal {
        from: NodeId,
        boot: u64,
        name: ConfigProposal,
        ticket: Ticket,
        command: ConfigCommand,
        until: Time,
        answered: bool,
    },
    /// The outcome of a proposal; `None` if it is unknown.
    Answer(NodeId, u64, Ticket, Option<Response>),
    /// A node applies the configuration up to a state.
    Applied(NodeId, usize),
    /// A linearizable read of a slice's configuration, for a replica or a client.
    ConfigRead(NodeId, u64, SliceId, Option<u32>),
    /// Raft looks after its leader.
    RaftWatch,
    /// A node's daemon starts.
    Start(NodeId),
    /// A stopped node goes on.
    Continue(NodeId),
    /// A fault of the plan begins.
    Fault(usize),
    /// An effect of a fault ends.
    Ease(faults::Ease),
    /// A client's deadline has come.
    ClientTick(u32),
    /// A client's attempt to connect is decided.
    ClientDialed(u32, NodeId),
    /// A client may submit its next operation.
    Work(u32),
    /// Somebody should have each volume attached.
    Attend,
    /// The next probe.
    Probe,
    /// The same client asks the same replica for the same block once more.
    ProbeAgain(u32, NodeId, SliceId, u64),
}

/// More happenings than any run needs by far: something goes round in circles.
const MOST_HAPPENINGS: u64 = 3_000_000;

/// Why a simulation stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Faults come.
    Faults,
    /// All faults are over; everything must come right.
    Settling,
    /// Clients read everything once more.
    Reading,
    /// Nothing is left to do.
    Over,
}

/// One simulated cluster.
pub struct Sim {
    plan: Plan,
    queue: Queue<Happening>,
    prng: Prng,
    network: Network<Packet>,
    raft: Raft,
    nodes: BTreeMap<NodeId, Node>,
    /// What came for stopped nodes, in order.
    held: BTreeMap<NodeId, Vec<Happening>>,
    /// Since when a blocked link holds a stream up, and when it is given up.
    doomed: BTreeMap<Connection, Time>,
    clients: BTreeMap<u32, Client>,
    /// The stream on which a client's replies go.
    client_streams: BTreeMap<(ClientId, StreamId), Connection>,
    probes: probe::Probes,
    workload: Workload,
    history: History,
    faults: faults::Active,
    checkers: Checkers,
    coverage: Coverage,
    trace: Trace,
    phase: Phase,
    violation: Option<Violation>,
    happenings: u64,
}

impl Sim {
    /// The cluster of `plan`, at the moment before its nodes start.
    #[must_use]
    pub fn new(plan: Plan, trace: Trace) -> Self {
        let mut prng = Prng::new(plan.seed);
        let nodes = plan.node_ids();
        let voters = &nodes[..nodes.len().min(3)];
        let mut sim = Self {
            queue: Queue::default(),
            network: Network::new(&nodes, prng.fork(1)),
            raft: Raft::new(&nodes, voters, prng.fork(2)),
            nodes: BTreeMap::new(),
            held: BTreeMap::new(),
            doomed: BTreeMap::new(),
            clients: BTreeMap::new(),
            client_streams: BTreeMap::new(),
            probes: probe::Probes::new(),
            workload: Workload::new(&plan, prng.fork(3)),
            history: History::default(),
            faults: faults::Active::default(),
            checkers: Checkers::new(&plan),
            coverage: Coverage::default(),
            trace,
            phase: Phase::Faults,
            violation: None,
            happenings: 0,
            prng: prng.fork(4),
            plan,
        };
        sim.found();
        sim
    }

    /// Goes on until `end`, or until a property is broken.
    fn run_until(&mut self, end: Time) {
        while self.violation.is_none() {
            let Some(happening) = self.queue.pop_before(end) else { return };
            self.happenings += 1;
            if self.happenings > MOST_HAPPENINGS {
                self.fail("no run stands still", format!("at {happening:?}"));
            }
            self.happen(happening);
        }
    }

    /// Goes on for `span`.
    fn run_for(&mut self, span: Duration) {
        self.run_until(self.queue.now() + span);
    }

    /// The node whose daemon must run for this to be seen.
    fn concerns(happening: &Happening) -> Option<(NodeId, Option<u64>)> {
        match happening {
            Happening::Watch(node, boot)
            | Happening::Dialed(node, boot, ..)
            | Happening::Broken(node, boot, ..)
            | Happening::Tick(node, boot, _)
            | Happening::BeaconTick(node, boot)
            | Happening::Wake(node, boot, _)
            | Happening::Io(node, boot)
            | Happening::Synced(node, boot)
            | Happening::Answer(node, boot, ..)
            | Happening::ConfigRead(node, boot, ..) => Some((*node, Some(*boot))),
            Happening::Applied(node, _) => Some((*node, None)),
            _ => None,
        }
    }

    fn happen(&mut self, happening: Happening) {
        if let Some((id, boot)) = Self::concerns(&happening) {
            let node = &self.nodes[&id];
            if !node.exists() || boot.is_some_and(|boot| boot != node.boot.0) {
                return;
            }
            if node.power == node::Power::Stopped {
                self.held.entry(id).or_default().push(happening);
                return;
            }
        }
        match happening {
            Happening::Arrive(connection, way) => self.arrive(connection, way),
            Happening::Watch(node, _) => self.watch(node),
            Happening::Dialed(node, _, peer, plane) => self.dialed(node, peer, plane),
            Happening::Broken(node, _, peer, connection) => self.broken(node, peer, connection),
            Happening::Closed(connection) => {
                self.network.close(connection);
            }
            Happening::Tick(node, _, slice) => self.tick(node, slice),
            Happening::BeaconTick(node, _) => self.beacon_tick(node),
            Happening::Wake(node, _, slices) => self.wake(node, &slices),
            Happening::Io(node, _) => self.io_done(node),
            Happening::Synced(node, _) => self.synced(node),
            Happening::Proposal { .. } => self.proposal(happening),
            Happening::Answer(node, _, ticket, answer) => self.answer(node, ticket, answer),
            Happening::Applied(node, index) => self.applied(node, index),
            Happening::ConfigRead(node, _, slice, client) => self.config_read(node, slice, client),
            Happening::RaftWatch => self.raft_watch(),
            Happening::Start(node) => self.start(node),
            Happening::Continue(node) => self.go_on(node),
            Happening::Fault(index) => self.begin_fault(index),
            Happening::Ease(ease) => self.ease(ease),
            Happening::ClientTick(client) => self.client_tick(client),
            Happening::ClientDialed(client, node) => self.client_dialed(client, node),
            Happening::Work(client) => self.work(client),
            Happening::Attend => self.attend(),
            Happening::Probe => self.probe(),
            Happening::ProbeAgain(client, node, slice, block) => {
                self.send_probe(client, node, slice, BlockIndex(block));
            }
        }
    }

    /// A property is broken: the run ends.
    fn fail(&mut self, property: &'static str, text: String) {
        if self.violation.is_none() {
            let now = self.queue.now();
            self.trace.line(now, format_args!("VIOLATION of {property}: {text}"));
            self.violation = Some(Violation { property, text });
        }
    }

    fn check(&mut self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.fail(violation.property, violation.text);
        }
    }

    fn count(&mut self, kind: Kind, name: &'static str) {
        self.coverage.count(kind, name);
    }

    fn slice_ids(&self) -> Vec<SliceId> {
        self.raft.state().slices().map(|(id, _)| id).collect()
    }

    fn slice_id(&self, volume: usize, index: u32) -> SliceId {
        SliceId { volume: self.plan.volume_id(volume), index: SliceIndex(index) }
    }
}
