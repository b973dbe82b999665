//! Links: a process that is no daemon talks to a daemon, both ways over one connection.
//!
//! ```text
//!   mount process                                            daemon
//!   Dialler::dial ── TCP, TLS, ALPN mooring-link/1 ────────▶ accept ─▶ LinkHandler::opened
//!   Link::over_unix ── unix socket, root only ─────────────▶ Link::over_unix
//!        send ────────────── messages, either way ─────────── send
//! ```
//! The process has its node's key and acts for its node; it listens nowhere. Node streams are no use
//! to it: a node has one of them for each peer and channel, and that is the daemon's.
//!
//! One thread a link reads, and writes what senders could not; a sender writes by itself while the
//! socket takes it. Both directions of a TLS connection share its keys, hence one lock.
//!
//! Invariants: messages arrive in order, once, until the link is closed, which both ends are told
//! once; `send` never blocks; what is queued is bounded in bytes; a link whose node is removed from
//! the table is cut.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use mooring_terms::NodeId;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustls::Connection;

use crate::admission::Admission;
use crate::assembler::Assembler;
use crate::contract::{Message, SendError};
use crate::endpoint::dial::connect;
use crate::endpoint::socket::{self, Waker};
use crate::endpoint::writer::prepare;
use crate::error::Error;
use crate::fingerprint::Fingerprint;
use crate::identity::Identity;
use crate::proto::{FrameError, Kind};
use crate::tls::config::{Configs, any_name};
use crate::tls::timed::Timed;

/// What one read takes.
const READ_BYTES: usize = 256 << 10;
/// Pieces written with one call.
const MAX_SLICES: usize = 64;

/// Takes what links report, on the thread of each.
pub trait LinkHandler: Send + Sync {
    /// A link is up; before anything else of it.
    fn opened(&self, link: &Arc<Link>);
    /// Messages that arrived together, in order.
    fn messages(&self, link: &Arc<Link>, messages: Vec<Message>);
    /// The link is gone; after everything else of it.
    fn closed(&self, link: &Arc<Link>);
}

/// One end of a link.
pub struct Link {
    peer: NodeId,
    socket: Socket,
    out: Mutex<Out>,
    waker: Waker,
    over: AtomicBool,
    window: usize,
    /// Of the key that the peer showed; none on a unix socket.
    pub(crate) shown: Option<Fingerprint>,
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What is on its way out, and the keys of both ways.
struct Out {
    tls: Option<Connection>,
    segments: VecDeque<Bytes>,
    /// Of what was sent since all was with the kernel, in bytes.
    queued: usize,
    /// The socket is full: the thread goes on when it isn't.
    is_blocked: bool,
}

impl Link {
    /// A link over a unix socket whose other end is known to be a process of `peer`: nothing is
    /// encrypted. Run it with [`Link::run`].
    ///
    /// # Errors
    /// The socket can't be set up.
    pub fn over_unix(socket: UnixStream, peer: NodeId, window: usize) -> io::Result<Arc<Self>> {
        socket.set_nonblocking(true)?;
        Self::new(Socket::Unix(socket), None, peer, None, window)
    }

    pub(crate) fn over_tls(
        socket: TcpStream,
        tls: Connection,
        peer: NodeId,
        shown: Fingerprint,
        window: usize,
    ) -> io::Result<Arc<Self>> {
        socket.set_nonblocking(true)?;
        Self::new(Socket::Tcp(socket), Some(tls), peer, Some(shown), window)
    }

    fn new(
        socket: Socket,
        mut tls: Option<Connection>,
        peer: NodeId,
        shown: Option<Fingerprint>,
        window: usize,
    ) -> io::Result<Arc<Self>> {
        if let Some(tls) = &mut tls {
            // The window bounds it.
            tls.set_buffer_limit(None);
        }
        let out = Out { tls, segments: VecDeque::new(), queued: 0, is_blocked: false };
        let waker = Waker::new()?;
        let over = AtomicBool::new(false);
        Ok(Arc::new(Self { peer, socket, out: Mutex::new(out), waker, over, window, shown }))
    }

    /// Whether both ends are on one machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.socket, Socket::Unix(_))
    }

    /// The node that the other end acts for.
    #[must_use]
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    /// Writes a message, or queues it; never blocks.
    ///
    /// # Errors
    /// [`SendError`]; the message was then not taken.
    pub fn send(&self, message: Message) -> Result<(), SendError> {
        let head = prepare(&message)?;
        let cost = message.cost();
        let mut out = self.out.lock();
        if self.is_over() {
            return Err(SendError::Down);
        }
        if out.queued > 0 && out.queued + cost > self.window {
            return Err(SendError::Full);
        }
        out.queued += cost;
        let frames = std::iter::once(message.header).chain(message.payload);
        out.segments.push_back(head);
        out.segments.extend(frames.filter(|frame| !frame.is_empty()));
        if !out.is_blocked {
            self.drain(&mut out);
        }
        Ok(())
    }

