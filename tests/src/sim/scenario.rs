//! Directed scenarios, written as sentences.
//!
//! ```text
//! let mut c = Scenario::new(3, 3);
//! c.write(0..8);
//! c.crash(2);
//! c.write(0..8);
//! c.restart(2);
//! c.settle();
//! ```
//! A client is attached on node 1 from the beginning. Every sentence that asks for I/O waits for
//! its answer, unless it begins with `start`. `settle` checks all properties, and a scenario that
//! breaks one panics with its story.

use std::ops::Range;
use std::time::Duration;

use mooring_config::SliceConfig;
use mooring_replication::{Event, VolumeBlock, VolumeRange};
use mooring_terms::{BlockIndex, NodeId, SliceId, Time};

use super::client::Standing;
use super::history::{OpId, What};
use super::plan::{Plan, StoreKind, VolumePlan};
use super::trace::Trace;
use super::{FaultKind, Happening, Phase, Sim};

/// A cluster that does what it is told.
pub struct Scenario {
    sim: Sim,
    client: u32,
}

/// What is waited for comes within this virtual time, or never.
const PATIENCE: Duration = Duration::from_secs(90);

impl Scenario {
    /// `nodes` nodes, one volume of one slice with `replicas` replicas, the first its primary; a
    /// client on node 1.
    #[must_use]
    pub fn new(nodes: u32, replicas: u32) -> Self {
        Self::with(nodes, replicas, |_| {})
    }

    /// The same on the real engine.
    #[must_use]
    pub fn on_engine(nodes: u32, replicas: u32) -> Self {
        Self::with(nodes, replicas, |plan| plan.store = StoreKind::Engine)
    }

    /// The same with a plan changed by `change`.
    #[must_use]
    pub fn with(nodes: u32, replicas: u32, change: impl FnOnce(&mut Plan)) -> Self {
        let mut plan = Plan::quiet(1, nodes, VolumePlan { slices: 1, replicas });
        change(&mut plan);
        let mut scenario = Self { sim: Sim::new(plan, Trace::new(false)), client: 0 };
        // What a scenario does to its nodes excuses all that follows.
        for node in scenario.sim.plan.node_ids() {
            scenario.sim.blame(node, Duration::from_secs(100_000));
        }
        scenario.wait(Duration::from_millis(500));
        scenario.attach(1);
        scenario
    }

    /// Attaches the volume on `node`, by force if need be.
    pub fn attach(&mut self, node: u64) {
        let number = self.start_attach(node);
        self.until("the volume is attached", |sim| {
            sim.clients[&number].standing == Standing::Serving
        });
        self.client = number;
    }

    /// Begins to attach the volume on `node`; later sentences speak of the old client.
    pub fn start_attach(&mut self, node: u64) -> u32 {
        let volume = self.sim.plan.volume_id(0);
        self.sim.new_client(volume, NodeId(node), true)
    }

    /// Speaks of another client from now on.
    pub fn use_client(&mut self, number: u32) {
        self.client = number;
    }

    /// The client that the sentences speak of.
    #[must_use]
    pub fn client(&self) -> u32 {
        self.client
    }

    /// Writes, and waits.
    pub fn write(&mut self, blocks: Range<u64>) {
        self.io(What::Write { fua: false }, blocks);
    }

    /// Writes with force unit access, and waits.
    pub fn write_through(&mut self, blocks: Range<u64>) {
        self.io(What::Write { fua: true }, blocks);
    }

    /// Discards, and waits.
    pub fn discard(&mut self, blocks: Range<u64>) {
        self.io(What::Discard { fua: false }, blocks);
    }

    /// Reads, and waits; what was read is checked at the end.
    pub fn read(&mut self, blocks: Range<u64>) {
        self.io(What::Read, blocks);
    }

    /// Flushes, and waits.
    pub fn flush(&mut self) {
        self.io(What::Flush, 0..0);
    }

    /// Begins to write.
    pub fn start_write(&mut self, blocks: Range<u64>) -> OpId {
        self.start(What::Write { fua: false }, blocks)
    }

    /// Begins to read.
    pub fn start_read(&mut self, blocks: Range<u64>) -> OpId {
        self.start(What::Read, blocks)
    }

    fn start(&mut self, what: What, blocks: Range<u64>) -> OpId {
        let range =
            VolumeRange { first: VolumeBlock(blocks.start), count: blocks.end - blocks.start };
        self.sim.submit(self.client, what, range)
    }

    fn io(&mut self, what: What, blocks: Range<u64>) {
        let op = self.start(what, blocks);
        self.until("the operation is answered", |sim| sim.history.is_closed(op));
    }

    /// Whether an operation was answered, well or not.
    #[must_use]
    pub fn is_answered(&self, op: OpId) -> bool {
        self.sim.history.is_closed(op)
    }

    /// Whether the client lost its device.
    #[must_use]
    pub fn is_over(&self, client: u32) -> bool {
        self.sim.clients[&client].standing == Standing::Over
    }

    /// `kill -9`.
    pub fn crash(&mut self, node: u64) {
        self.sim.kill(NodeId(node));
    }

    /// Cuts the power of a node.
    pub fn cut_power(&mut self, node: u64) {
        self.sim.cut_power(NodeId(node));
    }

    /// Starts a node that is down.
    pub fn restart(&mut self, node: u64) {
        self.sim.start(NodeId(node));
    }

    /// Stops a daemon with a signal.
    pub fn stop(&mut self, node: u64) {
        assert!(self.sim.stop(NodeId(node)), "only a running daemon can be stopped");
    }

