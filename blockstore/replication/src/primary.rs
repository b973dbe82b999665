//! The replica that orders its slice's writes.
//!
//! ```text
//!                 promises of all in sync      pulled what others had more
//!   ──> Raising ──────────────────────> Pulling ─────────────> Opening
//!        ^                                                       │ epoch start durable on all
//!        │ new epoch, still primary                              v
//!        ├─────────────────────────────────────────────────── Serving <──────┐ refused
//!        │                                                       │ HandOver  │
//!        │                                              Draining ──drained──> Leaving ──> another
//! ```
//!
//! Invariants:
//! - `stable <= committed <= received of each in-sync replica <= last`;
//! - nothing is answered outside Serving and Draining, and nothing that is not committed;
//! - while a change is proposed or in doubt, an acknowledgement needs the old set and the new one.

mod clients;
mod credit;
mod epoch_start;
mod flow;
mod flush;
mod hand_over;
mod join;
mod membership;
mod peer;
mod read;
mod sessions;
mod status;
mod window;
mod write;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mooring_config::Member;
use mooring_terms::{AttachmentEpoch, Epoch, Incarnation, NodeId, Sequence, Time};

use crate::command::Command;
use crate::core::{Core, Turn, mutated};
use crate::event::{Mark, Token};
use crate::message::{Ack, Hello, MessageBody};
use crate::note::Note;
use crate::proposal::Proposal;
use crate::request::{Outcome, Refusal, Reply, RequestId};

use self::clients::Clients;
use self::credit::OwnCredit;
use self::flush::DurableWait;
use self::peer::Peer;
use self::read::Reads;
use self::sessions::Sessions;
use self::window::Window;
use self::write::InFlight;

/// How often a read that waits for a lease looks again.
const LEASE_POLL: Duration = Duration::from_millis(50);

/// What a primary is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Until every in-sync replica has promised the epoch.
    Raising,
    /// Until it has what this member has more.
    Pulling(NodeId),
    /// Until the epoch's first record is durable everywhere.
    Opening(Sequence),
    /// Serving.
    Serving,
    /// Finishes what it admitted, then hands over.
    Draining(NodeId),
    /// The change that ends it is proposed.
    Leaving,
}

/// A primary.
#[derive(Debug)]
pub(crate) struct Primary {
    epoch: Epoch,
    /// The epoch since which it has been primary without a break.
    reign: Epoch,
    phase: Phase,
    began: Time,
    own_promise: Mark,
    peers: BTreeMap<NodeId, Peer>,
    /// The other members whose acknowledgement is needed: in sync, or perhaps so by now.
    required: Vec<Member>,
    window: Window,
    in_flight: BTreeMap<Sequence, InFlight>,
    /// What is answered when it is durable everywhere.
    durable_waits: VecDeque<DurableWait>,
    clients: Clients,
    reads: Reads,
    sessions: Sessions,
    /// Every required replica has everything up to here.
    committed: Sequence,
    /// Every required replica has everything up to here durably.
    stable: Sequence,
    /// Everything up to here is to become durable.
    sync_target: Sequence,
    unsynced_bytes: u64,
    credit: OwnCredit,
    proposal: Option<Proposal>,
    /// A change was given up that may still be applied; these would be in sync by it.
    in_doubt: bool,
    doubtful: Vec<Member>,
    /// When to think about membership again after a refusal.
    review_again: Option<Time>,
    /// Records being read from the engine, and for whom.
    record_reads: BTreeMap<Token, NodeId>,
    seal: AttachmentEpoch,
    joins: u64,
    /// Whom it resigns to once the change under way is settled.
    resigns_to: Option<NodeId>,
    /// Whether this epoch has served.
    began_serving: bool,
    told_serving: bool,
    told_too_few: bool,
    told_full: bool,
}

impl Primary {
    /// A primary that was none before.
    pub(crate) fn new(core: &mut Core, turn: &mut Turn<'_>) -> Self {
        // Only a declared loss makes an incomplete replica primary.
        if !mutated!(core, JoinedEarly) {
            core.log.give_tail_up(turn.out);
        }
        let mut primary = Self::bare(core, turn);
        primary.learn_seal(core);
        primary.raise(core, turn);
        primary
    }

    /// The deliberate bug: a restarted primary goes on as if nothing had happened.
    #[cfg(feature = "mutations")]
    pub(crate) fn carry_on(core: &mut Core, turn: &mut Turn<'_>) -> Self {
        let mut primary = Self::new(core, turn);
        primary.phase = Phase::Serving;
        primary
    }

