//! A deterministic cluster of replicas of one slice: cores, beacons, engines in memory, a network
//! that can be cut, and a model of Raft that can be late or away.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use mooring_config::{ClusterVersion, Member, NEWEST_VERSION, SliceConfig};
use mooring_replication::{
    BeaconCommand, BeaconEvent, BeaconMessage, Beacons, ClientEvent, ClientId, Command, Credential,
    Event, Mark, Message, Note, Opened, Operation, Options, Outcome, ProposalOutcome, Replica,
    Reply, ReplyMessage, Request, RequestId, RequestMessage, Role, StreamId,
};
use mooring_terms::{
    AttachmentEpoch, BlockIndex, BlockRange, Epoch, Extent, Incarnation, NodeId, PoolId, SliceId,
    SliceIndex, Time, VolumeId,
};

use crate::device::Device;
use crate::store::{Store, data_of, value_of};

pub const SLICE: SliceId = SliceId { volume: VolumeId(1), index: SliceIndex(0) };

pub const MESSAGE_US: u64 = 100;
const APPEND_US: u64 = 20;
const SYNC_US: u64 = 1_000;
pub const RAFT_US: u64 = 3_000;
const RECONNECT_US: u64 = 20_000;

pub struct Cluster {
    pub now: u64,
    pub nodes: BTreeMap<u64, Node>,
    queue: BTreeMap<(u64, u64), What>,
    pub counter: u64,
    pub raft: Raft,
    /// Pairs that can't reach each other, smaller node first.
    cut: BTreeSet<(u64, u64)>,
    /// The stream of each ordered pair; a message of an older one is lost.
    streams: BTreeMap<(u64, u64), u64>,
    pub replies: BTreeMap<RequestId, (u64, Reply)>,
    pub notes: Vec<(u64, Note)>,
    pub attachment: AttachmentEpoch,
    /// What nodes may write.
    pub version: ClusterVersion,
    pub next_number: u64,
    pub stream: u64,
    pub options: Options,
    pub messages: u64,
    /// Commands whose event is held back, by node: a disk that hangs.
    hung: BTreeSet<u64>,
    /// Nodes whose process is stopped, and what has come for it since.
    paused: BTreeMap<u64, Vec<What>>,
    /// Clients on hosts of their own; 0 is the device, or the coordinator.
    pub devices: BTreeMap<u64, Device>,
}

pub struct Raft {
    pub config: SliceConfig,
    pub opened: BTreeMap<PoolId, Incarnation>,
    pub up: bool,
    /// Outcomes of the next proposals: applied, but not told.
    pub forget_outcomes: u32,
    /// Nodes that learn of changes only so many microseconds later.
    pub lag: BTreeMap<u64, u64>,
    /// Nodes that can't reach it.
    pub unreachable: BTreeSet<u64>,
}

#[derive(Default)]
pub struct Node {
    pub store: Store,
    pub process: Option<Process>,
    /// Openings since the last power cut.
    openings: Vec<Incarnation>,
    count: u64,
}

pub struct Process {
    pub replica: Replica,
    pub beacons: Beacons,
    pub incarnation: Incarnation,
    marks: VecDeque<(Mark, usize)>,
    held: Vec<What>,
}

#[derive(Clone)]
pub enum What {
    Event { node: u64, incarnation: Option<Incarnation>, event: Event },
    Message { stream: u64, from: u64, to: u64, header: Bytes, frames: Vec<Bytes> },
    Beacon { from: u64, to: u64, bytes: Bytes },
    Reconnect { a: u64, b: u64 },
    Opened { node: u64 },
    Propose { node: u64, incarnation: Incarnation, command: Command },
    Device(u64, ClientEvent),
    Dial { device: u64, node: u64 },
    DeviceRequest { device: u64, node: u64, stream: StreamId, message: RequestMessage },
    DeviceReply { device: u64, node: u64, stream: StreamId, message: ReplyMessage },
}

