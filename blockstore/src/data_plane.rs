//! The data plane of one node: its slices, the volumes used here, and the streams between them.
//!
//! ```text
//!   device ── Volume ──┬── function call ──> Slice ── Pool
//!                      └── stream ── other node: Slice
//!   Slice ── stream ── the slice's replicas on other nodes
//! ```
//!
//! It routes and decides nothing. It needs neither Raft nor gossip to keep going: what it wants of the
//! configuration goes through [`ConfigPort`], and comes back whenever it comes back.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::Duration;

use dashmap::{DashMap, DashSet};
use mooring_config::{ClusterVersion, SliceChange, SliceConfig};
use mooring_replication::{
    Beacons, ClientId, Event, Message, Note, Operation, Options, Outcome, ProposalId, Refusal,
    Reply, ReplyMessage, Request, RequestId, RequestMessage, Role,
};
use mooring_terms::{
    AttachmentEpoch, BlockRange, Epoch, NodeId, PoolId, Sequence, SessionId, SliceId, SliceIndex,
    VolumeId,
};
use mooring_transport::{Channel, Handler, StreamId as TransportStream, Transport};

use crate::agenda::Agenda;
use crate::beacon::BeaconBoard;
use crate::errands::{self, Cover};
use crate::event_log::EventLog;
use crate::pool::Pool;
use crate::remote::Desk;
use crate::remote::proto::{LinkMessage, Told};
use crate::slice::{Run, Slice, SlicePorts};
use crate::timers::{Due, Timers};
use crate::volume::{Volume, VolumePorts};
use crate::wire::{ClientHello, Envelope, EnvelopeError, Home};

/// Between two times that the primaries of a pool that hangs are asked to resign.
const RESIGN_PAUSE: Duration = Duration::from_secs(1);

/// What the data plane wants of the configuration.
pub trait ConfigPort: Send + Sync {
    /// Proposes a change; its outcome is delivered to the slice.
    fn propose(&self, slice: SliceId, id: ProposalId, change: SliceChange);
    /// Reads a slice's configuration linearizably, and gives it to [`DataPlane::configured`].
    fn query(&self, slice: SliceId);
    /// Which node holds the volume, and under which attachment, as far as is known here.
    fn holder(&self, volume: VolumeId) -> Option<(NodeId, AttachmentEpoch)>;
    /// A node's name, for people.
    fn node_name(&self, node: NodeId) -> String;
    /// A slice's name, for people.
    fn slice_name(&self, slice: SliceId) -> String;
    /// A beacon of `from` has come: it is alive.
    fn heard(&self, from: NodeId);
    /// What a process beside a daemon asks about the cluster.
    fn tell(&self, volume: VolumeId, slices: &[SliceIndex]) -> Told;
    /// This node's key and certificates, for its own processes.
    fn identity(&self) -> Option<Vec<u8>>;
    /// What takes control messages.
    fn control(&self, from: NodeId, message: mooring_transport::Message);
    /// The control stream to a peer is new, or gone: what waits for an answer of its waits in vain.
    fn control_broken(&self, peer: NodeId);
}

/// See the module.
pub struct DataPlane {
    me: NodeId,
    transport: OnceLock<Arc<dyn Transport>>,
    config: OnceLock<Weak<dyn ConfigPort>>,
    slices: DashMap<SliceId, Arc<Slice>>,
    volumes: DashMap<VolumeId, Arc<Volume>>,
    /// Where the clients are that introduced themselves.
    clients: DashMap<ClientId, (Home, ClientHello)>,
    /// Letters of processes, and who takes them.
    desk: Desk,
    /// Peers to which the data stream is up.
    connected: DashSet<NodeId>,
    beacons: Arc<BeaconBoard>,
    slice_timers: Arc<Timers<SliceId>>,
    volume_timers: Arc<Timers<VolumeId>>,
    events: Arc<EventLog>,
    this: Weak<Self>,
}

impl DataPlane {
    /// A data plane without streams: see [`DataPlane::start`].
    #[must_use]
    pub fn new(me: NodeId, options: &Options, events: Arc<EventLog>) -> Arc<Self> {
        let slice_timers = Timers::new();
        let beacons = Beacons::new(options);
        let pool_patience: Duration = options.lease;
        let beacons = BeaconBoard::new(beacons, Arc::clone(&slice_timers), pool_patience);
        Arc::new_cyclic(|this| Self {
            me,
            transport: OnceLock::new(),
            config: OnceLock::new(),
            slices: DashMap::new(),
            volumes: DashMap::new(),
            clients: DashMap::new(),
            desk: Desk::default(),
            connected: DashSet::new(),
            beacons,
            slice_timers,
            volume_timers: Timers::new(),
            events,
            this: this.clone(),
        })
    }

