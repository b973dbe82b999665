//! A client's standing with the coordinator: met on one link, or not at all.
//!
//! ```text
//!            here(link, epoch)                  away, link closed, a newer coordinator is known
//!   apart ───────────────────────> met, letters ─────────────────────────────────────────────> apart
//! ```
//! Invariants: whoever uses the client hears *met* and *lost* in turns, one at a time, and letters only
//! between them, in order: all of one coordinator, on one link.

use std::sync::Arc;

use bytes::Bytes;
use mooring_replication::ClientId;
use mooring_terms::{AttachmentEpoch, VolumeId};
use mooring_transport::{Link, SendError};
use parking_lot::Mutex;

use super::proto::{LinkMessage, Place};
use crate::wire::Envelope;

/// Takes what comes from the coordinator.
///
/// Called on the threads of the links, one call at a time. They must not be held up: an answer to I/O
/// may be behind a letter. [`Client::send`](super::Client::send) may be called from here.
pub trait Coordinator: Send + Sync {
    /// There is a coordinator that takes letters; nothing is known of those to and from an earlier
    /// one, or over an earlier link. `epoch` grows with each coordinator.
    fn met(&self, epoch: AttachmentEpoch);
    /// A letter of the coordinator that was met last; in order.
    fn letter(&self, letter: Bytes);
    /// The link is gone, or the coordinator. Another *met* follows as soon as there is one.
    fn lost(&self);
}

/// See the module.
pub struct Meeting {
    user: Arc<dyn Coordinator>,
    /// Held while the user is told something.
    turn: Mutex<()>,
    with: Mutex<Option<With>>,
}

#[derive(Clone)]
struct With {
    link: Arc<Link>,
    epoch: AttachmentEpoch,
}

impl Meeting {
    pub fn new(user: Arc<dyn Coordinator>) -> Self {
        Self { user, turn: Mutex::default(), with: Mutex::default() }
    }

    /// Whether there is a coordinator to write to.
    pub fn is_on(&self) -> bool {
        self.with.lock().is_some()
    }

    /// The other end of `link` says that it is the coordinator.
    pub fn here(&self, link: &Arc<Link>, epoch: AttachmentEpoch) {
        let _turn = self.turn.lock();
        let with = With { link: Arc::clone(link), epoch };
        let before = {
            let mut now = self.with.lock();
            let is_known = now.as_ref().is_some_and(|with| {
                with.epoch > epoch || (with.epoch == epoch && Arc::ptr_eq(&with.link, link))
            });
            if is_known {
                return;
            }
            now.replace(with)
        };
        if before.is_some() {
            self.user.lost();
        }
        self.user.met(epoch);
    }

    /// It is over with whom it was met on `link`, if at all; tells whether it was.
    pub fn over(&self, link: &Arc<Link>) -> bool {
        self.end_if(|with| Arc::ptr_eq(&with.link, link))
    }

    /// The coordinator of `epoch` on `link` is no more.
    pub fn away(&self, link: &Arc<Link>, epoch: AttachmentEpoch) -> bool {
        self.end_if(|with| with.epoch == epoch && Arc::ptr_eq(&with.link, link))
    }

    /// There is a coordinator of `epoch`: it is over with any before it.
    pub fn outdated(&self, epoch: AttachmentEpoch) -> bool {
        self.end_if(|with| with.epoch < epoch)
    }

    fn end_if(&self, ends: impl Fn(&With) -> bool) -> bool {
        let _turn = self.turn.lock();
        let ended = self.with.lock().take_if(|with| ends(with)).is_some();
        if ended {
            self.user.lost();
        }
        ended
    }

    /// A letter came on `link`.
    pub fn letter(&self, link: &Arc<Link>, epoch: AttachmentEpoch, letter: Bytes) {
        let _turn = self.turn.lock();
        let with = self.with.lock().clone();
        if with.is_some_and(|with| with.epoch == epoch && Arc::ptr_eq(&with.link, link)) {
            self.user.letter(letter);
        }
    }

    /// Sends a letter to whom was met last.
    pub fn send(&self, volume: VolumeId, client: ClientId, letter: Bytes) -> Result<(), SendError> {
        let With { link, epoch } = self.with.lock().clone().ok_or(SendError::Down)?;
        let message = LinkMessage::Letter(Place { volume, client, epoch });
        let sent = link.send(Envelope::Link(message, letter).encode());
        // Nothing may be left out of the middle of a link.
        sent.inspect_err(|_| link.cut())
    }

    /// Cuts the link to whom was met.
    pub fn cut(&self) {
        if let Some(with) = &*self.with.lock() {
            with.link.cut();
        }
    }
}
