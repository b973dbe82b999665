//! What ends a fault, or follows from it: one thing at its time, or everything at once.

use std::time::Duration;

use mooring_terms::NodeId;

use super::super::{Happening, Phase, Sim};
use super::{Ease, Kind, Power};

impl Sim {
    /// What a fault has brought about is hit, unless the faults are over.
    fn go_on_with(&mut self, ease: Ease) {
        match ease {
            Ease::AcceptLoss(slice, from, looks) => self.accept_loss(slice, from, looks),
            Ease::WriteMuch(slice) => self.write_much(slice),
            Ease::CutSlice(slice) => self.cut_power_of(slice),
            Ease::HandOver(slice, to, looks) => self.hand_over_in_flight(slice, to, looks),
            Ease::Lone(slice, node) => self.leave_alone(slice, node),
            Ease::Die(node) => self.die(node),
            Ease::HalfCut(slice, node) => self.half_cut(slice, node),
            Ease::WriteAt(slice, node) => self.write_on(slice, node),
            Ease::RotEverywhere(slice) => {
                self.rot_everywhere(slice);
            }
            _ => {}
        }
    }

    /// Something is over.
    pub(in crate::sim) fn ease(&mut self, ease: Ease) {
        match ease {
            Ease::Open(from, to) => {
                let blocked = self.faults.blocked.entry((from, to)).or_default();
                if *blocked > 0 {
                    *blocked -= 1;
                    self.unblock(from, to);
                }
            }
            Ease::Fast(from, to) => {
                self.faults.slow.remove(&(from, to));
                self.network.slow(from, to, Duration::ZERO);
            }
            Ease::Disk(node) => self.hang(node, false),
            Ease::Space(node) => {
                self.faults.full.remove(&node);
                if let Some(node) = self.nodes.get_mut(&node) {
                    node.pool.fill(false);
                }
            }
            Ease::Lag(node) => self.raft.set_lag(node, Duration::ZERO),
            Ease::Known => self.raft.set_unknown(0),
            Ease::Reopen(node) => {
                if self.faults.failing.remove(&node) {
                    self.blame(node, Duration::from_secs(1));
                    self.kill(node);
                    self.queue.after(Duration::from_millis(500), Happening::Start(node));
                }
            }
            Ease::LosePower(node) => {
                if self.phase == Phase::Faults && self.nodes[&node].exists() {
                    let away = self.prng.millis(9_000, 14_000);
                    self.blame(node, away);
                    self.cut_power(node);
                    self.queue.after(away, Happening::Start(node));
                }
            }
            Ease::AcceptLoss(..)
            | Ease::WriteMuch(_)
            | Ease::CutSlice(_)
            | Ease::HandOver(..)
            | Ease::Lone(..)
            | Ease::Die(_)
            | Ease::HalfCut(..)
            | Ease::WriteAt(..)
            | Ease::RotEverywhere(_) => {
                if self.phase == Phase::Faults {
                    self.go_on_with(ease);
                }
            }
            Ease::Successor(slice) => {
                if self.phase != Phase::Faults {
                    return;
                }
                let primary = self.raft.state().slice(slice).map(|config| config.primary);
                if let Some(primary) = primary
                    && self.nodes[&primary].power == Power::Running
                {
                    self.count(Kind::Situation, "two failovers, then the first returns");
                    self.power_cycle(primary);
                }
            }
        }
    }

    /// Ends all that is wrong, at once.
    pub(in crate::sim) fn heal(&mut self) {
        let blocked = std::mem::take(&mut self.faults.blocked);
        for ((from, to), times) in blocked {
            for _ in 0..times {
                self.unblock(from, to);
            }
        }
        for (from, to) in std::mem::take(&mut self.faults.slow) {
            self.network.slow(from, to, Duration::ZERO);
        }
        self.raft.set_unknown(0);
        self.faults.full.clear();
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            self.raft.set_lag(id, Duration::ZERO);
            if self.faults.failing.remove(&id) {
                self.kill(id);
            }
            self.hang(id, false);
            if let Some(node) = self.nodes.get_mut(&id) {
                node.pool.fill(false);
            }
            self.go_on(id);
            self.queue.after(Duration::from_millis(10), Happening::Start(id));
        }
    }
}
