//! The client side of one attachment: from the device's I/O on a volume to requests on its slices.
//!
//! ```text
//!   device ── Io ──> split over slices ──> Lane (one a slice) ──> primary
//!          <─ Done ─ put together     <─── Reply
//! ```
//!
//! It routes to primaries, and sends again after a change of epoch, a lost stream or a refusal that
//! passes; I/O is held for as long as that takes (or for `io_timeout`). Being fenced is final.
//!
//! Invariants:
//! - nothing but seals is sent in a slice before its seal is answered;
//! - overlapping requests are never on their way together;
//! - a FLUSH is done only when every slice with acknowledged writes since its last completed FLUSH
//!   has answered one, and no acknowledged write was lost.

mod admissions;
mod command;
mod coordinator;
mod event;
mod kept;
mod lane;
mod lanes;
mod options;
mod session;
mod task;

use std::collections::BTreeMap;
use std::time::Duration;

use mooring_terms::{Epoch, NodeId, Sequence, SliceId, SliceIndex, Time};

use self::coordinator::Sessions;
use self::kept::Lost;
use self::lane::{Class, Lane, Part, touches};
use self::lanes::Lanes;
use self::task::{Task, read_parts, split, version_parts};
use crate::request::{
    ClientId, Credential, Operation, Outcome, Refusal, Registration, Reply, ReplyMessage, Request,
    RequestId, RequestMessage, StreamId,
};

pub use command::{ClientCommand, IoError, IoPart};
pub use event::{ClientEvent, Io, IoId, VolumeBlock, VolumeRange};
pub use options::{ClientOptions, ClientRole, TREE_BLOCKS, TREE_FIRST};

/// Of `retry`: how often an unanswered request makes the client ask for the configuration.
const ASKS: u32 = 10;

/// How soon a request is sent again that came before its primary knew of the epoch; doubled each time.
const EARLY: Duration = Duration::from_millis(2);

/// The client of one attachment: a pure core.
#[derive(Debug)]
pub struct VolumeClient {
    options: ClientOptions,
    lanes: Lanes,
    tasks: BTreeMap<IoId, Task>,
    links: BTreeMap<NodeId, Link>,
    numbers: u64,
    told_sealed: bool,
    /// A coordinator's.
    sessions: Sessions,
    /// Why everything fails, if it does.
    over: Option<IoError>,
}

/// The stream to a node.
#[derive(Debug, Default)]
struct Link {
    stream: Option<StreamId>,
    /// Asked for, and not answered.
    asked: bool,
    again: Option<Time>,
}

impl VolumeClient {
    /// A client that begins with sealing its attachment in every slice. The first event may be
    /// anything; feed it the slices' configurations as soon as they are known.
    #[must_use]
    pub fn new(options: ClientOptions) -> Self {
        let mut client = Self {
            options,
            lanes: Lanes::default(),
            tasks: BTreeMap::new(),
            links: BTreeMap::new(),
            numbers: 0,
            told_sealed: false,
            sessions: Sessions::default(),
            over: None,
        };
        client.add_lanes();
        client
    }