    /// Begins: timers, beacons and streams.
    pub fn start(&self, transport: Arc<dyn Transport>, config: Weak<dyn ConfigPort>) {
        self.beacons.start(Arc::downgrade(&transport));
        if self.transport.set(transport).is_err() || self.config.set(config).is_err() {
            unreachable!("a data plane is started once");
        }
        self.slice_timers.start::<dyn Due<SliceId>>("slice-timers", self.this.clone());
        self.volume_timers.start::<dyn Due<VolumeId>>("volume-timers", self.this.clone());
    }

    /// Ends all threads. Whatever waits stays unanswered: the next process goes on with it.
    pub fn stop(&self) {
        self.beacons.stop();
        self.slice_timers.stop();
        self.volume_timers.stop();
    }

    /// Wants streams to `peer`.
    pub fn connect_peer(&self, peer: NodeId) {
        if let Some(transport) = self.transport.get() {
            for channel in Channel::ALL {
                transport.connect(peer, channel);
            }
        }
    }

    /// Cuts the streams to a node that was removed.
    pub fn disconnect_peer(&self, peer: NodeId) {
        if let Some(transport) = self.transport.get() {
            transport.disconnect(peer);
        }
    }

    /// Whether the data stream to `peer` is up.
    #[must_use]
    pub fn is_connected(&self, peer: NodeId) -> bool {
        self.connected.contains(&peer)
    }

    /// What slices and volumes of this node are built with.
    #[must_use]
    pub fn beacons(&self) -> &Arc<BeaconBoard> {
        &self.beacons
    }

    /// The deadlines of slices.
    #[must_use]
    pub fn slice_timers(&self) -> &Arc<Timers<SliceId>> {
        &self.slice_timers
    }

    /// The deadlines of volumes.
    #[must_use]
    pub fn volume_timers(&self) -> &Arc<Timers<VolumeId>> {
        &self.volume_timers
    }

    /// What the slices of this node may use of it.
    #[must_use]
    pub fn slice_ports(&self) -> Weak<dyn SlicePorts> {
        self.this.clone()
    }

    /// What the volumes of this node may use of it.
    #[must_use]
    pub fn volume_ports(&self) -> Weak<dyn VolumePorts> {
        self.this.clone()
    }

    /// A replica on this node.
    #[must_use]
    pub fn slice(&self, id: SliceId) -> Option<Arc<Slice>> {
        self.slices.get(&id).map(|entry| Arc::clone(entry.value()))
    }

    /// Every replica on this node.
    #[must_use]
    pub fn slices(&self) -> Vec<Arc<Slice>> {
        self.slices.iter().map(|entry| Arc::clone(entry.value())).collect()
    }

    /// A volume in use on this node.
    #[must_use]
    pub fn volume(&self, id: VolumeId) -> Option<Arc<Volume>> {
        self.volumes.get(&id).map(|entry| Arc::clone(entry.value()))
    }

    /// Every volume in use on this node.
    #[must_use]
    pub fn volumes(&self) -> Vec<Arc<Volume>> {
        self.volumes.iter().map(|entry| Arc::clone(entry.value())).collect()
    }

    /// Takes in a replica, and tells it which streams are up and which clients there are.
    pub fn add_slice(&self, slice: Arc<Slice>, config: SliceConfig) {
        let id = slice.id();
        self.slices.insert(id, Arc::clone(&slice));
        slice.deliver(Event::Config(config));
        // Gathered first: what a slice does may come back to these tables.
        let peers: Vec<NodeId> = self.connected.iter().map(|peer| *peer).collect();
        for peer in peers {
            slice.deliver(Event::Connected { peer });
        }
        let hellos: Vec<ClientHello> = self.clients.iter().map(|entry| entry.value().1).collect();
        for hello in hellos.into_iter().filter(|hello| hello.volume == id.volume) {
            slice.deliver(Event::ClientStream { client: hello.client, stream: hello.stream });
        }
    }