    /// Lets it go on.
    pub fn go_on(&mut self, node: u64) {
        self.sim.go_on(NodeId(node));
    }

    /// Cuts a node off from all others.
    pub fn isolate(&mut self, node: u64) {
        for other in self.others(node) {
            self.sim.block(NodeId(node), other);
            self.sim.block(other, NodeId(node));
        }
    }

    /// Connects it again.
    pub fn reconnect(&mut self, node: u64) {
        for other in self.others(node) {
            self.sim.unblock(NodeId(node), other);
            self.sim.unblock(other, NodeId(node));
        }
    }

    fn others(&self, node: u64) -> Vec<NodeId> {
        self.sim.plan.node_ids().into_iter().filter(|id| id.0 != node).collect()
    }

    /// Hangs a node's disk, without an error.
    pub fn hang_disk(&mut self, node: u64) {
        self.sim.hang(NodeId(node), true);
    }

    /// Lets it go on.
    pub fn free_disk(&mut self, node: u64) {
        self.sim.hang(NodeId(node), false);
    }

    /// The node's next sync fails.
    pub fn fail_sync(&mut self, node: u64) {
        if let Some(node) = self.sim.nodes.get_mut(&NodeId(node)) {
            node.pool.fail_next(true);
        }
    }

    /// Takes all free space of a node's pool, or gives it back.
    pub fn fill_pool(&mut self, node: u64, full: bool) {
        if let Some(node) = self.sim.nodes.get_mut(&NodeId(node)) {
            node.pool.fill(full);
        }
    }

    /// Lets a node apply configuration late.
    pub fn lag(&mut self, node: u64, by: Duration) {
        self.sim.raft.set_lag(NodeId(node), by);
    }

    /// Breaks all streams of the client.
    pub fn reset_client(&mut self) {
        self.sim.reset_client(self.client);
    }

    /// Asks the primary to hand over.
    pub fn hand_over(&mut self, to: u64) {
        let (slice, primary) = (self.slice(), self.config().primary);
        self.sim.deliver(primary, slice, Event::HandOver { to: NodeId(to) });
        self.until("the primary has handed over", |sim| {
            sim.raft.state().slice(slice).is_some_and(|config| config.primary == NodeId(to))
        });
    }

    /// Lets a fault of the seeds happen, to whomever it can.
    pub fn inject(&mut self, kind: FaultKind) -> bool {
        self.sim.inject(kind)
    }

    /// Flips a bit of a stored block.
    pub fn rot(&mut self, node: u64, block: u64) {
        let slice = self.slice();
        let Some(owner) = self.sim.nodes.get_mut(&NodeId(node)) else { return };
        let rotten = owner.pool.rot(slice, &[BlockIndex(block)]);
        assert!(rotten.is_some(), "the block is stored there");
        self.sim.checkers.rotted(NodeId(node), slice, BlockIndex(block));
    }

    /// Lets time pass.
    pub fn wait(&mut self, span: Duration) {
        self.sim.run_for(span);
        self.complain();
    }

    /// Waits until the primary is `node`.
    pub fn wait_for_primary(&mut self, node: u64) {
        let slice = self.slice();
        self.until("there is another primary", |sim| {
            sim.raft.state().slice(slice).is_some_and(|config| config.primary == NodeId(node))
        });
    }

    /// Waits until so many replicas are in sync.
    pub fn wait_for_in_sync(&mut self, count: usize) {
        let slice = self.slice();
        self.until("so many replicas are in sync", |sim| {
            sim.raft.state().slice(slice).is_some_and(|config| config.in_sync.len() == count)
        });
    }

    /// The slice's configuration, as Raft has it.
    #[must_use]
    pub fn config(&self) -> SliceConfig {
        let slice = self.slice();
        (**self.sim.raft.state().slice(slice).expect("the volume exists")).clone()
    }

    fn slice(&self) -> SliceId {
        self.sim.slice_id(0, 0)
    }

    /// How often something was counted.
    #[must_use]
    pub fn counted(&self, kind: super::CoverageKind, name: &'static str) -> u64 {
        self.sim.coverage.of(kind, name)
    }

    /// Heals everything, waits until it has come right, reads everything, checks everything.
    pub fn settle(&mut self) {
        self.sim.heal_all();
        self.sim.settle(PATIENCE);
        self.complain();
        let alive = self.sim.clients.values().any(|c| c.standing == Standing::Serving);
        if !alive {
            self.attach(1);
        }
        self.sim.phase = Phase::Reading;
        let plan = self.sim.plan.clone();
        self.sim.workload.read_everything(&plan);
        self.sim.work_all();
        self.sim.settle(PATIENCE);
        self.sim.finish();
        self.complain();
        self.sim.phase = Phase::Faults;
    }

    fn until(&mut self, what: &str, there: impl Fn(&Sim) -> bool) {
        let end: Time = self.sim.queue.now() + PATIENCE;
        while !there(&self.sim) {
            self.sim.run_for(Duration::from_micros(500));
            self.complain();
            let late = self.sim.queue.now() >= end;
            assert!(!late, "it never came about that {what}");
        }
    }

    fn complain(&self) {
        if let Some(violation) = &self.sim.violation {
            panic!("broken: {}\n{}", violation.property, violation.text);
        }
    }

    /// Restarts a node a little later.
    pub fn restart_after(&mut self, node: u64, span: Duration) {
        self.sim.queue.after(span, Happening::Start(NodeId(node)));
    }
}

/// A scenario that panics tells its story.
impl Drop for Scenario {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.sim.trace.tail());
        }
    }
}