impl Cluster {
    /// Replicas on nodes 1 to `count`, all in sync, the first primary; everything settled.
    pub fn new(count: u64) -> Self {
        let mut cluster = Self::unstarted(count, 2.min(count.saturating_sub(1)).max(1) as u32);
        for node in 1..=count {
            cluster.start(node);
        }
        cluster.run_until("the first epoch serves", |c| c.primary().is_some());
        cluster.seal(1);
        cluster
    }

    pub fn unstarted(count: u64, min_in_sync: u32) -> Self {
        let member = |node: u64| Member {
            node: NodeId(node),
            pool: PoolId(node),
            incarnation: Incarnation(node * 1000 + 1),
        };
        let config = SliceConfig {
            epoch: Epoch(1),
            primary: NodeId(1),
            in_sync: (1..=count).map(member).collect(),
            joining: Vec::new(),
            min_in_sync,
            tail_lost: Epoch(0),
            seal: AttachmentEpoch(0),
        };
        let raft = Raft {
            config,
            opened: BTreeMap::new(),
            up: true,
            forget_outcomes: 0,
            lag: BTreeMap::new(),
            unreachable: BTreeSet::new(),
        };
        Self {
            now: 1_000_000,
            nodes: (1..=count).map(|node| (node, Node::default())).collect(),
            queue: BTreeMap::new(),
            counter: 0,
            raft,
            cut: BTreeSet::new(),
            streams: BTreeMap::new(),
            replies: BTreeMap::new(),
            notes: Vec::new(),
            attachment: AttachmentEpoch(0),
            version: NEWEST_VERSION,
            next_number: 0,
            stream: 1,
            options: Options::default(),
            messages: 0,
            hung: BTreeSet::new(),
            paused: BTreeMap::new(),
            devices: BTreeMap::new(),
        }
    }

    pub fn time(&self) -> Time {
        Time(Duration::from_micros(self.now))
    }

    pub fn at(&mut self, delay: u64, what: What) {
        self.counter += 1;
        self.queue.insert((self.now + delay, self.counter), what);
    }

    // --- Nodes.

    /// Starts the node's process: its pool is opened anew.
    pub fn start(&mut self, id: u64) {
        let options = self.options.clone();
        let node = self.nodes.get_mut(&id).expect("a node");
        assert!(node.process.is_none());
        node.count += 1;
        let incarnation = Incarnation(id * 1000 + node.count);
        let me = Member { node: NodeId(id), pool: PoolId(id), incarnation };
        let opened = Opened {
            state: node.store.view.state.clone(),
            last: node.store.view.last,
            kept: node.openings.clone(),
            damaged: false,
        };
        node.openings.push(incarnation);
        let known = (self.raft.config.member(me.node).is_some()
            && !self.raft.lag.contains_key(&id))
        .then(|| self.raft.config.clone());
        let beacons = Beacons::new(&options);
        let replica = Replica::new(SLICE, me, opened, known, options).expect("its own state");
        node.process = Some(Process {
            replica,
            beacons,
            incarnation,
            marks: VecDeque::new(),
            held: Vec::new(),
        });
        self.at(RAFT_US, What::Opened { node: id });
        self.event(id, Event::Version(self.version));
        self.event(id, Event::Tick);
        for other in self.ids() {
            if other != id && self.nodes[&other].process.is_some() {
                let (a, b) = (id.min(other), id.max(other));
                self.at(RECONNECT_US, What::Reconnect { a, b });
            }
        }
    }

    /// kill -9: what was handed to the kernel stays.
    pub fn kill(&mut self, id: u64) {
        self.stop(id, false);
    }

    /// A power cut: what was not synced is gone.
    pub fn cut_power(&mut self, id: u64) {
        self.stop(id, true);
    }

    fn stop(&mut self, id: u64, power_cut: bool) {
        let node = self.nodes.get_mut(&id).expect("a node");
        node.process = None;
        node.store.reopen(power_cut);
        if power_cut {
            node.openings.clear();
        }
        self.hung.remove(&id);
        self.paused.remove(&id);
        for other in self.ids() {
            self.break_streams(id, other);
        }
        self.hang_up(id);
    }

