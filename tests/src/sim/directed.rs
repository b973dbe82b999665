//! Faults that need a certain moment: something is brought about first, and then hit.

use std::collections::BTreeSet;
use std::time::Duration;

use mooring_config::{Command as ConfigCommand, SliceConfig};
use mooring_replication::{Event, VolumeBlock, VolumeRange};
use mooring_terms::{BlockIndex, NodeId, SliceId, VolumeId};

use super::client::Standing;
use super::faults::Ease;
use super::history::What;
use super::node::Power;
use super::plan::SLICE_BLOCKS;
use super::{Happening, Sim, Ticket};

/// How often a moment is looked for, and how long after each other: a second in all.
const LOOKS: u32 = 5_000;
const LOOK_AGAIN: Duration = Duration::from_micros(200);

/// At how many operations of a disk, after reclaim has begun, the power may go.
const CRASH_POINTS: u64 = 32;

/// How often an operator looks whether a slice has come back by itself, and how long after each
/// other.
const OPERATOR_LOOKS: u32 = 8;
const OPERATOR_LOOKS_AGAIN: Duration = Duration::from_millis(700);

impl Sim {
    fn configured(&self, slice: SliceId) -> Option<SliceConfig> {
        self.raft.state().slice(slice).map(|config| (**config).clone())
    }

    /// A client of the volume that runs.
    fn client_at_work(&self, volume: VolumeId) -> Option<u32> {
        let serves = |c: &&super::client::Client| {
            c.volume == volume && c.standing == Standing::Serving && self.client_runs(c)
        };
        self.clients.values().find(serves).map(|client| client.number)
    }

    /// Lets a client write so many times at the beginning of a slice, all at once.
    fn write_at_once(&mut self, client: u32, slice: SliceId, writes: u64) {
        let first = u64::from(slice.index.0) * SLICE_BLOCKS;
        for i in 0..writes {
            if self.clients[&client].standing == Standing::Serving {
                let count = self.plan.most_blocks;
                let range = VolumeRange { first: VolumeBlock(first + i % 7), count };
                self.submit(client, What::Write { fua: false }, range);
            }
        }
    }

    /// Lets a client read a block of a slice.
    pub(super) fn read_now(&mut self, slice: SliceId, block: BlockIndex) {
        if let Some(client) = self.client_at_work(slice.volume) {
            let first = VolumeBlock(u64::from(slice.index.0) * SLICE_BLOCKS + block.0);
            self.submit(client, What::Read, VolumeRange { first, count: 1 });
        }
    }

    /// A primary is stopped for longer than the grace, with requests in its sockets; when it goes
    /// on, it knows nothing of its successor for a while.
    pub(super) fn fault_stop_late(&mut self) -> bool {
        let slices = self.slice_ids();
        let Some(slice) = self.prng.pick(&slices) else { return false };
        let Some(config) = self.configured(slice) else { return false };
        let primary = config.primary;
        if config.in_sync.len() < 2 || self.nodes[&primary].power != Power::Running {
            return false;
        }
        let span = self.prng.millis(2_200, 4_500);
        let lag = span + self.prng.millis(500, 4_000);
        self.blame(primary, span + lag);
        self.raft.set_lag(primary, lag);
        self.queue.after(span + lag, Happening::Ease(Ease::Lag(primary)));
        self.stop(primary);
        self.queue.after(span, Happening::Continue(primary));
        if let Some(client) = self.client_at_work(slice.volume) {
            self.write_at_once(client, slice, 3);
        }
        true
    }

    /// The power goes at some operation of a disk in the middle of reclaim.
    pub(super) fn fault_cut_in_reclaim(&mut self) -> bool {
        let mut ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        let turn = self.prng.within(0..ids.len() as u64);
        ids.rotate_left(usize::try_from(turn).expect("few"));
        let operations = self.prng.within(0..CRASH_POINTS);
        for id in ids {
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            let works = node.power == Power::Running && !node.hung && !node.failed;
            if works && node.pool.reclaim_and_stop(operations) {
                return self.power_cycle(id);
            }
        }
        false
    }