    /// Lets go of a replica that is no longer this node's.
    pub fn remove_slice(&self, id: SliceId) {
        if let Some((_, slice)) = self.slices.remove(&id) {
            slice.close();
            self.slice_timers.set(id, None);
            self.beacons.vouch(id, slice.pool(), None, Vec::new());
        }
    }

    /// Takes in a volume; its client is told nothing yet.
    pub fn add_volume(&self, volume: Arc<Volume>) {
        self.volumes.insert(volume.id(), volume);
    }

    /// Lets go of a volume that is closed, and tells those who know its client.
    /// One that has taken its place meanwhile stays.
    pub fn remove_volume(&self, volume: &Arc<Volume>) {
        let id = volume.id();
        if let Some((_, volume)) = self.volumes.remove_if(&id, |_, now| Arc::ptr_eq(now, volume)) {
            self.volume_timers.set(id, None);
            self.clients.remove(&volume.client());
            for peer in volume.introduced_to().into_iter().filter(|peer| *peer != self.me) {
                self.send(peer, Envelope::Gone(volume.client()));
            }
        }
    }

    /// What nodes may write to each other from now on.
    pub fn may_write(&self, version: ClusterVersion) {
        let slices: Vec<Arc<Slice>> = self.slices.iter().map(|slice| Arc::clone(&slice)).collect();
        for slice in slices {
            slice.deliver(Event::Version(version));
        }
    }

    /// A slice's configuration, from Raft.
    pub fn configured(&self, id: SliceId, config: &SliceConfig) {
        if let Some(slice) = self.slice(id) {
            slice.deliver(Event::Config(config.clone()));
        }
        if let Some(volume) = self.volume(id.volume) {
            volume.configured(id.index, config.clone());
        }
    }

    /// A pool has failed: its slices are told.
    pub fn pool_failed(&self, pool: PoolId) {
        for slice in self.slices() {
            if slice.pool().id() == pool {
                slice.store_failed();
            }
        }
    }

    /// How many clients have introduced themselves, and are still there.
    #[cfg(test)]
    pub fn known_clients(&self) -> usize {
        self.clients.len()
    }

    /// A pool hangs: its primaries resign, again and again for as long as it does: who could follow
    /// may be there only later.
    pub fn resign_while_hung(&self, pool: &Arc<Pool>) {
        while pool.hangs() {
            for slice in self.slices_in(pool) {
                slice.deliver(Event::Resign);
            }
            thread::sleep(RESIGN_PAUSE);
        }
    }

    /// A pool answers again: its replicas hear what they were not told meanwhile, once they have had
    /// the time to hear their primaries.
    pub fn go_on_after_hang(&self, pool: &Arc<Pool>, patience: Duration) {
        thread::sleep(patience);
        for slice in self.slices_in(pool) {
            slice.deliver(Event::Tick);
        }
    }

    /// The slices that lie in a pool.
    #[must_use]
    pub fn slices_in(&self, pool: &Arc<Pool>) -> Vec<Arc<Slice>> {
        self.slices().into_iter().filter(|slice| Arc::ptr_eq(slice.pool(), pool)).collect()
    }

    fn send(&self, to: NodeId, envelope: Envelope) {
        let Some(transport) = self.transport.get() else { return };
        if let Err(error) = transport.send(to, Channel::Data, envelope.encode()) {
            tracing::debug!(%to, %error, "a message was dropped");
            if error != mooring_transport::SendError::Down {
                // Streams are ordered and whole or broken: nothing may be left out of the middle.
                tracing::warn!(%to, %error, "a stream is begun anew");
                transport.break_stream(to, Channel::Data);
            }
        }
    }

    pub(crate) fn config(&self) -> Option<Arc<dyn ConfigPort>> {
        self.config.get().and_then(Weak::upgrade)
    }

    /// Tells the slices of a volume here that a client has a new stream to this node.
    fn introduce(&self, from: Home, hello: ClientHello) {
        self.clients.insert(hello.client, (from, hello));
        for slice in self.slices() {
            if slice.id().volume == hello.volume {
                slice.deliver(Event::ClientStream { client: hello.client, stream: hello.stream });
            }
        }
    }

