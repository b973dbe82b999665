//! One client in transmission: what it has asked and not been answered, and what waits to be sent.
//!
//! ```text
//!   loop (a thread of its own): receive -> decode -> admit ─> Export ... answer ─> queue ─> socket
//!                                    └ no room: it reads no more until there is ─┘
//! ```
//! An answer is sent by whichever thread has it, as far as the socket takes it at once; the loop sends
//! the rest. So nobody but the loop ever waits for a client, and a client that reads nothing keeps at
//! most [`IN_FLIGHT_MAX`] requests and [`HELD_MAX`] bytes in memory (or one request of up to that).
//!
//! Lock order: `Outgoing`, then the link's TLS.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, Timespec, eventfd};

use super::export::{Export, Outcome};
use super::handshake::Agreed;
use super::link::{Link, Ready, Received};
use super::proto::Errno;
use super::reply::{Frame, errno_of};
use super::request::{Decoder, Request, Work};
use crate::io::IoError;

/// Requests of one client that may wait for their answer.
const IN_FLIGHT_MAX: usize = 128;

/// Bytes of data that one client may keep in memory.
const HELD_MAX: usize = 32 << 20;

/// How long a client whose device is taken away may take to read what it is told.
const FAREWELL: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// A client.
pub(crate) struct Connection {
    link: Link,
    agreed: Agreed,
    export: Arc<Export>,
    peer: String,
    wake: OwnedFd,
    outgoing: Mutex<Outgoing>,
}

#[derive(Default)]
struct Outgoing {
    queue: VecDeque<Bytes>,
    /// Bytes in the queue.
    queued: usize,
    waiting: BTreeMap<u64, Waiting>,
    /// Bytes that those keep.
    held: usize,
    next: u64,
    /// The loop waits for answers to be given.
    paused: bool,
    /// Nothing more is read; what is queued is still sent.
    ending: bool,
    /// The client has gone: answers go nowhere.
    closed: bool,
}

struct Waiting {
    frame: Frame,
    offset: u64,
    holds: usize,
}

/// Why a loop ended.
enum End {
    /// The client has gone, or what it sent is no request.
    Now,
    /// It said that it goes: what it waits for is still answered.
    WhenAnswered,
}

