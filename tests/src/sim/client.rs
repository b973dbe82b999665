//! The shell of a client: one attachment of one volume, on one node.
//!
//! ```text
//!   Attaching ──Raft grants──> Sealing ──all slices answer──> Serving ──fenced, lost, crashed──> Over
//! ```
//! A client that is fenced learns it from the replicas alone: until then it goes on asking.

use std::collections::BTreeMap;
use std::time::Duration;

use mooring_config::{AttachMode, Command as ConfigCommand, Done, Response};
use mooring_replication::{
    ClientCommand, ClientEvent, ClientId, ClientOptions, IoError, IoId, IoPart, ReplyMessage,
    StreamId, VolumeClient,
};
use mooring_terms::{AttachmentEpoch, Epoch, NodeId, SliceId, Time, VolumeId};

use super::coverage::Kind;
use super::history::{OpId, What};
use super::network::{Connection, Plane, Way};
use super::node::Power;
use super::packet::Packet;
use super::plan::SLICE_BLOCKS;
use super::value::{Value, decode};
use super::{Happening, Sim, Ticket};

/// How far a client has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Raft has not granted the attachment yet.
    Attaching,
    /// Not all slices have sealed it.
    Sealing,
    /// The device is there.
    Serving,
    /// It will not come back.
    Over,
}

/// One client.
pub struct Client {
    /// Its number: in the data it writes, and in the history.
    pub number: u32,
    /// The volume.
    pub volume: VolumeId,
    /// Its node.
    pub node: NodeId,
    boot: u64,
    id: ClientId,
    /// How far it is.
    pub standing: Standing,
    /// Takes the volume from a holder that is alive.
    force: bool,
    asked: Time,
    /// What Raft granted.
    pub attachment: AttachmentEpoch,
    core: Option<VolumeClient>,
    streams: BTreeMap<NodeId, (Connection, StreamId)>,
    next_stream: u64,
    tick: Option<Time>,
    /// Each slice's newest lost tail when this client began.
    pub tails: BTreeMap<SliceId, Epoch>,
    /// I/Os in flight.
    pub in_flight: BTreeMap<IoId, OpId>,
}

impl Sim {
    /// A new client for a volume, on `node`.
    pub(super) fn new_client(&mut self, volume: VolumeId, node: NodeId, force: bool) -> u32 {
        let number = u32::try_from(self.clients.len() + 1).expect("few clients");
        let client = Client {
            number,
            volume,
            node,
            boot: self.nodes[&node].boot.0,
            id: ClientId(self.prng.next()),
            standing: Standing::Attaching,
            force,
            asked: self.queue.now(),
            attachment: AttachmentEpoch(0),
            core: None,
            streams: BTreeMap::new(),
            next_stream: 1,
            tick: None,
            tails: BTreeMap::new(),
            in_flight: BTreeMap::new(),
        };
        self.clients.insert(number, client);
        let now = self.queue.now();
        self.trace.line(now, format_args!("client {number} wants {volume:?} on {node:?}"));
        self.ask_for_attachment(number);
        number
    }

    fn ask_for_attachment(&mut self, number: u32) {
        let client = &self.clients[&number];
        let (volume, node, force) = (client.volume, client.node, client.force);
        let holder = self.raft.state().volume(volume).and_then(|volume| volume.attachment);
        let command = ConfigCommand::Attach {
            volume,
            node,
            boot: self.nodes[&node].boot,
            mode: AttachMode::ReadWrite,
            holder_gone: false,
            // A holder whose process is gone, on a node that is not, is an operator's business.
            force: force || !self.is_held(volume),
        };
        // The attachment of an earlier client of the same daemon would be granted again as it is.
        if let Some(holder) = holder.filter(|holder| holder.node == node) {
            let epoch = Some(holder.epoch);
            let detach = ConfigCommand::Detach { volume, epoch, node, force: false };
            self.propose(node, Ticket::Operator, detach);
        }
        let now = self.queue.now();
        if let Some(client) = self.clients.get_mut(&number) {
            client.asked = now;
        }
        self.propose(node, Ticket::Attach(number), command);
    }

    /// Whether a client that has, or had, the volume still lives.
    fn is_held(&self, volume: VolumeId) -> bool {
        self.clients.values().any(|client| {
            client.volume == volume && client.core.is_some() && client.standing != Standing::Over
        })
    }