    /// Begins a stream of `volume` to `peer`, to which the data stream is up.
    fn introduce_to(&self, peer: NodeId, volume: &Volume) {
        let hello = ClientHello {
            client: volume.client(),
            stream: volume.next_stream(),
            volume: volume.id(),
        };
        if peer == self.me {
            self.introduce(Home::Node(peer), hello);
        } else {
            self.send(peer, Envelope::Client(hello));
        }
        volume.connected(peer, hello.stream);
    }

    fn local_request(&self, from: &Home, message: RequestMessage) -> Option<(Arc<Slice>, Event)> {
        let RequestMessage { slice, id, request } = message;
        let refusal = match self.slice(slice) {
            Some(found) if self.may_ask(from, slice.volume, &request) => {
                return Some((found, Event::Request { from: from.node(), id, request }));
            }
            // The configuration may not have come here yet: the holder tries again.
            Some(_) => Refusal::Busy,
            // Not a replica of it (any more): the client's configuration is old, or ours is.
            None => Refusal::Moved { epoch: request.epoch, primary: None, tail_lost: Epoch(0) },
        };
        let outcome = Outcome::Refused(refusal);
        let reply = Reply { epoch: request.epoch, durable: Sequence(0), outcome };
        self.answer(from, ReplyMessage { slice, id, reply });
        None
    }

    /// Sends an answer to where its client is.
    fn answer(&self, home: &Home, message: ReplyMessage) {
        match home {
            Home::Node(node) if *node == self.me => {
                if let Some(volume) = self.volume(message.slice.volume) {
                    volume.reply(self.me, message);
                }
            }
            Home::Node(node) => self.send(*node, Envelope::Reply(message)),
            Home::Link(link) => {
                // Nothing may be left out of the middle of a link.
                if link.send(Envelope::Reply(message).encode()).is_err() {
                    link.cut();
                }
            }
        }
    }
}

impl DataPlane {
    /// Whether `from` may send this request: a seal, which ends every older attachment, and a
    /// registration of sessions come only from the holder whom the configuration names, with its
    /// epoch. One that is over is let through, to be told by whom it was fenced. A process beside a
    /// daemon has a session, or nothing.
    fn may_ask(&self, from: &Home, volume: VolumeId, request: &Request) -> bool {
        let asked = request.credential.attachment();
        let (from, is_process) = (from.node(), matches!(from, Home::Link(_)));
        if is_process && request.credential.session().is_none() {
            tracing::warn!(%from, %volume, "a process asked under an attachment, which is for daemons");
            return false;
        }
        if !matches!(request.operation, Operation::Seal | Operation::Register(_)) {
            return true;
        }
        let holder = self.config().and_then(|config| config.holder(volume));
        let may =
            holder.is_some_and(|(node, epoch)| asked < epoch || (node, epoch) == (from, asked));
        if !may {
            tracing::warn!(%from, %volume, ?asked, ?holder, "a seal or registration from who isn't known to hold the volume");
        }
        may
    }
}

impl SlicePorts for DataPlane {
    fn send(&self, to: NodeId, message: Message) {
        self.send(to, Envelope::Replica(message));
    }

    fn reply(&self, slice: SliceId, id: RequestId, reply: Reply) {
        let home = self.clients.get(&id.client).map(|entry| entry.value().0.clone());
        if let Some(home) = home {
            self.answer(&home, ReplyMessage { slice, id, reply });
        }
    }

    fn propose(&self, slice: SliceId, id: ProposalId, change: SliceChange) {
        if let Some(config) = self.config() {
            config.propose(slice, id, change);
        }
    }

    fn query_config(&self, slice: SliceId) {
        if let Some(config) = self.config() {
            config.query(slice);
        }
    }

    fn note(&self, slice: SliceId, note: Note) {
        let config = self.config();
        let named =
            config.as_ref().map_or_else(|| slice.to_string(), |config| config.slice_name(slice));
        self.events.push_note(slice, &named, &note, |node| {
            config.as_ref().map_or_else(|| format!("{node:?}"), |config| config.node_name(node))
        });
    }
}

impl VolumePorts for DataPlane {
    fn connect(&self, volume: &Arc<Volume>, node: NodeId) {
        if node == self.me || self.connected.contains(&node) {
            self.introduce_to(node, volume);
            return;
        }
        if let Some(transport) = self.transport.get() {
            transport.connect(node, Channel::Data);
        }
        volume.disconnected(node);
    }