    /// Asks for a hand-over in a moment at which something is in flight.
    pub(super) fn hand_over_in_flight(&mut self, slice: SliceId, to: NodeId, looks: u32) {
        let Some(config) = self.configured(slice) else { return };
        let Some(slot) = self.nodes[&config.primary].slots.get(&slice) else { return };
        let runs = self.nodes[&config.primary].power == Power::Running;
        if !runs || config.in_sync_member(to).is_none() || config.primary == to {
            return;
        }
        if slot.replica.status().in_flight > 0 || looks == 0 {
            self.deliver(config.primary, slice, Event::HandOver { to });
            return;
        }
        let again = Ease::HandOver(slice, to, looks - 1);
        self.queue.after(LOOK_AGAIN, Happening::Ease(again));
    }

    /// Begins to look for a moment to hand over.
    pub(super) fn seek_hand_over(&mut self, slice: SliceId, to: NodeId) {
        if let Some(client) = self.client_at_work(slice.volume) {
            self.write_at_once(client, slice, 2);
        }
        self.hand_over_in_flight(slice, to, LOOKS);
    }

    /// All replicas of a slice are to lose their power, when a client elsewhere has written more
    /// than it may keep. Says whether there can be such a client.
    pub(super) fn prepare_power_slice(&mut self, slice: SliceId) -> bool {
        let Some(config) = self.configured(slice) else { return false };
        let elsewhere = |node: NodeId| config.member(node).is_none();
        let client = self.client_at_work(slice.volume);
        let node = client.map(|client| self.clients[&client].node);
        if !node.is_some_and(elsewhere) {
            let free: Vec<NodeId> = self
                .nodes
                .values()
                .filter(|node| elsewhere(node.id) && node.power == Power::Running)
                .map(|node| node.id)
                .collect();
            let Some(to) = self.prng.pick(&free) else { return false };
            self.new_client(slice.volume, to, true);
        }
        self.queue.after(Duration::from_millis(500), Happening::Ease(Ease::WriteMuch(slice)));
        self.queue.after(Duration::from_millis(560), Happening::Ease(Ease::CutSlice(slice)));
        true
    }

    /// The volume's client, if it is on `node`; else one begins there.
    fn bring_client_to(&mut self, volume: VolumeId, node: NodeId) {
        let there = self.client_at_work(volume).map(|client| self.clients[&client].node);
        if there != Some(node) {
            self.new_client(volume, node, true);
        }
    }

    /// A primary and the client beside it are to be cut off from all others, write and read on, and
    /// die with that.
    pub(super) fn fault_lone_primary(&mut self) -> bool {
        let slices = self.slice_ids();
        let Some(slice) = self.prng.pick(&slices) else { return false };
        let Some(config) = self.configured(slice) else { return false };
        let primary = config.primary;
        if config.in_sync.len() < 2 || self.nodes[&primary].power != Power::Running {
            return false;
        }
        self.blame(primary, Duration::from_secs(1));
        self.bring_client_to(slice.volume, primary);
        let ready = Duration::from_millis(500);
        self.queue.after(ready, Happening::Ease(Ease::Lone(slice, primary)));
        true
    }

    /// Cuts the primary off, lets its client write, and somebody read what is not committed.
    pub(super) fn leave_alone(&mut self, slice: SliceId, node: NodeId) {
        let primary = self.configured(slice).map(|config| config.primary);
        let client = self.client_at_work(slice.volume);
        let client = client.filter(|client| self.clients[client].node == node);
        let (Some(client), true) = (client, primary == Some(node)) else { return };
        self.cut_off(node, 2_500, 4_000);
        self.write_at_once(client, slice, 3);
        for after in [1, 3, 40, 200] {
            for block in [0, 2, 5] {
                let probe = Happening::ProbeAgain(client, node, slice, block);
                self.queue.after(Duration::from_millis(after), probe);
            }
        }
        let dies = self.prng.millis(300, 2_000);
        self.queue.after(dies, Happening::Ease(Ease::Die(node)));
    }

    /// A replica is away for long enough that others go on without it; then a block that they have
    /// written meanwhile is to rot on all of them.
    pub(super) fn fault_rot_everywhere(&mut self) -> bool {
        // Rot in a log damages all replicas whose records lie behind it: the last whole one might go.
        if self.plan.store.is_engine() {
            return false;
        }
        let slices = self.slice_ids();
        let Some(slice) = self.prng.pick(&slices) else { return false };
        let Some(config) = self.configured(slice) else { return false };
        if !config.joining.is_empty() && self.rot_everywhere(slice) {
            return true;
        }
        let runs = |node: &NodeId| self.nodes[node].power == Power::Running;
        let others = config.in_sync.iter().map(|member| member.node);
        let others: Vec<NodeId> = others.filter(|n| *n != config.primary && runs(n)).collect();
        let Some(node) = self.prng.pick(&others) else { return false };
        let away = self.prng.millis(4_500, 8_000);
        self.blame(node, away);
        self.cut_power(node);
        self.queue.after(away, Happening::Start(node));
        let rots = Duration::from_millis(4_000);
        self.queue.after(rots, Happening::Ease(Ease::RotEverywhere(slice)));
        true
    }