    /// Takes an event and says what is to be done.
    pub fn handle(&mut self, now: Time, event: ClientEvent, out: &mut Vec<ClientCommand>) {
        match event {
            ClientEvent::Config { slice, config } => {
                let is_session = matches!(self.options.role, ClientRole::Session(_));
                if config.seal > self.options.attachment && !is_session {
                    // A loss was accepted: the volume is not the one that was attached any more.
                    return self.end(IoError::TailLost, out);
                }
                let (epoch, primary) = (config.epoch, Some(config.primary));
                self.learn(now, slice, epoch, primary, config.tail_lost, out);
            }
            ClientEvent::Submit { id, io } => self.submit(now, id, &io, out),
            ClientEvent::Connected { node, stream } => {
                let link = Link { stream: Some(stream), asked: false, again: None };
                self.links.insert(node, link);
                self.unsend(node);
                self.pump_node(now, node, out);
            }
            ClientEvent::Disconnected { node } => {
                let link = self.links.entry(node).or_default();
                *link = Link { again: Some(now + self.options.retry), ..Link::default() };
                self.unsend(node);
            }
            ClientEvent::Reply { from, message } => self.on_reply(now, from, message, out),
            ClientEvent::Resized { blocks } => {
                self.options.blocks = self.options.blocks.max(blocks);
                self.add_lanes();
                self.pump_all(now, out);
            }
            ClientEvent::Coordinator { attachment } => self.on_coordinator(now, attachment, out),
            ClientEvent::Admitted { slice } => self.on_admitted(now, slice, out),
            ClientEvent::Register { session, node } => self.sessions.register(session, node),
            ClientEvent::Leased { until } => self.on_leased(now, until, out),
            ClientEvent::Admit { slice, session } => self.admit(now, slice, session, out),
            ClientEvent::Fence { session } => self.fence(now, session, out),
            ClientEvent::IoTimeout { timeout } => {
                self.options.io_timeout = timeout;
                for task in self.tasks.values_mut() {
                    task.hold_for(timeout);
                }
            }
            ClientEvent::Close => self.end(IoError::Closed, out),
            ClientEvent::Tick => self.on_tick(now, out),
        }
        self.lanes.settle();
    }