    /// Ends the link.
    pub fn cut(&self) {
        self.over.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether nothing goes through any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Reads until the link ends; the body of its thread.
    pub fn run(self: &Arc<Self>, handler: &dyn LinkHandler) {
        handler.opened(self);
        let mut assembler = Assembler::new(Kind::Message);
        let mut buffer = vec![0; READ_BYTES];
        let reason = self.read_on(handler, &mut assembler, &mut buffer);
        self.cut();
        if let Err(reason) = reason {
            tracing::debug!(peer = %self.peer, %reason, "link closed");
        }
        self.socket.shut();
        handler.closed(self);
    }

    fn read_on(
        self: &Arc<Self>,
        handler: &dyn LinkHandler,
        assembler: &mut Assembler,
        buffer: &mut [u8],
    ) -> io::Result<()> {
        // What came with the end of the handshake.
        let mut messages = self.take_in(assembler, &[])?;
        while !self.is_over() {
            if !messages.is_empty() {
                handler.messages(self, std::mem::take(&mut messages));
            }
            let count = match self.socket.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait()?;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            messages = self.take_in(assembler, &buffer[..count])?;
        }
        Ok(())
    }

    /// The messages that are complete with `received`.
    fn take_in(&self, assembler: &mut Assembler, received: &[u8]) -> io::Result<Vec<Message>> {
        let mut messages = Vec::new();
        let mut out = self.out.lock();
        let Some(tls) = &mut out.tls else {
            assemble(assembler, received, &mut messages)?;
            return Ok(messages);
        };
        let mut input = received;
        let mut plain = vec![0; 16 << 10];
        loop {
            while tls.wants_read() && !input.is_empty() {
                tls.read_tls(&mut input)?;
                tls.process_new_packets().map_err(io::Error::other)?;
            }
            match tls.reader().read(&mut plain) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => assemble(assembler, &plain[..count], &mut messages)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if input.is_empty() {
                        return Ok(messages);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Until there is something to read, room to write what waits, or a wake.
    fn wait(&self) -> io::Result<()> {
        let blocked = self.out.lock().is_blocked;
        let wanted = if blocked { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let mut fds =
            [PollFd::new(&self.socket, wanted), PollFd::new(self.waker.fd(), PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if !fds[1].revents().is_empty() {
            self.waker.reset();
        }
        if blocked {
            self.drain(&mut self.out.lock());
        }
        Ok(())
    }

    /// Writes as much as the socket takes.
    fn drain(&self, out: &mut Out) {
        match self.write_out(out) {
            Ok(()) => {
                out.queued = 0;
                out.is_blocked = false;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !std::mem::replace(&mut out.is_blocked, true) {
                    self.waker.wake();
                }
            }
            Err(_) => self.cut(),
        }
    }

    fn write_out(&self, out: &mut Out) -> io::Result<()> {
        let Out { tls, segments, .. } = out;
        if let Some(tls) = tls {
            while let Some(segment) = segments.pop_front() {
                tls.writer().write_all(&segment)?;
            }
            while tls.wants_write() {
                match tls.write_tls(&mut Writing(&self.socket)) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            return Ok(());
        }
        while !segments.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut count = 0;
            for (slice, segment) in slices.iter_mut().zip(segments.iter()) {
                *slice = IoSlice::new(segment);
                count += 1;
            }
            let mut written = match self.socket.write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            while let Some(first) = segments.front_mut() {
                if written < first.len() {
                    first.advance(written);
                    break;
                }
                written -= first.len();
                segments.pop_front();
            }
        }
        Ok(())
    }
}

fn assemble(
    assembler: &mut Assembler,
    mut bytes: &[u8],
    messages: &mut Vec<Message>,
) -> io::Result<()> {
    let bad = |error: FrameError| io::Error::new(io::ErrorKind::InvalidData, error);
    while let Some(message) = assembler.feed_message(&mut bytes).map_err(bad)? {
        messages.push(message);
    }
    Ok(())
}

impl Socket {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => (&mut &*socket).read(buffer),
            Self::Unix(socket) => (&mut &*socket).read(buffer),
        }
    }

    fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => (&mut &*socket).write_vectored(slices),
            Self::Unix(socket) => (&mut &*socket).write_vectored(slices),
        }
    }

    /// Ends both ways; that it was ended already is no fault.
    fn shut(&self) {
        let _ = rustix::net::shutdown(self, rustix::net::Shutdown::Both);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

/// A socket for who wants a `Write`.
struct Writing<'a>(&'a Socket);

impl Write for Writing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Dials daemons with a node's identity.
pub struct Dialler {
    configs: Configs,
    handshake: Duration,
    window: usize,
}

impl Dialler {
    /// For processes of the node with this identity. `admission` says which keys are whose; a daemon
    /// that shows another than its own is not talked to.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub fn new(
        identity: &Identity,
        admission: Arc<dyn Admission>,
        handshake: Duration,
        window: usize,
    ) -> Result<Self, Error> {
        Ok(Self { configs: Configs::new(identity, admission)?, handshake, window })
    }

    /// A link to the daemon of `peer`, which listens at `address`. Run it with [`Link::run`].
    ///
    /// # Errors
    /// [`Error`]: unreachable, another key than the one listed, or not admitted there.
    pub fn dial(&self, peer: NodeId, address: SocketAddr) -> Result<Arc<Link>, Error> {
        let connection = |source| Error::Connection { address, source };
        let socket = connect(address, self.handshake)?;
        socket::prepare(&socket).map_err(connection)?;
        let config = self.configs.link_client(peer)?;
        let mut tls = rustls::ClientConnection::new(config, any_name())?;
        let mut timed = Timed::new(&socket, self.handshake);
        while tls.is_handshaking() {
            tls.complete_io(&mut timed).map_err(connection)?;
        }
        let shown = tls.peer_certificates().and_then(|chain| chain.first());
        let shown = shown.and_then(|der| Fingerprint::of_certificate(der).ok());
        let Some(shown) = shown else { return Err(Error::Closed { address }) };
        Link::over_tls(socket, tls.into(), peer, shown, self.window).map_err(connection)
    }
}