    /// A block rots on every replica in sync; says whether one did.
    pub(super) fn rot_everywhere(&mut self, slice: SliceId) -> bool {
        let Some(config) = self.configured(slice) else { return false };
        let mut blocks: Vec<BlockIndex> = super::workload::hot_blocks(0).map(BlockIndex).collect();
        let turn = self.prng.within(0..blocks.len() as u64);
        blocks.rotate_left(usize::try_from(turn).expect("few"));
        let mut members: Vec<NodeId> = config.in_sync.iter().map(|member| member.node).collect();
        members.sort_by_key(|node| *node != config.primary);
        for node in members {
            let Some(owner) = self.nodes.get_mut(&node) else { continue };
            let Some(block) = owner.pool.rot(slice, &blocks) else { return false };
            self.blame(node, Duration::ZERO);
            self.checkers.rotted(node, slice, block);
            blocks = vec![block];
        }
        self.read_now(slice, blocks[0]);
        true
    }

    /// A primary's records reach one secondary and not the one that will take over; then it dies.
    pub(super) fn fault_uneven_death(&mut self) -> bool {
        let slices = self.slice_ids();
        let Some(slice) = self.prng.pick(&slices) else { return false };
        let Some(config) = self.configured(slice) else { return false };
        let primary = config.primary;
        let others = config.in_sync.iter().map(|member| member.node).filter(|n| *n != primary);
        let Some(first) = others.min() else { return false };
        let client = self.client_at_work(slice.volume);
        let client = client.filter(|client| self.clients[client].node != first);
        let (Some(client), true) = (client, config.in_sync.len() > 2) else { return false };
        if self.nodes[&primary].power != Power::Running {
            return false;
        }
        let dies = self.prng.millis(20, 120);
        self.blame(primary, dies);
        self.blame(first, dies);
        self.block_for(primary, first, Duration::from_secs(1));
        self.write_at_once(client, slice, 3);
        self.queue.after(dies, Happening::Ease(Ease::Die(primary)));
        true
    }

    /// A daemon dies, or its machine, and comes back.
    pub(super) fn die(&mut self, node: NodeId) {
        if self.nodes[&node].power != Power::Running {
            return;
        }
        if self.prng.percent(50) {
            self.power_cycle(node);
            return;
        }
        let away = self.prng.millis(2_000, 5_000);
        self.blame(node, away);
        self.kill(node);
        self.queue.after(away, Happening::Start(node));
    }

    /// A primary is to hear only one secondary, which applies configuration late, while another
    /// takes over and the client beside the old primary writes on.
    pub(super) fn fault_half_cut(&mut self) -> bool {
        let slices = self.slice_ids();
        let Some(slice) = self.prng.pick(&slices) else { return false };
        let Some(config) = self.configured(slice) else { return false };
        let primary = config.primary;
        if config.in_sync.len() < 3 || self.nodes[&primary].power != Power::Running {
            return false;
        }
        self.blame(primary, Duration::from_secs(1));
        self.bring_client_to(slice.volume, primary);
        let ready = Duration::from_millis(500);
        self.queue.after(ready, Happening::Ease(Ease::HalfCut(slice, primary)));
        true
    }

    /// Parts them.
    pub(super) fn half_cut(&mut self, slice: SliceId, primary: NodeId) {
        let Some(config) = self.configured(slice) else { return };
        let leader = self.raft.leader();
        let others = config.in_sync.iter().map(|member| member.node);
        let late: Vec<NodeId> =
            others.filter(|node| *node != primary && Some(*node) != leader).collect();
        // Whoever hears the leader gets its own change through.
        let Some(late) = self.prng.pick(&late) else { return };
        if config.primary != primary || leader == Some(primary) || config.in_sync.len() < 3 {
            return;
        }
        let span = self.prng.millis(4_000, 6_000);
        for node in self.plan.node_ids().into_iter().filter(|n| *n != primary && *n != late) {
            self.blame(node, span);
            self.block_for(primary, node, span);
            self.block_for(node, primary, span);
        }
        self.blame(primary, span);
        self.blame(late, span);
        let lag = self.prng.millis(1_000, 2_500);
        self.raft.set_lag(late, lag);
        self.queue.after(span, Happening::Ease(Ease::Lag(late)));
        for after in [1_900, 2_100, 2_300, 2_500] {
            let write = Ease::WriteAt(slice, primary);
            self.queue.after(Duration::from_millis(after), Happening::Ease(write));
        }
    }