    fn request(&self, node: NodeId, message: RequestMessage, agenda: &mut Agenda) {
        if node != self.me {
            self.send(node, Envelope::Request(message));
        } else if let Some((slice, event)) = self.local_request(&Home::Node(self.me), message) {
            slice.accept(event, agenda);
        }
    }

    fn holes(&self, slice: SliceId, range: BlockRange) -> Option<Vec<Run>> {
        self.slice(slice)?.holes(range)
    }

    fn query_config(&self, volume: VolumeId, slice: SliceIndex) {
        if let Some(config) = self.config() {
            config.query(SliceId { volume, index: slice });
        }
    }

    fn admitted(&self, volume: VolumeId, slice: SliceIndex, session: SessionId) {
        self.desk.admitted(volume, slice, session);
    }
}

impl Handler for DataPlane {
    fn connected(&self, peer: NodeId, channel: Channel) {
        match channel {
            Channel::Data => {
                self.connected.insert(peer);
                self.send(peer, Envelope::Fresh);
                for slice in self.slices() {
                    slice.deliver(Event::Connected { peer });
                }
                for volume in self.volumes() {
                    self.introduce_to(peer, &volume);
                }
            }
            Channel::Control => {
                if let Some(config) = self.config() {
                    config.control_broken(peer);
                }
            }
            Channel::Beacon => {}
        }
    }

    fn disconnected(&self, peer: NodeId, channel: Channel) {
        match channel {
            Channel::Data => {}
            Channel::Control => {
                if let Some(config) = self.config() {
                    config.control_broken(peer);
                }
                return;
            }
            Channel::Beacon => return,
        }
        self.connected.remove(&peer);
        for slice in self.slices() {
            slice.deliver(Event::Disconnected { peer });
        }
        for volume in self.volumes() {
            volume.disconnected(peer);
        }
    }

    fn message(
        &self,
        from: NodeId,
        channel: Channel,
        _stream: TransportStream,
        message: mooring_transport::Message,
    ) {
        match channel {
            Channel::Beacon => {
                if !self.beacons.receive(from, &message) {
                    tracing::warn!(%from, "a beacon that can't be decoded was dropped");
                } else if let Some(config) = self.config() {
                    config.heard(from);
                }
            }
            Channel::Control => {
                if let Some(config) = self.config() {
                    config.control(from, message);
                }
            }
            Channel::Data => match Envelope::decode(message) {
                Ok(envelope) => errands::scope(cover(), || self.received(from, envelope)),
                Err(error) => undecodable(from, &error),
            },
        }
    }

    /// Messages of replicas, requests and replies are told to whom they concern, all that are there;
    /// the rest, which is seldom and may lead to anything, is handled one by one.
    fn take<'a>(
        &'a self,
        from: NodeId,
        channel: Channel,
        stream: TransportStream,
        ready: &mut VecDeque<mooring_transport::Message>,
    ) -> Box<dyn FnOnce() + 'a> {
        let mut agenda = Agenda::default();
        let mut taken = false;
        while channel == Channel::Data && ready.front().is_some_and(Envelope::is_plain) {
            let Some(message) = ready.pop_front() else { break };
            taken = true;
            match Envelope::decode(message) {
                Ok(envelope) => self.accept(from, envelope, &mut agenda),
                Err(error) => undecodable(from, &error),
            }
        }
        if taken {
            return Box::new(move || agenda.carry_out(cover()));
        }
        let message = ready.pop_front();
        Box::new(move || {
            if let Some(message) = message {
                self.message(from, channel, stream, message);
            }
        })
    }

    fn incoming_closed(&self, from: NodeId, channel: Channel, _stream: TransportStream) {
        if channel == Channel::Data {
            // Clients introduce themselves again on their next stream.
            self.forget_home(&Home::Node(from));
        }
    }
}

impl DataPlane {
    /// Where letters lie.
    pub(crate) fn desk(&self) -> &Desk {
        &self.desk
    }

    /// No client is there any more; each introduces itself again.
    pub(crate) fn forget_home(&self, gone: &Home) {
        self.clients.retain(|_, (home, _)| home != gone);
    }

