//! A client of a shared volume in a process of its own: links, what the cluster looks like, the
//! coordinator's letters, and the volume over them.
//!
//! ```text
//!   new ── the own daemon's door: who am I, who are the others
//!     │    links: own daemon, coordinator's, one more; primaries' as they are used
//!     ├─ Coordinator::met ── send, Coordinator::letter, ... lost, met, ...
//!     └─ open(session) ── SharedVolume
//! ```
//! What it believes of the cluster it is told by daemons, and asks anew while something is wrong. A
//! daemon that lags behind does no harm: older epochs of slices and coordinators change nothing.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use mooring_replication::{
    ClientEvent, ClientId, ClientOptions, ClientRole, RequestMessage, VolumeClient,
};
use mooring_terms::{
    AttachmentEpoch, BLOCK_SIZE, BlockRange, NodeId, SessionId, SliceId, SliceIndex, VolumeId,
};
use mooring_transport::{Identity, Link, LinkHandler, Message, SendError};
use parking_lot::{Condvar, Mutex};

use super::RemoteError;
use super::letters::{envelope, post};
use super::links::{KnownNodes, Links};
use super::meet::meet;
use super::meeting::{Coordinator, Meeting};
use super::proto::{Ask, LinkMessage, Told, VolumeTold};
use super::shared::SharedVolume;
use crate::agenda::Agenda;
use crate::errands::Cover;
use crate::slice::Run;
use crate::timers::{Due, Timers};
use crate::volume::{Volume, VolumeParts, VolumePorts};
use crate::wire::{ClientHello, Envelope};

/// How often a client asks how the cluster is while it has no coordinator, or I/O waits.
const ASK_SOON: Duration = Duration::from_millis(100);
/// How often otherwise: for how long a change that breaks no link may go unnoticed.
const ASK_LATER: Duration = Duration::from_secs(1);

/// A client of one shared volume, in a process beside the daemon. Begins with letters to the
/// coordinator; once that has given it a session, [`Client::open`] gives the volume. Everything ends
/// with [`Client::close`], or when the last `Arc` of the client and its volume is dropped.
pub struct Client {
    me: NodeId,
    id: ClientId,
    told: Mutex<VolumeTold>,
    links: OnceLock<Arc<Links>>,
    nodes: Arc<KnownNodes>,
    opened: OnceLock<(SessionId, Arc<Volume>)>,
    timers: Arc<Timers<VolumeId>>,
    meeting: Meeting,
    next_ask: AtomicU64,
    over: AtomicBool,
    /// Wakes the thread that asks.
    doubt: Arc<Doubt>,
    this: Weak<Self>,
}

/// What wakes the thread that asks.
#[derive(Default)]
struct Doubt {
    is_due: Mutex<bool>,
    changed: Condvar,
}

impl Doubt {
    fn raise(&self) {
        *self.is_due.lock() = true;
        self.changed.notify_one();
    }

    fn wait(&self, at_most: Duration) {
        let mut is_due = self.is_due.lock();
        if !*is_due {
            self.changed.wait_for(&mut is_due, at_most);
        }
        *is_due = false;
    }
}

