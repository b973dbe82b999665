//! One outgoing stream, and the thread that keeps it up.
//!
//! ```text
//!            dial, hello, welcome                     broken, cut, disconnected
//!   down ─────────────────────────▶ up: `connected` ─────────────────────────▶ down: `disconnected`
//!     ▲                                                                          │
//!     └──────────────────────── pause, 20 to 500 ms ◀────────────────────────────┘
//! ```
//! While the stream is up its thread polls the socket, and writes only what senders could not.
//!
//! Invariants: one thread for each wanted (peer, channel), and all reports about it come from that
//! thread; a message is either refused or queued on the stream that is up.
#![allow(clippy::disallowed_methods)] // A shell: pauses between real connections.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[cfg(feature = "zeromq")]
use bytes::Bytes;
use mooring_terms::NodeId;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{debug, info, warn};

use crate::admission::Admission;
use crate::contract::{Channel, Message, SendError};
use crate::endpoint::core::Core;
use crate::endpoint::dial::dial;
use crate::endpoint::socket::Waker;
use crate::endpoint::writer::{Queue, Writer, prepare};
use crate::error::Error;
use crate::fingerprint::Fingerprint;
#[cfg(feature = "zeromq")]
use crate::{proto, zeromq};

const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// A stream that was up for so long counts as a success: the next pause is short again.
const LASTING: Duration = Duration::from_millis(500);
/// An unreachable peer is mentioned at first, and then so often.
const MENTION_EVERY: Duration = Duration::from_secs(60);

/// What a stream goes over.
enum Line {
    Tls(Box<Writer>),
    #[cfg(feature = "zeromq")]
    ZeroMq(zeromq::outgoing::Line),
}

/// A stream to one peer for one channel, up or down.
pub(crate) struct Outgoing {
    peer: NodeId,
    channel: Channel,
    queue: Mutex<Queue>,
    /// Whether it goes over ZeroMQ.
    #[cfg(feature = "zeromq")]
    unprotected: bool,
    /// Of the key that the peer showed, or over ZeroMQ goes by; while the stream is up.
    shown: Mutex<Option<Fingerprint>>,
    writer: Mutex<Option<Writer>>,
    waker: Waker,
    /// Whether anybody wants the stream; written under the lock of the endpoint's table.
    pub(crate) wanted: AtomicBool,
    cut: AtomicBool,
}