    /// Raft has answered a client that wants a volume.
    pub(super) fn attached(&mut self, number: u32, answer: Option<Response>) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        if client.standing != Standing::Attaching {
            return;
        }
        let Some(Ok(Done::Attached { epoch, .. })) = answer else { return };
        let (id, volume) = (client.id, client.volume);
        // A client of this daemon had it under this very epoch: ask again once it is detached.
        if self.clients.values().any(|c| c.volume == volume && c.attachment == epoch) {
            return;
        }
        let Some(config) = self.raft.state().volume(volume) else { return };
        let slices = config.slices.len() as u64;
        let blocks = slices * SLICE_BLOCKS;
        let mut options = ClientOptions::new(id, volume, epoch, blocks, SLICE_BLOCKS);
        options.keep_bytes = self.plan.keep_bytes;
        let Some(client) = self.clients.get_mut(&number) else { return };
        client.attachment = epoch;
        client.standing = Standing::Sealing;
        client.core = Some(VolumeClient::new(options));
        let seen = self.raft.seen_by(client.node).clone();
        self.checkers.granted(number, volume, epoch, id);
        for (slice, config) in seen.slices().filter(|(slice, _)| slice.volume == volume) {
            let event = ClientEvent::Config { slice: slice.index, config: (**config).clone() };
            self.client_event(number, event);
        }
        self.client_event(number, ClientEvent::Tick);
    }

    /// The clients of a volume that live on a node.
    pub(super) fn clients_on(&self, node: NodeId, volume: VolumeId) -> Vec<u32> {
        let here = |c: &&Client| c.node == node && c.volume == volume && c.core.is_some();
        self.clients.values().filter(here).map(|client| client.number).collect()
    }

    /// Whether a client's process runs.
    pub(super) fn client_runs(&self, client: &Client) -> bool {
        let node = &self.nodes[&client.node];
        client.standing != Standing::Over
            && node.boot.0 == client.boot
            && node.power == Power::Running
    }

    /// Gives an event to a client's core.
    pub(super) fn client_event(&mut self, number: u32, event: ClientEvent) {
        let now = self.queue.now();
        let Some(client) = self.clients.get_mut(&number) else { return };
        let local = self.nodes[&client.node].clock.shows(now);
        let Some(core) = client.core.as_mut() else { return };
        self.coverage.count(Kind::Event, client_event_name(&event));
        if self.trace.enabled() {
            self.trace.line(now, format_args!("client {number} <- {event:?}"));
        }
        let mut out = Vec::new();
        core.handle(local, event, &mut out);
        self.schedule_client(number);
        for command in out {
            self.run_client_command(number, command);
        }
    }

    fn schedule_client(&mut self, number: u32) {
        let now = self.queue.now();
        let Some(client) = self.clients.get_mut(&number) else { return };
        let Some(deadline) = client.core.as_ref().and_then(VolumeClient::deadline) else { return };
        let clock = self.nodes[&client.node].clock;
        let at = clock.when(deadline).max(now + Duration::from_micros(10));
        if client.tick.is_none_or(|tick| at < tick) {
            client.tick = Some(at);
            self.queue.at(at, Happening::ClientTick(number));
        }
    }

    pub(super) fn client_tick(&mut self, number: u32) {
        let now = self.queue.now();
        let Some(client) = self.clients.get(&number) else { return };
        if client.standing == Standing::Over || client.tick.is_none_or(|tick| tick > now) {
            return;
        }
        let (stopped, here) = (
            self.nodes[&client.node].power == Power::Stopped,
            self.nodes[&client.node].boot.0 == client.boot,
        );
        if stopped && here {
            let node = client.node;
            self.held.entry(node).or_default().push(Happening::ClientTick(number));
            return;
        }
        let shown = self.nodes[&client.node].clock.shows(now);
        let Some(client) = self.clients.get_mut(&number) else { return };
        client.tick = None;
        let due = client.core.as_ref().and_then(VolumeClient::deadline).is_some_and(|d| d <= shown);
        if due {
            self.client_event(number, ClientEvent::Tick);
        } else {
            self.schedule_client(number);
        }
    }

    fn run_client_command(&mut self, number: u32, command: ClientCommand) {
        self.coverage.count(Kind::Command, client_command_name(&command));
        if self.trace.enabled() {
            let now = self.queue.now();
            self.trace.line(now, format_args!("client {number} -> {command:?}"));
        }
        match command {
            ClientCommand::Connect { node } => {
                let delay = self.prng.micros(50, 1_500);
                self.queue.after(delay, Happening::ClientDialed(number, node));
            }
            ClientCommand::Send { node, message } => {
                if let Some((connection, _)) = self.clients[&number].streams.get(&node).copied() {
                    self.send(connection, Way::Out, Packet::Request(message));
                }
            }
            ClientCommand::QueryConfig { slice } => {
                let client = &self.clients[&number];
                let id = SliceId { volume: client.volume, index: slice };
                let (node, boot) = (client.node, client.boot);
                let delay = self.prng.micros(500, 5_000);
                self.queue.after(delay, Happening::ConfigRead(node, boot, id, Some(number)));
            }
            ClientCommand::Done { id, result } => self.io_answered(number, id, result),
            ClientCommand::Sealed => self.client_sealed(number),
            ClientCommand::Fenced { .. } => {
                self.count(Kind::Situation, "client fenced");
                self.client_over(number);
            }
            ClientCommand::TailLost => self.client_over(number),
            ClientCommand::Knock { .. }
            | ClientCommand::Admitted { .. }
            | ClientCommand::SessionFenced { .. } => {
                unreachable!("a device has no sessions")
            }
        }
    }

    /// A client's attempt to connect is decided.
    pub(super) fn client_dialed(&mut self, number: u32, to: NodeId) {
        let Some(client) = self.clients.get(&number) else { return };
        if !self.client_runs(client) {
            if self.nodes[&client.node].power == Power::Stopped {
                let node = client.node;
                self.held.entry(node).or_default().push(Happening::ClientDialed(number, to));
            }
            return;
        }
        let (from, id) = (client.node, client.id);
        if client.streams.contains_key(&to) {
            return;
        }
        if !self.can_connect(from, to) {
            self.client_event(number, ClientEvent::Disconnected { node: to });
            return;
        }
        let connection = self.network.open(Plane::Client, from, to);
        let Some(client) = self.clients.get_mut(&number) else { return };
        let stream = StreamId(client.next_stream);
        client.next_stream += 1;
        client.streams.insert(to, (connection, stream));
        if stream.0 > 1 {
            self.count(Kind::Transition, "client connects again");
        }
        self.send(connection, Way::Out, Packet::Hello { client: id, stream });
        self.client_event(number, ClientEvent::Connected { node: to, stream });
    }

    /// A reply arrives at a client's node.
    pub(super) fn client_reply(&mut self, on: Connection, from: NodeId, message: ReplyMessage) {
        if self.probe_answered(message.slice, message.id.client, &message.reply) {
            return;
        }
        let number = self.clients.values().find_map(|client| {
            let mine = client.streams.get(&from).is_some_and(|(connection, _)| *connection == on);
            (mine && client.id == message.id.client).then_some(client.number)
        });
        if let Some(number) = number
            && self.client_runs(&self.clients[&number])
        {
            self.client_event(number, ClientEvent::Reply { from, message });
        }
    }

    /// A stream is gone: if it was a client's, the client learns it.
    pub(super) fn client_disconnected(&mut self, node: NodeId, connection: Connection) {
        let mut told = Vec::new();
        for client in self.clients.values_mut().filter(|client| client.node == node) {
            let lost = client.streams.iter().find(|(_, (on, _))| *on == connection);
            if let Some(peer) = lost.map(|(peer, _)| *peer) {
                client.streams.remove(&peer);
                told.push((client.number, peer));
            }
        }
        for (number, node) in told {
            if self.client_runs(&self.clients[&number]) {
                self.client_event(number, ClientEvent::Disconnected { node });
            }
        }
    }

    /// Breaks all streams of a client, as a flapping link does.
    pub(super) fn reset_client(&mut self, number: u32) {
        let streams: Vec<Connection> =
            self.clients[&number].streams.values().map(|(connection, _)| *connection).collect();
        for connection in streams {
            self.break_stream(connection, true);
        }
    }

    /// All slices have sealed a client's attachment: it serves, and older ones can't any more.
    fn client_sealed(&mut self, number: u32) {
        let volume = self.clients[&number].volume;
        let state = self.raft.state().clone();
        let slices: Vec<(SliceId, Epoch)> = state
            .slices()
            .filter(|(slice, _)| slice.volume == volume)
            .map(|(slice, config)| (slice, config.tail_lost))
            .collect();
        self.history.sealed(volume, number);
        for (slice, tail) in &slices {
            if *tail > self.workload.tail_known(*slice) {
                let first = u64::from(slice.index.0) * SLICE_BLOCKS;
                self.history.lost(volume, first..first + SLICE_BLOCKS, false);
                self.count(Kind::Situation, "client begins after a lost tail");
            }
            self.workload.know_tail(*slice, *tail);
        }
        if let Some(client) = self.clients.get_mut(&number) {
            client.standing = Standing::Serving;
            client.tails = slices.into_iter().collect();
        }
        self.checkers.client_serves(number);
        self.queue.after(Duration::ZERO, Happening::Work(number));
    }

    /// The client is gone: crashed with its node, fenced, or without its device.
    pub(super) fn client_over(&mut self, number: u32) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        client.standing = Standing::Over;
        client.core = None;
        client.in_flight.clear();
        let streams = std::mem::take(&mut client.streams);
        for (connection, _) in streams.into_values() {
            self.break_stream(connection, true);
        }
    }

    pub(super) fn clients_die_with(&mut self, node: NodeId) {
        let theirs: Vec<u32> = self
            .clients
            .values()
            .filter(|client| client.node == node && client.standing != Standing::Over)
            .map(|client| client.number)
            .collect();
        for number in theirs {
            self.count(Kind::Situation, "client crashed");
            self.client_over(number);
        }
    }

    /// An I/O is done.
    fn io_answered(&mut self, number: u32, id: IoId, result: Result<Vec<IoPart>, IoError>) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        if client.standing == Standing::Over {
            return;
        }
        let Some(op) = client.in_flight.remove(&id) else {
            self.fail("every operation is answered once", format!("client {number}: {id:?} again"));
            return;
        };
        let Some(what) = self.history.op(op).map(|op| op.what) else { return };
        match result {
            Err(error) => {
                self.count(Kind::Operation, error_name(&error));
                match error {
                    IoError::NoSpace { .. } | IoError::Corrupt { .. }
                        if self.is_in_one_slice(op) =>
                    {
                        self.history.ended(op);
                    }
                    _ => {}
                }
            }
            Ok(parts) => {
                let seen = self.checkers.client_answered(number, op);
                self.check(seen);
                self.count(Kind::Operation, what_name(what));
                if what == What::Read {
                    self.read_answered(op, &parts);
                } else {
                    self.history.done(op);
                }
            }
        }
        if self.clients[&number].standing == Standing::Serving {
            self.queue.after(Duration::ZERO, Happening::Work(number));
        }
    }

    fn is_in_one_slice(&self, op: OpId) -> bool {
        self.history.op(op).is_some_and(|op| {
            let last = op.range.first.0 + op.range.count.max(1) - 1;
            op.range.first.0 / SLICE_BLOCKS == last / SLICE_BLOCKS
        })
    }

    fn read_answered(&mut self, id: OpId, parts: &[IoPart]) {
        let Some(op) = self.history.op(id).copied() else { return };
        let mut values = Vec::new();
        for part in parts {
            match part {
                // Those of shared volumes.
                IoPart::Versions(..) | IoPart::Written(..) => {}
                IoPart::Zeros(blocks) => {
                    values.extend((0..*blocks).map(|_| Value::Zero));
                }
                IoPart::Data(data) => {
                    for i in 0..usize::try_from(data.blocks()).expect("few blocks") {
                        let (slice, block) = place(op.range.first.0 + values.len() as u64);
                        match decode(data.block(i), slice, block) {
                            Ok(value) if data.slice(i, 1).first_corrupt().is_none() => {
                                values.push(value);
                            }
                            _ => {
                                let text = format!("{:?} {slice}/{block} is garbled", op.volume);
                                self.fail("a corrupt block is never returned", text);
                                return;
                            }
                        }
                    }
                }
            }
        }
        if values.len() as u64 != op.range.count {
            let text = format!("{op:?} gave {} blocks", values.len());
            self.fail("a read gives what was asked for", text);
            return;
        }
        if self.trace.enabled() {
            let now = self.queue.now();
            self.trace.line(now, format_args!("client {} read {id}: {values:?}", op.client));
        }
        self.history.read(id, &values);
    }

    /// Somebody should have each volume attached; a client that got no answer asks again.
    pub(super) fn attend(&mut self) {
        let now = self.queue.now();
        for index in 0..self.plan.volumes.len() {
            let volume = self.plan.volume_id(index);
            let waiting: Vec<u32> = self
                .clients
                .values()
                .filter(|c| c.volume == volume && c.standing == Standing::Attaching)
                .filter(|c| now.since(c.asked) > Duration::from_millis(1_500))
                .map(|client| client.number)
                .collect();
            for number in waiting {
                if self.client_runs(&self.clients[&number]) {
                    self.ask_for_attachment(number);
                }
            }
            let alive =
                self.clients.values().any(|c| c.volume == volume && c.standing != Standing::Over);
            if !alive && !self.workload.paused {
                let running: Vec<NodeId> = self
                    .nodes
                    .values()
                    .filter(|node| node.power == Power::Running && node.registered())
                    .map(|node| node.id)
                    .collect();
                if let Some(node) = self.prng.pick(&running) {
                    let force = self.prng.percent(50);
                    self.new_client(volume, node, force);
                }
            }
        }
        let pause = self.prng.millis(100, 300);
        self.queue.after(pause, Happening::Attend);
    }
}