impl Client {
    /// Meets the daemon of this node at its `door`, a unix socket; learns from it who this node is and
    /// where the others are, and needs it no more from then on. Only root is let in.
    ///
    /// Waits for the daemon's answer, 5 s at most. Later everything is told to `coordinator`.
    ///
    /// # Errors
    /// [`RemoteError`]: there is no daemon, or it doesn't know the volume.
    pub fn new(
        door: &Path,
        volume: VolumeId,
        coordinator: Arc<dyn Coordinator>,
    ) -> Result<Arc<Self>, RemoteError> {
        let told = meet(door, volume)?;
        let row = told.volume.ok_or(RemoteError::UnknownVolume(volume))?;
        let identity = told.identity.as_deref().ok_or(RemoteError::NoIdentity)?;
        let identity = Identity::from_bytes(identity)?;
        let nodes = Arc::new(KnownNodes::default());
        nodes.learn(&told.nodes, true);
        let client = Arc::new_cyclic(|this: &Weak<Self>| Self {
            me: told.node,
            id: ClientId(crate::random::u64()),
            told: Mutex::new(row),
            links: OnceLock::new(),
            nodes: Arc::clone(&nodes),
            opened: OnceLock::new(),
            timers: Timers::new(),
            meeting: Meeting::new(coordinator),
            next_ask: AtomicU64::new(0),
            over: AtomicBool::new(false),
            doubt: Arc::default(),
            this: this.clone(),
        });
        let ear: Arc<dyn LinkHandler> = Arc::new(Ear(client.this.clone()));
        let links = Arc::new(Links::new(told.node, door.to_owned(), &identity, nodes, ear)?);
        // Set once, here.
        let _ = client.links.set(links);
        client.timers.start::<dyn Due<VolumeId>>("volume-timers", client.this.clone());
        client.want_links();
        let (keeper, doubt) = (client.this.clone(), Arc::clone(&client.doubt));
        thread::Builder::new()
            .name("link-keeper".to_owned())
            .spawn(move || Self::keep(&keeper, &doubt))
            .map_err(RemoteError::Resource)?;
        Ok(client)
    }

