//! Space credits: a write gets a sequence only against space that every in-sync pool has set aside.
//!
//! Totals are cumulative within an epoch: the primary says how much it wants in all, each replica
//! how much it granted in all, and both count what was spent the same way. An idle slice keeps
//! little; a busy one asks for more before it runs out.

use mooring_terms::{NodeId, Time};

use super::clients::Waiting;
use super::{Phase, Primary};
use crate::core::{Core, Turn};
use crate::message::{Ack, MessageBody, Want};
use crate::note::Note;
use crate::options::Options;
use crate::request::{Operation, Outcome, Refusal};
use crate::space;

/// What the primary spends and wants in this epoch.
#[derive(Debug, Default)]
pub(super) struct OwnCredit {
    spent: u64,
    /// The total asked for last.
    wanted: u64,
    /// How often it was asked.
    number: u64,
    /// How much to have at hand.
    ahead: u64,
    /// When the last write was admitted; none once the rest was given back.
    last_write: Option<Time>,
    /// The own pool has no more.
    own_full: bool,
}

impl OwnCredit {
    pub(super) fn begin_epoch(&mut self) {
        *self = Self::default();
    }

    pub(super) fn spend(&mut self, now: Time, cost: u64) {
        self.spent += cost;
        self.last_write = Some(now);
    }

    /// The total that an idle slice wants.
    pub(super) fn idle(&self, core: &Core) -> u64 {
        self.spent + core.options.credit_idle_bytes
    }

    pub(super) fn deadline(&self, options: &Options) -> Option<Time> {
        self.last_write.map(|last| last + options.credit_idle_after)
    }
}

impl Primary {
    /// Whether `cost` may be spent; if not, asks for it.
    pub(super) fn has_credit(&mut self, core: &mut Core, turn: &mut Turn<'_>, cost: u64) -> bool {
        if cost == 0 || self.credit.spent + cost <= self.credit_limit(core) {
            return true;
        }
        let need = self.credit.spent + cost;
        if self.credit.wanted < need || self.credit_is_answered(core) {
            let ahead = if self.is_full(core).is_some() { 0 } else { self.credit.ahead };
            self.want_credit(core, turn, need + ahead);
        }
        false
    }

    /// What every required replica has granted, and this one has set aside.
    fn credit_limit(&self, core: &Core) -> u64 {
        let own = self.credit.spent + core.space.reserved;
        let granted = self.required.iter().filter(|member| self.counts(core, member.node));
        let least = granted.filter_map(|member| self.peers.get(&member.node));
        least.map(|peer| peer.credit.granted).fold(own, u64::min)
    }

    /// Whether everyone has answered the newest want.
    fn credit_is_answered(&self, core: &Core) -> bool {
        let number = self.credit.number;
        let mut peers = self.required.iter().filter(|member| self.counts(core, member.node));
        !core.space.is_asking()
            && peers.all(|member| {
                let peer = self.peers.get(&member.node);
                peer.is_some_and(|peer| peer.credit.answered == number)
            })
    }

    /// A node whose pool could not grant what was wanted.
    fn is_full(&self, core: &Core) -> Option<NodeId> {
        let full = |node: &NodeId| self.peers.get(node).is_some_and(|peer| peer.credit.full);
        let own = self.credit.own_full.then_some(core.me.node);
        own.or_else(|| self.required.iter().map(|member| member.node).find(full))
    }

    /// Wants `total` of everyone.
    pub(super) fn want_credit(&mut self, core: &mut Core, turn: &mut Turn<'_>, total: u64) {
        self.credit.wanted = total;
        self.credit.number += 1;
        self.credit.own_full = false;
        self.credit.ahead = self.credit.ahead.max(core.options.credit_idle_bytes);
        core.space.set(turn.out, total.saturating_sub(self.credit.spent));
        let want = Want { number: self.credit.number, credit: total };
        for member in &self.required {
            let Some(peer) = self.peers.get_mut(&member.node) else { continue };
            peer.credit.granted = peer.credit.granted.min(total);
            peer.credit.full = false;
            core.send(turn, member.node, peer.incarnation, MessageBody::Want(want));
        }
    }

    /// Says the newest want again to `node`: it may have been lost with its stream.
    pub(super) fn repeat_want(&self, core: &Core, turn: &mut Turn<'_>, node: NodeId) {
        let want = Want { number: self.credit.number, credit: self.credit.wanted };
        if want.number > 0
            && let Some(peer) = self.peers.get(&node)
            && self.counts(core, node)
        {
            core.send(turn, node, peer.incarnation, MessageBody::Want(want));
        }
    }

    /// Asks for more before it runs out.
    pub(super) fn top_up_credit(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        let left = self.credit_limit(core).saturating_sub(self.credit.spent);
        let asked = self.credit.wanted.saturating_sub(self.credit.spent);
        let low = left < self.credit.ahead / 2 && asked < self.credit.ahead;
        if low && self.credit_is_answered(core) && self.is_full(core).is_none() {
            self.credit.ahead = (self.credit.ahead * 2).min(core.options.credit_step_bytes);
            self.want_credit(core, turn, self.credit.spent + self.credit.ahead);
        }
    }

    pub(super) fn on_credit(&mut self, from: NodeId, ack: Ack) {
        let number = self.credit.number;
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if ack.want == number && number > 0 {
            peer.credit.granted = ack.credit;
            peer.credit.full = ack.full;
            peer.credit.answered = ack.want;
        }
    }

    pub(crate) fn on_reserved(&mut self, core: &mut Core, turn: &mut Turn<'_>, enough: bool) {
        self.credit.own_full = !enough;
        if enough && matches!(self.phase, Phase::Pulling(_)) {
            self.phase = Phase::Raising;
        } else if enough {
            // More may have been wanted meanwhile.
            let need = self.credit.wanted.saturating_sub(self.credit.spent);
            core.space.set(turn.out, need);
        }
        self.advance(core, turn);
    }

    /// Refuses the first waiting write if the pools can't take even that one alone.
    pub(super) fn refuse_without_space(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        while let Some(Operation::Write { data, .. }) = self.clients.first().map(|r| &r.operation) {
            let cost = space::cost_of_payload(data.bytes().len() as u64);
            let alone = self.credit.spent + cost;
            let answered = self.credit_is_answered(core) && self.credit.wanted <= alone;
            let Some(node) = self.is_full(core).filter(|_| answered) else { break };
            if self.credit_limit(core) >= alone {
                break;
            }
            let Some(Waiting { id, .. }) = self.clients.pop() else { break };
            if !std::mem::replace(&mut self.told_full, true) {
                core.note(turn, Note::PoolFull { node });
            }
            self.reply(turn, id, Outcome::Refused(Refusal::NoSpace { node }));
        }
    }

    /// Keeps little once no writes have come for a while.
    pub(super) fn give_credit_back(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        let idle = self.credit.deadline(&core.options).is_some_and(|at| turn.now >= at);
        if idle && self.is_answering() && self.clients.queue_is_empty() {
            self.credit.last_write = None;
            self.credit.ahead = core.options.credit_idle_bytes;
            self.want_credit(core, turn, self.credit.idle(core));
            self.told_full = false;
        } else if idle {
            self.credit.last_write = Some(turn.now);
        }
    }
}