    /// The client on `node` writes to the slice.
    pub(super) fn write_on(&mut self, slice: SliceId, node: NodeId) {
        let client = self.client_at_work(slice.volume);
        if let Some(client) = client.filter(|client| self.clients[client].node == node) {
            self.write_at_once(client, slice, 1);
        }
    }

    /// A client writes more at once than some clients may keep.
    pub(super) fn write_much(&mut self, slice: SliceId) {
        if let Some(client) = self.client_at_work(slice.volume) {
            self.write_at_once(client, slice, 8);
        }
    }

    /// All replicas of a slice lose their power.
    pub(super) fn cut_power_of(&mut self, slice: SliceId) {
        let Some(config) = self.configured(slice) else { return };
        let members: Vec<NodeId> = config.members().map(|member| member.node).collect();
        for node in members {
            if self.nodes[&node].exists() {
                self.power_cycle(node);
            }
        }
    }

    /// A slice, and a replica of it, such that Raft keeps its majority when all other replicas of
    /// the slice are gone, and the one has a part of every slice of the volume.
    fn survivor(&mut self) -> Option<(SliceId, NodeId)> {
        let state = self.raft.state();
        let mut found = Vec::new();
        for (slice, config) in state.slices() {
            let members: Vec<NodeId> = config.members().map(|member| member.node).collect();
            if !members.iter().all(|node| self.nodes[node].power == Power::Running) {
                continue;
            }
            let volume = state.slices().filter(|(other, _)| other.volume == slice.volume);
            let everywhere: Vec<_> = volume.map(|(_, config)| config).collect();
            for one in members.iter().copied().filter(|node| *node != config.primary) {
                let gone = members.iter().filter(|node| **node != one);
                let voters = gone.filter(|node| self.raft.is_voter(**node)).count();
                if voters < 2 && everywhere.iter().all(|config| config.member(one).is_some()) {
                    found.push((slice, one));
                }
            }
        }
        self.prng.pick(&found)
    }

    /// One replica is away while the others go on; then the others lose their power for long, the
    /// one returns, and an operator lets its older history go on.
    pub(super) fn fault_accept_loss(&mut self) -> bool {
        let Some((slice, survivor)) = self.survivor() else { return false };
        let Some(config) = self.configured(slice) else { return false };
        let away = Duration::from_secs(4);
        self.blame(survivor, away);
        self.cut_power(survivor);
        self.queue.after(away, Happening::Start(survivor));
        let others: Vec<NodeId> =
            config.members().map(|member| member.node).filter(|node| *node != survivor).collect();
        for node in others {
            self.blame(node, Duration::from_secs(20));
            let after = Duration::from_millis(3_500);
            self.queue.after(after, Happening::Ease(Ease::LosePower(node)));
        }
        let decided = Duration::from_secs(7);
        let decision = Ease::AcceptLoss(slice, survivor, OPERATOR_LOOKS);
        self.queue.after(decided, Happening::Ease(decision));
        true
    }

    /// The operator decides, if the slice still can't go on by itself; else looks again.
    pub(super) fn accept_loss(&mut self, slice: SliceId, from: NodeId, looks: u32) {
        let Some(config) = self.configured(slice) else { return };
        let done = config.primary == from;
        if done || looks == 0 || self.nodes[&config.primary].power != Power::Down {
            return;
        }
        if self.nodes[&from].power == Power::Running && self.nodes[&from].registered() {
            let gone = BTreeSet::new();
            let volume = slice.volume;
            let command = ConfigCommand::AcceptLoss { volume, from, gone, force: true };
            self.propose(from, Ticket::Operator, command);
        }
        let again = Ease::AcceptLoss(slice, from, looks - 1);
        self.queue.after(OPERATOR_LOOKS_AGAIN, Happening::Ease(again));
    }
}