    /// This client's number: how the coordinator's [`Correspondent`](super::Correspondent) names it.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id.0
    }

    /// The node that it acts for.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.me
    }

    /// The volume.
    #[must_use]
    pub fn volume(&self) -> VolumeId {
        self.told.lock().id
    }

    /// The volume's size in bytes, as last told; a growth is known here within a second or so.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.told.lock().size
    }

    /// How many blocks a slice of it has.
    #[must_use]
    pub fn slice_blocks(&self) -> u64 {
        self.told.lock().slice_blocks
    }

    /// Sends a letter to the coordinator that was met last; in order. Never blocks.
    ///
    /// # Errors
    /// [`SendError`]: there is no coordinator to write to now, or it doesn't read and its link is being
    /// cut; [`Coordinator::met`] tells of the next.
    pub fn send(&self, letter: Bytes) -> Result<(), SendError> {
        self.meeting.send(self.volume(), self.id, letter)
    }

    /// Has the coordinator met anew over another link: nothing was heard of it on this one.
    /// [`Coordinator::lost`] follows, then [`Coordinator::met`].
    pub fn reconnect(&self) {
        self.meeting.cut();
        self.doubt.raise();
    }

    /// The volume, under a session that the coordinator has given. Once only: a session that is over
    /// takes what waited with it, and another one needs another client.
    ///
    /// # Errors
    /// [`RemoteError::OpenedTwice`].
    pub fn open(self: &Arc<Self>, session: SessionId) -> Result<SharedVolume, RemoteError> {
        let told = *self.told.lock();
        let attachment = told.coordinator.map_or(AttachmentEpoch(0), |(_, epoch)| epoch);
        let blocks = told.size / BLOCK_SIZE as u64;
        let options = ClientOptions {
            role: ClientRole::Session(session),
            ..ClientOptions::new(self.id, told.id, attachment, blocks, told.slice_blocks)
        };
        let parts = VolumeParts {
            id: told.id,
            client: self.id,
            epoch: attachment,
            read_only: false,
            size_bytes: told.size,
            slice_blocks: told.slice_blocks,
            io_timeout: None,
            first_stream: 1,
            core: VolumeClient::new(options),
        };
        let ports: Weak<dyn VolumePorts> = self.this.clone();
        let volume = Volume::new(parts, Arc::clone(&self.timers), ports);
        let opened = self.opened.set((session, Arc::clone(&volume)));
        opened.map_err(|_| RemoteError::OpenedTwice)?;
        // What has changed while there was no volume to tell.
        self.tell_coordinator();
        volume.resized(self.size());
        if self.over.load(Ordering::Acquire) {
            volume.close();
        }
        Ok(SharedVolume::new(volume, Arc::clone(self)))
    }

    /// Ends everything: what waits fails, links are cut.
    pub fn close(&self) {
        self.over.store(true, Ordering::Release);
        if let Some(volume) = self.used() {
            volume.close();
        }
        self.links().close();
        self.timers.stop();
        self.doubt.raise();
    }

    fn links(&self) -> &Arc<Links> {
        self.links.get().expect("set before anybody has the client")
    }

    fn used(&self) -> Option<&Arc<Volume>> {
        self.opened.get().map(|(_, volume)| volume)
    }

    /// A link to the own daemon, to the coordinator's, and to one more who can be asked if those go.
    fn want_links(&self) {
        let coordinator = self.told.lock().coordinator.map(|(node, _)| node);
        let links = self.links();
        let other = self.nodes.all().into_iter().find(|node| *node != self.me);
        for node in [Some(self.me), coordinator, other].into_iter().flatten() {
            links.want(node);
        }
    }

    /// The body of the thread that asks how the cluster is.
    fn keep(this: &Weak<Self>, doubt: &Doubt) {
        let mut pause = ASK_SOON;
        loop {
            doubt.wait(pause);
            let Some(client) = this.upgrade() else { return };
            if client.over.load(Ordering::Acquire) {
                return;
            }
            client.ask(Vec::new());
            let waits = client.used().is_some_and(|volume| volume.in_flight() > 0);
            let is_well = client.meeting.is_on() && !waits;
            pause = if is_well { ASK_LATER } else { ASK_SOON };
        }
    }

    /// Asks one of those who can be reached, another each time.
    fn ask(&self, slices: Vec<SliceIndex>) {
        let up = self.links().up();
        if up.is_empty() {
            // Whoever is there may be one that was never needed.
            for node in self.nodes.all() {
                self.links().want(node);
            }
            return;
        }
        let turn = self.next_ask.fetch_add(1, Ordering::Relaxed);
        let link = &up[usize::try_from(turn).unwrap_or(0) % up.len()];
        post(link, LinkMessage::Ask(Ask { volume: self.volume(), slices, identity: false }));
    }

    fn on_told(&self, link: &Link, told: Told) {
        if !told.nodes.is_empty() {
            self.nodes.learn(&told.nodes, link.is_local());
        }
        if let Some(row) = told.volume {
            let size = {
                let mut known = self.told.lock();
                known.size = known.size.max(row.size);
                known.size
            };
            if let Some((node, epoch)) = row.coordinator {
                self.learn_coordinator(node, epoch);
            }
            if let Some(volume) = self.used() {
                volume.resized(size);
            }
            self.want_links();
        }
        if let Some(volume) = self.used() {
            for (slice, config) in told.slices {
                volume.configured(slice, config);
            }
        }
    }

    /// Somebody says who the coordinator is. Whoever lags behind knows an older one.
    fn learn_coordinator(&self, node: NodeId, epoch: AttachmentEpoch) {
        {
            let mut known = self.told.lock();
            if known.coordinator.is_some_and(|(_, newest)| newest >= epoch) {
                return;
            }
            known.coordinator = Some((node, epoch));
        }
        self.meeting.outdated(epoch);
        self.tell_coordinator();
        self.links().want(node);
        if let Some(link) = self.links().get(node) {
            self.call(&link);
        }
    }

    fn call(&self, link: &Link) {
        post(link, LinkMessage::Call { volume: self.volume(), client: self.id });
    }

    fn tell_coordinator(&self) {
        let coordinator = self.told.lock().coordinator;
        if let (Some(volume), Some((_, attachment))) = (self.used(), coordinator) {
            volume.tell(ClientEvent::Coordinator { attachment });
        }
    }

    fn introduce(&self, node: NodeId, volume: &Volume) {
        let stream = volume.next_stream();
        let hello = ClientHello { client: self.id, stream, volume: volume.id() };
        if self.links().send(node, Envelope::Client(hello).encode()).is_ok() {
            volume.connected(node, stream);
        } else {
            volume.disconnected(node);
        }
    }

    fn link_message(&self, link: &Arc<Link>, message: LinkMessage, letter: Bytes) {
        match message {
            LinkMessage::Told(told) => self.on_told(link, *told),
            LinkMessage::Admitted { session, slice, .. } => {
                if let Some((_, volume)) = self.opened.get().filter(|(own, _)| *own == session) {
                    volume.tell(ClientEvent::Admitted { slice });
                }
            }
            LinkMessage::Here(place) if place.client == self.id => {
                self.learn_coordinator(link.peer(), place.epoch);
                // One that was overtaken is nobody's coordinator.
                if self.told.lock().coordinator == Some((link.peer(), place.epoch)) {
                    self.meeting.here(link, place.epoch);
                }
            }
            LinkMessage::Away(place) if place.client == self.id => {
                if self.meeting.away(link, place.epoch) {
                    self.doubt.raise();
                }
            }
            LinkMessage::Letter(place) if place.client == self.id => {
                self.meeting.letter(link, place.epoch, letter);
            }
            _ => tracing::warn!(peer = %link.peer(), "a daemon said what is not for a client"),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.links.get().is_some() {
            self.close();
        }
    }
}

