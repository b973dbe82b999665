//! What goes wrong, when, and for how long. Every fault ends by itself; healing ends all at once.

mod healing;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mooring_config::{Command as ConfigCommand, Removal};
use mooring_replication::Event;
use mooring_terms::{BlockIndex, NodeId, SliceId, Time};

use super::client::Standing;
use super::coverage::Kind;
use super::node::Power;
use super::prng::Prng;
use super::{Happening, Phase, Sim, Ticket};

/// A kind of fault. Whom it hits is drawn when it begins, from those it can hit then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// `kill -9` of a daemon, which is started again.
    Kill,
    /// A power cut of one node.
    PowerCut,
    /// A power cut of all nodes at once; each comes back in its own time.
    PowerCutAll,
    /// Two nodes lose their power one shortly after the other.
    PowerCutTwo,
    /// All replicas of a slice lose their power; a client elsewhere outlives them.
    PowerCutSlice,
    /// A daemon is stopped for 0.5 to 5 s.
    Stop,
    /// Two nodes don't hear each other.
    Partition,
    /// One of two nodes doesn't hear the other.
    OneWay,
    /// A node is cut off from all others.
    Cut,
    /// All streams between two nodes break at once.
    BreakStreams,
    /// A link is slow.
    SlowLink,
    /// A disk hangs.
    HangDisk,
    /// A write to a disk fails.
    FailWrite,
    /// A sync of a disk fails.
    FailSync,
    /// A pool has no space to give.
    FillPool,
    /// A bit flips in a stored block.
    Rot,
    /// Raft has no leader for a while.
    NoLeader,
    /// Raft changes its leader.
    NewLeader,
    /// A node applies configuration late.
    Lag,
    /// Outcomes of proposals stay unknown.
    Unknown,
    /// Another node takes a volume over.
    TakeOver,
    /// A client crashes.
    CrashClient,
    /// All streams of a client break.
    ResetClient,
    /// An operator hands a primary over.
    HandOver,
    /// An operator moves a replica to another node.
    Replace,
    /// An operator accepts a loss.
    AcceptLoss,
    /// A primary is cut off, and while it is away its successor dies too; then the first returns.
    TwoFailovers,
    /// A replica that is being brought level loses its power.
    CutJoiner,
    /// A primary is stopped for longer than the grace, and applies configuration late.
    StopLate,
    /// A node loses its power in the middle of reclaim.
    CutInReclaim,
    /// A primary is cut off together with a client, and dies so.
    LonePrimary,
    /// A primary hears one secondary alone, which applies configuration late.
    HalfCut,
    /// A block rots on every replica in sync, while another is away or being brought level.
    RotEverywhere,
    /// A primary dies whose last records one secondary has, and the one that takes over has not.
    UnevenDeath,
}

impl FaultKind {
    /// All kinds with their weights.
    const WEIGHTS: [(Self, u64); 34] = [
        (Self::Kill, 9),
        (Self::PowerCut, 9),
        (Self::PowerCutAll, 3),
        (Self::PowerCutTwo, 3),
        (Self::PowerCutSlice, 5),
        (Self::Stop, 9),
        (Self::Partition, 6),
        (Self::OneWay, 6),
        (Self::Cut, 7),
        (Self::BreakStreams, 6),
        (Self::SlowLink, 4),
        (Self::HangDisk, 6),
        (Self::FailWrite, 3),
        (Self::FailSync, 3),
        (Self::FillPool, 5),
        (Self::Rot, 8),
        (Self::NoLeader, 4),
        (Self::NewLeader, 3),
        (Self::Lag, 5),
        (Self::Unknown, 5),
        (Self::TakeOver, 5),
        (Self::CrashClient, 5),
        (Self::ResetClient, 6),
        (Self::HandOver, 12),
        (Self::Replace, 4),
        (Self::AcceptLoss, 5),
        (Self::TwoFailovers, 4),
        (Self::CutJoiner, 5),
        (Self::StopLate, 5),
        (Self::CutInReclaim, 4),
        (Self::LonePrimary, 5),
        (Self::HalfCut, 4),
        (Self::RotEverywhere, 6),
        (Self::UnevenDeath, 5),
    ];

