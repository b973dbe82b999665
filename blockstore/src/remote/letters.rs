//! Letters between a coordinator and its clients, on the daemon's side.
//!
//! ```text
//!   client             Desk                                coordinator
//!     call ──────────> noted
//!     <─────── here ── as soon as there is a coordinator <─ CoordinatorVolume::receive_letters
//!     letter ────────> of this coordinator's epoch ───────> Letters::letter
//!     <────── letter ─────────────────────────────────────  Correspondent::send
//!     <─────── away ── closed <──────────────────────────── drop(CoordinatorVolume)
//! ```
//! Invariants: between a *here* and the *away* or the link's end letters arrive in order and once, both
//! ways; a letter that was written to another coordinator of the volume is given to nobody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use mooring_replication::ClientId;
use mooring_terms::{AttachmentEpoch, NodeId, SessionId, SliceIndex, VolumeId};
use mooring_transport::{Link, Message, SendError};
use parking_lot::Mutex;

use super::proto::{LinkMessage, Place};
use crate::wire::Envelope;

/// Clients that may call over one link at most: a mount is one.
const MOST_CALLERS: usize = 16;

/// Takes the letters of a volume's clients: the coordinator.
///
/// Called on the threads of the links, which must not be held up: what takes time is done elsewhere.
pub trait Letters: Send + Sync {
    /// A letter; those of one correspondent come in order. A last one may still come while the
    /// coordinator's volume is being dropped.
    fn letter(&self, from: &Correspondent, letter: Bytes);
    /// The correspondent's link is gone, after all its letters. Its client comes again as another
    /// correspondent. Also told of clients that never wrote.
    fn gone(&self, from: &Correspondent);
}

/// One client of a shared volume, as its coordinator sees it: a process, on its present link.
#[derive(Clone)]
pub struct Correspondent {
    number: u64,
    place: Place,
    link: Arc<Link>,
}

impl Correspondent {
    /// Names this client on this link: never given again by this daemon. A client that comes back
    /// over another link has another number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The node that it acts for, as its key (or this machine's root) vouches for.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.link.peer()
    }

    /// The client's own number, [`Client::id`](super::Client::id): the same over all its links.
    #[must_use]
    pub fn client(&self) -> u64 {
        self.place.client.0
    }

    /// Sends a letter; in order with all others to this correspondent. Never blocks.
    ///
    /// # Errors
    /// [`SendError`]: the link is gone or is being cut, since nothing may be left out of its middle;
    /// the client comes back on another one.
    pub fn send(&self, letter: Bytes) -> Result<(), SendError> {
        let message = Envelope::Link(LinkMessage::Letter(self.place), letter).encode();
        self.link.send(message).inspect_err(|_| self.link.cut())
    }

    /// Cuts its link: [`Letters::gone`] follows. Its client comes back, if it is alive.
    pub fn cut(&self) {
        self.link.cut();
    }
}

/// Who called, and who takes letters.
#[derive(Default)]
pub struct Desk {
    numbers: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    open: BTreeMap<VolumeId, Open>,
    callers: Vec<Caller>,
}

/// A coordinator.
struct Open {
    epoch: AttachmentEpoch,
    letters: Option<Arc<dyn Letters>>,
    /// Who may knock, and from where.
    sessions: BTreeMap<SessionId, NodeId>,
}

/// A client on a link.
struct Caller {
    volume: VolumeId,
    client: ClientId,
    link: Arc<Link>,
    /// It was told of this coordinator.
    told: Option<Correspondent>,
}

impl Desk {
    /// There is a coordinator of `volume` here; it takes letters later.
    pub fn open(&self, volume: VolumeId, epoch: AttachmentEpoch) {
        let open = Open { epoch, letters: None, sessions: BTreeMap::new() };
        self.inner.lock().open.insert(volume, open);
    }

    /// Gives the letters to this coordinator of `volume` from now on, and tells those who called.
    pub fn receive(&self, volume: VolumeId, epoch: AttachmentEpoch, letters: Arc<dyn Letters>) {
        let mut inner = self.inner.lock();
        let Inner { open, callers } = &mut *inner;
        let Some(open) = open.get_mut(&volume).filter(|open| open.epoch == epoch) else { return };
        open.letters = Some(letters);
        for caller in callers.iter_mut().filter(|caller| caller.volume == volume) {
            self.greet(caller, epoch);
        }
    }

    /// This coordinator of `volume` is no more.
    pub fn close(&self, volume: VolumeId, epoch: AttachmentEpoch) {
        let mut inner = self.inner.lock();
        let Inner { open, callers } = &mut *inner;
        if open.get(&volume).is_none_or(|open| open.epoch != epoch) {
            return;
        }
        open.remove(&volume);
        for caller in callers.iter_mut().filter(|caller| caller.volume == volume) {
            if let Some(told) = caller.told.take() {
                post(&caller.link, LinkMessage::Away(told.place));
            }
        }
    }