    fn bare(core: &Core, turn: &Turn<'_>) -> Self {
        let epoch = core.config().epoch;
        Self {
            epoch,
            reign: epoch,
            phase: Phase::Raising,
            began: turn.now,
            own_promise: Mark(0),
            peers: BTreeMap::new(),
            required: Vec::new(),
            window: Window::new(core.log.last),
            in_flight: BTreeMap::new(),
            durable_waits: VecDeque::new(),
            clients: Clients::default(),
            reads: Reads::default(),
            sessions: Sessions::default(),
            committed: Sequence(0),
            stable: Sequence(0),
            sync_target: Sequence(0),
            unsynced_bytes: 0,
            credit: OwnCredit::default(),
            proposal: None,
            in_doubt: false,
            doubtful: Vec::new(),
            review_again: None,
            record_reads: BTreeMap::new(),
            seal: AttachmentEpoch(0),
            joins: 0,
            resigns_to: None,
            began_serving: false,
            told_serving: false,
            told_too_few: false,
            told_full: false,
        }
    }

    /// Takes over the last seal of the log, and the floor of an accepted loss.
    pub(super) fn learn_seal(&mut self, core: &Core) {
        if !mutated!(core, SealLost) {
            self.seal = self.seal.max(core.log.state.seal).max(core.config().seal);
        }
    }

    /// Whether requests are answered.
    pub(super) fn is_answering(&self) -> bool {
        matches!(self.phase, Phase::Serving | Phase::Draining(_))
    }

    pub(crate) fn on_connected(&mut self, core: &mut Core, turn: &mut Turn<'_>, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.interrupt();
        let raise = core.config().in_sync_member(node).is_some() && peer.promised.is_none();
        if raise {
            self.send_raise(core, turn, node);
        }
        core.hello(turn, node, true);
        self.advance(core, turn);
    }

