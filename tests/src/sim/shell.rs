//! The shell of a node: gives events to its cores, and does what they command.
//!
//! Invariant: commands of one event are done in their order, and no core is entered while another
//! one's commands are being done: whatever they cause comes through the queue.

use mooring_config::Command as ConfigCommand;
use mooring_replication::{
    BeaconCommand, BeaconEvent, Command, Event, Note, ProposalOutcome, Query, Reply, RequestId,
};
use mooring_terms::{Entry, NodeId, SliceId, Time};

use super::coverage::Kind;
use super::network::Way;
use super::node::Io;
use super::packet::Packet;
use super::{Happening, Sim, Ticket};

impl Sim {
    /// Gives `event` to the replica of `slice` on `node`, if it is there.
    pub(super) fn deliver(&mut self, node: NodeId, slice: SliceId, event: Event) {
        let now = self.queue.now();
        let Some(owner) = self.nodes.get_mut(&node) else { return };
        let local = owner.clock.shows(now);
        let Some(slot) = owner.slots.get_mut(&slice) else { return };
        self.coverage.count(Kind::Event, event_name(&event));
        if self.trace.enabled() {
            self.trace.line(now, format_args!("{node:?} {slice} <- {event:?}"));
        }
        let mut out = Vec::new();
        slot.replica.handle(local, &owner.beacons, event, &mut out);
        self.observe_state(node, slice);
        self.schedule_tick(node, slice);
        for command in out {
            self.run_command(node, slice, command);
        }
        // After its commands: the checkers, who have seen all replicas, know better what is wrong.
        if self.violation.is_none()
            && let Some(slot) = self.nodes.get(&node).and_then(|node| node.slots.get(&slice))
        {
            slot.replica.check_invariants();
        }
    }

    /// Gives an event to all replicas of a node.
    pub(super) fn deliver_to_all(&mut self, node: NodeId, event: &Event) {
        let slices: Vec<SliceId> = self.nodes[&node].slots.keys().copied().collect();
        for slice in slices {
            self.deliver(node, slice, event.clone());
        }
    }

    /// Counts changes of a replica's state; whoever begins to serve must have all that counts.
    fn observe_state(&mut self, node: NodeId, slice: SliceId) {
        let Some(owner) = self.nodes.get_mut(&node) else { return };
        let Some(slot) = owner.slots.get_mut(&slice) else { return };
        let state = slot.replica.state_name();
        if state == slot.state {
            return;
        }
        slot.state = state;
        self.coverage.count(Kind::Transition, state);
        if state == "primary: serving" {
            let epoch = slot.replica.status().epoch;
            let log = owner.pool.recovered(slice).last;
            let seen = self.checkers.serving(node, slice, epoch, log, self.raft.state());
            self.check(seen);
        }
    }

    fn schedule_tick(&mut self, id: NodeId, slice: SliceId) {
        let now = self.queue.now();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(slot) = node.slots.get_mut(&slice) else { return };
        let Some(deadline) = slot.replica.deadline() else { return };
        let at = node.clock.when(deadline).max(now + MIN_TICK);
        if slot.tick.is_none_or(|tick| at < tick) {
            slot.tick = Some(at);
            self.queue.at(at, Happening::Tick(id, node.boot.0, slice));
        }
    }

    pub(super) fn tick(&mut self, id: NodeId, slice: SliceId) {
        let now = self.queue.now();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(slot) = node.slots.get_mut(&slice) else { return };
        if slot.tick.is_none_or(|tick| tick > now) {
            return;
        }
        slot.tick = None;
        match slot.replica.deadline() {
            Some(deadline) if deadline <= node.clock.shows(now) => {
                self.deliver(id, slice, Event::Tick);
            }
            _ => self.schedule_tick(id, slice),
        }
    }

    pub(super) fn wake(&mut self, node: NodeId, slices: &[SliceId]) {
        for slice in slices {
            self.deliver(node, *slice, Event::Tick);
        }
    }