    /// All kinds.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::WEIGHTS.iter().map(|(kind, _)| *kind)
    }

    /// Its name in the table of coverage.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::PowerCut => "cut power",
            Self::PowerCutAll => "cut power of all",
            Self::PowerCutTwo => "cut power of two",
            Self::PowerCutSlice => "cut power of a slice",
            Self::Stop => "stop",
            Self::Partition => "partition",
            Self::OneWay => "one-way partition",
            Self::Cut => "cut a node off",
            Self::BreakStreams => "break streams",
            Self::SlowLink => "slow link",
            Self::HangDisk => "hang disk",
            Self::FailWrite => "fail write",
            Self::FailSync => "fail sync",
            Self::FillPool => "fill pool",
            Self::Rot => "rot",
            Self::NoLeader => "no leader",
            Self::NewLeader => "new leader",
            Self::Lag => "lagging follower",
            Self::Unknown => "unknown outcomes",
            Self::TakeOver => "take over",
            Self::CrashClient => "crash client",
            Self::ResetClient => "reset client",
            Self::HandOver => "hand over",
            Self::Replace => "replace replica",
            Self::AcceptLoss => "accept loss",
            Self::TwoFailovers => "two failovers",
            Self::CutJoiner => "cut power of a joiner",
            Self::StopLate => "stop a primary that applies late",
            Self::CutInReclaim => "cut power in reclaim",
            Self::LonePrimary => "cut off a primary with a client",
            Self::HalfCut => "cut off a primary but for one",
            Self::RotEverywhere => "rot everywhere",
            Self::UnevenDeath => "uneven death",
        }
    }
}

/// The end of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ease {
    /// One direction opens.
    Open(NodeId, NodeId),
    /// One direction is fast again.
    Fast(NodeId, NodeId),
    /// A disk moves again.
    Disk(NodeId),
    /// A pool has space again.
    Space(NodeId),
    /// A node applies in time.
    Lag(NodeId),
    /// Outcomes are known.
    Known,
    /// A node whose pool failed is started anew.
    Reopen(NodeId),
    /// A node loses its power, for long.
    LosePower(NodeId),
    /// An operator lets this node's older history of a slice go on, or looks again so many times.
    AcceptLoss(SliceId, NodeId, u32),
    /// A client writes more to a slice than it may keep.
    WriteMuch(SliceId),
    /// All replicas of a slice lose their power.
    CutSlice(SliceId),
    /// A primary is to hand over with something in flight; looks again so many times.
    HandOver(SliceId, NodeId, u32),
    /// A primary is cut off from all but its client.
    Lone(SliceId, NodeId),
    /// A node dies, one way or the other.
    Die(NodeId),
    /// A primary is cut off from all but one secondary.
    HalfCut(SliceId, NodeId),
    /// A client on that node writes.
    WriteAt(SliceId, NodeId),
    /// The successor of a primary that is away dies too.
    Successor(SliceId),
    /// A block rots on every replica of a slice that is in sync.
    RotEverywhere(SliceId),
}

/// What is wrong at present, and who was touched lately.
#[derive(Debug, Default)]
pub struct Active {
    blocked: BTreeMap<(NodeId, NodeId), u32>,
    slow: BTreeSet<(NodeId, NodeId)>,
    /// Until when a node's troubles explain that it is taken out.
    excused: BTreeMap<NodeId, Time>,
    /// How many faults hit somebody.
    pub begun: u64,
    /// Pools that had, or have, no space.
    pub filled: BTreeSet<NodeId>,
    /// Pools that have none now.
    pub full: BTreeSet<NodeId>,
    /// A node whose disk has not eaten its words yet.
    failing: BTreeSet<NodeId>,
}

impl Active {
    /// Whether something that was done to `node` explains that it fell silent.
    #[must_use]
    pub fn excuses(&self, node: NodeId, now: Time) -> bool {
        self.excused.get(&node).is_some_and(|until| *until >= now)
    }

    fn excuse(&mut self, node: NodeId, until: Time) {
        let excused = self.excused.entry(node).or_default();
        *excused = until.max(*excused);
    }
}

/// After a fault is over, its effects may show for so long.
const AFTERMATH: Duration = Duration::from_secs(5);

