//! One replica of one slice: takes events, and lets its role decide.
//!
//! ```text
//!                 listed in sync, this opening         listed in sync, an earlier opening
//!        ┌──────────────> Secondary                         Joiner with Restart
//!        │                    │ takes over, handed over         │ PrimaryRestarted, AllRestarted
//!   Idle ┤                    v                                  v
//!        ├──────────────> Primary ──resigns, handed over──> Secondary, Joiner
//!        │
//!        └──────────────> Joiner ──Joined──> Secondary           any ──pool failed──> Failed
//! ```
//!
//! The role follows from the configuration alone; a new epoch makes a new role, but for a primary
//! that stays primary and a joiner that stays with its primary.

use bytes::Bytes;
use mooring_config::{Member, SliceConfig};
use mooring_terms::{Epoch, Incarnation, NodeId, Sequence, SliceId, Time, Version};

use crate::command::Command;
use crate::core::{Core, Turn, mutated};
use crate::event::{Event, Mark, ProposalId, ProposalOutcome};
use crate::failed::Failed;
use crate::joiner::Joiner;
use crate::lease::Leases;
use crate::log::Log;
use crate::message::{Ack, Message, MessageBody, Promised};
use crate::note::Note;
use crate::options::Options;
use crate::primary::Primary;
use crate::request::{Outcome, Refusal, Reply, RequestId};
use crate::restart::Restart;
use crate::secondary::Secondary;
use crate::state::State;
use crate::status::{Role as RoleName, Status};
use crate::take::take;
use crate::wire::WireError;

/// What the engine knows about a replica when its pool is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The replica's opaque state; empty if the replica is new.
    pub state: Bytes,
    /// The version of its last record; `Version::ZERO` if it has none.
    pub last: Version,
    /// The earlier openings of the pool since which nothing handed to the kernel was lost: only the
    /// process was restarted, not the machine, and no sync had failed. The pool keeps, durably and
    /// before it is used, the boot id and the openings under it; empty where it doesn't know.
    pub kept: Vec<Incarnation>,
    /// Whether the engine found durable records missing: the replica can't be elected and rejoins.
    pub damaged: bool,
}

/// One replica of one slice: a pure core. Feed it events, run its commands in their order.
#[derive(Debug)]
pub struct Replica {
    core: Core,
    role: Role,
    /// Not looked at before the first event, since it has no time.
    first_config: Option<SliceConfig>,
    /// Whom this replica took over from, and under which opening: to notice if that was wrong.
    took_over_from: Option<Member>,
    deadline: Option<Time>,
}

#[derive(Debug)]
enum Role {
    Idle,
    Primary(Box<Primary>),
    Secondary(Secondary),
    Joiner(Joiner),
    Failed(Failed),
}

impl Replica {
    /// A replica whose pool has just been opened; `me` has the incarnation of this opening, and
    /// `config` is what Raft's local state says now, if it knows the slice yet. Nothing happens
    /// before the first event; deliver a [`Event::Tick`] if there is none else.
    ///
    /// # Errors
    /// [`WireError`] if the state is not what a replica writes.
    pub fn new(
        slice: SliceId,
        me: Member,
        opened: Opened,
        config: Option<SliceConfig>,
        options: Options,
    ) -> Result<Self, WireError> {
        let log = Log::new(State::decode(&opened.state)?, opened.last);
        let mut core = Core::new(slice, me, log, options);
        core.kept = opened.kept;
        core.damaged = opened.damaged;
        Ok(Self {
            core,
            role: Role::Idle,
            first_config: config,
            took_over_from: None,
            deadline: None,
        })
    }

    /// Takes an event and says what is to be done.
    pub fn handle(&mut self, now: Time, leases: &dyn Leases, event: Event, out: &mut Vec<Command>) {
        let turn = &mut Turn { now, leases, out };
        if let Some(config) = self.first_config.take() {
            self.on_config(turn, config);
        }
        self.dispatch(turn, event);
        self.deadline = match &self.role {
            Role::Idle => None,
            Role::Primary(primary) => primary.deadline(&self.core, now),
            Role::Secondary(secondary) => secondary.deadline(),
            Role::Joiner(joiner) => joiner.deadline(),
            Role::Failed(failed) => failed.deadline(),
        };
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
    }

