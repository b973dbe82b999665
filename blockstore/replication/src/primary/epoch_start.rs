//! The start of an epoch: promises, pulls, one history, and its first record durable everywhere.

use mooring_terms::{Body, Epoch, NodeId, Record};

use super::{Phase, Primary};
use crate::control::Control;
use crate::core::{Core, Turn, mutated};
use crate::history;
use crate::message::{MessageBody, Position, Promised, Pull, Raise, Standing};
use crate::note::Note;
use crate::space;
use crate::take::is_damaged;

impl Primary {
    /// The slice has a new epoch, and this is still its primary.
    pub(crate) fn next_epoch(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        self.epoch = core.config().epoch;
        self.proposal = None;
        self.in_doubt = false;
        self.doubtful.clear();
        self.review_again = None;
        self.learn_seal(core);
        self.raise(core, turn);
        self.advance(core, turn);
    }

    /// Begins: promises by itself, and asks the in-sync replicas to.
    pub(super) fn raise(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        let epoch = self.epoch;
        self.phase = Phase::Raising;
        self.began = turn.now;
        self.began_serving = false;
        self.resigns_to = None;
        self.told_too_few = false;
        if core.log.state.promised < epoch || core.log.state.standing != Standing::Complete {
            // Only a declared loss makes an incomplete replica primary.
            core.log.end_join(turn.out);
            core.log.note(turn.out, |state| state.promised = epoch);
        }
        self.own_promise = core.log.sync(turn.out);
        self.credit.begin_epoch();
        let config = core.config().clone();
        let others = core.others(&config);
        self.peers.retain(|node, _| others.contains(node));
        for &node in &others {
            let peer = self.peers.entry(node).or_default();
            let in_sync = config.in_sync_member(node).is_some();
            if in_sync || peer.join.is_none() {
                peer.begin_epoch();
                peer.join = None;
            }
        }
        self.set_required(core);
        core.vouch(turn, Some(epoch), others);
        for member in &config.in_sync {
            if member.node != core.me.node {
                self.send_raise(core, turn, member.node);
            }
        }
        for member in &config.joining {
            core.send(turn, member.node, None, MessageBody::Newer(config.clone()));
            core.hello(turn, member.node, true);
        }
    }

    pub(super) fn send_raise(&self, core: &Core, turn: &mut Turn<'_>, node: NodeId) {
        let raise = Raise { config: core.config().clone(), sent: turn.now };
        core.send(turn, node, None, MessageBody::Raise(raise));
    }

    pub(super) fn on_promised(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        from: NodeId,
        promised: Promised,
    ) {
        if !self.is_listed(core, from) {
            return;
        }
        let opened = self.has_opened();
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if !promised.position.is_whole() && !mutated!(core, JoinedEarly) {
            // Listed, but it was being brought level when the epoch moved.
            peer.diverged = true;
            return self.review(core, turn);
        }
        peer.answered = peer.answered.max(Some(promised.sent));
        peer.waiting = None;
        // Its promise is durable, and so is everything before it.
        peer.received = promised.position.last.sequence;
        peer.durable = peer.received;
        peer.promised = Some(promised.position.clone());
        if opened {
            self.resume(core, turn, from, &promised.position);
        }
    }

    /// Goes on with the start of the epoch as far as it can.
    pub(super) fn start_epoch(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        if self.phase != Phase::Raising || !core.log.is_durable(self.own_promise) {
            return;
        }
        let config = core.config();
        let mut furthest: Option<(NodeId, &Position)> = None;
        for member in config.in_sync.iter().filter(|member| member.node != core.me.node) {
            if !self.counts(core, member.node) {
                return;
            }
            let position = self.peers.get(&member.node).and_then(|peer| peer.promised.as_ref());
            if let Some(position) = position
                && furthest.is_none_or(|(_, most)| position.last > most.last)
            {
                furthest = Some((member.node, position));
            }
        }
        match furthest {
            Some((node, position)) if position.last > core.log.last => {
                let position = position.clone();
                self.pull(core, turn, node, &position);
            }
            _ => self.open(core, turn),
        }
    }

    /// Gets what `node` has more.
    fn pull(&mut self, core: &mut Core, turn: &mut Turn<'_>, node: NodeId, position: &Position) {
        let mine = (core.log.state.epochs.as_slice(), core.log.last);
        if history::common(mine, (&position.epochs, position.last)) != core.log.last {
            let last = core.log.last;
            core.note(turn, Note::Diverged { node: core.me.node, last });
            self.resign_to(core, turn, node);
            return;
        }
        self.phase = Phase::Pulling(node);
        let pull = Pull { after: core.log.last.sequence };
        core.send(turn, node, None, MessageBody::Pull(pull));
    }

    pub(super) fn on_pulled(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        from: NodeId,
        records: Vec<Record>,
    ) {
        if self.phase != Phase::Pulling(from) {
            return;
        }
        let cost = records.iter().map(space::cost).sum();
        if core.space.reserved < cost {
            // This opening has not set enough aside for them: pulled again when it has.
            core.space.set(turn.out, cost);
            return;
        }
        self.phase = Phase::Raising;
        let before = core.log.last;
        for record in records {
            let next = record.version.sequence == core.log.last.sequence.next();
            if next && record.version.epoch >= core.log.last.epoch && !is_damaged(&record) {
                self.append(core, turn, record);
                self.learn_seal(core);
            }
        }
        if core.log.last == before {
            // They are no longer at hand as records: whoever has them must be primary.
            self.resign_to(core, turn, from);
        }
    }

    /// All that was ever acknowledged is here: brings the others level and begins the epoch.
    fn open(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        let epoch = self.epoch;
        self.phase = Phase::Opening(core.log.last.sequence.next());
        let positions: Vec<(NodeId, Position)> = self
            .peers
            .iter()
            .filter_map(|(&node, peer)| Some((node, peer.promised.clone()?)))
            .collect();
        for (node, position) in positions {
            self.resume(core, turn, node, &position);
        }
        let control = Control::EpochStart { epoch, keep_from: self.keep_from(core) };
        let version = self.order(core, turn, Body::Control(control.encode()), true);
        self.phase = Phase::Opening(version.sequence);
        self.sync_target = version.sequence;
        self.want_credit(core, turn, self.credit.idle(core));
    }

    /// The oldest epoch that the table must keep. With every placed replica in sync, none can come
    /// back from before; the bound makes a replica that was away for ages get a full copy.
    fn keep_from(&self, core: &Core) -> Epoch {
        let epochs = &core.log.state.epochs;
        let keep = if core.config().joining.is_empty() { 1 } else { core.options.epochs_kept };
        let first = epochs.len().saturating_sub(keep.max(1));
        epochs.get(first).map_or(Epoch(0), |start| start.epoch)
    }
}