/// Draws the faults of a run, in the order of their beginning.
pub fn draw(prng: &mut Prng, _nodes: u32, _grace: Duration) -> Vec<(Time, FaultKind)> {
    let count = prng.within(11..17);
    let total: u64 = FaultKind::WEIGHTS.iter().map(|(_, weight)| weight).sum();
    // Nothing is wrong in the first seconds: what happens then happens without a cause.
    let mut at = Time(Duration::from_secs(3));
    let mut faults = Vec::new();
    for _ in 0..count {
        let mut draw = prng.within(0..total);
        let kind = FaultKind::WEIGHTS.iter().find_map(|(kind, weight)| {
            let hit = draw < *weight;
            draw = draw.saturating_sub(*weight);
            hit.then_some(*kind)
        });
        faults.push((at, kind.unwrap_or(FaultKind::Kill)));
        let pause = if prng.percent(35) { prng.millis(0, 700) } else { prng.millis(700, 5_000) };
        at = at + pause;
    }
    faults
}

impl Sim {
    pub(super) fn begin_fault(&mut self, index: usize) {
        if self.phase != Phase::Faults {
            return;
        }
        let Some((_, kind)) = self.plan.faults.get(index).copied() else { return };
        if self.inject(kind) {
            return;
        }
        // Nobody is there whom it could hit: something else goes wrong.
        let others = [
            FaultKind::Kill,
            FaultKind::Stop,
            FaultKind::PowerCut,
            FaultKind::BreakStreams,
            FaultKind::Cut,
        ];
        let other = self.prng.pick(&others).unwrap_or(FaultKind::Kill);
        if !self.inject(other) {
            self.inject(FaultKind::NewLeader);
        }
    }

    /// Lets `kind` happen now, to whom it can; says whether it hit anyone.
    pub(super) fn inject(&mut self, kind: FaultKind) -> bool {
        let now = self.queue.now();
        self.trace.line(now, format_args!("FAULT {}", kind.name()));
        let hit = match kind {
            FaultKind::Kill => self.fault_kill(),
            FaultKind::PowerCut => self.running().is_some_and(|node| self.power_cycle(node)),
            FaultKind::PowerCutAll => self.fault_power_all(usize::MAX),
            FaultKind::PowerCutTwo => self.fault_power_all(2),
            FaultKind::PowerCutSlice => self.fault_power_slice(),
            FaultKind::Stop => self.fault_stop(),
            FaultKind::Partition => self.fault_partition(true),
            FaultKind::OneWay => self.fault_partition(false),
            FaultKind::Cut => self.running().is_some_and(|node| self.cut_off(node, 200, 6_000)),
            FaultKind::BreakStreams => self.fault_break(),
            FaultKind::SlowLink => self.fault_slow(),
            FaultKind::HangDisk => self.fault_hang(),
            FaultKind::FailWrite => self.fault_disk(false),
            FaultKind::FailSync => self.fault_disk(true),
            FaultKind::FillPool => self.fault_fill(),
            FaultKind::Rot => self.fault_rot(),
            FaultKind::NoLeader | FaultKind::NewLeader => self.fault_leader(kind),
            FaultKind::Lag => self.fault_lag(),
            FaultKind::Unknown => self.fault_unknown(),
            FaultKind::TakeOver => self.fault_take_over(),
            FaultKind::CrashClient => self.fault_client(true),
            FaultKind::ResetClient => self.fault_client(false),
            FaultKind::HandOver => self.fault_hand_over(),
            FaultKind::Replace => self.fault_replace(),
            FaultKind::AcceptLoss => self.fault_accept_loss(),
            FaultKind::TwoFailovers => self.fault_two_failovers(),
            FaultKind::CutJoiner => self.fault_cut_joiner(),
            FaultKind::StopLate => self.fault_stop_late(),
            FaultKind::CutInReclaim => self.fault_cut_in_reclaim(),
            FaultKind::LonePrimary => self.fault_lone_primary(),
            FaultKind::HalfCut => self.fault_half_cut(),
            FaultKind::RotEverywhere => self.fault_rot_everywhere(),
            FaultKind::UnevenDeath => self.fault_uneven_death(),
        };
        if hit {
            self.faults.begun += 1;
            self.count(Kind::Fault, kind.name());
        }
        hit
    }

    /// Something is done to `node` for `span`: what follows has a cause.
    pub(super) fn blame(&mut self, node: NodeId, span: Duration) {
        let until = self.queue.now() + span + AFTERMATH;
        self.faults.excuse(node, until);
    }