    /// When [`Event::Tick`] is due; `None` while nothing is pending: an idle slice costs nothing.
    /// May change with every event.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.deadline
    }

    /// The slice.
    #[must_use]
    pub fn slice(&self) -> SliceId {
        self.core.slice
    }

    /// The newest configuration that this replica knows.
    #[must_use]
    pub fn config(&self) -> Option<&SliceConfig> {
        self.core.config.as_ref()
    }

    /// What people see.
    #[must_use]
    pub fn status(&self) -> Status {
        let config = self.core.config.as_ref();
        let mut status = Status {
            role: self.role_name(),
            epoch: self.core.epoch(),
            primary: config.map(|config| config.primary),
            in_sync: config
                .map(|config| config.in_sync.iter().map(|member| member.node).collect())
                .unwrap_or_default(),
            too_few: config
                .is_some_and(|config| config.in_sync.len() < config.min_in_sync as usize),
            last: self.core.log.last,
            durable: self.core.log.durable,
            committed: Sequence(0),
            stable: Sequence(0),
            queued: 0,
            in_flight: 0,
            replicas: Vec::new(),
        };
        if let Role::Primary(primary) = &self.role {
            (status.committed, status.stable) = primary.positions();
            (status.queued, status.in_flight) = primary.waiting();
            status.replicas = primary.replicas(&self.core);
            let counted = status.replicas.iter().filter(|replica| replica.in_sync).count() + 1;
            status.too_few |= config.is_some_and(|c| counted < c.min_in_sync as usize)
                || primary.waits_for_replicas();
        }
        status
    }

    fn role_name(&self) -> RoleName {
        match &self.role {
            Role::Idle => RoleName::Idle,
            Role::Primary(primary) => primary.role(),
            Role::Secondary(secondary) if secondary.is_taking_over() => RoleName::TakingOver,
            Role::Secondary(_) => RoleName::Secondary,
            Role::Joiner(joiner) if joiner.restart.is_some() => RoleName::Restarted,
            Role::Joiner(_) => RoleName::Joining,
            Role::Failed(_) => RoleName::Failed,
        }
    }

    /// Role and state in two words: what transitions are counted by.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        match &self.role {
            Role::Idle => "idle",
            Role::Primary(primary) => primary.state_name(),
            Role::Secondary(secondary) if secondary.is_taking_over() => "secondary: taking over",
            Role::Secondary(_) => "secondary",
            Role::Joiner(joiner) => joiner.state_name(),
            Role::Failed(_) => "failed",
        }
    }

    /// Panics if the replica contradicts itself. Run after every event in debug builds.
    ///
    /// # Panics
    /// Then.
    pub fn check_invariants(&self) {
        self.core.log.check_invariants();
        if let Role::Primary(primary) = &self.role {
            primary.check_invariants(&self.core);
        }
    }

    fn dispatch(&mut self, turn: &mut Turn<'_>, event: Event) {
        match event {
            Event::Config(config) => self.on_config(turn, config),
            Event::Proposed { id, outcome } => self.on_proposed(turn, id, &outcome),
            Event::Request { id, request } => match &mut self.role {
                Role::Primary(primary) => primary.on_request(&mut self.core, turn, id, request),
                _ => self.refuse(turn, id),
            },
            Event::ClientStream { client, stream } => {
                if let Role::Primary(primary) = &mut self.role {
                    primary.on_client_stream(client, stream);
                }
            }
            Event::Connected { peer } => self.on_connected(turn, peer),
            Event::Disconnected { peer } => self.on_disconnected(turn, peer),
            Event::Message { from, message } => self.on_message(turn, from, message),
            Event::Received { mark } => self.on_log(turn, mark, false),
            Event::Durable { mark } => self.on_log(turn, mark, true),
            Event::StoreFailed => self.on_store_failed(turn),
            Event::HandOver { to } => {
                if let Role::Primary(primary) = &mut self.role {
                    primary.on_hand_over(&mut self.core, turn, to);
                }
            }
            Event::Resign => {
                if let Role::Primary(primary) = &mut self.role {
                    primary.resign(&mut self.core, turn);
                }
            }
            Event::Tick => self.on_tick(turn),
            Event::ReadDone { .. }
            | Event::QueryDone { .. }
            | Event::RecordsRead { .. }
            | Event::Reserved { .. } => self.on_engine(turn, event),
        }
    }

    /// The engine's answers.
    fn on_engine(&mut self, turn: &mut Turn<'_>, event: Event) {
        let core = &mut self.core;
        match (event, &mut self.role) {
            (Event::ReadDone { token, result }, Role::Primary(primary)) => {
                primary.on_read(core, turn, token, result);
            }
            (Event::ReadDone { token, result }, Role::Secondary(secondary)) => {
                secondary.on_read(core, turn, token, result);
            }
            (Event::QueryDone { token, result }, Role::Primary(primary)) => {
                primary.on_query(core, turn, token, result);
            }
            (Event::QueryDone { token, result }, Role::Joiner(joiner)) => {
                joiner.on_query(core, turn, token, result);
            }
            (Event::RecordsRead { token, records }, Role::Primary(primary)) => {
                primary.on_records(core, turn, token, records);
            }
            (Event::RecordsRead { token, records }, Role::Secondary(secondary)) => {
                secondary.on_records(core, turn, token, records);
            }
            (Event::Reserved { bytes }, role) => {
                let enough = core.space.granted(bytes);
                match role {
                    Role::Primary(primary) => primary.on_reserved(core, turn, enough),
                    Role::Secondary(secondary) => secondary.on_reserved(core, turn, enough),
                    Role::Joiner(joiner) => {
                        if let Some(restart) = &mut joiner.restart {
                            restart.on_reserved(core, turn, enough);
                        }
                        joiner.on_reserved(core, turn, enough);
                    }
                    Role::Idle | Role::Failed(_) => {}
                }
            }
            // Asked for in an earlier role.
            _ => {}
        }
    }

    /// Nothing can be done here for a client.
    fn refuse(&self, turn: &mut Turn<'_>, id: RequestId) {
        let refusal = self.moved();
        let reply = Reply {
            epoch: self.core.epoch(),
            durable: Sequence(0),
            outcome: Outcome::Refused(refusal),
        };
        turn.out.push(Command::Reply { id, reply });
    }

    fn moved(&self) -> Refusal {
        let me = self.core.me.node;
        let config = self.core.config.as_ref();
        Refusal::Moved {
            epoch: self.core.epoch(),
            primary: config.map(|config| config.primary).filter(|&primary| primary != me),
            tail_lost: config.map_or(Epoch(0), |config| config.tail_lost),
        }
    }

    fn on_connected(&mut self, turn: &mut Turn<'_>, peer: NodeId) {
        let core = &mut self.core;
        core.connected.insert(peer);
        match &mut self.role {
            Role::Idle => {}
            Role::Primary(primary) => primary.on_connected(core, turn, peer),
            Role::Secondary(secondary) => secondary.on_connected(core, turn, peer),
            Role::Joiner(joiner) => {
                joiner.on_connected(core, turn, peer);
                if let Some(restart) = &mut joiner.restart {
                    restart.on_connected(core, turn, peer);
                }
            }
            Role::Failed(failed) => failed.on_connected(core, turn, peer),
        }
    }

    fn on_disconnected(&mut self, turn: &mut Turn<'_>, peer: NodeId) {
        let core = &mut self.core;
        core.connected.remove(&peer);
        match &mut self.role {
            Role::Primary(primary) => primary.on_disconnected(core, turn, peer),
            Role::Joiner(joiner) => {
                if let Some(restart) = &mut joiner.restart {
                    restart.on_disconnected(peer);
                }
            }
            Role::Idle | Role::Secondary(_) | Role::Failed(_) => {}
        }
    }

    fn on_message(&mut self, turn: &mut Turn<'_>, from: NodeId, message: Message) {
        let meant = message.to.is_none_or(|to| to == self.core.me.incarnation);
        if !meant && !mutated!(self.core, IncarnationUnchecked) {
            return;
        }
        self.notice_false_take_over(turn, from, &message);
        if mutated!(self.core, PositionsBeforePromise)
            && self.answer_before_promise(turn, from, &message)
        {
            return;
        }
        match &message.body {
            MessageBody::Newer(config) => return self.on_config(turn, config.clone()),
            MessageBody::Raise(raise) => self.on_config(turn, raise.config.clone()),
            _ => {}
        }
        let known = self.core.epoch();
        if message.epoch > known {
            // Asks for the configuration by showing how old the own is.
            return self.core.hello(turn, from, false);
        }
        if mutated!(self.core, EpochUnchecked) && self.take_unchecked(turn, from, &message) {
            return;
        }
        if message.epoch < known {
            if let Some(config) = &self.core.config
                && config.epoch > message.epoch
            {
                let newer = MessageBody::Newer(config.clone());
                self.core.send(turn, from, None, newer);
            }
            return;
        }
        self.on_current_message(turn, from, message);
    }

    /// A message of the present epoch.
    fn on_current_message(&mut self, turn: &mut Turn<'_>, from: NodeId, message: Message) {
        let core = &mut self.core;
        let is_join = matches!(message.body, MessageBody::JoinBegin(_));
        if is_join
            && let Role::Secondary(_) = &self.role
            && core.config().primary == from
        {
            // Its log contradicts the primary's, and the minimum keeps it listed: it is brought
            // level where it stands.
            self.role = Role::Joiner(Joiner::new(core, turn, None));
        }
        match &mut self.role {
            Role::Primary(primary) => {
                primary.on_message(core, turn, from, message.from, message.body);
            }
            Role::Secondary(secondary) => match message.body {
                MessageBody::Hello(hello) if hello.answer => core.hello(turn, from, false),
                body => secondary.on_message(core, turn, from, body),
            },
            Role::Joiner(joiner) => match message.body {
                MessageBody::Hello(hello) => {
                    if hello.answer {
                        core.hello(turn, from, false);
                        joiner.repeat(core, turn);
                    }
                    if let Some(restart) = &mut joiner.restart {
                        restart.on_hello(core, turn, from, message.from, &hello);
                    }
                }
                MessageBody::Pulled(pulled) => {
                    if let Some(restart) = &mut joiner.restart {
                        restart.on_pulled(core, turn, from, pulled.records);
                    }
                }
                body => joiner.on_message(core, turn, from, body),
            },
            Role::Failed(failed) => failed.on_connected(core, turn, from),
            Role::Idle => {}
        }
    }

    /// The primary that this one took over from is alive: worth counting.
    fn notice_false_take_over(&mut self, turn: &mut Turn<'_>, from: NodeId, message: &Message) {
        let same = |old: &mut Member| old.node == from && old.incarnation == message.from;
        if self.took_over_from.take_if(same).is_some() {
            self.core.note(turn, Note::FalseTakeOver { from });
        }
    }

    /// The deliberate bug: tells the position without having promised.
    fn answer_before_promise(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        message: &Message,
    ) -> bool {
        let MessageBody::Raise(raise) = &message.body else { return false };
        let known = self.core.epoch();
        if raise.config.epoch <= known || !matches!(self.role, Role::Secondary(_)) {
            return false;
        }
        let position = self.core.position();
        let body = MessageBody::Promised(Promised { sent: raise.sent, position });
        let message = Message {
            slice: self.core.slice,
            epoch: raise.config.epoch,
            from: self.core.me.incarnation,
            to: None,
            body,
        };
        turn.out.push(Command::Send { to: from, message });
        true
    }

    /// The deliberate bug: takes and acknowledges what an older epoch's primary sends.
    fn take_unchecked(&mut self, turn: &mut Turn<'_>, from: NodeId, message: &Message) -> bool {
        let core = &mut self.core;
        let MessageBody::Append(append) = &message.body else { return false };
        let Some(last) = append.records.last().map(|record| record.version) else { return false };
        if message.epoch >= core.epoch() {
            return false;
        }
        if matches!(self.role, Role::Secondary(_)) && last.epoch >= core.log.last.epoch {
            take(core, turn.out, append, Some(last.epoch));
        }
        let received = last.sequence.min(core.log.last.sequence);
        let (want, credit, full, resend) = (0, 0, false, false);
        let ack = Ack { received, durable: received, want, credit, full, resend };
        let message = Message {
            slice: core.slice,
            epoch: message.epoch,
            from: core.me.incarnation,
            to: None,
            body: MessageBody::Ack(ack),
        };
        turn.out.push(Command::Send { to: from, message });
        true
    }

    fn on_log(&mut self, turn: &mut Turn<'_>, mark: Mark, durable: bool) {
        let core = &mut self.core;
        let before = (core.log.received, core.log.durable);
        if durable {
            core.log.on_durable(turn.out, mark);
        } else {
            core.log.on_received(mark);
        }
        let moved = before != (core.log.received, core.log.durable);
        match &mut self.role {
            Role::Primary(primary) => primary.advance(core, turn),
            Role::Secondary(secondary) => secondary.on_log(core, turn, moved),
            Role::Joiner(joiner) => joiner.on_log(core, turn, moved),
            Role::Idle | Role::Failed(_) => {}
        }
    }

    fn on_tick(&mut self, turn: &mut Turn<'_>) {
        let core = &mut self.core;
        match &mut self.role {
            Role::Primary(primary) => primary.on_tick(core, turn),
            Role::Secondary(secondary) => secondary.on_tick(core, turn),
            Role::Joiner(joiner) => {
                joiner.on_tick(core, turn);
                if let Some(restart) = &mut joiner.restart {
                    restart.on_tick(core, turn);
                }
            }
            Role::Failed(failed) => failed.on_tick(core, turn),
            Role::Idle => {}
        }
    }

    fn on_store_failed(&mut self, turn: &mut Turn<'_>) {
        let refusal = self.moved();
        let core = &mut self.core;
        core.vouch(turn, None, Vec::new());
        let mut proposal = None;
        if let Role::Primary(primary) = &mut self.role {
            primary.resign(core, turn);
            proposal = primary.take_proposal();
            primary.step_down(core, turn, &refusal);
        }
        self.role = Role::Failed(Failed::new(core, turn, proposal));
    }

    fn on_proposed(&mut self, turn: &mut Turn<'_>, id: ProposalId, outcome: &ProposalOutcome) {
        let config = match outcome {
            ProposalOutcome::Accepted(config) | ProposalOutcome::Refused(_, config) => Some(config),
            ProposalOutcome::Unknown => None,
        };
        let known = self.core.epoch();
        if let Some(config) = config {
            let accepted = matches!(outcome, ProposalOutcome::Accepted(_));
            if accepted && let Role::Secondary(_) = &self.role {
                let old = self.core.config().primary;
                self.took_over_from = self.core.config().in_sync_member(old).copied();
            }
            self.on_config(turn, config.clone());
            if accepted && config.epoch > known {
                self.core.tell_config(turn);
            }
            if self.core.epoch() > known {
                return;
            }
        }
        let core = &mut self.core;
        match &mut self.role {
            Role::Primary(primary) => primary.on_proposed(core, turn, id, outcome),
            Role::Secondary(secondary) => secondary.on_proposed(core, turn, id, outcome),
            Role::Joiner(joiner) => {
                if let Some(restart) = &mut joiner.restart {
                    restart.on_proposed(core, turn, id, outcome);
                }
            }
            Role::Failed(failed) => failed.on_proposed(core, turn, id, outcome),
            Role::Idle => {}
        }
    }

    fn on_config(&mut self, turn: &mut Turn<'_>, config: SliceConfig) {
        let core = &mut self.core;
        let known = core.config.as_ref().map(|config| config.epoch);
        if known.is_some_and(|known| config.epoch < known) {
            return;
        }
        if known == Some(config.epoch) {
            return self.on_same_epoch(turn, config);
        }
        if config.epoch < core.log.state.promised {
            // Raft's state here is older than what this replica has promised: it will follow.
            turn.out.push(Command::QueryConfig);
            return;
        }
        let old = std::mem::replace(&mut self.role, Role::Idle);
        let stays = core.config.as_ref().is_some_and(|before| {
            before.epoch.next() == config.epoch && before.primary == config.primary
        });
        if config.tail_lost == config.epoch && config.primary == core.me.node {
            core.note(turn, Note::TailLost { last: core.log.last });
        }
        core.config = Some(config);
        self.role = self.next_role(turn, old, stays);
    }

    /// Placement or the minimum changed; the epoch didn't.
    fn on_same_epoch(&mut self, turn: &mut Turn<'_>, config: SliceConfig) {
        let core = &mut self.core;
        if core.config.as_ref() == Some(&config) {
            return;
        }
        core.config = Some(config);
        match &mut self.role {
            Role::Primary(primary) => primary.on_placement(core, turn),
            Role::Idle => self.role = self.next_role(turn, Role::Idle, false),
            Role::Secondary(_) | Role::Joiner(_) | Role::Failed(_) => {}
        }
    }

    /// The role in the configuration that has just been adopted.
    fn next_role(&mut self, turn: &mut Turn<'_>, old: Role, stays: bool) -> Role {
        let core = &mut self.core;
        let config = core.config().clone();
        let listed = config.in_sync_member(core.me.node).copied();
        let unchecked = mutated!(core, IncarnationUnchecked);
        let current = listed
            .is_some_and(|member| member.incarnation == core.me.incarnation || unchecked)
            && !matches!(old, Role::Failed(_));
        let primary = config.primary == core.me.node;
        core.join = core.join.filter(|_| matches!(old, Role::Joiner(_)) && listed.is_none());
        if let Role::Failed(mut failed) = old {
            failed.next_epoch(core, turn);
            return Role::Failed(failed);
        }
        match old {
            Role::Primary(mut old) if current && primary && stays => {
                old.next_epoch(core, turn);
                return Role::Primary(old);
            }
            Role::Primary(mut old) => {
                let refusal = Primary::moved(core);
                old.step_down(core, turn, &refusal);
            }
            Role::Joiner(mut joiner)
                if stays
                    && joiner.restart.is_none()
                    && listed.is_none()
                    && config.member(core.me.node).is_some() =>
            {
                joiner.next_epoch(core, turn);
                return Role::Joiner(joiner);
            }
            _ => {}
        }
        if current && primary {
            return Role::Primary(Box::new(Primary::new(core, turn)));
        }
        #[cfg(feature = "mutations")]
        if mutated!(core, SequenceReused) && listed.is_some() && primary {
            return Role::Primary(Box::new(Primary::carry_on(core, turn)));
        }
        if current && core.log.is_whole() {
            return Role::Secondary(Secondary::new(core, turn));
        }
        if current {
            // It was being brought level where it stood, and that isn't finished.
            return Role::Joiner(Joiner::new(core, turn, None));
        }
        if listed.is_some() {
            let mut restart = Restart::new(core, turn);
            restart.think(core, turn);
            return Role::Joiner(Joiner::new(core, turn, Some(restart)));
        }
        if config.member(core.me.node).is_some() {
            return Role::Joiner(Joiner::new(core, turn, None));
        }
        core.vouch(turn, None, Vec::new());
        core.space.set(turn.out, 0);
        Role::Idle
    }
}