    fn run_command(&mut self, node: NodeId, slice: SliceId, command: Command) {
        self.coverage.count(Kind::Command, command_name(&command));
        if self.trace.enabled() {
            let now = self.queue.now();
            self.trace.line(now, format_args!("{node:?} {slice} -> {command:?}"));
        }
        match command {
            Command::Append { mark, entries } => {
                let seen = self.checkers.appended(node, slice, &entries, self.raft.state());
                self.check(seen);
                for _ in entries.iter().filter(|entry| matches!(entry, Entry::CopyLost { .. })) {
                    self.count(Kind::Situation, "a joiner learns that a block is lost");
                }
                self.push_io(node, slice, Io::Append { mark, entries });
            }
            Command::Sync { mark } => self.push_io(node, slice, Io::Sync { mark }),
            Command::Committed { sequence } => {
                self.push_io(node, slice, Io::Committed { sequence });
            }
            Command::Read { token, range } => {
                self.push_io(node, slice, Io::Read { token, range });
            }
            Command::Query { token, query, from, limit_blocks } => {
                let query: Query = query;
                self.push_io(node, slice, Io::Query { token, query, from, limit_blocks });
            }
            Command::ReadRecords { token, after, limit_bytes } => {
                self.push_io(node, slice, Io::ReadRecords { token, after, limit_bytes });
            }
            Command::Reserve { bytes } => self.push_io(node, slice, Io::Reserve { bytes }),
            Command::Release { bytes } => self.push_io(node, slice, Io::Release { bytes }),
            Command::Send { to, message } => {
                if let Some(connection) = self.nodes[&node].outgoing.get(&to).copied() {
                    self.send(connection, Way::Out, Packet::Replica(message));
                }
            }
            Command::Reply { id, reply } => self.reply(node, slice, id, reply),
            Command::Propose { id, change } => {
                self.checkers.proposed(self.queue.now(), &change);
                let command = ConfigCommand::change_slices(vec![change]);
                self.propose(node, Ticket::Slice(slice, id), command);
            }
            Command::QueryConfig => {
                let boot = self.nodes[&node].boot.0;
                let delay = self.prng.micros(500, 5_000);
                self.queue.after(delay, Happening::ConfigRead(node, boot, slice, None));
            }
            Command::Vouch { epoch, peers } => {
                self.beacons(node, BeaconEvent::Vouch { slice, epoch, peers });
            }
            Command::Note(note) => self.note(node, slice, &note),
        }
    }

    fn reply(&mut self, node: NodeId, slice: SliceId, id: RequestId, reply: Reply) {
        let seen = self.checkers.replied(node, slice, id, &reply, &self.nodes, self.raft.state());
        self.check(seen);
        let stream = self.client_streams.get(&(id.client, id.stream)).copied();
        if let Some(connection) = stream {
            let message = mooring_replication::ReplyMessage { slice, id, reply };
            self.send(connection, Way::Back, Packet::Reply(message));
        }
    }

    fn note(&mut self, node: NodeId, slice: SliceId, note: &Note) {
        self.coverage.count(Kind::Transition, note_name(note));
        let seen = self.checkers.noted(node, slice, note, &self.faults);
        self.check(seen);
    }

    /// Gives `event` to the beacons of a node.
    pub(super) fn beacons(&mut self, id: NodeId, event: BeaconEvent) {
        let now = self.queue.now();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let boot = node.boot.0;
        let mut out = Vec::new();
        node.beacons.handle(node.clock.shows(now), event, &mut out);
        if let Some(deadline) = node.beacons.deadline() {
            let at = node.clock.when(deadline).max(now + MIN_TICK);
            if node.beacon_tick.is_none_or(|tick| at < tick) {
                node.beacon_tick = Some(at);
                self.queue.at(at, Happening::BeaconTick(id, boot));
            }
        }
        for command in out {
            match command {
                BeaconCommand::Send { to, message } => {
                    let stream = self.nodes[&id].beacon_streams.get(&to).copied();
                    if let Some(connection) = stream {
                        self.send(connection, Way::Out, Packet::Beacon(message));
                    }
                }
                BeaconCommand::Wake { slices } => {
                    self.queue.at(now, Happening::Wake(id, boot, slices));
                }
            }
        }
    }

    pub(super) fn beacon_tick(&mut self, id: NodeId) {
        let now = self.queue.now();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.beacon_tick.is_some_and(|tick| tick <= now) {
            node.beacon_tick = None;
            self.beacons(id, BeaconEvent::Tick);
        }
    }

