//! A client's socket, with or without TLS on it. Nothing here waits.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown, sendmsg, shutdown};
use rustls::{ServerConfig, ServerConnection};

/// Room that is made for what comes, at least.
const ROOM: usize = 64 << 10;

/// Pieces that one call sends.
const PIECES: usize = 64;

/// What became of looking for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// There are more than before.
    Bytes,
    /// None now.
    Nothing,
    /// The client has closed its side.
    Closed,
}

/// A socket that was set not to block.
pub(super) struct Link {
    socket: OwnedFd,
    tls: Option<Mutex<ServerConnection>>,
}

impl Link {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { socket, tls: None })
    }

    /// From now on all bytes pass TLS; its handshake goes on with what is received.
    pub(super) fn start_tls(&mut self, config: Arc<ServerConfig>) -> io::Result<()> {
        self.tls = Some(Mutex::new(ServerConnection::new(config).map_err(io::Error::other)?));
        Ok(())
    }

    /// Appends what has come to `input`; makes room for `wanted` bytes in all.
    pub(super) fn receive(&self, input: &mut BytesMut, wanted: usize) -> io::Result<Received> {
        input.reserve(wanted.saturating_sub(input.len()).max(ROOM));
        match &self.tls {
            None => self.receive_plain(input),
            Some(tls) => self.receive_tls(&mut tls.lock(), input),
        }
    }

    fn receive_plain(&self, input: &mut BytesMut) -> io::Result<Received> {
        let read = rustix::io::retry_on_intr(|| {
            rustix::io::read(&self.socket, input.spare_capacity_mut()).map(|(read, _)| read.len())
        });
        match read {
            Ok(0) => Ok(Received::Closed),
            Ok(read) => {
                // SAFETY: the kernel has filled so many bytes of the spare capacity.
                unsafe { input.set_len(input.len() + read) };
                Ok(Received::Bytes)
            }
            Err(Errno::AGAIN) => Ok(Received::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    fn receive_tls(
        &self,
        tls: &mut ServerConnection,
        input: &mut BytesMut,
    ) -> io::Result<Received> {
        let before = input.len();
        let mut closed = false;
        match tls.read_tls(&mut Wire(&self.socket)) {
            Ok(0) => closed = true,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if let Err(error) = tls.process_new_packets() {
            // The alert that says why; the connection ends either way.
            let _ = tls.write_tls(&mut Wire(&self.socket));
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        let mut piece = [0; 16 << 10];
        loop {
            match tls.reader().read(&mut piece) {
                Ok(0) => {
                    closed = true;
                    break;
                }
                Ok(read) => input.extend_from_slice(&piece[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // A client that leaves without a farewell has left.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    closed = true;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        match (input.len() > before, closed) {
            (true, _) => Ok(Received::Bytes),
            (false, true) => Ok(Received::Closed),
            (false, false) => Ok(Received::Nothing),
        }
    }

    /// Sends what it can of `queue`, and takes that off it. Says whether all of it is gone.
    pub(super) fn send(&self, queue: &mut VecDeque<Bytes>) -> io::Result<bool> {
        match &self.tls {
            None => self.send_plain(queue),
            Some(tls) => self.send_tls(&mut tls.lock(), queue),
        }
    }

    fn send_plain(&self, queue: &mut VecDeque<Bytes>) -> io::Result<bool> {
        while !queue.is_empty() {
            let pieces: Vec<IoSlice<'_>> =
                queue.iter().take(PIECES).map(|piece| IoSlice::new(piece)).collect();
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let sent = rustix::io::retry_on_intr(|| {
                sendmsg(&self.socket, &pieces, &mut SendAncillaryBuffer::default(), flags)
            });
            match sent {
                Ok(sent) => take_off(queue, sent),
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    fn send_tls(
        &self,
        tls: &mut ServerConnection,
        queue: &mut VecDeque<Bytes>,
    ) -> io::Result<bool> {
        loop {
            while tls.wants_write() {
                match tls.write_tls(&mut Wire(&self.socket)) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
            let Some(piece) = queue.front() else { return Ok(true) };
            // It takes some 64 KiB before it wants to write.
            let taken = tls.writer().write(piece)?;
            if taken == 0 && !piece.is_empty() {
                return Ok(false);
            }
            take_off(queue, taken);
        }
    }

    /// Waits until there is something to receive, or room to send, whatever is asked for; until `wake`
    /// is rung; or until the client is gone.
    pub(super) fn wait(
        &self,
        (receiving, sending): (bool, bool),
        wake: BorrowedFd<'_>,
        timeout: Option<&Timespec>,
    ) -> io::Result<Ready> {
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::IN, receiving);
        wanted.set(PollFlags::OUT, sending);
        let mut fds =
            [PollFd::new(&self.socket, wanted), PollFd::from_borrowed_fd(wake, PollFlags::IN)];
        match poll(&mut fds, timeout) {
            Ok(0) => Ok(Ready { timed_out: true, woken: false, gone: false }),
            Ok(_) => {
                let gone = fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR);
                Ok(Ready { timed_out: false, woken: !fds[1].revents().is_empty(), gone })
            }
            Err(Errno::INTR) => Ok(Ready { timed_out: false, woken: false, gone: false }),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends it, in both directions.
    pub(super) fn shut_down(&self) {
        if let Some(tls) = &self.tls {
            let mut tls = tls.lock();
            tls.send_close_notify();
            let _ = tls.write_tls(&mut Wire(&self.socket));
        }
        // Where the client has gone before, there is nothing to end.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}

/// What a wait was for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) timed_out: bool,
    pub(super) woken: bool,
    /// Nothing can be sent to it any more.
    pub(super) gone: bool,
}

fn take_off(queue: &mut VecDeque<Bytes>, mut sent: usize) {
    while let Some(front) = queue.front_mut() {
        if sent < front.len() {
            front.advance(sent);
            return;
        }
        sent -= front.len();
        queue.pop_front();
        if sent == 0 {
            // Empty pieces behind are nothing to be sent.
            while queue.front().is_some_and(Bytes::is_empty) {
                queue.pop_front();
            }
            return;
        }
    }
}

/// The socket, as rustls reads and writes it.
struct Wire<'a>(&'a OwnedFd);

impl Read for Wire<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::read(self.0.as_fd(), &mut *into))?)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        Ok(rustix::io::retry_on_intr(|| rustix::net::send(self.0, bytes, flags))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
