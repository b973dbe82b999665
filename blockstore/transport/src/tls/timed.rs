//! A blocking socket with one deadline over all its reads and writes, for handshakes.
#![allow(clippy::disallowed_methods)] // A shell: deadlines of real connections.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Reads and writes until a deadline, however small the pieces in which a slow peer doles them out.
pub(crate) struct Timed<'a> {
    socket: &'a TcpStream,
    deadline: Instant,
}

impl<'a> Timed<'a> {
    pub(crate) fn new(socket: &'a TcpStream, limit: Duration) -> Self {
        Self::until(socket, Instant::now() + limit)
    }

    /// Another hold on the same time: a handshake that goes through several hands has one deadline.
    pub(crate) fn until(socket: &'a TcpStream, deadline: Instant) -> Self {
        Self { socket, deadline }
    }

    /// The first byte, which stays to be read; `None` at the end.
    pub(crate) fn peek(&self) -> io::Result<Option<u8>> {
        self.socket.set_read_timeout(Some(self.remaining()?))?;
        let mut first = [0];
        let count = self.socket.peek(&mut first).map_err(timed_out)?;
        Ok((count > 0).then_some(first[0]))
    }

    fn remaining(&self) -> io::Result<Duration> {
        let remaining = self.deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(remaining)
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(self.remaining()?))?;
        self.socket.read(buffer).map_err(timed_out)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(self.remaining()?))?;
        self.socket.write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket whose timeout has passed says that it would block.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}