    pub(crate) fn on_disconnected(&mut self, core: &mut Core, turn: &mut Turn<'_>, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.interrupt();
        }
        self.advance(core, turn);
    }

    pub(crate) fn on_message(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        from: NodeId,
        incarnation: Incarnation,
        body: MessageBody,
    ) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if peer.incarnation != Some(incarnation) {
            // What an earlier opening said says nothing about this one.
            let keep = peer.promised.take().filter(|_| mutated!(core, IncarnationUnchecked));
            *peer = Peer { incarnation: Some(incarnation), promised: keep, ..Peer::default() };
        }
        match body {
            MessageBody::Hello(hello) => self.on_hello(core, turn, from, &hello),
            MessageBody::Promised(promised) => self.on_promised(core, turn, from, promised),
            MessageBody::Pulled(pulled) => self.on_pulled(core, turn, from, pulled.records),
            MessageBody::Ack(ack) => self.on_ack(core, turn, from, ack),
            MessageBody::BlocksRead(read) => {
                self.on_blocks_read(core, turn, from, read.token, read.extents);
            }
            MessageBody::JoinReady(ready) => self.on_join_ready(core, turn, from, ready),
            MessageBody::Missing(missing) => self.on_join_missing(turn, from, missing),
            MessageBody::Copied(copied) => self.on_copied(turn, from, copied),
            MessageBody::JoinDone(done) => self.on_join_done(core, turn, from, done),
            MessageBody::Failed => {
                peer.failed = true;
                peer.join = None;
                self.review(core, turn);
            }
            _ => {}
        }
        self.advance(core, turn);
    }

    fn on_hello(&mut self, core: &mut Core, turn: &mut Turn<'_>, from: NodeId, hello: &Hello) {
        if hello.answer {
            core.hello(turn, from, false);
        }
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.poked = None;
        peer.failed = false;
        peer.diverged |= !hello.position.is_whole() && !mutated!(core, JoinedEarly);
        if self.counts(core, from) {
            if self.has_opened() {
                self.resume(core, turn, from, &hello.position);
            }
        } else if self.is_listed(core, from) {
            self.send_raise(core, turn, from);
        } else {
            self.on_joiner_hello(core, turn, from, &hello.position);
            self.review(core, turn);
        }
    }

    fn on_ack(&mut self, core: &mut Core, turn: &mut Turn<'_>, from: NodeId, ack: Ack) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if peer.join.as_ref().is_some_and(|join| !join.is_following()) {
            // Said before it superseded.
            return;
        }
        if peer.acknowledged(ack.received, ack.durable) {
            peer.waiting = None;
        }
        self.on_credit(from, ack);
        if ack.resend {
            self.poke(core, turn, from);
        }
    }

    /// Asks a replica where it is, to go on from there; not twice before it has answered or a while
    /// has passed.
    pub(super) fn poke(&mut self, core: &Core, turn: &mut Turn<'_>, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.poked.is_none_or(|poked| turn.now >= poked + core.options.retry) {
            peer.poked = Some(turn.now);
            core.hello(turn, node, true);
        }
    }

    /// Whether `node` is in sync, and its present opening the one that is listed.
    pub(super) fn is_listed(&self, core: &Core, node: NodeId) -> bool {
        let Some(peer) = self.peers.get(&node) else { return false };
        core.config().in_sync_member(node).is_some_and(|member| {
            peer.incarnation == Some(member.incarnation) || mutated!(core, IncarnationUnchecked)
        }) && !peer.diverged
    }

    /// Whether the word of `node` counts as an in-sync replica's in this epoch.
    pub(super) fn counts(&self, core: &Core, node: NodeId) -> bool {
        self.is_listed(core, node)
            && self.peers.get(&node).is_some_and(|peer| peer.promised.is_some())
    }

    /// Whether the required member's acknowledgements count: as in sync, or as the joining one that
    /// may be in sync by now.
    fn acknowledges(&self, core: &Core, member: &Member) -> bool {
        self.counts(core, member.node)
            || self.peers.get(&member.node).is_some_and(|peer| {
                peer.incarnation == Some(member.incarnation)
                    && peer.join.as_ref().is_some_and(|join| join.is_done())
            })
    }

    /// Whether the epoch's first record has been written.
    pub(super) fn has_opened(&self) -> bool {
        !matches!(self.phase, Phase::Raising | Phase::Pulling(_))
    }

    /// Sets the other members whose acknowledgement is needed.
    pub(super) fn set_required(&mut self, core: &Core) {
        let me = core.me.node;
        let config = core.config();
        let mut required: Vec<Member> =
            config.in_sync.iter().filter(|member| member.node != me).copied().collect();
        let proposed = self.proposal.iter().flat_map(|proposal| &proposal.change.in_sync);
        for member in proposed.chain(&self.doubtful).filter(|member| member.node != me) {
            if !required.contains(member) {
                required.push(*member);
            }
        }
        self.required = required;
    }

    /// Counts what all required replicas have.
    fn count(&mut self, core: &Core) {
        if !self.has_opened() {
            return;
        }
        let config = core.config();
        let is_last = self.required.is_empty() && !config.joining.is_empty();
        let mut received = if is_last { core.log.durable } else { core.log.received };
        let mut durable = core.log.durable;
        for member in &self.required {
            let peer = self.peers.get(&member.node).filter(|_| self.acknowledges(core, member));
            let (has, keeps) =
                peer.map_or((Sequence(0), Sequence(0)), |peer| (peer.received, peer.durable));
            if !mutated!(core, AcknowledgeEarly) {
                received = received.min(has);
            }
            durable = durable.min(keeps);
        }
        if mutated!(core, FlushAtReceived) {
            durable = received;
        }
        self.committed = self.committed.max(received);
        self.stable = self.stable.max(durable.min(self.committed));
    }

    /// Does everything that what has happened allows.
    pub(crate) fn advance(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        self.start_epoch(core, turn);
        self.count(core);
        if let Phase::Opening(start) = self.phase
            && self.stable >= start
        {
            self.serve(core, turn);
        }
        if self.is_answering() {
            self.answer_writes(core, turn);
            self.answer_durable(core, turn);
            self.release_reads(core, turn);
        }
        if self.has_opened() {
            self.window.trim(self.committed);
            core.log.forget(turn.out, self.stable);
        }
        self.refuse_without_space(core, turn);
        self.admit_queue(core, turn);
        self.ask_syncs(core, turn);
        self.hand_over_if_drained(core, turn);
        self.pump_joins(core, turn);
        self.watch_peers(core, turn);
    }

    fn serve(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        self.phase = Phase::Serving;
        self.began_serving = true;
        if !std::mem::replace(&mut self.told_serving, true) {
            core.note(turn, Note::Serving { epoch: self.epoch });
        }
        self.review(core, turn);
    }

    /// Notes since when each required replica owes something.
    fn watch_peers(&mut self, core: &Core, turn: &Turn<'_>) {
        let last = core.log.last.sequence;
        for member in &self.required {
            let counts = self.acknowledges(core, member);
            let Some(peer) = self.peers.get_mut(&member.node) else { continue };
            let owes = !counts || peer.received < last || peer.durable < peer.sync_asked;
            if owes {
                peer.waiting.get_or_insert(turn.now);
            } else {
                peer.waiting = None;
            }
        }
    }

    /// Whether every required replica has answered within the lease.
    pub(super) fn holds_leases(&self, core: &Core, turn: &Turn<'_>) -> bool {
        mutated!(core, ReadWithoutLease)
            || self.required.iter().all(|member| {
                self.answered(core, turn, member.node)
                    .is_some_and(|sent| turn.now < sent + core.options.lease)
            })
    }

    /// When the newest thing was sent that `node` answered in this epoch.
    pub(super) fn answered(&self, core: &Core, turn: &Turn<'_>, node: NodeId) -> Option<Time> {
        let beacon = turn.leases.answered(node, core.slice, self.epoch);
        beacon.max(self.peers.get(&node).and_then(|peer| peer.answered))
    }

    pub(crate) fn on_tick(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        self.review(core, turn);
        self.poke_silent(core, turn);
        self.give_credit_back(core, turn);
        self.retry_fetches(core, turn);
        self.retry_joins(core, turn);
        self.advance(core, turn);
    }

    /// Asks again those that owe something for a while.
    fn poke_silent(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        let owes =
            |peer: &Peer| peer.waiting.is_some_and(|since| turn.now >= since + core.options.retry);
        let late: Vec<NodeId> =
            self.peers.iter().filter(|(_, peer)| owes(peer)).map(|(&node, _)| node).collect();
        for node in late {
            if self.is_listed(core, node) && !self.counts(core, node) {
                self.send_raise(core, turn, node);
            }
            self.poke(core, turn, node);
        }
        if let Phase::Pulling(_) = self.phase {
            self.phase = Phase::Raising;
        }
    }

    pub(crate) fn deadline(&self, core: &Core, now: Time) -> Option<Time> {
        let options = &core.options;
        let owed = self.peers.values().filter_map(|peer| peer.waiting).map(|since| {
            let first = since + options.retry;
            if first > now { first } else { (since + options.lease).max(now + options.retry) }
        });
        let proposal = self.proposal.as_ref().and_then(|proposal| proposal.again);
        let lease = self.reads.waits_for_lease().then_some(now + LEASE_POLL);
        let others = [
            proposal,
            self.review_again,
            lease,
            self.credit.deadline(options),
            self.fetch_deadline(options),
            self.join_deadline(core),
        ];
        owed.chain(others.into_iter().flatten()).min()
    }

    pub(super) fn reply(&self, turn: &mut Turn<'_>, id: RequestId, outcome: Outcome) {
        let reply = Reply { epoch: self.epoch, durable: self.stable, outcome };
        turn.out.push(Command::Reply { id, reply });
    }

    /// What the sender of a request with another epoch is told.
    pub(super) fn moved(core: &Core) -> Refusal {
        let config = core.config();
        Refusal::Moved {
            epoch: config.epoch,
            primary: Some(config.primary),
            tail_lost: config.tail_lost,
        }
    }

    /// Answers everything that is unanswered: another is primary, or will be.
    pub(crate) fn step_down(&mut self, core: &Core, turn: &mut Turn<'_>, refusal: &Refusal) {
        let mut ids: Vec<RequestId> = Vec::new();
        ids.extend(std::mem::take(&mut self.in_flight).into_values().filter_map(|write| write.id));
        ids.extend(std::mem::take(&mut self.durable_waits).into_iter().map(|wait| wait.id));
        ids.extend(self.reads.take_clients());
        ids.extend(self.clients.take_queue());
        for id in ids {
            self.reply(turn, id, Outcome::Refused(refusal.clone()));
        }
        core.note(turn, Note::SteppedDown { epoch: core.epoch() });
    }

    pub(crate) fn check_invariants(&self, core: &Core) {
        assert!(self.stable <= self.committed, "stable is committed");
        assert!(self.committed <= core.log.last.sequence, "committed is appended");
        if let Some(first) = self.in_flight.keys().next() {
            assert!(*first > self.committed || !self.is_answering(), "committed is answered");
        }
        assert_eq!(self.epoch, core.config().epoch, "a primary knows its epoch");
    }
}
