//! What the kernel's NBD client is told: a device made, given a new socket, resized, ended.
//!
//! Numbers are those of linux/nbd-netlink.h.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
    sockopt,
};

use super::netlink::{Answer, Question, answers};

/// The kernel answers at once, or after it has ended a device's workers.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Longer than any answer: a few attributes, or the head of a question.
const DATAGRAM_MAX: usize = 8 << 10;

/// The family of families, its command and attributes.
mod families {
    pub(super) const ID: u16 = 16;
    pub(super) const GET: u8 = 3;
    pub(super) const FAMILY_ID: u16 = 1;
    pub(super) const FAMILY_NAME: u16 = 2;
}

mod command {
    pub(super) const CONNECT: u8 = 1;
    pub(super) const DISCONNECT: u8 = 2;
    pub(super) const RECONFIGURE: u8 = 3;
}

mod attribute {
    pub(super) const INDEX: u16 = 1;
    pub(super) const SIZE_BYTES: u16 = 2;
    pub(super) const BLOCK_SIZE_BYTES: u16 = 3;
    pub(super) const TIMEOUT: u16 = 4;
    pub(super) const SERVER_FLAGS: u16 = 5;
    pub(super) const SOCKETS: u16 = 7;
    pub(super) const DEAD_CONNECTION_TIMEOUT: u16 = 8;
    pub(super) const BACKEND_IDENTIFIER: u16 = 10;
    pub(super) const SOCKET_ITEM: u16 = 1;
    pub(super) const SOCKET_FD: u16 = 1;
}

const BLOCK: u64 = 4096;

/// For how long I/O waits for a daemon to come back if nobody set a bound: what the kernel can count to
/// without an overflow, and nobody waits for.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How a device is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Making<'a> {
    /// What says whose it is, for who finds it later, and for the kernel: it lets nobody else give the
    /// device a socket.
    pub(super) identifier: &'a str,
    pub(super) size_bytes: u64,
    /// What the server can do: flags of the NBD protocol.
    pub(super) flags: u16,
    /// For how long I/O waits while nobody serves.
    pub(super) patience: Option<Duration>,
}

/// A socket to the kernel's NBD client.
#[derive(Debug)]
pub(super) struct Control {
    socket: OwnedFd,
    family: u16,
    sequence: u32,
}

impl Control {
    /// # Errors
    /// `NotFound` if the kernel has no NBD client (the module isn't loaded), else what the kernel says.
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::GENERIC),
        )?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(ANSWER_WAIT))?;
        let mut control = Self { socket, family: families::ID, sequence: 0 };
        let question = control.question(families::GET).string(families::FAMILY_NAME, "nbd");
        let told = control.ask(question)?;
        let family = told.iter().find(|(kind, _)| *kind == families::FAMILY_ID);
        let family = family.and_then(|(_, value)| <[u8; 2]>::try_from(value.as_slice()).ok());
        control.family = u16::from_ne_bytes(family.ok_or(io::ErrorKind::InvalidData)?);
        Ok(control)
    }

    /// Makes a device that sends its requests to `socket`; returns N of /dev/nbdN.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn connect(&mut self, making: Making<'_>, socket: &OwnedFd) -> io::Result<u32> {
        let question = self
            .question(command::CONNECT)
            .long(attribute::SIZE_BYTES, making.size_bytes)
            .long(attribute::BLOCK_SIZE_BYTES, BLOCK)
            .long(attribute::SERVER_FLAGS, making.flags.into())
            .long(attribute::TIMEOUT, 0)
            .long(attribute::DEAD_CONNECTION_TIMEOUT, seconds(making.patience))
            .string(attribute::BACKEND_IDENTIFIER, making.identifier);
        let told = self.ask(with_socket(question, socket))?;
        let index = told.iter().find(|(kind, _)| *kind == attribute::INDEX);
        let index = index.and_then(|(_, value)| <[u8; 4]>::try_from(value.as_slice()).ok());
        Ok(u32::from_ne_bytes(index.ok_or(io::ErrorKind::InvalidData)?))
    }

    /// Gives a device another socket in place of one that is dead.
    ///
    /// # Errors
    /// `StorageFull` (ENOSPC) while the kernel has not seen that the old one is dead; else what it says.
    pub(super) fn reconnect(
        &mut self,
        index: u32,
        identifier: &str,
        patience: Option<Duration>,
        socket: &OwnedFd,
    ) -> io::Result<()> {
        let question = self
            .question(command::RECONFIGURE)
            .number(attribute::INDEX, index)
            .long(attribute::DEAD_CONNECTION_TIMEOUT, seconds(patience))
            .string(attribute::BACKEND_IDENTIFIER, identifier);
        self.ask(with_socket(question, socket)).map(drop)
    }

    /// Gives a device another patience, and another size in bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn reconfigure(
        &mut self,
        index: u32,
        identifier: &str,
        patience: Option<Duration>,
        size: Option<u64>,
    ) -> io::Result<()> {
        let mut question = self
            .question(command::RECONFIGURE)
            .number(attribute::INDEX, index)
            .long(attribute::DEAD_CONNECTION_TIMEOUT, seconds(patience))
            .string(attribute::BACKEND_IDENTIFIER, identifier);
        if let Some(bytes) = size {
            question = question.long(attribute::SIZE_BYTES, bytes);
        }
        self.ask(question).map(drop)
    }

    /// Ends a device: what waits in it gets errors. One that has ended already is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn disconnect(&mut self, index: u32) -> io::Result<()> {
        let question = self.question(command::DISCONNECT).number(attribute::INDEX, index);
        match self.ask(question) {
            // "not in use", and "no such device"
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENODEV)) => {
                Ok(())
            }
            other => other.map(drop),
        }
    }

    fn question(&mut self, command: u8) -> Question {
        self.sequence += 1;
        Question::new(self.family, command, self.sequence)
    }

    fn ask(&mut self, question: Question) -> io::Result<Vec<(u16, Vec<u8>)>> {
        send(self.socket.as_fd(), &question.finish(), SendFlags::empty())?;
        let mut told = Vec::new();
        let mut datagram = vec![0; DATAGRAM_MAX];
        loop {
            let (length, _) = match recv(&self.socket, &mut datagram[..], RecvFlags::empty()) {
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                other => other?,
            };
            for answer in answers(&datagram[..length], self.sequence) {
                match answer {
                    Answer::Attributes(attributes) => told.extend(attributes),
                    Answer::End(Ok(())) => return Ok(told),
                    Answer::End(Err(errno)) => return Err(io::Error::from_raw_os_error(errno)),
                }
            }
        }
    }
}

fn with_socket(question: Question, socket: &OwnedFd) -> Question {
    let fd = socket.as_raw_fd() as u32;
    question.nested(attribute::SOCKETS, |sockets| {
        sockets.nested(attribute::SOCKET_ITEM, |item| item.number(attribute::SOCKET_FD, fd))
    })
}

/// The kernel counts whole seconds, and 0 is "no patience at all".
fn seconds(patience: Option<Duration>) -> u64 {
    let patience = patience.unwrap_or(FOREVER).min(FOREVER);
    (patience.as_secs() + u64::from(patience.subsec_nanos() > 0)).max(1)
}