    /// When [`ClientEvent::Tick`] is due; `None` while nothing is pending.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        if self.over.is_some() {
            return None;
        }
        let lanes = self.lanes.deadline().into_iter();
        let tasks = self.tasks.values().filter_map(|task| task.deadline);
        let links = self.links.iter().filter_map(|(node, link)| Some((*node, link.again?)));
        let links = links.filter(|(node, _)| self.is_needed(*node)).map(|(_, again)| again);
        lanes.chain(tasks).chain(links).chain(self.fence_deadline()).min()
    }

    /// Whether every slice has sealed the attachment; of a coordinator: slice 0.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        match self.options.role {
            ClientRole::Device => self.lanes.iter().all(|(_, lane)| lane.sealed),
            ClientRole::Coordinator => {
                self.lanes.get(SliceIndex(0)).is_some_and(|lane| lane.sealed)
            }
            ClientRole::Session(_) => false,
        }
    }

    /// Whose client it is, in the handshake of every stream.
    #[must_use]
    pub fn id(&self) -> ClientId {
        self.options.client
    }

    /// Whether everything fails, for good.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// I/Os that are not done.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.tasks.len()
    }

    /// The newest epoch of a slice that began without all that was acknowledged before; `Epoch(0)` if none
    /// did. As of the slice's last answer here.
    #[must_use]
    pub fn tail_lost(&self, slice: SliceIndex) -> Epoch {
        self.lanes.get(slice).map_or(Epoch(0), |lane| lane.tail_lost)
    }

    /// Bytes of acknowledged writes that are kept until they are durable.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        self.lanes.iter().map(|(_, lane)| lane.kept.bytes()).sum()
    }

    fn add_lanes(&mut self) {
        let slices = self.options.blocks.div_ceil(self.options.slice_blocks.max(1));
        let known = self.lanes.len() as u64;
        for index in known..slices {
            let index = SliceIndex(u32::try_from(index).unwrap_or(u32::MAX));
            let slice = SliceId { volume: self.options.volume, index };
            let number = self.number();
            let role = self.options.role;
            let mut lane = Lane::new(slice, role);
            if !matches!(role, ClientRole::Session(_)) {
                lane.parts.insert((Class::Seal, number), own_part(Operation::Seal));
            }
            self.lanes.insert(index, lane);
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    // --- The device.

    fn submit(&mut self, now: Time, id: IoId, io: &Io, out: &mut Vec<ClientCommand>) {
        if let Some(error) = self.over {
            out.push(ClientCommand::Done { id, result: Err(error) });
            return;
        }
        let parts = match io {
            Io::Flush => {
                let dirty = self.lanes.iter().filter(|(_, lane)| lane.needs_flush());
                dirty.map(|(index, _)| (index, Operation::Flush)).collect()
            }
            Io::FlushSlices(slices) => {
                slices.iter().map(|&index| (index, Operation::Flush)).collect()
            }
            _ => match split(&self.options, io) {
                Ok(parts) => parts,
                Err(error) => {
                    out.push(ClientCommand::Done { id, result: Err(error) });
                    return;
                }
            },
        };
        let unknown = parts.iter().any(|(index, _)| self.lanes.get(*index).is_none());
        if parts.is_empty() || unknown {
            let result = if unknown { Err(IoError::Invalid) } else { Ok(Vec::new()) };
            out.push(ClientCommand::Done { id, result });
            return;
        }
        if parts.iter().any(|(_, operation)| *operation == Operation::Flush)
            && self.take_loss(&parts)
        {
            out.push(ClientCommand::Done { id, result: Err(IoError::TailLost) });
            return;
        }
        self.tasks.insert(id, Task::new(parts.len(), now, self.options.io_timeout));
        for (i, (index, operation)) in parts.into_iter().enumerate() {
            let number = self.number();
            let Some(lane) = self.lanes.get_mut(index) else { continue };
            let covers = lane.acknowledged;
            let part = Part { io: Some((id, i)), covers, ..own_part(operation) };
            lane.parts.insert((Class::Device, number), part);
            self.pump(now, index, out);
        }
    }

    fn done(&mut self, id: IoId, result: Result<(), IoError>, out: &mut Vec<ClientCommand>) {
        let Some(task) = self.tasks.remove(&id) else { return };
        let result = result.map(|()| task.into_result());
        if result.is_err() {
            self.abandon(id);
        }
        out.push(ClientCommand::Done { id, result });
    }

    /// The I/O has failed: what of it was not sent never is; what was keeps its place in the order.
    fn abandon(&mut self, id: IoId) {
        self.lanes.change_busy(|_, lane| {
            lane.parts.retain(|_, part| {
                let own = part.io.is_some_and(|(io, _)| io == id);
                if own {
                    part.io = None;
                }
                !own || part.sent.is_some()
            });
        });
    }

    /// Everything fails, for good.
    fn end(&mut self, error: IoError, out: &mut Vec<ClientCommand>) {
        if self.over.is_some() {
            return;
        }
        self.over = Some(error);
        for (id, _) in std::mem::take(&mut self.tasks) {
            out.push(ClientCommand::Done { id, result: Err(error) });
        }
        self.lanes.change_busy(|_, lane| lane.parts.clear());
        match error {
            IoError::Fenced { by } => out.push(ClientCommand::Fenced { by }),
            IoError::TailLost => out.push(ClientCommand::TailLost),
            _ => {}
        }
    }

    // --- Slices and their primaries.

    /// A slice's epoch became known, from Raft or from a replica.
    fn learn(
        &mut self,
        now: Time,
        index: SliceIndex,
        epoch: Epoch,
        primary: Option<NodeId>,
        tail_lost: Epoch,
        out: &mut Vec<ClientCommand>,
    ) {
        let Some(lane) = self.lanes.get_mut(index) else { return };
        if epoch < lane.epoch || self.over.is_some() {
            return;
        }
        let known = lane.epoch;
        lane.tail_lost = lane.tail_lost.max(tail_lost);
        let moved = primary.is_some() && primary != lane.primary;
        if epoch > lane.epoch || moved {
            lane.primary = if epoch > lane.epoch { primary } else { primary.or(lane.primary) };
            lane.epoch = epoch;
            lane.admissions.next_epoch();
            lane.unsend();
        }
        self.register_where_pending(now, index);
        let Some(lane) = self.lanes.get_mut(index) else { return };
        match lane.kept.take_lost(tail_lost) {
            Lost::ForEver if !self.options.sends_again(index) => self.note_loss(index, out),
            Lost::ForEver => return self.end(IoError::TailLost, out),
            Lost::Again(operations) if operations.is_empty() => {}
            Lost::Again(operations) => self.send_again(index, operations),
        }
        // What sessions wrote there may be gone, and is named by commits.
        let lost_since = known > Epoch(0) && tail_lost > known;
        if lost_since && self.options.role == ClientRole::Coordinator {
            return self.end_after_again(now, index, out);
        }
        self.pump(now, index, out);
    }

    /// Puts lost writes before everything else, with those that were being sent again already.
    fn send_again(&mut self, index: SliceIndex, mut operations: Vec<Operation>) {
        let Some(lane) = self.lanes.get_mut(index) else { return };
        let going: Vec<(Class, u64)> =
            lane.parts.keys().filter(|(class, _)| *class == Class::Again).copied().collect();
        for place in going {
            operations.extend(lane.parts.remove(&place).map(|part| part.operation));
        }
        for operation in operations {
            let number = self.number();
            if let Some(lane) = self.lanes.get_mut(index) {
                lane.parts.insert((Class::Again, number), own_part(operation));
            }
        }
    }

    fn unsend(&mut self, node: NodeId) {
        self.lanes.change_busy(|_, lane| {
            if lane.primary == Some(node) {
                lane.unsend();
            }
        });
    }

    fn is_needed(&self, node: NodeId) -> bool {
        let needs = |lane: &Lane| lane.primary == Some(node) && !lane.parts.is_empty();
        self.lanes.busy().any(|(_, lane)| needs(lane))
    }

    fn pump_node(&mut self, now: Time, node: NodeId, out: &mut Vec<ClientCommand>) {
        let on_it = self.lanes.busy().filter(|(_, lane)| lane.primary == Some(node));
        for index in on_it.map(|(index, _)| index).collect::<Vec<_>>() {
            self.pump(now, index, out);
        }
    }

    fn pump_all(&mut self, now: Time, out: &mut Vec<ClientCommand>) {
        for index in self.lanes.busy().map(|(index, _)| index).collect::<Vec<_>>() {
            self.pump(now, index, out);
        }
    }

    /// Sends what may be sent in one slice.
    fn pump(&mut self, now: Time, index: SliceIndex, out: &mut Vec<ClientCommand>) {
        let Some(lane) = self.lanes.get_mut(index) else { return };
        if lane.parts.is_empty() {
            lane.ask_again = None;
            return;
        }
        let Some(node) = lane.primary else {
            if lane.ask_again.is_none() {
                lane.ask_again = Some(now + self.options.retry);
                out.push(ClientCommand::QueryConfig { slice: index });
            }
            return;
        };
        lane.ask_again.get_or_insert(now + self.options.retry * ASKS);
        let link = self.links.entry(node).or_default();
        let Some(stream) = link.stream else {
            if !link.asked && link.again.is_none_or(|again| again <= now) {
                link.asked = true;
                link.again = None;
                out.push(ClientCommand::Connect { node });
            }
            return;
        };
        for place in lane.ready(now) {
            let Some(part) = lane.parts.get_mut(&place) else { continue };
            part.sent = Some(stream);
            part.again = None;
            let id = RequestId { client: self.options.client, stream, number: place.1 };
            let attachment = self.options.attachment;
            let credential = match self.options.role {
                ClientRole::Session(session) => Credential::Session { attachment, session },
                _ => Credential::Attachment(attachment),
            };
            if let Operation::Register(registration) = &mut part.operation {
                self.numbers += 1;
                let is_leased = self.sessions.is_leased(now);
                let sessions = &self.sessions;
                *registration = lane.admissions.registration(self.numbers, is_leased, sessions);
            }
            let operation = part.operation.clone();
            let request = Request { epoch: lane.epoch, credential, operation };
            let message = RequestMessage { slice: lane.slice, id, request };
            out.push(ClientCommand::Send { node, message });
        }
    }

    // --- Answers.

    fn on_reply(
        &mut self,
        now: Time,
        from: NodeId,
        message: ReplyMessage,
        out: &mut Vec<ClientCommand>,
    ) {
        let index = message.slice.index;
        let Some(lane) = self.lanes.get_mut(index) else { return };
        let ours = message.slice == lane.slice && message.id.client == self.options.client;
        let Some(place) = lane.find(message.id.number).filter(|_| ours) else { return };
        let Some(part) = lane.parts.get(&place) else { return };
        // An answer on an older stream may be to a request that is on its way once more.
        if part.sent != Some(message.id.stream) || lane.primary != Some(from) {
            return;
        }
        let Reply { epoch, durable, outcome } = message.reply;
        if let Outcome::Refused(refusal) = outcome {
            return self.on_refusal(now, index, place, refusal, out);
        }
        if epoch < lane.epoch {
            return;
        }
        let read = match (&part.operation, outcome) {
            (Operation::Read(range), Outcome::Read(extents)) => read_parts(*range, extents),
            (Operation::Versions(range), Outcome::Versions(versions)) => {
                version_parts(*range, versions)
            }
            (Operation::Write { .. } | Operation::Discard { .. }, Outcome::Written(version)) => {
                let operation = part.operation.clone();
                let sequence = version.sequence;
                lane.acknowledged += 1;
                lane.last_sequence = sequence;
                if sequence > durable {
                    let again = self.options.sends_again(index);
                    let limit = if again { self.options.keep_bytes } else { 0 };
                    lane.kept.keep(epoch, sequence, operation, limit);
                }
                let tells = self.options.role != ClientRole::Device;
                Some(if tells { vec![IoPart::Written(index, version)] } else { Vec::new() })
            }
            (Operation::Register(_), Outcome::Registered { at, used }) => {
                self.on_registered(now, index, at, &used, out);
                Some(Vec::new())
            }
            (Operation::Flush, Outcome::Flushed) => {
                lane.flushed = lane.flushed.max(part.covers);
                Some(Vec::new())
            }
            (Operation::Seal, Outcome::Sealed) => {
                lane.sealed = true;
                lane.flushed = lane.flushed.max(1).min(lane.acknowledged);
                self.sessions.sealed(now, index);
                Some(Vec::new())
            }
            _ => None,
        };
        let Some(read) = read else {
            return self.put_off(now, index, place, out);
        };
        let Some(lane) = self.lanes.get_mut(index) else { return };
        let io = lane.parts.remove(&place).and_then(|part| part.io);
        lane.ask_again = None;
        lane.knocked = None;
        if lane.ends_after_again && place.0 == Class::Again {
            return self.end_after_again(now, index, out);
        }
        self.note_durable(index, durable);
        self.flush_if_much_is_kept(index);
        if let Some((id, i)) = io
            && self.tasks.get_mut(&id).is_some_and(|task| task.answered(i, read))
        {
            self.done(id, Ok(()), out);
        }
        if !self.told_sealed && self.is_sealed() {
            self.told_sealed = true;
            out.push(ClientCommand::Sealed);
        }
        if !self.sessions.fences.is_empty() || self.options.role == ClientRole::Coordinator {
            self.register_where_pending(now, index);
            self.finish_fences(now, out);
        }
        self.pump(now, index, out);
    }

    /// Everything up to `durable` is on media everywhere.
    fn note_durable(&mut self, index: SliceIndex, durable: Sequence) {
        let Some(lane) = self.lanes.get_mut(index) else { return };
        lane.kept.durable(durable);
        if lane.kept.is_empty() && lane.last_sequence <= durable {
            lane.flushed = lane.acknowledged;
        }
    }

    /// Makes durable what fills the room for kept writes.
    fn flush_if_much_is_kept(&mut self, index: SliceIndex) {
        let Some(lane) = self.lanes.get(index) else { return };
        let much = lane.kept.bytes() > self.options.keep_bytes / 2;
        let flushing = lane.parts.values().any(|part| part.operation == Operation::Flush);
        if much && !flushing {
            let covers = lane.acknowledged;
            let number = self.number();
            if let Some(lane) = self.lanes.get_mut(index) {
                let part = Part { covers, ..own_part(Operation::Flush) };
                lane.parts.insert((Class::Device, number), part);
            }
        }
    }

    fn on_refusal(
        &mut self,
        now: Time,
        index: SliceIndex,
        place: (Class, u64),
        refusal: Refusal,
        out: &mut Vec<ClientCommand>,
    ) {
        let Some(lane) = self.lanes.get_mut(index) else { return };
        let error = match refusal {
            Refusal::Moved { epoch, primary, tail_lost } => {
                let known = (lane.epoch, lane.primary);
                let is_early = epoch < lane.epoch;
                if let Some(part) = lane.parts.get_mut(&place) {
                    part.sent = None;
                    // A new primary is about to hear that it is one.
                    let wait = if is_early {
                        EARLY * (1 << part.early.min(8))
                    } else {
                        self.options.retry
                    };
                    part.again = Some(now + wait.min(self.options.retry));
                    part.early += u32::from(is_early);
                }
                if (epoch, primary.or(known.1)) == known {
                    // It knows no more than we do: someone else has to be asked.
                    out.push(ClientCommand::QueryConfig { slice: index });
                }
                return self.learn(now, index, epoch, primary, tail_lost, out);
            }
            Refusal::NotRegistered => return self.knock(now, index, place, out),
            Refusal::Fenced { .. } | Refusal::NotSealed
                if matches!(self.options.role, ClientRole::Session(_)) =>
            {
                return self.knock(now, index, place, out);
            }
            Refusal::Busy | Refusal::Damaged { .. } => {
                return self.put_off(now, index, place, out);
            }
            Refusal::NotSealed => {
                if std::mem::replace(&mut lane.sealed, false) {
                    let number = self.numbers + 1;
                    self.numbers = number;
                    lane.parts.insert((Class::Seal, number), own_part(Operation::Seal));
                }
                return self.put_off(now, index, place, out);
            }
            Refusal::Fenced { by } => return self.end(IoError::Fenced { by }, out),
            Refusal::NoSpace { node } => IoError::NoSpace { node },
            Refusal::Corrupt { slice, block, node } => IoError::Corrupt { slice, block, node },
            Refusal::Invalid => IoError::Invalid,
        };
        if place.0 == Class::Again {
            // An acknowledged write that can't be written again is a lost one.
            return self.end(IoError::TailLost, out);
        }
        let io = lane.parts.remove(&place).and_then(|part| part.io);
        if let Some((id, _)) = io {
            self.done(id, Err(error), out);
        }
        self.pump(now, index, out);
    }

    /// Sends a request again a little later.
    fn put_off(
        &mut self,
        now: Time,
        index: SliceIndex,
        place: (Class, u64),
        out: &mut Vec<ClientCommand>,
    ) {
        let again = now + self.options.retry;
        let part = self.lanes.get_mut(index).and_then(|lane| lane.parts.get_mut(&place));
        if let Some(part) = part {
            part.sent = None;
            part.again = Some(again);
        }
        self.pump(now, index, out);
    }

    fn on_tick(&mut self, now: Time, out: &mut Vec<ClientCommand>) {
        let late = |task: &Task| task.deadline.is_some_and(|deadline| deadline <= now);
        let late: Vec<IoId> =
            self.tasks.iter().filter(|(_, task)| late(task)).map(|(&id, _)| id).collect();
        for id in late {
            self.done(id, Err(IoError::TimedOut), out);
        }
        let ask_again = now + self.options.retry * ASKS;
        self.lanes.change_busy(|index, lane| {
            for part in lane.parts.values_mut() {
                part.again = part.again.filter(|again| *again > now);
            }
            if lane.ask_again.is_some_and(|at| at <= now) && !lane.parts.is_empty() {
                out.push(ClientCommand::QueryConfig { slice: index });
                lane.ask_again = Some(ask_again);
            }
        });
        for link in self.links.values_mut() {
            link.again = link.again.filter(|again| *again > now);
        }
        self.finish_fences(now, out);
        self.pump_all(now, out);
    }

    /// Panics if the client contradicts itself.
    ///
    /// # Panics
    /// Then.
    pub fn check_invariants(&self) {
        self.lanes.check_invariants();
        for (_, lane) in self.lanes.iter() {
            let sent: Vec<&Part> = lane.parts.values().filter(|p| p.sent.is_some()).collect();
            for (i, one) in sent.iter().enumerate() {
                for other in &sent[i + 1..] {
                    let ((a, a_writes), (b, b_writes)) =
                        (touches(&one.operation), touches(&other.operation));
                    let overlap = a.zip(b).is_some_and(|(a, b)| a.overlaps(&b));
                    assert!(!(overlap && (a_writes || b_writes)), "overlapping: {one:?} {other:?}");
                }
            }
            assert!(lane.flushed <= lane.acknowledged, "flushed is acknowledged");
        }
    }
}

/// A request of the client's own.
fn own_part(operation: Operation) -> Part {
    Part { operation, io: None, sent: None, again: None, early: 0, covers: 0 }
}
