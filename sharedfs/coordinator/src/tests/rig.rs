//! A volume in memory, coordinators one after the other, and clients that say what a test wants.
#![allow(clippy::disallowed_methods, reason = "tests wait for threads")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mooring_sharedfs_core::coordinator::{
    Answer, Operation, Reply, Request, RequestId, ToClient, ToCoordinator, read_letter,
    write_letters,
};
use mooring_sharedfs_core::format::SessionRow;
use mooring_sharedfs_core::{Caller, RequestNumber, SessionId, SlotIndex};
use mooring_terms::{AttachmentEpoch, NodeId};
use parking_lot::{Condvar, Mutex};

use crate::{
    Coordinator, MemoryAttachment, MemorySlices, Observer, Options, Parts, PeerId, Peers, Report,
    State,
};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

pub const SLICE_BLOCKS: u64 = 1024;

/// What every client was told, and which streams were cut.
#[derive(Default)]
pub struct Ears {
    heard: Mutex<BTreeMap<PeerId, Vec<ToClient>>>,
    cut: Mutex<Vec<PeerId>>,
    more: Condvar,
}

impl Peers for Ears {
    fn send(&self, to: PeerId, letter: Bytes) -> bool {
        let messages = read_letter::<ToClient>(&letter).unwrap();
        self.heard.lock().entry(to).or_default().extend(messages);
        self.more.notify_all();
        true
    }

    fn cut(&self, peer: PeerId) {
        self.cut.lock().push(peer);
        self.more.notify_all();
    }
}

/// What was reported.
#[derive(Default)]
pub struct Reports(Mutex<Vec<Report>>);

impl Observer for Reports {
    fn report(&self, report: Report) {
        self.0.lock().push(report);
    }
}

/// Everything.
pub struct Rig {
    pub slices: Arc<MemorySlices>,
    pub ears: Arc<Ears>,
    pub reports: Arc<Reports>,
    pub coordinator: Coordinator,
}

impl Rig {
    pub fn new() -> Self {
        Self::on(MemorySlices::new(SLICE_BLOCKS))
    }

    pub fn on(slices: Arc<MemorySlices>) -> Self {
        Self::of(slices, SLICE_BLOCKS)
    }

    /// On a volume of eight slices of so many blocks.
    pub fn of(slices: Arc<MemorySlices>, slice_blocks: u64) -> Self {
        let (ears, reports) = (Arc::new(Ears::default()), Arc::new(Reports::default()));
        let coordinator = start(slices.attach(), &ears, &reports, slice_blocks);
        Self { slices, ears, reports, coordinator }
    }

    /// Another coordinator takes over.
    pub fn fail_over(&mut self) {
        self.coordinator = start(self.slices.attach(), &self.ears, &self.reports, SLICE_BLOCKS);
    }

    pub fn say(&self, peer: PeerId, messages: &[ToCoordinator]) {
        for letter in write_letters(messages) {
            self.coordinator.letter(peer, letter.into());
        }
    }

    /// Waits until a client has heard something that fits, and takes it.
    pub fn hears<T>(&self, peer: PeerId, fits: impl Fn(&ToClient) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        let mut heard = self.ears.heard.lock();
        loop {
            let of = heard.entry(peer).or_default();
            if let Some(at) = of.iter().position(|message| fits(message).is_some()) {
                return fits(&of.remove(at)).unwrap();
            }
            let timeout = self.ears.more.wait_until(&mut heard, until).timed_out();
            assert!(!timeout, "{peer:?} heard only {:?}", heard.get(&peer));
        }
    }

    /// What a client hears within `time`.
    pub fn overhears(&self, peer: PeerId, time: Duration) -> Vec<ToClient> {
        std::thread::sleep(time);
        self.ears.heard.lock().remove(&peer).unwrap_or_default()
    }

    pub fn is_cut(&self, peer: PeerId) {
        let until = Instant::now() + PATIENCE;
        let mut cut = self.ears.cut.lock();
        while !cut.contains(&peer) {
            assert!(!self.ears.more.wait_until(&mut cut, until).timed_out(), "{peer:?} is not cut");
        }
    }

    pub fn was_cut(&self, peer: PeerId) -> bool {
        self.ears.cut.lock().contains(&peer)
    }

    pub fn becomes(&self, state: State) {
        let until = Instant::now() + PATIENCE;
        while self.coordinator.state() != state {
            assert!(Instant::now() < until, "still {:?}", self.coordinator.state());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn was_reported(&self, is: impl Fn(&Report) -> bool) -> usize {
        self.reports.0.lock().iter().filter(|report| is(report)).count()
    }

    /// A client begins a session.
    pub fn begin(&self, stream: u64) -> Client {
        let peer = peer(stream);
        let row = SessionRow { node: peer.node.0, mount: stream, slots: 64 };
        self.say(peer, &[ToCoordinator::Begin(77, row)]);
        let session = self.hears(peer, |message| match message {
            ToClient::Begun(77, session) => Some(*session),
            _ => None,
        });
        Client { peer, session, number: 0 }
    }

    /// Asks, and waits for the reply.
    pub fn ask(&self, client: &mut Client, operation: Operation) -> Reply {
        let id = self.post(client, operation);
        self.reply(client, id).reply
    }

    /// Asks.
    pub fn post(&self, client: &mut Client, operation: Operation) -> RequestId {
        client.number += 1;
        let id = client.id(client.number);
        self.say(client.peer, &[client.request(client.number, operation)]);
        id
    }

    pub fn reply(&self, client: &Client, id: RequestId) -> Answer {
        self.hears(client.peer, |message| match message {
            ToClient::Answer(of, answer) if *of == id => Some(answer.clone()),
            _ => None,
        })
    }
}

fn start(
    attachment: MemoryAttachment,
    ears: &Arc<Ears>,
    reports: &Arc<Reports>,
    slice_blocks: u64,
) -> Coordinator {
    let epoch = AttachmentEpoch(attachment.epoch());
    let options = Options::new(epoch, 8 * slice_blocks, slice_blocks);
    Coordinator::start(Parts {
        blocks: Arc::new(attachment.clone()),
        slices: Arc::new(attachment),
        peers: Arc::clone(ears) as Arc<dyn Peers>,
        observer: Arc::clone(reports) as Arc<dyn Observer>,
        options,
    })
    .unwrap()
}

pub fn peer(stream: u64) -> PeerId {
    PeerId { node: NodeId(3), stream }
}

/// One client, with one slot in use: `slot 0`.
pub struct Client {
    pub peer: PeerId,
    pub session: SessionId,
    pub number: u64,
}

impl Client {
    pub fn id(&self, number: u64) -> RequestId {
        RequestId {
            session: self.session,
            slot: SlotIndex((number % 64) as u32),
            number: RequestNumber(number / 64 + 1),
        }
    }

    pub fn request(&self, number: u64, operation: Operation) -> ToCoordinator {
        let (id, caller) = (self.id(number), Caller::ROOT);
        ToCoordinator::Request(Request { id, caller, operation, wanted: Vec::new() })
    }
}