    /// What became of a replica's proposal, as Raft knows it now.
    pub(super) fn outcome(
        &self,
        slice: SliceId,
        answer: Option<&mooring_config::Response>,
    ) -> Option<ProposalOutcome> {
        let config = || self.raft.state().slice(slice).map(|config| (**config).clone());
        match answer {
            Some(Ok(mooring_config::Done::Slices(results))) => match results.first()? {
                Ok(_) => Some(ProposalOutcome::Accepted(config()?)),
                Err(refused) => Some(ProposalOutcome::Refused(refused.clone(), config()?)),
            },
            _ => Some(ProposalOutcome::Unknown),
        }
    }
}

/// A deadline that is past is not answered in the same moment: no run stands still.
const MIN_TICK: std::time::Duration = std::time::Duration::from_micros(10);

fn event_name(event: &Event) -> &'static str {
    match event {
        Event::Config(_) => "config",
        Event::Version(_) => "version",
        Event::Proposed { outcome: ProposalOutcome::Accepted(_), .. } => "proposed: accepted",
        Event::Proposed { outcome: ProposalOutcome::Refused(..), .. } => "proposed: refused",
        Event::Proposed { outcome: ProposalOutcome::Unknown, .. } => "proposed: unknown",
        Event::Request { .. } => "request",
        Event::ClientStream { .. } => "client stream",
        Event::Connected { .. } => "connected",
        Event::Disconnected { .. } => "disconnected",
        Event::Message { .. } => "message",
        Event::Received { .. } => "received",
        Event::Durable { .. } => "durable",
        Event::StoreFailed => "store failed",
        Event::ReadDone { result: Ok(_), .. } => "read done",
        Event::ReadDone { result: Err(_), .. } => "read failed",
        Event::QueryDone { .. } => "query done",
        Event::RecordsRead { .. } => "records read",
        Event::Reserved { bytes: 0 } => "reserved nothing",
        Event::Reserved { .. } => "reserved",
        Event::HandOver { .. } => "hand over",
        Event::Resign => "resign",
        Event::Tick => "tick",
    }
}

fn command_name(command: &Command) -> &'static str {
    match command {
        Command::Append { .. } => "append",
        Command::Sync { .. } => "sync",
        Command::Committed { .. } => "committed",
        Command::Read { .. } => "read",
        Command::Query { query: Query::NewerThan(_), .. } => "query newer",
        Command::Query { query: Query::Missing, .. } => "query missing",
        Command::ReadRecords { .. } => "read records",
        Command::Reserve { .. } => "reserve",
        Command::Release { .. } => "release",
        Command::Send { .. } => "send",
        Command::Reply { .. } => "reply",
        Command::Propose { .. } => "propose",
        Command::QueryConfig => "query config",
        Command::Vouch { epoch: Some(_), .. } => "vouch",
        Command::Vouch { epoch: None, .. } => "vouch for nothing",
        Command::Note(_) => "note",
    }
}

fn note_name(note: &Note) -> &'static str {
    use mooring_replication::LossCause;
    match note {
        Note::Serving { .. } => "serving",
        Note::SteppedDown { .. } => "stepped down",
        Note::ReplicaLost { cause, .. } => match cause {
            LossCause::Silent => "replica lost: silent",
            LossCause::Stuck => "replica lost: stuck",
            LossCause::Restarted => "replica lost: restarted",
            LossCause::PoolFailed => "replica lost: pool failed",
            LossCause::Diverged => "replica lost: diverged",
        },
        Note::TakingOver { .. } => "taking over",
        Note::TailLost { .. } => "tail lost",
        Note::JoinStarted { .. } => "join started",
        Note::JoinFinished { .. } => "join finished",
        Note::BlockRepaired { .. } => "block repaired",
        Note::BlockLost { .. } => "block lost",
        Note::TooFew { .. } => "too few",
        Note::PoolFull { .. } => "pool full",
        Note::Diverged { .. } => "diverged",
        #[allow(unreachable_patterns, reason = "the core may learn to tell more")]
        _ => "another note",
    }
}

/// A moment as a node sees it, for traces.
#[allow(dead_code, reason = "used from the debugger")]
fn shown(time: Time) -> f64 {
    time.0.as_secs_f64()
}
