//! The sending end of a stream: encrypts queued messages and writes as much as the socket takes.
//!
//! ```text
//!   Queue ──pop, up to 256 KiB──▶ segments ──encrypt, 16 KiB records──▶ TLS buffer ──writev──▶ socket
//! ```
//! Whoever holds the writer's lock drains the queue: a sender when the socket is idle, the stream's
//! thread when it is not. Nothing here blocks.
//!
//! Invariants: messages leave in the order of the queue; a message's bytes count in the window
//! until the last of them is with the kernel; locks are taken writer first, then queue.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::net::TcpStream;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use rustls::ClientConnection;

use crate::contract::{Message, SendError};
use crate::fingerprint::Fingerprint;
use crate::proto;

/// What is encrypted before it is written: a few records, so that memory stays small and the
/// peer gets to work early.
const TLS_BUFFER_BYTES: usize = 256 << 10;
/// What is taken from the queue at a time.
const BATCH_BYTES: usize = 256 << 10;
/// What one sender drains for others before it leaves the rest to the stream's thread.
const SENDER_BUDGET: usize = 512 << 10;
/// Pieces encrypted with one call.
const MAX_SLICES: usize = 64;

/// Messages that wait to be written, bounded in bytes.
pub(crate) struct Queue {
    messages: VecDeque<(Bytes, Message)>,
    /// What is queued or being written.
    bytes: usize,
    window: usize,
    up: bool,
}

/// The TLS connection of an outgoing stream.
pub(crate) struct Writer {
    tls: ClientConnection,
    socket: Arc<TcpStream>,
    /// Of the key that the peer showed.
    fingerprint: Fingerprint,
    /// Taken from the queue, not yet encrypted.
    segments: VecDeque<Bytes>,
    /// The window's share of `segments` and of what is encrypted and not yet written.
    in_flight: usize,
    state: WriterState,
}

/// Whether a sender may write by itself.
enum WriterState {
    Ready,
    /// The socket is full, or a sender has done enough for others: the stream's thread goes on.
    Blocked,
    Broken(io::Error),
}

impl Queue {
    pub(crate) fn new(window: usize) -> Self {
        Self { messages: VecDeque::new(), bytes: 0, window, up: false }
    }

    /// Queues a message; gives whether it is the first. An empty window takes one of any size.
    pub(crate) fn push(&mut self, head: Bytes, message: Message) -> Result<bool, SendError> {
        let cost = message.cost();
        if !self.up {
            return Err(SendError::Down);
        }
        if self.bytes > 0 && self.bytes + cost > self.window {
            return Err(SendError::Full);
        }
        self.bytes += cost;
        self.messages.push_back((head, message));
        Ok(self.messages.len() == 1)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Takes the next message, for a carrier that needs no head; it counts until [`Self::release`].
    #[cfg(feature = "zeromq")]
    pub(crate) fn take(&mut self) -> Option<(usize, Message)> {
        let (_, message) = self.messages.pop_front()?;
        Some((message.cost(), message))
    }

    /// What was taken no longer counts.
    #[cfg(feature = "zeromq")]
    pub(crate) fn release(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }

    /// Opens for a new stream, or closes and drops what is queued.
    pub(crate) fn set_up(&mut self, up: bool) {
        self.up = up;
        self.messages.clear();
        self.bytes = 0;
    }

    /// Moves a batch into `segments`; gives its share of the window.
    fn pop_batch(&mut self, segments: &mut VecDeque<Bytes>) -> usize {
        let mut taken = 0;
        while taken < BATCH_BYTES {
            let Some((head, message)) = self.messages.pop_front() else { break };
            taken += message.cost();
            segments.push_back(head);
            let frames = std::iter::once(message.header).chain(message.payload);
            segments.extend(frames.filter(|frame| !frame.is_empty()));
        }
        taken
    }
}

impl Writer {
    /// Over a connection whose handshake is done; makes the socket non-blocking.
    pub(crate) fn new(mut tls: ClientConnection, socket: Arc<TcpStream>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let certificate = tls.peer_certificates().and_then(|chain| chain.first());
        let fingerprint = certificate
            .and_then(|der| Fingerprint::of_certificate(der).ok())
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        tls.set_buffer_limit(Some(TLS_BUFFER_BYTES));
        let segments = VecDeque::new();
        Ok(Self { tls, socket, fingerprint, segments, in_flight: 0, state: WriterState::Ready })
    }

    pub(crate) fn socket(&self) -> &Arc<TcpStream> {
        &self.socket
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.state, WriterState::Ready)
    }

    pub(crate) fn is_blocked(&self) -> bool {
        matches!(self.state, WriterState::Blocked)
    }

    /// The stream's thread goes on where a sender stopped.
    pub(crate) fn unblock(&mut self) {
        if self.is_blocked() {
            self.state = WriterState::Ready;
        }
    }

    /// Why the stream is useless, if it is.
    pub(crate) fn take_broken(&mut self) -> Option<io::Error> {
        match std::mem::replace(&mut self.state, WriterState::Ready) {
            WriterState::Broken(error) => Some(error),
            state => {
                self.state = state;
                None
            }
        }
    }

    /// Writes what is queued, as far as the socket takes it. Afterwards it is ready (all is with
    /// the kernel), blocked or broken.
    pub(crate) fn drain(&mut self, queue: &Mutex<Queue>) {
        let mut budget = SENDER_BUDGET;
        self.state = loop {
            match self.flush() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    break WriterState::Blocked;
                }
                Err(error) => break WriterState::Broken(error),
            }
            if self.segments.is_empty() {
                let mut queue = queue.lock();
                queue.bytes -= self.in_flight;
                self.in_flight = 0;
                if queue.is_empty() {
                    break WriterState::Ready;
                }
                if budget == 0 {
                    break WriterState::Blocked;
                }
                self.in_flight = queue.pop_batch(&mut self.segments);
                budget = budget.saturating_sub(self.in_flight);
            }
            if let Err(error) = self.encrypt() {
                break WriterState::Broken(error);
            }
        };
    }

    /// Reads what the peer says, which is nothing until it closes.
    pub(crate) fn read(&mut self) -> io::Result<()> {
        match self.tls.read_tls(&mut &*self.socket) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        let state = self.tls.process_new_packets().map_err(io::Error::other)?;
        if state.peer_has_closed() || state.plaintext_bytes_to_read() > 0 {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    /// Writes what is encrypted.
    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut &*self.socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Encrypts segments until the TLS buffer is full or none is left.
    fn encrypt(&mut self) -> io::Result<()> {
        while !self.segments.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut count = 0;
            for (slice, segment) in slices.iter_mut().zip(&self.segments) {
                *slice = IoSlice::new(segment);
                count += 1;
            }
            let mut written = self.tls.writer().write_vectored(&slices[..count])?;
            if written == 0 {
                break;
            }
            while let Some(first) = self.segments.front_mut() {
                if written < first.len() {
                    first.advance(written);
                    break;
                }
                written -= first.len();
                self.segments.pop_front();
            }
        }
        Ok(())
    }
}

/// A message with its head, ready to be queued.
pub(crate) fn prepare(message: &Message) -> Result<Bytes, SendError> {
    proto::check_size(message)?;
    Ok(proto::message_head(message))
}