    /// A session of this node may knock from now on.
    pub fn register(&self, volume: VolumeId, session: SessionId, node: NodeId) {
        if let Some(open) = self.inner.lock().open.get_mut(&volume) {
            open.sessions.insert(session, node);
        }
    }

    /// The session knocks in vain from now on.
    pub fn forget(&self, volume: VolumeId, session: SessionId) {
        if let Some(open) = self.inner.lock().open.get_mut(&volume) {
            open.sessions.remove(&session);
        }
    }

    /// Whether `node` may knock for the session.
    pub fn may_knock(&self, volume: VolumeId, session: SessionId, node: NodeId) -> bool {
        let inner = self.inner.lock();
        let open = inner.open.get(&volume);
        open.is_some_and(|open| open.sessions.get(&session) == Some(&node))
    }

    /// Tells a session that it was let in.
    pub fn admitted(&self, volume: VolumeId, slice: SliceIndex, session: SessionId) {
        let inner = self.inner.lock();
        let Some(open) = inner.open.get(&volume) else { return };
        let Some(&node) = open.sessions.get(&session) else { return };
        let at = inner.callers.iter();
        for caller in at.filter(|one| one.volume == volume && one.link.peer() == node) {
            // Lost with the link, it is asked for again.
            post(&caller.link, LinkMessage::Admitted { volume, session, slice });
        }
    }

    /// A client has letters for the coordinator of `volume`.
    pub fn call(&self, link: &Arc<Link>, volume: VolumeId, client: ClientId) {
        let mut inner = self.inner.lock();
        let Inner { open, callers } = &mut *inner;
        let of_link = callers.iter().filter(|one| Arc::ptr_eq(&one.link, link)).count();
        let is_it = |one: &Caller| one.is(link, volume, client);
        let at = callers.iter().position(is_it).unwrap_or_else(|| {
            callers.push(Caller { volume, client, link: Arc::clone(link), told: None });
            callers.len() - 1
        });
        if of_link >= MOST_CALLERS {
            tracing::warn!(node = %link.peer(), "a process speaks for too many clients");
            return link.cut();
        }
        if let Some(open) = open.get(&volume).filter(|open| open.letters.is_some()) {
            self.greet(&mut callers[at], open.epoch);
        }
    }

    fn greet(&self, caller: &mut Caller, epoch: AttachmentEpoch) {
        let place = Place { volume: caller.volume, client: caller.client, epoch };
        if caller.told.as_ref().is_some_and(|told| told.place == place) {
            return;
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        post(&caller.link, LinkMessage::Here(place));
        caller.told = Some(Correspondent { number, place, link: Arc::clone(&caller.link) });
    }

    /// A letter came.
    pub fn letter(&self, link: &Arc<Link>, place: Place, letter: Bytes) {
        let inner = self.inner.lock();
        let mut callers = inner.callers.iter();
        let caller = callers.find(|one| one.is(link, place.volume, place.client));
        let from = caller.and_then(|one| one.told.as_ref()).filter(|told| told.place == place);
        let open = inner.open.get(&place.volume).filter(|open| open.epoch == place.epoch);
        let letters = open.and_then(|open| open.letters.clone());
        let (Some(from), Some(letters)) = (from.cloned(), letters) else { return };
        drop(inner);
        letters.letter(&from, letter);
    }

    /// The link is gone, after all that came over it.
    pub fn gone(&self, link: &Arc<Link>) {
        let mut inner = self.inner.lock();
        let Inner { open, callers } = &mut *inner;
        let mut told: Vec<(Arc<dyn Letters>, Correspondent)> = Vec::new();
        for caller in callers.extract_if(.., |one| Arc::ptr_eq(&one.link, link)) {
            let open = open.get(&caller.volume);
            let Some(from) = caller.told else { continue };
            let open = open.filter(|open| open.epoch == from.place.epoch);
            told.extend(open.and_then(|open| open.letters.clone()).map(|letters| (letters, from)));
        }
        drop(inner);
        for (letters, from) in told {
            letters.gone(&from);
        }
    }
}

impl Caller {
    fn is(&self, link: &Arc<Link>, volume: VolumeId, client: ClientId) -> bool {
        self.volume == volume && self.client == client && Arc::ptr_eq(&self.link, link)
    }
}

/// Sends on a link; one that doesn't take it is begun anew.
pub fn post(link: &Link, message: LinkMessage) {
    if link.send(envelope(message)).is_err() {
        link.cut();
    }
}

/// A message without a letter.
pub fn envelope(message: LinkMessage) -> Message {
    Envelope::Link(message, Bytes::new()).encode()
}