impl Connection {
    pub(super) fn new(
        link: Link,
        agreed: Agreed,
        export: Arc<Export>,
        peer: String,
    ) -> io::Result<Arc<Self>> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let outgoing = Mutex::default();
        Ok(Arc::new(Self { link, agreed, export, peer, wake, outgoing }))
    }

    /// Who it is, for people.
    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.outgoing.lock().waiting.len() as u64
    }

    /// Answers everything that waits with an error, as far as the client takes it now.
    pub(super) fn fail(&self) {
        let mut outgoing = self.outgoing.lock();
        outgoing.held = 0;
        for (_, waiting) in std::mem::take(&mut outgoing.waiting) {
            self.export.count_error();
            let words = IoError::Fenced.to_string();
            outgoing.push(waiting.frame.error(Errno::Io, &words));
        }
        self.send(&mut outgoing);
    }

    /// Has the loop end once the client has been told what is queued, or soon.
    pub(super) fn end_soon(&self) {
        self.outgoing.lock().ending = true;
        self.ring();
    }

    /// Serves the client until it goes.
    pub(super) fn serve(self: &Arc<Self>, mut input: BytesMut) {
        let mut decoder = Decoder::default();
        let end = self.requests(&mut decoder, &mut input);
        if matches!(end, Ok(End::WhenAnswered)) {
            self.answer_the_rest();
        }
        {
            let mut outgoing = self.outgoing.lock();
            outgoing.closed = true;
            outgoing.queue.clear();
            outgoing.waiting.clear();
        }
        self.link.shut_down();
        if let Err(error) = end {
            tracing::info!(device = self.export.name(), peer = self.peer, %error, "a client's connection broke");
        }
    }

    fn requests(self: &Arc<Self>, decoder: &mut Decoder, input: &mut BytesMut) -> io::Result<End> {
        let mut held: Option<Request> = None;
        loop {
            let request = match held.take() {
                Some(request) => Some(request),
                None => match decoder.next(input) {
                    Ok(request) => request,
                    Err(error) => {
                        tracing::warn!(device = self.export.name(), peer = self.peer, %error, "disconnected");
                        return Ok(End::Now);
                    }
                },
            };
            if let Some(request) = request {
                match self.admit(&request) {
                    Some(ticket) => match self.begin(request, ticket) {
                        true => continue,
                        false => return Ok(End::WhenAnswered),
                    },
                    None => held = Some(request),
                }
            } else {
                match self.link.receive(input, decoder.wants())? {
                    Received::Bytes => continue,
                    Received::Closed => return Ok(End::Now),
                    Received::Nothing => {}
                }
            }
            let (sending, ending) = self.unsent();
            if ending {
                return Ok(End::WhenAnswered);
            }
            let ready = self.wait((held.is_none(), sending), None)?;
            // Where bytes are awaited, receiving tells the end in order, behind what came before it.
            if ready.gone && held.is_some() {
                return Ok(End::Now);
            }
            self.flush(&mut self.outgoing.lock());
        }
    }

    /// What is left to do for a client that sends nothing more.
    fn answer_the_rest(&self) {
        loop {
            let (unsent, ending) = {
                let mut outgoing = self.outgoing.lock();
                let unsent = !outgoing.queue.is_empty();
                if !unsent && (outgoing.ending || outgoing.waiting.is_empty()) {
                    return;
                }
                // The next answer wakes it.
                outgoing.paused = true;
                (unsent, outgoing.ending)
            };
            // A device that is taken away waits for nobody, a client that goes for its answers.
            let timeout = ending.then_some(&FAREWELL);
            match self.wait((false, unsent), timeout) {
                Ok(ready) if !ready.gone && !ready.timed_out => {
                    self.flush(&mut self.outgoing.lock());
                }
                _ => return,
            }
        }
    }

    fn wait(&self, what: (bool, bool), timeout: Option<&Timespec>) -> io::Result<Ready> {
        let ready = self.link.wait(what, self.wake.as_fd(), timeout)?;
        if ready.woken {
            // Rung any number of times, it is silent again.
            let _ = rustix::io::read(&self.wake, &mut [0_u8; 8]);
        }
        Ok(ready)
    }

    /// Whether something is unsent, and whether it is to end.
    fn unsent(&self) -> (bool, bool) {
        let outgoing = self.outgoing.lock();
        (!outgoing.queue.is_empty(), outgoing.ending)
    }

    /// Room for a request; without it the loop is woken when there is.
    fn admit(&self, request: &Request) -> Option<u64> {
        let mut outgoing = self.outgoing.lock();
        let holds = request.holds();
        let kept = outgoing.held + outgoing.queued;
        if outgoing.waiting.len() >= IN_FLIGHT_MAX || (kept > 0 && kept + holds > HELD_MAX) {
            outgoing.paused = true;
            return None;
        }
        let ticket = outgoing.next;
        outgoing.next += 1;
        outgoing.held += holds;
        let structured = self.agreed.structured && (request.is_read() || request.is_block_status());
        let frame = Frame { cookie: request.cookie, structured };
        outgoing.waiting.insert(ticket, Waiting { frame, offset: request.offset(), holds });
        Some(ticket)
    }

    /// Has a request done. Says whether more may follow.
    fn begin(self: &Arc<Self>, request: Request, ticket: u64) -> bool {
        let export = &self.export;
        match request.check(&self.agreed, export.size(), export.is_read_only()) {
            Ok(Work::Disconnect) => {
                self.outgoing.lock().take(ticket);
                false
            }
            Ok(work) => {
                let this = Arc::clone(self);
                export.perform(work, Box::new(move |result| this.answer(ticket, result)));
                true
            }
            Err(errno) => {
                self.refuse(ticket, errno);
                true
            }
        }
    }

    fn refuse(&self, ticket: u64, errno: Errno) {
        let mut outgoing = self.outgoing.lock();
        let Some(waiting) = outgoing.take(ticket) else { return };
        self.export.count_error();
        outgoing.push(waiting.frame.error(errno, "the request can't be served"));
        self.send(&mut outgoing);
    }

    fn answer(&self, ticket: u64, result: Result<Outcome, IoError>) {
        let mut outgoing = self.outgoing.lock();
        // Answered with an error meanwhile, or nobody is there any more.
        let Some(waiting) = outgoing.take(ticket) else { return };
        let frame = waiting.frame;
        match result {
            Ok(Outcome::Done) => outgoing.push(frame.done()),
            Ok(Outcome::Status(extents)) => outgoing.push(frame.status(&extents)),
            Ok(Outcome::Data(pieces)) => {
                let mut reply = Vec::with_capacity(1 + pieces.len());
                frame.data(waiting.offset, pieces, &mut reply);
                reply.into_iter().for_each(|piece| outgoing.push(piece));
            }
            Err(error) => {
                self.export.count_error();
                outgoing.push(frame.error(errno_of(error), &error.to_string()));
            }
        }
        self.send(&mut outgoing);
    }

    /// Sends what the socket takes now, and leaves the rest to the loop.
    fn send(&self, outgoing: &mut Outgoing) {
        let empty = self.flush(outgoing);
        if !empty || std::mem::take(&mut outgoing.paused) {
            self.ring();
        }
    }

    /// Sends what the socket takes now. Says whether nothing is left to be sent.
    fn flush(&self, outgoing: &mut Outgoing) -> bool {
        if outgoing.closed {
            outgoing.queue.clear();
        }
        let empty = match self.link.send(&mut outgoing.queue) {
            Ok(empty) => empty,
            Err(error) => {
                tracing::debug!(device = self.export.name(), peer = self.peer, %error, "sending");
                outgoing.closed = true;
                outgoing.ending = true;
                outgoing.queue.clear();
                self.ring();
                true
            }
        };
        outgoing.queued = outgoing.queue.iter().map(Bytes::len).sum();
        empty
    }

    fn ring(&self) {
        // Full means that it was rung, which is all that is wanted.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Outgoing {
    fn take(&mut self, ticket: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&ticket)?;
        self.held -= waiting.holds;
        Some(waiting)
    }

    fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.queued += piece.len();
            self.queue.push_back(piece);
        }
    }
}