    fn some_slice(&mut self) -> Option<SliceId> {
        let slices = self.slice_ids();
        self.prng.pick(&slices)
    }

    /// A running node: often one that matters, a primary.
    fn running(&mut self) -> Option<NodeId> {
        if self.prng.percent(45)
            && let Some(slice) = self.some_slice()
            && let Some(config) = self.raft.state().slice(slice)
            && self.nodes[&config.primary].power == Power::Running
        {
            return Some(config.primary);
        }
        let running: Vec<NodeId> = self
            .nodes
            .values()
            .filter(|node| node.power == Power::Running)
            .map(|node| node.id)
            .collect();
        self.prng.pick(&running)
    }

    fn pair(&mut self) -> Option<(NodeId, NodeId)> {
        let one = self.running()?;
        let others: Vec<NodeId> = self.nodes.keys().copied().filter(|id| *id != one).collect();
        Some((one, self.prng.pick(&others)?))
    }

    fn fault_kill(&mut self) -> bool {
        let Some(node) = self.running() else { return false };
        let away = self.away();
        self.blame(node, away);
        self.kill(node);
        self.queue.after(away, Happening::Start(node));
        true
    }

    /// How long a node is away: often shorter than the lease, sometimes for long.
    fn away(&mut self) -> Duration {
        match self.prng.within(0..10) {
            0..4 => self.prng.millis(10, 1_000),
            4..8 => self.prng.millis(1_000, 5_000),
            _ => self.prng.millis(5_000, 15_000),
        }
    }

    pub(super) fn power_cycle(&mut self, node: NodeId) -> bool {
        let away = self.away();
        self.blame(node, away);
        if away < self.plan.options.lease {
            self.count(Kind::Situation, "reboot inside the lease");
        }
        self.cut_power(node);
        self.queue.after(away, Happening::Start(node));
        true
    }

    fn fault_power_all(&mut self, at_most: usize) -> bool {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        let mut left = ids.clone();
        while left.len() > at_most {
            let out = self.prng.within(0..left.len() as u64);
            left.remove(usize::try_from(out).expect("few"));
        }
        for node in left {
            if self.nodes[&node].exists() {
                self.power_cycle(node);
            }
        }
        true
    }

    fn fault_power_slice(&mut self) -> bool {
        let Some(slice) = self.some_slice() else { return false };
        if self.prng.percent(70) && self.prepare_power_slice(slice) {
            return true;
        }
        self.cut_power_of(slice);
        true
    }

    fn fault_stop(&mut self) -> bool {
        let Some(node) = self.running() else { return false };
        let span = self.prng.millis(500, 5_000);
        self.blame(node, span);
        self.stop(node);
        self.queue.after(span, Happening::Continue(node));
        true
    }

    pub(super) fn block_for(&mut self, from: NodeId, to: NodeId, span: Duration) {
        self.block(from, to);
        *self.faults.blocked.entry((from, to)).or_default() += 1;
        self.queue.after(span, Happening::Ease(Ease::Open(from, to)));
    }

    fn fault_partition(&mut self, both: bool) -> bool {
        let Some((a, b)) = self.pair() else { return false };
        let span = self.prng.millis(200, 6_000);
        self.blame(a, span);
        self.blame(b, span);
        self.block_for(a, b, span);
        if both {
            self.block_for(b, a, span);
        }
        true
    }

    pub(super) fn cut_off(&mut self, node: NodeId, from_ms: u64, to_ms: u64) -> bool {
        let span = self.prng.millis(from_ms, to_ms);
        let others: Vec<NodeId> = self.nodes.keys().copied().filter(|id| *id != node).collect();
        self.blame(node, span);
        for other in others {
            self.block_for(node, other, span);
            self.block_for(other, node, span);
        }
        true
    }

    fn fault_break(&mut self) -> bool {
        let Some((a, b)) = self.pair() else { return false };
        self.blame(a, Duration::ZERO);
        self.blame(b, Duration::ZERO);
        for plane in [super::Plane::Data, super::Plane::Client, super::Plane::Beacons] {
            for connection in self.network.between(a, b, plane) {
                self.break_stream(connection, true);
            }
        }
        true
    }