    /// Takes the requests and introductions that came over a link; gives the rest.
    pub(crate) fn take_requests(
        &self,
        home: &Home,
        messages: Vec<mooring_transport::Message>,
    ) -> Vec<(LinkMessage, bytes::Bytes)> {
        let mut agenda = Agenda::default();
        let mut others = Vec::new();
        for message in messages {
            match Envelope::decode(message) {
                Ok(Envelope::Request(request)) => {
                    self.accept_request(home, request, &mut agenda);
                }
                Ok(Envelope::Client(hello)) => self.introduced(home, hello),
                Ok(Envelope::Link(message, letter)) => others.push((message, letter)),
                other => {
                    tracing::warn!(peer = %home.node(), error = ?other.err(), "not for a link");
                    if let Home::Link(link) = home {
                        link.cut();
                    }
                }
            }
        }
        agenda.carry_out(Cover::None);
        others
    }

    fn accept_request(&self, from: &Home, message: RequestMessage, agenda: &mut Agenda) {
        // A client speaks from one place only: nobody else may use its name.
        if self.clients.get(&message.id.client).is_none_or(|home| home.value().0 != *from) {
            tracing::debug!(from = %from.node(), "a request of a client that didn't introduce itself");
            return;
        }
        if let Some((slice, event)) = self.local_request(from, message) {
            slice.accept(event, agenda);
        }
    }

    fn introduced(&self, from: &Home, hello: ClientHello) {
        let home = self.clients.get(&hello.client).map(|home| home.value().0.clone());
        // A process comes again over a new link, perhaps before the end of the old one is seen.
        let moved = |home: &Home| {
            let links = matches!((home, from), (Home::Link(_), Home::Link(_)));
            home != from && !(links && home.node() == from.node())
        };
        if home.is_some_and(|home| moved(&home)) {
            tracing::warn!(from = %from.node(), "a client's name that is another's was refused");
            return;
        }
        self.introduce(from.clone(), hello);
    }
}

impl DataPlane {
    fn received(&self, from: NodeId, envelope: Envelope) {
        match envelope {
            Envelope::Replica(_) | Envelope::Request(_) | Envelope::Reply(_) => {
                let mut agenda = Agenda::default();
                self.accept(from, envelope, &mut agenda);
                agenda.carry_out(Cover::None);
            }
            Envelope::Client(hello) => {
                self.introduced(&Home::Node(from), hello);
            }
            Envelope::Gone(client) => {
                self.clients.remove_if(&client, |_, (home, _)| *home == Home::Node(from));
            }
            Envelope::Link(..) => {
                tracing::warn!(%from, "said on a stream of nodes: for links alone")
            }
            // Answers may have been lost with the stream before: what waits for one is asked again.
            Envelope::Fresh => {
                if self.connected.contains(&from) {
                    for volume in self.volumes() {
                        self.introduce_to(from, &volume);
                    }
                }
            }
        }
    }
    /// Tells a slice or volume, and leaves what follows on the agenda.
    fn accept(&self, from: NodeId, envelope: Envelope, agenda: &mut Agenda) {
        match envelope {
            Envelope::Replica(message) => {
                if let Some(slice) = self.slice(message.slice) {
                    slice.accept(Event::Message { from, message }, agenda);
                }
            }
            Envelope::Request(message) => {
                self.accept_request(&Home::Node(from), message, agenda);
            }
            Envelope::Reply(message) => {
                if let Some(volume) = self.volume(message.slice.volume)
                    && volume.client() == message.id.client
                {
                    volume.accept_reply(from, message, agenda);
                }
            }
            Envelope::Client(_) | Envelope::Gone(_) | Envelope::Fresh | Envelope::Link(..) => {
                unreachable!("handled by `received`, and never plain")
            }
        }
    }
}

/// Whether the transport goes on without this thread while it waits for a disk.
fn cover() -> Cover {
    if mooring_transport::is_relieved() { Cover::Stream } else { Cover::None }
}

fn undecodable(from: NodeId, error: &EnvelopeError) {
    tracing::warn!(%from, %error, "a message that can't be decoded was dropped");
}

impl Due<SliceId> for DataPlane {
    fn due(&self, subject: SliceId) {
        let Some(slice) = self.slice(subject) else { return };
        // What a replica doesn't hear while it is muted tells nothing: it must not take over.
        if !(slice.pool().hangs() && slice.status().role == Role::Secondary) {
            slice.deliver(Event::Tick);
        }
    }
}

impl Due<VolumeId> for DataPlane {
    fn due(&self, subject: VolumeId) {
        if let Some(volume) = self.volume(subject) {
            volume.tick();
        }
    }
}