/// Where a volume's block lies.
#[must_use]
pub fn place(block: u64) -> (mooring_terms::SliceIndex, mooring_terms::BlockIndex) {
    let slice = u32::try_from(block / SLICE_BLOCKS).expect("few slices");
    (mooring_terms::SliceIndex(slice), mooring_terms::BlockIndex(block % SLICE_BLOCKS))
}

fn what_name(what: What) -> &'static str {
    match what {
        What::Read => "read",
        What::Write { fua: false } => "write",
        What::Write { fua: true } => "write, fua",
        What::Discard { fua: false } => "discard",
        What::Discard { fua: true } => "discard, fua",
        What::Flush => "flush",
    }
}

fn error_name(error: &IoError) -> &'static str {
    match error {
        IoError::Fenced { .. } => "fenced",
        IoError::Closed => "closed",
        IoError::NoSpace { .. } => "no space",
        IoError::Corrupt { .. } => "corrupt",
        IoError::Invalid => "invalid",
        IoError::TimedOut => "timed out",
        IoError::TailLost => "tail lost",
    }
}

fn client_event_name(event: &ClientEvent) -> &'static str {
    match event {
        ClientEvent::Config { .. } => "client: config",
        ClientEvent::Submit { .. } => "client: submit",
        ClientEvent::Connected { .. } => "client: connected",
        ClientEvent::Disconnected { .. } => "client: disconnected",
        ClientEvent::Reply { .. } => "client: reply",
        ClientEvent::Resized { .. } => "client: resized",
        ClientEvent::Coordinator { .. }
        | ClientEvent::Admitted { .. }
        | ClientEvent::Register { .. }
        | ClientEvent::Leased { .. }
        | ClientEvent::Admit { .. }
        | ClientEvent::Fence { .. } => "client: of a shared volume",
        ClientEvent::IoTimeout { .. } => "client: io timeout",
        ClientEvent::Close => "client: close",
        ClientEvent::Tick => "client: tick",
    }
}

fn client_command_name(command: &ClientCommand) -> &'static str {
    match command {
        ClientCommand::Connect { .. } => "client: connect",
        ClientCommand::Send { .. } => "client: send",
        ClientCommand::QueryConfig { .. } => "client: query config",
        ClientCommand::Done { .. } => "client: done",
        ClientCommand::Sealed => "client: sealed",
        ClientCommand::Fenced { .. } => "client: fenced",
        ClientCommand::TailLost => "client: tail lost",
        ClientCommand::Knock { .. } => "client: knock",
        ClientCommand::Admitted { .. } => "client: admitted",
        ClientCommand::SessionFenced { .. } => "client: session fenced",
    }
}