    fn fault_slow(&mut self) -> bool {
        let Some((a, b)) = self.pair() else { return false };
        let span = self.prng.millis(500, 6_000);
        let by = self.prng.millis(5, 700);
        for (from, to) in [(a, b), (b, a)] {
            self.blame(from, span);
            self.network.slow(from, to, by);
            self.faults.slow.insert((from, to));
            self.queue.after(span, Happening::Ease(Ease::Fast(from, to)));
        }
        true
    }

    fn fault_hang(&mut self) -> bool {
        let Some(node) = self.running() else { return false };
        let span = self.prng.millis(300, 7_000);
        self.blame(node, span);
        self.hang(node, true);
        self.queue.after(span, Happening::Ease(Ease::Disk(node)));
        true
    }

    fn fault_disk(&mut self, sync: bool) -> bool {
        let Some(node) = self.running() else { return false };
        let away = self.prng.millis(2_000, 10_000);
        self.blame(node, away);
        if let Some(node) = self.nodes.get_mut(&node) {
            node.pool.fail_next(sync);
        }
        self.faults.failing.insert(node);
        self.queue.after(away, Happening::Ease(Ease::Reopen(node)));
        true
    }

    fn fault_fill(&mut self) -> bool {
        let Some(node) = self.running() else { return false };
        let span = self.prng.millis(500, 5_000);
        if let Some(node) = self.nodes.get_mut(&node) {
            node.pool.fill(true);
        }
        self.faults.filled.insert(node);
        self.faults.full.insert(node);
        self.queue.after(span, Happening::Ease(Ease::Space(node)));
        true
    }

    /// Only where another in-sync replica has the block: with one copy it would be lost.
    fn fault_rot(&mut self) -> bool {
        let Some(slice) = self.some_slice() else { return false };
        let Some(config) = self.raft.state().slice(slice).cloned() else { return false };
        if config.in_sync.len() < 2 || self.checkers.rotten_elsewhere(slice) {
            return false;
        }
        let nodes: Vec<NodeId> = config.in_sync.iter().map(|member| member.node).collect();
        // A primary's own block is found out by the next read of it.
        let own = self.prng.percent(60).then_some(config.primary);
        let Some(node) = own.or_else(|| self.prng.pick(&nodes)) else { return false };
        let mut blocks: Vec<BlockIndex> = super::workload::hot_blocks(0).map(BlockIndex).collect();
        let turn = self.prng.within(0..blocks.len() as u64);
        blocks.rotate_left(usize::try_from(turn).expect("few"));
        // Rot in a log damages all replicas whose records lie behind it.
        let state = self.raft.state();
        let alone = state.slices().any(|(_, c)| c.member(node).is_some() && c.in_sync.len() < 2);
        if self.plan.store.is_engine() && (alone || self.checkers.rotten_beside(node)) {
            return false;
        }
        let Some(owner) = self.nodes.get_mut(&node) else { return false };
        let rotten = owner.pool.rot(slice, &blocks);
        if let Some(block) = rotten {
            self.blame(node, Duration::ZERO);
            self.checkers.rotted(node, slice, block);
            self.read_now(slice, block);
        }
        rotten.is_some()
    }

    fn fault_leader(&mut self, kind: FaultKind) -> bool {
        let span = if kind == FaultKind::NoLeader {
            self.prng.millis(1_000, 7_000)
        } else {
            self.prng.millis(300, 1_200)
        };
        let until = self.queue.now() + span;
        self.depose(until);
        true
    }

    fn fault_lag(&mut self) -> bool {
        let Some(node) = self.running() else { return false };
        let span = self.prng.millis(2_000, 8_000);
        let lag = self.prng.millis(100, 4_000);
        self.blame(node, span);
        self.raft.set_lag(node, lag);
        self.queue.after(span, Happening::Ease(Ease::Lag(node)));
        true
    }

    fn fault_unknown(&mut self) -> bool {
        let span = self.prng.millis(2_000, 10_000);
        self.raft.set_unknown(40);
        self.queue.after(span, Happening::Ease(Ease::Known));
        true
    }

    fn serving_client(&mut self) -> Option<u32> {
        let serving: Vec<u32> = self
            .clients
            .values()
            .filter(|client| client.standing == Standing::Serving)
            .map(|client| client.number)
            .collect();
        self.prng.pick(&serving)
    }