impl VolumePorts for Client {
    fn connect(&self, volume: &Arc<Volume>, node: NodeId) {
        if self.links().get(node).is_some() {
            self.introduce(node, volume);
        } else {
            self.links().want(node);
            volume.disconnected(node);
        }
    }

    fn request(&self, node: NodeId, message: RequestMessage, _agenda: &mut Agenda) {
        // Where the link is gone, that is told, and the request is sent again.
        let _ = self.links().send(node, Envelope::Request(message).encode());
    }

    fn holes(&self, _slice: SliceId, _range: BlockRange) -> Option<Vec<Run>> {
        None
    }

    fn query_config(&self, _volume: VolumeId, slice: SliceIndex) {
        self.ask(vec![slice]);
    }

    fn knock(&self, volume: VolumeId, slice: SliceIndex) {
        let coordinator = self.told.lock().coordinator;
        // Where there is none, it is said again.
        if let (Some((node, _)), Some(&(session, _))) = (coordinator, self.opened.get()) {
            let knock = LinkMessage::Knock { volume, session, slice };
            let _ = self.links().send(node, envelope(knock));
        }
    }
}

/// What links report, for as long as there is a client.
struct Ear(Weak<Client>);

impl LinkHandler for Ear {
    fn opened(&self, link: &Arc<Link>) {
        let Some(client) = self.0.upgrade() else { return link.cut() };
        client.links().set(link, true);
        if let Some(volume) = client.used() {
            client.introduce(link.peer(), volume);
        }
        let coordinator = client.told.lock().coordinator;
        if coordinator.is_some_and(|(node, _)| node == link.peer()) {
            client.call(link);
        }
    }

    fn messages(&self, link: &Arc<Link>, messages: Vec<Message>) {
        let Some(client) = self.0.upgrade() else { return link.cut() };
        let mut agenda = Agenda::default();
        let mut others = Vec::new();
        for message in messages {
            match Envelope::decode(message) {
                Ok(Envelope::Reply(reply)) => {
                    if let Some(volume) = client.used() {
                        volume.accept_reply(link.peer(), reply, &mut agenda);
                    }
                }
                Ok(Envelope::Link(message, letter)) => others.push((message, letter)),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(peer = %link.peer(), %error, "not understood");
                    link.cut();
                }
            }
        }
        agenda.carry_out(Cover::None);
        for (message, letter) in others {
            client.link_message(link, message, letter);
        }
    }

    fn closed(&self, link: &Arc<Link>) {
        let Some(client) = self.0.upgrade() else { return };
        client.links().set(link, false);
        if let Some(volume) = client.used() {
            volume.disconnected(link.peer());
        }
        if client.meeting.over(link) {
            client.doubt.raise();
        }
    }
}

impl Due<VolumeId> for Client {
    fn due(&self, _subject: VolumeId) {
        if let Some(volume) = self.used() {
            volume.tick();
        }
    }
}