impl Outgoing {
    pub(crate) fn new(peer: NodeId, channel: Channel, core: &Core) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            peer,
            channel,
            queue: Mutex::new(Queue::new(core.limits().window_bytes)),
            #[cfg(feature = "zeromq")]
            unprotected: core.unprotected.dials(channel),
            shown: Mutex::new(None),
            writer: Mutex::new(None),
            waker: Waker::new()?,
            wanted: AtomicBool::new(true),
            cut: AtomicBool::new(false),
        }))
    }

    /// See `Transport::send`.
    pub(crate) fn send(&self, message: Message) -> Result<(), SendError> {
        #[cfg(feature = "zeromq")]
        if self.unprotected {
            proto::check_size(&message)?;
            if self.queue.lock().push(Bytes::new(), message)? {
                self.waker.notify();
            }
            return Ok(());
        }
        let head = prepare(&message)?;
        self.queue.lock().push(head, message)?;
        self.drain();
        Ok(())
    }

    /// Ends the stream that is up; its thread dials again if it is wanted.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Ends the stream unless its peer is still listed under the key that it showed.
    pub(crate) fn refresh(&self, admission: &dyn Admission) -> bool {
        let listed = admission.fingerprint_of(self.peer);
        let shown = self.shown.lock();
        // While it dials nobody knows what the peer showed: it dials again.
        let admitted = shown.is_some() && listed == *shown;
        if !admitted {
            self.cut();
        }
        admitted || shown.is_none()
    }

    /// The body of the stream's thread.
    pub(crate) fn run(&self, core: &Core) {
        let mut pause = MIN_PAUSE;
        let mut mentioned: Option<Instant> = None;
        while !core.retire(self, self.peer, self.channel) {
            // A cut that comes while this dials ends the stream that is being made.
            self.cut.store(false, Ordering::Release);
            match self.dial(core) {
                Ok(line) => {
                    mentioned = None;
                    let since = Instant::now();
                    self.be_up(core, line);
                    // Who cuts a stream on purpose wants the next one soon.
                    if since.elapsed() >= LASTING || self.cut.load(Ordering::Acquire) {
                        pause = MIN_PAUSE;
                    }
                }
                Err(error) => {
                    if mentioned.is_none_or(|at| at.elapsed() >= MENTION_EVERY) {
                        mentioned = Some(Instant::now());
                        self.mention(&error);
                    }
                }
            }
            self.rest(core, pause);
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    fn dial(&self, core: &Core) -> Result<Line, Error> {
        #[cfg(feature = "zeromq")]
        if self.unprotected {
            return zeromq::outgoing::dial(core, self.peer, self.channel).map(Line::ZeroMq);
        }
        dial(core, self.peer, self.channel).map(|writer| Line::Tls(Box::new(writer)))
    }

    /// From `connected` to `disconnected`.
    fn be_up(&self, core: &Core, line: Line) {
        {
            let mut shown = self.shown.lock();
            if self.cut.load(Ordering::Acquire) {
                return;
            }
            *shown = Some(line.fingerprint());
        }
        let reason = match line {
            Line::Tls(writer) => {
                *self.writer.lock() = Some(*writer);
                self.begin(core);
                self.serve(core)
            }
            #[cfg(feature = "zeromq")]
            Line::ZeroMq(line) => {
                self.begin(core);
                line.serve(self, core)
            }
        };
        *self.shown.lock() = None;
        {
            let mut held = self.writer.lock();
            self.queue.lock().set_up(false);
            if let Some(writer) = held.take() {
                // The peer may have closed it before us.
                let _ = writer.socket().shutdown(Shutdown::Both);
            }
        }
        info!(peer = %self.peer, channel = %self.channel, %reason, "stream down");
        core.handler().disconnected(self.peer, self.channel);
    }

    /// Takes messages from here on.
    fn begin(&self, core: &Core) {
        self.queue.lock().set_up(true);
        debug!(peer = %self.peer, channel = %self.channel, "stream up");
        core.handler().connected(self.peer, self.channel);
    }

    /// Waits for room, for the end and for wakes; gives the reason of the end.
    fn serve(&self, core: &Core) -> io::Error {
        let aborted = || io::Error::from(io::ErrorKind::ConnectionAborted);
        let Some(socket) = self.writer.lock().as_ref().map(|w| Arc::clone(w.socket())) else {
            return aborted();
        };
        loop {
            if self.is_to_end(core) {
                return aborted();
            }
            let ready = self.writer.lock().as_ref().is_some_and(Writer::is_ready);
            let mut events = PollFlags::IN | PollFlags::RDHUP;
            events.set(PollFlags::OUT, !ready);
            let mut fds = [
                PollFd::from_borrowed_fd(std::os::fd::AsFd::as_fd(&*socket), events),
                PollFd::new(self.waker.fd(), PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return errno.into(),
            }
            let seen = fds[0].revents();
            if !fds[1].revents().is_empty() {
                self.waker.reset();
            }
            if let Err(error) = self.after_poll(seen) {
                return error;
            }
        }
    }

    /// Reads and writes what the poll says is possible.
    fn after_poll(&self, seen: PollFlags) -> io::Result<()> {
        {
            let mut held = self.writer.lock();
            let Some(writer) = held.as_mut() else { return Ok(()) };
            if let Some(error) = writer.take_broken() {
                return Err(error);
            }
            if seen.intersects(!PollFlags::OUT) {
                writer.read()?;
                if seen.intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR) {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
            }
            if seen.contains(PollFlags::OUT) {
                writer.unblock();
            }
        }
        self.drain();
        Ok(())
    }

    /// Writes what is queued unless somebody else is at it, who then looks again after letting go.
    fn drain(&self) {
        loop {
            let Some(mut held) = self.writer.try_lock() else { return };
            let Some(writer) = held.as_mut().filter(|writer| writer.is_ready()) else { return };
            writer.drain(&self.queue);
            let ready = writer.is_ready();
            drop(held);
            if !ready {
                self.waker.wake();
                return;
            }
            if self.queue.lock().is_empty() {
                return;
            }
        }
    }

    /// Whether the stream that is up is cut or no longer wanted.
    pub(crate) fn is_to_end(&self, core: &Core) -> bool {
        self.cut.load(Ordering::Acquire) || !self.is_wanted(core)
    }

    fn is_wanted(&self, core: &Core) -> bool {
        self.wanted.load(Ordering::Acquire) && !core.is_stopping()
    }

    /// Pauses; a stream that is no longer wanted ends at once.
    fn rest(&self, core: &Core, pause: Duration) {
        let until = Instant::now() + pause;
        while self.is_wanted(core) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let timeout = Timespec::try_from(left).ok();
            let mut fds = [PollFd::new(self.waker.fd(), PollFlags::IN)];
            // Whatever ends the wait, the conditions are looked at again.
            let _ = poll(&mut fds, timeout.as_ref());
            self.waker.reset();
        }
    }

    fn mention(&self, error: &Error) {
        let (peer, channel) = (self.peer, self.channel);
        match error {
            Error::UnknownNode(_) => debug!(%peer, %channel, "no address to dial"),
            _ => {
                let source = std::error::Error::source(error).map(ToString::to_string);
                warn!(%peer, %channel, %error, source, "cannot connect; trying on");
            }
        }
    }
}

/// What a stream over ZeroMQ needs of it.
#[cfg(feature = "zeromq")]
impl Outgoing {
    /// Wakes when the queue is no longer empty, and for [`Self::is_to_end`].
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// The next message and what it costs of the window, until [`Self::release`].
    pub(crate) fn take(&self) -> Option<(usize, Message)> {
        self.queue.lock().take()
    }

    /// So much of what was taken has been handled.
    pub(crate) fn release(&self, bytes: usize) {
        self.queue.lock().release(bytes);
    }
}

impl Line {
    fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::Tls(writer) => writer.fingerprint(),
            #[cfg(feature = "zeromq")]
            Self::ZeroMq(line) => line.fingerprint(),
        }
    }
}
