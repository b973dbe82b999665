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

mod messages;
mod roles;
mod status;

use bytes::Bytes;
use mooring_config::{Member, SliceConfig};
use mooring_terms::{Epoch, Incarnation, NodeId, Sequence, SliceId, Time, Version};

use crate::command::Command;
use crate::core::{Core, Turn};
use crate::event::{Event, Mark};
use crate::failed::Failed;
use crate::joiner::Joiner;
use crate::lease::Leases;
use crate::log::Log;
use crate::options::Options;
use crate::primary::Primary;
use crate::request::{Outcome, Refusal, Reply, RequestId};
use crate::secondary::Secondary;
use crate::state::State;
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

    /// Whether it orders the slice's writes, and answers reads.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        matches!(self.role, Role::Primary(_))
    }

    /// The newest configuration that this replica knows.
    #[must_use]
    pub fn config(&self) -> Option<&SliceConfig> {
        self.core.config.as_ref()
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
            Event::Version(version) => self.core.version = version,
            Event::Proposed { id, outcome } => self.on_proposed(turn, id, &outcome),
            Event::Request { from, id, request } => match &mut self.role {
                Role::Primary(primary) => {
                    primary.on_request(&mut self.core, turn, from, id, request);
                }
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
            // Whatever was proposed: nothing more is acknowledged here, so no doubt matters.
            primary.take_proposal();
            primary.resign(core, turn);
            proposal = primary.take_proposal();
            primary.step_down(core, turn, &refusal);
        }
        self.role = Role::Failed(Failed::new(core, turn, proposal));
    }
}