    /// The pool's disk answers nothing any more, and nothing is lost.
    pub fn hang_disk(&mut self, id: u64) {
        self.hung.insert(id);
    }

    pub fn unhang_disk(&mut self, id: u64) {
        self.hung.remove(&id);
        let process = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut());
        for what in process.map(|process| std::mem::take(&mut process.held)).unwrap_or_default() {
            self.at(1, what);
        }
    }

    /// The process is stopped (SIGSTOP): its streams stay, and what comes waits.
    pub fn pause(&mut self, id: u64) {
        if self.is_up(id) {
            self.paused.entry(id).or_default();
        }
    }

    pub fn resume(&mut self, id: u64) {
        for what in self.paused.remove(&id).unwrap_or_default() {
            self.at(1, what);
        }
    }

    /// The node that an event is for.
    fn target(what: &What) -> Option<u64> {
        match what {
            What::Event { node, .. } | What::DeviceRequest { node, .. } => Some(*node),
            What::Message { to, .. } | What::Beacon { to, .. } => Some(*to),
            _ => None,
        }
    }

    pub fn ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    // --- The network.

    pub fn cut(&mut self, a: u64, b: u64) {
        self.cut.insert((a.min(b), a.max(b)));
        self.break_streams(a, b);
    }

    pub fn heal(&mut self, a: u64, b: u64) {
        let (a, b) = (a.min(b), a.max(b));
        self.cut.remove(&(a, b));
        self.at(RECONNECT_US, What::Reconnect { a, b });
    }

    pub fn isolate(&mut self, id: u64) {
        for other in self.ids().into_iter().filter(|&other| other != id) {
            self.cut(id, other);
        }
    }

    pub fn rejoin_network(&mut self, id: u64) {
        for other in self.ids().into_iter().filter(|&other| other != id) {
            self.heal(id, other);
        }
    }

    /// Breaks the streams between two nodes; they come back at once.
    pub fn glitch(&mut self, a: u64, b: u64) {
        self.break_streams(a, b);
        self.at(RECONNECT_US, What::Reconnect { a: a.min(b), b: a.max(b) });
    }

    fn break_streams(&mut self, a: u64, b: u64) {
        for (from, to) in [(a, b), (b, a)] {
            if self.streams.remove(&(from, to)).is_some() && self.is_up(from) {
                self.event(from, Event::Disconnected { peer: NodeId(to) });
            }
        }
    }

    pub fn is_up(&self, id: u64) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.process.is_some())
    }

    fn reconnect(&mut self, a: u64, b: u64) {
        if self.cut.contains(&(a, b)) || !self.is_up(a) || !self.is_up(b) {
            return;
        }
        for (from, to) in [(a, b), (b, a)] {
            if !self.streams.contains_key(&(from, to)) {
                self.counter += 1;
                self.streams.insert((from, to), self.counter);
                self.event(from, Event::Connected { peer: NodeId(to) });
            }
        }
    }

    // --- Running.

    pub fn event(&mut self, id: u64, event: Event) {
        let now = self.time();
        let Some(process) = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut()) else {
            return;
        };
        let mut out = Vec::new();
        process.replica.handle(now, &process.beacons, event, &mut out);
        process.replica.check_invariants();
        for command in out {
            self.run_command(id, command);
        }
    }

    fn run_command(&mut self, id: u64, command: Command) {
        let mut devices = self.devices.iter().map(|(&key, device)| (key, device.client.id()));
        let node = self.nodes.get_mut(&id).expect("a node");
        let Some(process) = node.process.as_mut() else { return };
        let incarnation = process.incarnation;
        let back = |event| What::Event { node: id, incarnation: Some(incarnation), event };
        let store = &mut node.store;
        let (delay, what) = match command {
            Command::Append { mark, entries } => {
                store.append(entries);
                process.marks.push_back((mark, store.len()));
                (APPEND_US, back(Event::Received { mark }))
            }
            Command::Sync { mark } => (SYNC_US, back(Event::Durable { mark })),
            Command::Committed { sequence } => return store.forget(sequence),
            Command::Read { token, range } => {
                (APPEND_US, back(Event::ReadDone { token, result: store.view.read(range) }))
            }
            Command::Query { token, query, from, limit_blocks } => {
                let result = Ok(store.view.query(query, from, limit_blocks));
                (APPEND_US, back(Event::QueryDone { token, result }))
            }
            Command::ReadRecords { token, after, limit_bytes } => {
                let records = store.view.records(after, limit_bytes);
                (APPEND_US, back(Event::RecordsRead { token, records }))
            }
            Command::Reserve { bytes } => {
                (APPEND_US, back(Event::Reserved { bytes: store.reserve(bytes) }))
            }
            Command::Release { bytes } => return store.release(bytes),
            Command::Send { to, message } => return self.send(id, to.0, message),
            Command::Reply { id: request, reply } => {
                if let Some((device, _)) = devices.find(|(_, client)| *client == request.client) {
                    let message = ReplyMessage { slice: SLICE, id: request, reply };
                    let stream = request.stream;
                    let what = What::DeviceReply { device, node: id, stream, message };
                    return self.at(MESSAGE_US, what);
                }
                self.replies.insert(request, (id, reply));
                return;
            }
            Command::Propose { .. } => (RAFT_US, What::Propose { node: id, incarnation, command }),
            Command::QueryConfig => {
                if !self.raft.up || self.raft.unreachable.contains(&id) {
                    return;
                }
                (RAFT_US, back(Event::Config(self.raft.config.clone())))
            }
            Command::Vouch { epoch, peers } => {
                let event = BeaconEvent::Vouch { slice: SLICE, epoch, peers };
                return self.beacon_event(id, event);
            }
            Command::Note(note) => {
                self.notes.push((id, note));
                return;
            }
        };
        let from_disk = !matches!(what, What::Propose { .. })
            && !matches!(&what, What::Event { event: Event::Config(_), .. });
        if from_disk && self.hung.contains(&id) {
            process.held.push(what);
        } else {
            self.at(delay, what);
        }
    }

    fn send(&mut self, from: u64, to: u64, message: Message) {
        self.messages += 1;
        if let Some(&stream) = self.streams.get(&(from, to)) {
            let (header, frames) = message.encode();
            self.at(MESSAGE_US, What::Message { stream, from, to, header, frames });
        }
    }

    fn beacon_event(&mut self, id: u64, event: BeaconEvent) {
        let now = self.time();
        let Some(process) = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut()) else {
            return;
        };
        let mut out = Vec::new();
        process.beacons.handle(now, event, &mut out);
        for command in out {
            match command {
                BeaconCommand::Send { to, message } => {
                    let bytes = message.encode();
                    self.at(MESSAGE_US, What::Beacon { from: id, to: to.0, bytes });
                }
                BeaconCommand::Wake { slices } => {
                    assert_eq!(slices, [SLICE]);
                    let event = Event::Tick;
                    self.at(1, What::Event { node: id, incarnation: None, event });
                }
            }
        }
    }

    /// Does what comes next; tells whether anything was left to do before `end`.
    fn step(&mut self, end: u64) -> bool {
        let mut next = self.queue.keys().next().map_or(u64::MAX, |&(at, _)| at);
        let mut tick = None;
        for (&id, node) in &self.nodes {
            let Some(process) = &node.process else { continue };
            if self.paused.contains_key(&id) {
                continue;
            }
            let replica = process.replica.deadline().map(|due| (due, false));
            let beacons = process.beacons.deadline().map(|due| (due, true));
            for (due, is_beacon) in replica.into_iter().chain(beacons) {
                let due = (due.0.as_micros() as u64).max(self.now);
                if due < next {
                    next = due;
                    tick = Some((id, is_beacon));
                }
            }
        }
        let due = |(&key, device): (&u64, &Device)| Some((device.client.deadline()?, key));
        if let Some((due, key)) = self.devices.iter().filter_map(due).min() {
            let due = (due.0.as_micros() as u64).max(self.now);
            if due < next && due <= end {
                self.now = self.now.max(due);
                self.client_event(key, ClientEvent::Tick);
                return true;
            }
        }
        if next > end {
            self.now = end;
            return false;
        }
        self.now = self.now.max(next);
        match tick {
            Some((id, true)) => self.beacon_event(id, BeaconEvent::Tick),
            Some((id, false)) => self.event(id, Event::Tick),
            None => {
                let (_, what) = self.queue.pop_first().expect("something is due");
                let target = Self::target(&what).and_then(|node| self.paused.get_mut(&node));
                match target {
                    Some(held) => held.push(what),
                    None => self.happen(what),
                }
            }
        }
        true
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Event { node, incarnation, event } => {
                let process = self.nodes.get_mut(&node).and_then(|node| node.process.as_mut());
                let Some(process) = process else { return };
                if incarnation.is_some_and(|wanted| wanted != process.incarnation) {
                    return;
                }
                if let Event::Durable { mark } = &event {
                    let mut durable = 0;
                    while process.marks.front().is_some_and(|(front, _)| front <= mark) {
                        durable = process.marks.pop_front().expect("it is there").1;
                    }
                    let store = &mut self.nodes.get_mut(&node).expect("a node").store;
                    store.durable = store.durable.max(durable);
                }
                self.event(node, event);
            }
            What::Message { stream, from, to, header, frames } => {
                if self.streams.get(&(from, to)) == Some(&stream) {
                    let message = Message::decode(&header, frames).expect("its own encoding");
                    self.event(to, Event::Message { from: NodeId(from), message });
                }
            }
            What::Beacon { from, to, bytes } => {
                if !self.cut.contains(&(from.min(to), from.max(to))) {
                    let message = BeaconMessage::decode(&bytes).expect("its own encoding");
                    let from = NodeId(from);
                    self.beacon_event(to, BeaconEvent::Message { from, message });
                }
            }
            What::Reconnect { a, b } => self.reconnect(a, b),
            What::Opened { node } => {
                let process = self.nodes[&node].process.as_ref();
                if let Some(process) = process {
                    self.raft.opened.insert(PoolId(node), process.incarnation);
                }
            }
            What::Device(key, event) => self.client_event(key, event),
            What::Dial { device, node } => self.dial(device, node),
            What::DeviceRequest { device, node, stream, message } => {
                if self.has_stream(device, node, stream) {
                    let RequestMessage { id, request, .. } = message;
                    let from = NodeId(device);
                    self.event(node, Event::Request { from, id, request });
                }
            }
            What::DeviceReply { device, node, stream, message } => {
                if self.has_stream(device, node, stream) {
                    let from = NodeId(node);
                    self.client_event(device, ClientEvent::Reply { from, message });
                }
            }
            What::Propose { node, incarnation, command } => {
                self.propose(node, incarnation, command);
            }
        }
    }

    // --- Raft.

    fn propose(&mut self, id: u64, incarnation: Incarnation, command: Command) {
        let Command::Propose { id: proposal, change } = &command else { return };
        let back = |outcome| What::Event {
            node: id,
            incarnation: Some(incarnation),
            event: Event::Proposed { id: *proposal, outcome },
        };
        if !self.raft.up || self.raft.unreachable.contains(&id) {
            return self.at(1_000_000, back(ProposalOutcome::Unknown));
        }
        let silent = |node: &&u64| !self.is_up(**node) || self.raft.unreachable.contains(node);
        let gone: BTreeSet<NodeId> =
            self.nodes.keys().filter(silent).map(|node| NodeId(*node)).collect();
        let raft = &mut self.raft;
        let opened = |pool: PoolId| raft.opened.get(&pool).copied();
        let result = raft
            .config
            .check_entitled(change)
            .and_then(|()| raft.config.check_needed(change, opened, &gone))
            .and_then(|()| raft.config.apply(change, |pool| raft.opened.get(&pool).copied()));
        let config = raft.config.clone();
        let applied = result.is_ok();
        let outcome = if raft.forget_outcomes > 0 {
            raft.forget_outcomes -= 1;
            ProposalOutcome::Unknown
        } else {
            match result {
                Ok(()) => ProposalOutcome::Accepted(config),
                Err(refused) => ProposalOutcome::Refused(refused, config),
            }
        };
        self.at(1, back(outcome));
        if applied {
            self.publish();
        }
    }

    /// Tells the configuration to every node, as late as each applies it.
    pub fn publish(&mut self) {
        for node in self.ids() {
            if self.raft.unreachable.contains(&node) {
                continue;
            }
            let lag = self.raft.lag.get(&node).copied().unwrap_or(500);
            let event = Event::Config(self.raft.config.clone());
            self.at(lag, What::Event { node, incarnation: None, event });
        }
        let (slice, config) = (SLICE.index, self.raft.config.clone());
        for key in self.devices.keys().copied().collect::<Vec<_>>() {
            let event = ClientEvent::Config { slice, config: config.clone() };
            self.at(500, What::Device(key, event));
        }
    }

    // --- A client, which sends again until it is answered.

    pub fn send_request(&mut self, operation: Operation) -> RequestId {
        self.next_number += 1;
        let number = self.next_number;
        let id = RequestId { client: ClientId(1), stream: StreamId(self.stream), number };
        let (epoch, primary) = (self.raft.config.epoch, self.raft.config.primary.0);
        self.request_at(primary, id, epoch, operation);
        id
    }

    pub fn request_at(&mut self, node: u64, id: RequestId, epoch: Epoch, operation: Operation) {
        self.request_as(Credential::Attachment(self.attachment), node, id, epoch, operation);
    }

    pub fn request_as(
        &mut self,
        credential: Credential,
        node: u64,
        id: RequestId,
        epoch: Epoch,
        operation: Operation,
    ) {
        let request = Request { epoch, credential, operation };
        // A session is that of the node with its number.
        let from = NodeId(credential.session().map_or(1, |session| session.0));
        let event = Event::Request { from, id, request };
        self.at(MESSAGE_US, What::Event { node, incarnation: None, event });
    }

    /// Asks until there is an answer other than to come again; within five seconds.
    pub fn ask(&mut self, operation: Operation) -> Outcome {
        self.try_ask(operation.clone(), 8_000_000)
            .unwrap_or_else(|| panic!("{operation:?} has no answer: {}", self.describe()))
    }

    pub fn try_ask(&mut self, operation: Operation, patience: u64) -> Option<Outcome> {
        let end = self.now + patience;
        while self.now < end {
            let id = self.send_request(operation.clone());
            let again = (self.now + 300_000).min(end);
            while !self.replies.contains_key(&id) && self.step(again) {}
            match self.replies.remove(&id) {
                Some((_, Reply { outcome: Outcome::Refused(refusal), .. })) => match refusal {
                    mooring_replication::Refusal::Moved { .. }
                    | mooring_replication::Refusal::Busy => self.run(20_000),
                    other => return Some(Outcome::Refused(other)),
                },
                Some((_, reply)) => return Some(reply.outcome),
                None => self.stream += 1,
            }
        }
        None
    }

    pub fn seal(&mut self, attachment: u64) {
        self.attachment = AttachmentEpoch(attachment);
        assert_eq!(self.ask(Operation::Seal), Outcome::Sealed);
    }

    pub fn write(&mut self, block: u64, value: u64) {
        let outcome = self.ask(write(block, value, false));
        assert!(matches!(outcome, Outcome::Written(_)), "{outcome:?}");
    }

    pub fn write_durably(&mut self, block: u64, value: u64) {
        let outcome = self.ask(write(block, value, true));
        assert!(matches!(outcome, Outcome::Written(_)), "{outcome:?}");
    }

    pub fn discard(&mut self, block: u64) {
        let range = BlockRange::new(BlockIndex(block), 1);
        let outcome = self.ask(Operation::Discard { range, fua: false });
        assert!(matches!(outcome, Outcome::Written(_)), "{outcome:?}");
    }

    pub fn flush(&mut self) {
        assert_eq!(self.ask(Operation::Flush), Outcome::Flushed);
    }

    pub fn read(&mut self, block: u64) -> u64 {
        let range = BlockRange::new(BlockIndex(block), 1);
        match self.ask(Operation::Read(range)) {
            Outcome::Read(extents) => values(&extents)[0],
            other => panic!("block {block} can't be read: {other:?}"),
        }
    }

    // --- Time and state.

    pub fn run(&mut self, us: u64) {
        let end = self.now + us;
        while self.step(end) {}
    }

    pub fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let end = self.now + 60_000_000;
        while !done(self) {
            assert!(self.step(end), "never: {what}: {}", self.describe());
        }
    }

    /// The node whose replica serves, if one does in Raft's epoch.
    pub fn primary(&self) -> Option<u64> {
        let config = &self.raft.config;
        let node = self.nodes.get(&config.primary.0)?;
        let status = node.process.as_ref()?.replica.status();
        (status.role == Role::Primary && status.epoch == config.epoch).then_some(config.primary.0)
    }

    pub fn in_sync(&self) -> Vec<u64> {
        self.raft.config.in_sync.iter().map(|member| member.node.0).collect()
    }

    /// Runs until every node that is up is in sync and the primary serves.
    pub fn settle(&mut self) {
        self.run_until("all in sync", |c| {
            let up: Vec<u64> = c.ids().into_iter().filter(|&id| c.is_up(id)).collect();
            c.primary().is_some()
                && up.iter().all(|id| {
                    let listed = c.raft.config.in_sync_member(NodeId(*id));
                    let process = c.nodes[id].process.as_ref();
                    listed.map(|l| l.incarnation) == process.map(|p| p.incarnation)
                })
        });
        self.run(50_000);
    }

    /// Replicas that are in sync and up hold the same blocks.
    pub fn check_replicas_agree(&self) {
        let listed = self.raft.config.in_sync.iter().filter(|member| {
            let process = self.nodes[&member.node.0].process.as_ref();
            process.is_some_and(|process| process.incarnation == member.incarnation)
        });
        let views: Vec<(u64, BTreeMap<u64, _>)> = listed
            .map(|member| {
                let view = &self.nodes[&member.node.0].store.view;
                assert!(!view.joining, "the engine of {:?} was not told to end", member.node);
                let shown = view
                    .blocks
                    .iter()
                    .filter(|(_, slot)| slot.missing || slot.version.epoch > Epoch(0))
                    .map(|(block, slot)| (*block, (slot.version, slot.missing, view.value(*block))))
                    .collect();
                (member.node.0, shown)
            })
            .collect();
        for pair in views.windows(2) {
            assert_eq!(pair[0].1, pair[1].1, "nodes {} and {}", pair[0].0, pair[1].0);
        }
    }

    pub fn value_at(&self, node: u64, block: u64) -> Option<u64> {
        self.nodes[&node].store.view.value(block)
    }

    pub fn status(&self, node: u64) -> Option<mooring_replication::Status> {
        Some(self.nodes[&node].process.as_ref()?.replica.status())
    }

    pub fn describe(&self) -> String {
        let mut text = format!("at {} us, raft {:?}\n", self.now, self.raft.config);
        for (id, node) in &self.nodes {
            let status = node.process.as_ref().map(|process| process.replica.status());
            text += &format!("  node {id}: {status:?}\n");
        }
        let skip = self.notes.len().saturating_sub(12);
        for (id, note) in &self.notes[skip..] {
            text += &format!("  note of {id}: {note:?}\n");
        }
        text
    }
}

pub fn write(block: u64, value: u64, fua: bool) -> Operation {
    Operation::Write { first: BlockIndex(block), data: data_of(value, 1), fua }
}

/// The numbers in what was read.
pub fn values(extents: &[Extent]) -> Vec<u64> {
    let mut values = Vec::new();
    for extent in extents {
        match extent {
            Extent::Hole { range, .. } => values.extend((0..range.count).map(|_| 0)),
            Extent::Data { data, .. } => {
                values.extend((0..data.blocks()).map(|i| value_of(data.block(i as usize))));
            }
            Extent::Missing { .. } => panic!("a client never sees a missing block"),
        }
    }
    values
}