    fn fault_take_over(&mut self) -> bool {
        let Some(client) = self.serving_client() else { return false };
        let (volume, node) = (self.clients[&client].volume, self.clients[&client].node);
        let others: Vec<NodeId> = self
            .nodes
            .values()
            .filter(|other| other.power == Power::Running && other.id != node)
            .map(|other| other.id)
            .collect();
        let Some(to) = self.prng.pick(&others) else { return false };
        self.new_client(volume, to, true);
        true
    }

    fn fault_client(&mut self, crash: bool) -> bool {
        let Some(client) = self.serving_client() else { return false };
        if crash {
            self.client_over(client);
        } else {
            self.reset_client(client);
        }
        true
    }

    fn fault_hand_over(&mut self) -> bool {
        let Some(slice) = self.some_slice() else { return false };
        let Some(config) = self.raft.state().slice(slice).cloned() else { return false };
        let others: Vec<NodeId> = config
            .in_sync
            .iter()
            .map(|member| member.node)
            .filter(|node| *node != config.primary)
            .collect();
        let Some(to) = self.prng.pick(&others) else { return false };
        if self.nodes[&config.primary].power != Power::Running {
            return false;
        }
        self.blame(config.primary, Duration::from_secs(1));
        if self.prng.percent(50) {
            self.seek_hand_over(slice, to);
        } else {
            self.deliver(config.primary, slice, Event::HandOver { to });
        }
        true
    }

    /// Moves a secondary, in sync or not, to a node that has none.
    fn fault_replace(&mut self) -> bool {
        let Some(slice) = self.some_slice() else { return false };
        let Some(config) = self.raft.state().slice(slice).cloned() else { return false };
        let free: Vec<NodeId> =
            self.nodes.keys().copied().filter(|id| config.member(*id).is_none()).collect();
        let Some(to) = self.prng.pick(&free) else { return false };
        let secondaries: Vec<NodeId> = config
            .in_sync
            .iter()
            .chain(&config.joining)
            .map(|member| member.node)
            .filter(|id| *id != config.primary)
            .collect();
        let Some(from) = self.prng.pick(&secondaries) else { return false };
        let Some(by) = self.running() else { return false };
        let expected = config.epoch;
        let removal = Removal { slice, expected, node: from };
        self.blame(from, Duration::ZERO);
        self.propose(by, Ticket::Operator, ConfigCommand::RemoveReplicas(vec![removal]));
        let assignments = vec![Self::assignment(slice, to)];
        self.propose(by, Ticket::Operator, ConfigCommand::AssignReplicas(assignments));
        true
    }

    /// An operator whose replacement was lost half-way looks again, and places what is missing.
    pub(super) fn replace_what_is_missing(&mut self) {
        let state = self.raft.state().clone();
        for (slice, config) in state.slices() {
            let wanted = state.volume(slice.volume).map_or(0, |volume| volume.spec.replicas);
            if config.members().count() >= wanted as usize {
                continue;
            }
            let free = self.nodes.keys().copied().find(|id| config.member(*id).is_none());
            if let Some(to) = free {
                let command = ConfigCommand::AssignReplicas(vec![Self::assignment(slice, to)]);
                self.propose(to, Ticket::Operator, command);
            }
        }
    }

    fn fault_two_failovers(&mut self) -> bool {
        let Some(slice) = self.some_slice() else { return false };
        let Some(config) = self.raft.state().slice(slice).cloned() else { return false };
        if config.in_sync.len() < 3 || self.nodes[&config.primary].power != Power::Running {
            return false;
        }
        self.cut_off(config.primary, 7_000, 10_000);
        let later = self.prng.millis(2_500, 4_500);
        self.queue.after(later, Happening::Ease(Ease::Successor(slice)));
        true
    }

    fn fault_cut_joiner(&mut self) -> bool {
        let joining: Vec<NodeId> = self
            .raft
            .state()
            .slices()
            .flat_map(|(_, config)| config.joining.iter().map(|member| member.node))
            .filter(|node| self.nodes[node].power == Power::Running)
            .collect();
        match self.prng.pick(&joining) {
            Some(node) => self.power_cycle(node),
            None => false,
        }
    }
}
